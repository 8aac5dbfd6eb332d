"""Training: the detector, then the representation, resumable, into one run folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning.fabric import Fabric

from ssdir.console import warn
from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.data.learnable import nothing_to_learn
from ssdir.data.transforms import build_augmentation
from ssdir.errors import InputError
from ssdir.inference.domain import familiar_error
from ssdir.models.base import GenerativeModel, ObjectModel
from ssdir.models.detected.model import DetectedConfig
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.detector.ssd import SSD
from ssdir.models.io import load_model, save_model
from ssdir.models.pooled_features import PooledFeatures
from ssdir.models.registry import build_model, fetch_pretrained, without_pretrained
from ssdir.models.ssdir import SSDIR
from ssdir.training.cache import build_cache, remove_cache
from ssdir.training.detector import adopt_detector, check_detector
from ssdir.training.devices import flushed_denormals, make_fabric
from ssdir.training.estimate import estimate_stages, is_worth_estimating
from ssdir.training.loading import CachedDataset
from ssdir.training.loop import Stage, fit_stage
from ssdir.training.pooling import fit_components, fit_pooled_stages
from ssdir.training.processes import agree, find_place, met
from ssdir.training.recipe import STAGES, Recipe
from ssdir.training.run_folder import check_folder, has_ended, locked, prepare_folder, read_summary, resumable
from ssdir.training.selection import BestEpoch, check_measurable, measuring_interval
from ssdir.training.session import UNWATCHED, OutOfTime, Session

CACHE = "cache"
"""Folder of frozen features, within that of the representation's stage."""


@dataclass(frozen=True)
class RunSummary:
    """Summary of a finished training.

    Attributes:
        model_dir: folder that `ssdir.load` takes.
        seconds: wall-clock seconds of each stage that has run, over all resumed sessions.
    """

    model_dir: Path
    seconds: dict[str, float]


@dataclass(frozen=True)
class Run:
    """A training under way.

    Attributes:
        recipe: what to train, and how.
        data: folder of the data set.
        out: the run's folder.
        splits: `train` and `val`, in memory, without augmentation.
        is_first: whether this is the one process of the training that writes files and prints.
        session: how it is watched, when it must end, and where it runs.
    """

    recipe: Recipe
    data: Path
    out: Path
    splits: dict[str, ObjectDataset]
    is_first: bool
    session: Session

    @property
    def class_names(self) -> list[str]:
        """The classes of the data that are learned."""
        return self.splits["train"].class_names

    def augmented(self) -> ObjectDataset:
        """The training split with the recipe's augmentation, if there is any."""
        model = self.recipe.model
        transform = build_augmentation(self.recipe.augment, model.image_size, model.resize)
        return self.splits["train"].with_transform(transform)

    def save(self, model: ObjectModel) -> None:
        """Writes the trained model into the run's folder."""
        if self.is_first:
            model.eval().familiar_error = familiar_error(model, self.splits["val"])
            save_model(model, self.out / "model", f"{self.recipe.name}, trained on {self.data.name}")


@flushed_denormals()
def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    stage: str | None = None,
    resume: bool = False,
    force: bool = False,
    detector: Path | None = None,
    session: Session = UNWATCHED,
) -> RunSummary:
    """Trains a recipe on a data set.

    `out` gets `recipe.yaml`, a folder per stage (`metrics.csv`, TensorBoard events, `samples/*.png`,
    `checkpoints/last.ckpt`), and `model/`, which `ssdir.load` takes. A stage that ended is not repeated.

    Args:
        recipe: what to train, and how.
        data: folder of a data set in any known layout, with a split to train on; without one to validate on, a
            tenth of it is held out.
        out: the run's folder.
        stage: overrides the recipe's.
        resume: go on with an interrupted run from its last finished epoch.
        force: replace an existing run; other files in its folder stay.
        detector: folder of a run whose trained detector to build on instead of training one, see `adopt_detector`.
        session: how this session is watched, when it must end, and where it runs.

    Raises:
        InputError: if `out` exists and neither resume nor force is set, if the data cannot be read or have nothing
            to learn, if the run to resume was started from another recipe, is damaged, or is being trained by
            another process, if `detector` has no such detector, or if the disk is full.
        OutOfTime: if the session's deadline came before the end of the training, which can be resumed.
    """
    stages = _stages(recipe, stage or recipe.stage)
    place = find_place(recipe)
    if place.rank:
        session = replace(session, progress=_shown_by_the_first)
    fabric = make_fabric(recipe, session.device)
    start = _Start(recipe, data, out, stages, resume, force, detector)
    with ExitStack() as stack:
        run, data_hash, problem = None, None, None
        try:
            run = Run(recipe, data, out, _open_splits(recipe, data), not place.rank, session)
            data_hash = fingerprint(run.splits["train"])
            if run.is_first:
                start.prepare(run, data_hash, stack)
        except InputError as error:
            if place.started_by == "command":
                raise
            problem = error  # The processes that others have started wait for this one.
        stack.enter_context(met(place, fabric.device.type))
        if place.count > 1:
            agree(place, out, data_hash, problem)
        assert run is not None
        fabric.launch()
        missing = fabric.broadcast([name for name in stages if not has_ended(out, name)])
        if not resume:
            _print_estimate(run, missing)
        torch.manual_seed(recipe.seed)
        if "detector" in missing:
            _train_detector(run, fabric)
            if session.is_over and "representation" in missing:
                raise OutOfTime(f"'{out}': its detector is trained")
        if "representation" in missing:
            train_rest = _train_representation if "detector" in recipe.stages else _train_whole
            train_rest(run, fabric)
    seconds = {name: read_summary(out, name).wall_seconds for name in STAGES if has_ended(out, name)}
    return RunSummary(out / "model", seconds)


@dataclass(frozen=True)
class _Start:
    """What is checked and written before a training starts; see `train`."""

    recipe: Recipe
    data: Path
    out: Path
    stages: tuple[str, ...]
    resume: bool
    force: bool
    detector: Path | None

    def prepare(self, run: Run, data_hash: str, stack: ExitStack) -> None:
        """Checks and prepares the run's folder, and locks it until the end of `stack`."""
        recipe, out, options = self.recipe, self.out, {"resume": self.resume, "force": self.force}
        had_detector = has_ended(out, "detector") and (self.resume or not self.force)
        adopted = self.detector if "detector" in recipe.stages and not had_detector else None
        # What may fail comes first: with force, a finished run is deleted.
        _check_stages(run, self.stages, had_detector)
        if adopted is not None:
            check_detector(adopted, recipe, data_hash, out)
        elif not had_detector:
            fetch_pretrained(recipe.model)
        check_folder(recipe, data_hash, out, **options)
        stack.enter_context(resumable(out))
        stack.enter_context(locked(out))
        # Again: until the lock was taken, another process may have written into the folder.
        check_folder(recipe, data_hash, out, **options)
        prepare_folder(recipe, data_hash, out, resume=self.resume)
        if adopted is not None:
            adopt_detector(adopted, recipe, out)


def _shown_by_the_first(stage: str, done: int, total: int) -> None:
    """Shows no progress: of several processes, the first one does."""


def _stages(recipe: Recipe, asked: str) -> tuple[str, ...]:
    """The stages to run."""
    if asked == "detector" and asked not in recipe.stages:
        raise InputError(f"{recipe.model.kind} has no detector to train: leave out stage={asked}")
    return recipe.stages if asked == "all" else (asked,)


def _open_splits(recipe: Recipe, data: Path) -> dict[str, ObjectDataset]:
    """The splits to train and to validate on, in memory, with something to learn."""
    splits = {split: recipe.open_data(data, split, preload=True) for split in ("train", "val")}
    learned, measured = (splits[split].class_names for split in ("train", "val"))
    if learned != measured:
        raise InputError(
            f"'{data}': train and val number their classes differently ({', '.join(learned)}; "
            f"{', '.join(measured)}): give both the same list, or train with classes=object"
        )
    if (problem := nothing_to_learn(splits["train"].table, recipe.learned)) is not None:
        raise InputError(f"'{data}', split train: {problem.sentence} ({'; '.join(problem.names)})")
    return splits


def _check_stages(run: Run, stages: tuple[str, ...], has_detector: bool) -> None:
    """Checks that the stages have what they need."""
    if "detector" in stages and run.recipe.detector.measures_epochs:
        check_measurable(run.splits["val"])
    if "detector" in run.recipe.stages and "detector" not in stages and not has_detector:
        raise InputError(
            f"--force would delete the detector of '{run.out}', which this stage needs: leave it out, then this "
            "with --resume builds on it"
            if has_ended(run.out, "detector")
            else f"'{run.out}' has no trained detector: run stage=detector (or stage=all) into it first, then "
            "this with --resume"
        )


def _print_estimate(run: Run, stages: Sequence[str]) -> None:
    """Prints how long the training will take, if that is worth a few steps of each stage and one device trains."""
    recipe, train_split = run.recipe, run.splits["train"]
    if run.session.progress is None and is_worth_estimating(recipe, train_split, stages):
        time = estimate_stages(recipe, run.splits, stages, run.session.device)
        run.session.note(time.sentence(recipe))


def _train_detector(run: Run, fabric: Fabric) -> None:
    """Trains the detector by itself."""
    recipe, config, val = run.recipe, run.recipe.detector, run.splits["val"]
    assert isinstance(recipe.model, DetectedConfig)
    model = SSD(recipe.model.ssd, run.class_names)
    every = measuring_interval(len(val), len(run.splits["train"]))
    selection = BestEpoch(val, config, every) if config.measures_epochs else None
    folder = run.out / "detector"
    fit_stage(fabric, Stage(model, run.augmented(), val, recipe, config, folder, selection), run.session)
    if run.is_first:
        save_model(model.eval(), folder / "model", f"{recipe.name}: its detector, trained on {run.data.name}")
    fabric.barrier()


def _train_representation(run: Run, fabric: Fabric) -> None:
    """Trains what a model adds to its detector."""
    recipe, folder = run.recipe, run.out / "representation"
    detector = load_model(run.out / "detector" / "model")
    assert isinstance(detector, SSD)
    torch.manual_seed(recipe.seed)
    # Initial weights are the second that the seed draws: the experiments in `results/` were trained from these.
    build_model(without_pretrained(recipe.model), run.class_names)
    model = build_model(recipe.model, run.class_names, detector).to(fabric.device)
    if isinstance(model, DetectedVAE):
        cached = _run_detector(run, model, fabric)
        config = recipe.representation
        if isinstance(model, SSDIR) and model.pooled_stages is not None:
            with run.session.watching("pooling features of the pretrained network") as progress:
                fit_pooled_stages(model, cached["train"], recipe.seed, progress)
        fit_stage(fabric, Stage(model, cached["train"], cached["val"], recipe, config, folder), run.session)
    elif run.is_first:
        assert isinstance(model, PooledFeatures)
        fit_components(model.eval(), run.splits["train"], recipe, folder, run.session)
    run.save(model)
    fabric.barrier()
    remove_cache(folder / CACHE)


def _run_detector(run: Run, model: DetectedVAE, fabric: Fabric) -> dict[str, CachedDataset]:
    """The frozen detector's outputs for each split; several processes compute a share each."""
    recipe, splits = run.recipe, run.splits
    if recipe.augment.representation:
        splits = {**splits, "train": run.augmented()}
    what = "running the frozen detector once over the data"
    with run.session.watching(what) as progress:
        cached = {
            split: build_cache(
                model,
                dataset,
                run.out / "representation" / CACHE,
                batch_size=2 * recipe.representation.batch_size,  # Without gradients, there is memory for more.
                progress=progress,
            )
            for split, dataset in splits.items()
        }
    if not len(cached["train"].objects) and run.is_first:
        warn(
            "warning: the detector detects nothing in the training split, so the representation learns nothing: "
            "train the detector longer, or lower model.ssd.score_threshold"
        )
    return cached


def _train_whole(run: Run, fabric: Fabric) -> None:
    """Trains a model that detects and encodes objects with the same weights."""
    recipe = run.recipe
    model = build_model(recipe.model, run.class_names)
    assert isinstance(model, GenerativeModel)
    stage = Stage(
        model, run.augmented(), run.splits["val"], recipe, recipe.representation, run.out / "representation"
    )
    fit_stage(fabric, stage, run.session)
    run.save(model)
