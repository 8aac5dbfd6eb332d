"""Reproduces the paper's experiments: from their names and a scale to results and a report."""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from ssdir.console import say
from ssdir.errors import InputError, nearest
from ssdir.models.registry import fetch_pretrained
from ssdir.outputs import claim
from ssdir.reports.markdown import FIGURES
from ssdir.reproduce.catalogue import EXPERIMENTS
from ssdir.reproduce.choices import settle
from ssdir.reproduce.jobs import Job, candidates, expand, jobs_of
from ssdir.reproduce.plan import Plan, read_plan
from ssdir.reproduce.records import Record, read_records, write_records
from ssdir.reproduce.report import REPORT, write_report
from ssdir.reproduce.runner import Runner
from ssdir.reproduce.watch import Watch

ALL = "all"


@dataclass(frozen=True)
class Forecast:
    """An estimate for the trainings of a group of the plan.

    Attributes:
        group: the group's name.
        preset: the recipe that is trained.
        data: the data set.
        trainings: number of trainings.
        missing: number of those that are not trained yet.
        seconds: estimate of the remaining time, in seconds.
    """

    group: str
    preset: str
    data: str
    trainings: int
    missing: int
    seconds: float


def choose(plan: Plan, names: Sequence[str]) -> list[str]:
    """Selects the experiments that are asked for, in the plan's order.

    Raises:
        InputError: for an unknown experiment, or one that is not in the plan.
    """
    unknown = [name for name in plan.experiments if name not in EXPERIMENTS]
    for name in [*names, *unknown]:
        if name != ALL and name not in EXPERIMENTS:
            hint = nearest(name, EXPERIMENTS) or f"; there are {', '.join(EXPERIMENTS)}"
            raise InputError(f"unknown experiment '{name}'{hint}")
        if name != ALL and name not in plan.experiments:
            raise InputError(f"the plan '{plan.name}' has no experiment '{name}': choose another scale")
    return [name for name in plan.experiments if ALL in names or name in names]


def forecast(names: Sequence[str], scale: str, runs: Path, data: Path | None) -> tuple[list[Forecast], list[str]]:
    """Estimates the trainings that `reproduce` would make, and says what it would leave out, and why."""
    plan = read_plan(scale)
    runner = Runner(plan, runs / plan.name, data, Watch(), None)
    chosen = choose(plan, names)
    waiting = settle(runner, _training(chosen), None)
    asked = [job for group in waiting for job in candidates(plan, group)]
    jobs, left_out = _available(runner, [*asked, *_trainings(runner.plan, chosen)])
    guesses = runner.guess(jobs)
    forecasts, counted = [], set[str]()
    for group in dict.fromkeys(job.group for job in jobs):
        own = [(job, seconds) for job, seconds in zip(jobs, guesses, strict=True) if job.group == group]
        trainings = {job.slug: job for job, _ in own if job.slug not in counted}
        counted |= trainings.keys()
        missing = sum(not runner.is_trained(job) for job in trainings.values())
        seconds = sum(seconds for _, seconds in own)
        first = own[0][0]
        forecasts.append(Forecast(group, first.preset, first.data.name, len(trainings), missing, seconds))
    return forecasts, left_out


def reproduce(
    names: Sequence[str],
    scale: str,
    out: Path,
    runs: Path,
    data: Path | None = None,
    minutes: float | None = None,
    so_far: bool = False,
    device: str | None = None,
) -> Path:
    """Trains what is missing, measures it, and writes results and the report.

    Args:
        names: experiments, or `all`.
        scale: a plan: `smoke`, `cpu`, `paper`, or a YAML file.
        out: gets a folder of the plan's name with `NAME.json` for each experiment, `figures/`, and the report of
            all experiments that have ended there, as `report.html` and `report.md`.
        runs: gets a folder of the plan's name with data sets and trainings; those that exist are used again.
        data: folder of the data sets that cannot be generated; nothing is made on missing ones. Earlier records on
            these in `out` are kept if they have the plan's recipe and measurement.
        minutes: time after which nothing new is begun.
        so_far: train nothing; write results and report of the trainings that exist. Earlier records in `out` are
            kept if they have the plan's recipe, data and measurement.
        device: where to train and to measure, see `choose_device`.

    Returns:
        Path of the report.

    Raises:
        InputError: for an unknown scale or experiment, data or pretrained weights that can't be read, or folders
            that can't be written.
        OutOfTime: when the minutes are over; everything that has ended is kept and used next time.
    """
    plan = read_plan(scale)
    chosen = choose(plan, names)
    for folder in (out, runs):  # Unwritable folders are reported now, not after hours.
        claim(folder / plan.name / REPORT, force=True)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    watch = Watch()
    runner = Runner(plan, runs / plan.name, data, watch, deadline, device)
    waiting = settle(runner, _training(chosen), out / plan.name)
    if not so_far:
        asked, _ = _available(runner, [job for group in waiting for job in candidates(plan, group)])
        _check_weights(runner, [*asked, *_available(runner, _trainings(runner.plan, chosen))[0]])
        _make(runner, asked)
        settle(runner, _training(chosen), None)
    plan = runner.plan
    jobs, left_out = _available(runner, _trainings(plan, chosen))
    for sentence in left_out:
        say(sentence)
    missing = {} if so_far else {job.name: job for job in jobs}
    # Costs are measured last, when no training of this process is left.
    unwritten = sorted(chosen, key=lambda name: not EXPERIMENTS[name].trains)
    guesses = {job.name: guess for job, guess in zip(jobs, runner.guess(jobs), strict=True)}
    with watch.over(guesses):
        while unwritten:
            needed = {job.name for job in _trainings(plan, unwritten[:1])}
            if needed & missing.keys():
                # The experiment's jobs come first; while other processes make these, this one makes later jobs.
                by_need = sorted(missing.values(), key=lambda job: job.name not in needed)
                del missing[_make_one(runner, by_need).name]
            else:
                _write_experiment(runner, unwritten.pop(0), out / plan.name)
    return out / plan.name / REPORT


def _check_weights(runner: Runner, jobs: Sequence[Job]) -> None:
    """Reads the pretrained weights that trainings start from: missing ones are reported now, not after hours.

    Raises:
        InputError: names the run, and says what is missing.
    """
    untrained = {job.group: job for job in jobs if not runner.is_trained(job)}
    for job in untrained.values():
        try:
            fetch_pretrained(job.recipe.model)
        except InputError as error:
            raise InputError(f"run '{job.group}': {error}") from error


def _make(runner: Runner, jobs: Sequence[Job]) -> None:
    """Trains and measures jobs, in their order but for those that other processes are making."""
    missing = list(jobs)
    guesses = {job.name: guess for job, guess in zip(jobs, runner.guess(jobs), strict=True)}
    with runner.watch.over(guesses):
        while missing:
            missing.remove(_make_one(runner, missing))


def _make_one(runner: Runner, jobs: Sequence[Job]) -> Job:
    """Trains and measures the first of some jobs that no other process is making, and returns it."""
    with runner.claim(jobs) as job, runner.watch.job(job.name):
        runner.ensure_ready(job)
    return job


def _trainings(plan: Plan, names: Sequence[str]) -> list[Job]:
    """Lists the trainings that some experiments need."""
    training = _training(names)
    every = {job.name for job in jobs_of(plan, [name for name in training if EXPERIMENTS[name].every_seed])}
    return [job for job in jobs_of(plan, training) if job.recipe.seed == 0 or job.name in every]


def _training(names: Sequence[str]) -> list[str]:
    """Selects the experiments that need trained models."""
    return [name for name in names if EXPERIMENTS[name].trains]


def _available(runner: Runner, jobs: Sequence[Job]) -> tuple[list[Job], list[str]]:
    """Selects the jobs whose data are available, and says why others are left out."""
    reasons = {job.data.name: runner.absent(job.data) for job in jobs}
    kept = [job for job in jobs if reasons[job.data.name] is None]
    return kept, [reason for reason in reasons.values() if reason is not None]


def _write_experiment(runner: Runner, name: str, folder: Path) -> None:
    """Writes an experiment's results, and the report with it."""
    experiment, file = EXPERIMENTS[name], folder / f"{name}.json"
    jobs = _trainings(runner.plan, [name]) if experiment.trains else jobs_of(runner.plan, [name])
    # What needs no trainings needs no data either.
    unmade = [job for job in jobs if experiment.trains and not runner.is_made(job)]
    kept = _earlier_records(runner, unmade, file)
    left_out = _left_out(runner, unmade, {record["run"] for record in kept})
    jobs = [job for job in jobs if job not in unmade]
    order = [job.name for group in runner.plan.experiments[name] for job in expand(runner.plan, group)]
    records = [*kept, *experiment.measure(runner, jobs, folder / FIGURES)]
    records.sort(key=lambda record: order.index(record["run"]))
    failures = [runner.failure(job) for job in jobs] if experiment.trains else []
    write_records(file, records, [*left_out, *filter(None, failures)])
    write_report(runner.plan, folder)


def _left_out(runner: Runner, jobs: Sequence[Job], kept: Set[str]) -> list[str]:
    """Says why jobs are not measured, and of which of them the earlier records are kept."""
    absent: dict[str, list[str]] = {}
    missing = []
    for job in jobs:
        if (reason := runner.absent(job.data)) is not None:
            absent.setdefault(reason, []).extend([job.name] if job.name in kept else [])
        elif job.name not in kept:
            missing.append(job.name)
    sentences = [
        f"{reason}; rows kept from before: {', '.join(names)}" if names else reason
        for reason, names in absent.items()
    ]
    return [*sentences, *([f"not made yet: {', '.join(missing)}"] if missing else [])]


def _earlier_records(runner: Runner, jobs: Sequence[Job], file: Path) -> list[Record]:
    """Reads records of missing trainings from the results that are about to be replaced."""
    if not jobs or not file.exists():
        return []
    earlier = {record["run"]: record for record in read_records(file)[0]}
    known = [job for job in jobs if job.name in earlier]
    return [earlier[job.name] for job in known if runner.is_of(earlier[job.name], job)]
