"""Makes the missing data sets, trainings and measurements of a plan, and reuses the existing ones."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from pydantic import ValidationError

from ssdir.benchmark.costs import MEASURED_STAGES, measure_costs
from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.data.readers.registry import read_annotations
from ssdir.data.scatter.writer import write_scatter
from ssdir.documents import json_text
from ssdir.errors import InputError
from ssdir.evaluation.provenance import cpu_kind, provenance
from ssdir.outputs import atomic_file
from ssdir.reproduce.jobs import DataSpec, Job, chosen, expand, guess_seconds
from ssdir.reproduce.plan import Plan
from ssdir.reproduce.records import read_stored
from ssdir.reproduce.stored import StoredMeasurement, StoredModelCosts
from ssdir.reproduce.trained import TrainedJob, record_config
from ssdir.reproduce.watch import Watch
from ssdir.training.fit import train
from ssdir.training.recipe import Recipe
from ssdir.training.run_folder import has_ended, read_fingerprint, read_run_recipe
from ssdir.training.session import OutOfTime, Session

COST_COUNTS = (5, 50)
"""Numbers of objects per image for the times in Table 1."""

_MNIST = "MNIST"
_POLL_SECONDS = 5


class Runner:
    """Makes data, trainings and measurements of a plan, each once.

    Several processes may work on the same folder at once; locks keep two from making the same thing.

    Args:
        plan: the plan.
        runs: folder for data sets and trainings.
        data: folder that holds what cannot be generated: MNIST's files, CLEVR, WIDER FACE.
        watch: shows progress.
        deadline: time of `time.monotonic` after which nothing is begun.
        device: where to train and to measure, see `choose_device`.
    """

    def __init__(
        self,
        plan: Plan,
        runs: Path,
        data: Path | None,
        watch: Watch,
        deadline: float | None,
        device: str | None = None,
    ) -> None:
        self.plan, self.runs, self.data, self.watch, self.deadline = plan, runs, data, watch, deadline
        self.device = device
        self._jobs = [job for group in plan.runs for job in expand(plan, group)]
        self._trained_jobs: dict[str, TrainedJob] = {}
        self._choices: dict[str, Mapping[str, Any]] = {}
        self._data_hashes: dict[tuple[str, str], str] = {}

    def absent(self, spec: DataSpec) -> str | None:
        """Says why a data set is not available; None if it is."""
        folder = spec.plan.folder
        if folder is None:
            return None
        if self.data is None:
            return f"{spec.name} is left out: pass --data, the folder that holds '{folder}'"
        if not (self.data / folder).is_dir():
            return f"{spec.name} is left out: there is no '{self.data / folder}'"
        return None

    def num_images(self, spec: DataSpec) -> int:
        """Number of images of the training split."""
        if spec.plan.source is not None:
            return spec.plan.scatter.train
        return len(read_annotations(self.data_folder(spec), spec.plan.train).image_names)

    def guess(self, jobs: Sequence[Job]) -> list[float]:
        """Estimates the seconds that each job still takes; what jobs share counts for the first."""
        seen: set[str] = set()
        guesses = []
        for job in jobs:
            key = job.detector_key
            own = key is not None and key not in seen and not has_ended(self.run_folder(job), "detector")
            if key is not None:
                seen.add(key)
            begun, trained = job.slug in seen, self.is_trained(job)
            seen.add(job.slug)
            if trained and self.measured(job):
                guesses.append(0.0)
            elif trained or begun:
                guesses.append(guess_seconds(self.plan, job, None, own_detector=False))
            else:
                guesses.append(guess_seconds(self.plan, job, self.num_images(job.data), own_detector=own))
        return guesses

    def run_folder(self, job: Job) -> Path:
        """Folder of a job's training."""
        return self.runs / job.slug

    def is_trained(self, job: Job) -> bool:
        """Returns whether a job's training has ended."""
        folder = self.run_folder(job)
        if not all(has_ended(folder, stage) for stage in job.recipe.stages):
            return False
        return read_run_recipe(folder) == job.recipe

    @contextmanager
    def claim(self, jobs: Sequence[Job]) -> Iterator[Job]:
        """Locks the first of some jobs that no other process is making, and waits where there is none.

        Raises:
            OutOfTime: if the deadline comes first.
        """
        if not self.is_made(jobs[0]):
            self._check_time()
        while True:
            for job in jobs:
                with ExitStack() as locks:
                    if all(self._try_lock(key, locks) for key in self._makes(job)):
                        yield job
                        return
            self._check_time()
            with self.watch.stage("waiting for another process"):
                time.sleep(_POLL_SECONDS)

    def _makes(self, job: Job) -> list[str]:
        """Returns the keys of the locks that a job needs: of its training, and of a detector that it shares."""
        own = has_ended(self.run_folder(job), "detector") or self._detector_of(job) is not None
        return [job.slug] if own or job.detector_key is None else [job.slug, f"detector-{job.detector_key}"]

    def _lock(self, key: str) -> FileLock:
        folder = self.runs / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{key}.lock")

    def _try_lock(self, key: str, locks: ExitStack) -> bool:
        try:
            locks.enter_context(self._lock(key).acquire(blocking=False))
        except Timeout:
            return False
        return True

    def ensure_data(self, spec: DataSpec) -> Path:
        """Returns the folder of a data set, generated if need be.

        Raises:
            OutOfTime: if it is not there, and the deadline has passed.
        """
        place = self.data_folder(spec)
        if spec.plan.source is None:
            return place
        with self._lock(f"data-{spec.slug}"):
            if not place.exists():
                self._check_time()
                with self.watch.stage(f"data {spec.name}{spec.variation}") as advance:
                    root, workers = self._glyph_root(spec), os.cpu_count() or 1
                    write_scatter(place, spec.plan.source, spec.plan.scatter, root, workers, advance)
        return place

    def ensure_ready(self, job: Job) -> None:
        """Trains and measures a job if need be; for errors see `ensure_trained`."""
        self.ensure_trained(job)
        self.ensure_measured(job)

    def ensure_trained(self, job: Job) -> Path:
        """Returns the folder of a job's training, trained if need be, with a shared detector if there is one.

        Raises:
            OutOfTime: if it is not finished when the deadline comes.
            KeyboardInterrupt: what is trained until then is kept.
        """
        data, out = self.ensure_data(job.data), self.run_folder(job)
        if self.is_trained(job):
            self._check_data(job, data)
            return out
        self._check_time()
        with self.watch.stage(job.name) as advance:
            session = Session(lambda stage, done, total: advance(done, total, stage), self.deadline, self.device)
            train(job.recipe, data, out, resume=True, start=self._detector_of(job), session=session)
        return out

    def open(self, job: Job, split: str) -> ObjectDataset:
        """Opens a split as a job's training sees it."""
        return job.recipe.open_data(self.data_folder(job.data), split)

    def measured(self, job: Job) -> dict[str, Any] | None:
        """Reads the measurement of a trained job; None if it has yet to be measured."""
        trained = self.trained_job(job)
        file = trained.file("metrics.json")
        if not file.exists():
            return None
        stored = read_stored(StoredMeasurement, file)
        stored["provenance"]["config"] = trained.config  # Settings may have been chosen anew since.
        return stored

    def ensure_measured(self, job: Job) -> dict[str, Any]:
        """Returns metrics and provenance of a trained job, measured if need be."""
        if (stored := self.measured(job)) is not None:
            return stored
        self._check_time()
        trained = self.trained_job(job)
        with self.watch.stage(f"{job.name}: measuring") as advance:
            content = trained.measure(advance)
        with atomic_file(trained.file("metrics.json"), force=True) as temporary:
            temporary.write_text(json_text(content, 1), encoding="utf-8")
        return content

    def settle(self, group: str, choice: Mapping[str, Any]) -> None:
        """Gives a run the settings that were chosen, and its records the choice."""
        self.plan = chosen(self.plan, group, choice["chosen"])
        self._choices[group] = choice
        self._jobs = [job for name in self.plan.runs for job in expand(self.plan, name)]

    def is_made(self, job: Job) -> bool:
        """Returns whether a job is trained and measured, and its data are there to tell."""
        if self.absent(job.data) is not None:
            return False
        return self.is_trained(job) and self.measured(job) is not None

    def is_of(self, record: Mapping[str, Any], job: Job) -> bool:
        """Returns whether an earlier record has the recipe, data and measurement of a job.

        Where the data are absent, their name is compared instead of their hash.
        """
        if record["provenance"]["config"] != record_config(job, self._choices.get(job.group)):
            return False
        return _recipe_of(record) == job.recipe and self._is_on_data_of(record, job)

    def is_like(self, record: Mapping[str, Any], job: Job) -> bool:
        """Returns whether an earlier record has the recipe, but for the seed, and the data of a job (`is_of`)."""
        recipe = _recipe_of(record)
        if recipe is None or recipe.model_copy(update={"seed": job.recipe.seed}) != job.recipe:
            return False
        return self._is_on_data_of(record, job)

    def _is_on_data_of(self, record: Mapping[str, Any], job: Job) -> bool:
        measured = self.data_hash(job)
        if measured is None:
            return bool(record["data"] == job.data.name)
        return bool(record["provenance"]["data_hash"] == measured)

    def data_hash(self, job: Job) -> str | None:
        """Returns the hash of the data that a job is measured on, generated if need be; None if absent."""
        if self.absent(job.data) is not None:
            return None
        key = job.slug, job.split
        if key not in self._data_hashes:
            self.ensure_data(job.data)
            self._data_hashes[key] = fingerprint(self.open(job, job.split))
        return self._data_hashes[key]

    def failure(self, job: Job) -> str | None:
        """Says why a job could not be measured; None if it could."""
        measured = self.measured(job)
        return None if measured is None or "failure" not in measured else f"{job.name}: {measured['failure']}"

    def trained_job(self, job: Job) -> TrainedJob:
        """Returns what a job's training offers, whether it has ended or not."""
        if job.name not in self._trained_jobs:
            places = self.run_folder(job), self.data_folder(job.data), self._glyph_root(job.data)
            choice = self._choices.get(job.group)
            self._trained_jobs[job.name] = TrainedJob(job, *places, self.device, choice)
        return self._trained_jobs[job.name]

    def ensure_picture(self, job: Job, name: str, render: Callable[[TrainedJob], bytes | None]) -> bytes | None:
        """Returns a picture of a trained job, rendered if need be; None where there is too little to show."""
        trained = self.trained_job(job)
        file = trained.file(f"{name}.png")
        if file.exists():
            return file.read_bytes()
        self._check_time()
        with self.watch.stage(f"{job.name}: rendering"):
            png = render(trained)
        if png is not None:
            with atomic_file(file, force=True) as temporary:  # Another process may have rendered it too.
                temporary.write_bytes(png)
        return png

    def ensure_costs(self, jobs: Sequence[Job]) -> dict[str, Any]:
        """Returns time and memory of the models of some jobs, by group: `costs`, and their `provenance`."""
        configs = {job.group: job.recipe.model for job in jobs}
        settings = {group: config.model_dump(mode="json") for group, config in configs.items()}
        threads = torch.get_num_threads()
        made_on = [threads, cpu_kind(), torch.__version__]
        measured = json.dumps([settings, MEASURED_STAGES, COST_COUNTS, made_on], sort_keys=True)
        digest = hashlib.sha256(measured.encode()).hexdigest()[:12]
        file = self.runs / f"costs-{digest}.json"
        if not file.exists():
            self._check_time()
            started = time.perf_counter()
            with self.watch.stage("costs"):
                costs = measure_costs({name: [config] for name, config in configs.items()}, COST_COUNTS)
            config = {"models": settings, "threads": threads}
            record = provenance(config, 0, None, "cpu", time.perf_counter() - started)
            content = {
                "costs": {name: [cost.model_dump() for cost in costs if cost.model == name] for name in configs},
                "provenance": record,
            }
            with atomic_file(file, force=True) as temporary:  # Another process may have measured it too.
                temporary.write_text(json_text(content, None), encoding="utf-8")
        stored = read_stored(StoredModelCosts, file)
        return {
            name: {"costs": each, "provenance": stored["provenance"]} for name, each in stored["costs"].items()
        }

    def _detector_of(self, job: Job) -> Path | None:
        """Finds a training of the plan whose detector the job can share."""
        if job.detector_key is None or has_ended(self.run_folder(job), "detector"):
            return None
        folders = [self.run_folder(other) for other in self._jobs if other.detector_key == job.detector_key]
        return next((folder for folder in folders if has_ended(folder, "detector")), None)

    def data_folder(self, spec: DataSpec) -> Path:
        """Folder where a data set is, or is to be generated."""
        if spec.plan.folder is None:
            return self.runs / "data" / spec.slug
        assert self.data is not None
        return self.data / spec.plan.folder

    def _glyph_root(self, spec: DataSpec) -> Path | None:
        """Folder of MNIST's files, if it is in the data folder; else they are downloaded."""
        there = spec.plan.source == "mnist" and self.data is not None and (self.data / _MNIST).is_dir()
        return self.data / _MNIST if there and self.data is not None else None

    def _check_data(self, job: Job, data: Path) -> None:
        if read_fingerprint(self.run_folder(job)) != fingerprint(self.open(job, job.data.plan.train)):
            raise InputError(
                f"'{self.run_folder(job)}' was trained on other data than are in '{data}' now: remove that folder "
                "to train it again"
            )

    def _check_time(self) -> None:
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise OutOfTime("nothing is begun after the deadline")


def _recipe_of(record: Mapping[str, Any]) -> Recipe | None:
    """Returns the recipe of a record's training; None where there is none, or no longer such a recipe."""
    trained = (record["provenance"].get("training") or {}).get("recipe")
    try:
        # What it does not name was not there yet, and is as by default.
        return None if trained is None else Recipe.model_validate(trained)
    except ValidationError:
        return None
