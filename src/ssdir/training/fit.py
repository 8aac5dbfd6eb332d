"""Training: the detector, then the representation, resumable, into one run folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning.fabric import Fabric

from ssdir.console import warn
from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.data.learnable import nothing_to_learn
from ssdir.data.transforms import build_augmentation
from ssdir.errors import InputError, InputWarning
from ssdir.inference.domain import familiar_error
from ssdir.models.base import GenerativeModel, ObjectModel
from ssdir.models.detected.model import DetectedConfig
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.detector.ssd import SSD
from ssdir.models.io import load_model, save_model
from ssdir.models.pooled_features import PooledFeatures
from ssdir.models.registry import build_model, fetch_pretrained, without_pretrained
from ssdir.models.ssdir import SSDIR
from ssdir.training.adoption import adopt, adopted_stages, check_start
from ssdir.training.cache import build_cache, remove_cache
from ssdir.training.devices import flushed_denormals, make_fabric
from ssdir.training.estimate import estimate_stages, is_worth_estimating
from ssdir.training.loading import CachedDataset
from ssdir.training.loop import Stage, fit_stage
from ssdir.training.pooling import fit_components, fit_pooled_stages
from ssdir.training.processes import agree, find_place, met
from ssdir.training.recipe import STAGES, Recipe
from ssdir.training.run_folder import (
    RunData,
    check_folder,
    has_ended,
    locked,
    prepare_folder,
    read_summary,
    resumable,
)
from ssdir.training.selection import BestEpoch, check_measurable, measuring_interval
from ssdir.training.session import UNWATCHED, OutOfTime, Session
from ssdir.training.tracks import check_clips, track_clips

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

    def save(self, model: ObjectModel, stage: str) -> None:
        """Writes the model that a stage has trained, into the run's folder after the last stage."""
        if self.is_first:
            is_last = stage == self.recipe.stages[-1]
            model.eval().familiar_error = familiar_error(model, self.splits["val"])
            text = f"{self.recipe.name}{'' if is_last else ', without its memory'}, trained on {self.data.name}"
            save_model(model, (self.out if is_last else self.out / stage) / "model", text)


@flushed_denormals()
def train(
    recipe: Recipe,
    data: Path,
    out: Path,
    *,
    stage: str | None = None,
    resume: bool = False,
    force: bool = False,
    start: str | Path | None = None,
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
        start: a run whose trained detector to adopt instead of training one; for a recipe with a memory, a model
            of which all else is adopted; see `check_start`. A run to resume that has a detector keeps it.
        session: how this session is watched, when it must end, and where it runs.

    Raises:
        InputError: if `out` exists and neither resume nor force is set, if the data cannot be read or have nothing
            to learn, if the run to resume was started from another recipe, is damaged, or is being trained by
            another process, if `start` has no such parts, or if the disk is full.
        OutOfTime: if the session's deadline came before the end of the training, which can be resumed.
    """
    stages = _stages(recipe, stage or recipe.stage)
    place = find_place(recipe)
    if place.rank:
        session = replace(session, progress=_shown_by_the_first)
    fabric = make_fabric(recipe, session.device)
    preparation = _Start(recipe, data, out, stages, resume, force, start)
    with ExitStack() as stack:
        run, run_data, problem = None, None, None
        try:
            run = Run(recipe, data, out, _open_splits(recipe, data), not place.rank, session)
            learned, measured = (fingerprint(split) for split in run.splits.values())
            run_data = RunData(fingerprint=learned, val_fingerprint=measured)
            if run.is_first:
                preparation.check(run, run_data, stack)
        except InputError as error:
            if place.started_by == "command":
                raise
            problem = error  # The processes that others have started wait for this one.
        stack.enter_context(met(place, fabric.device.type))
        if place.count > 1:
            agree(place, out, None if run_data is None else run_data.model_dump_json(), problem)
        assert run is not None
        assert run_data is not None
        if run.is_first:
            preparation.write(run, run_data)
        fabric.launch()
        missing = fabric.broadcast([name for name in stages if not has_ended(out, name)] if run.is_first else [])
        if not resume:
            _print_estimate(run, missing)
        torch.manual_seed(recipe.seed)
        for name in missing:
            if session.is_over and name != missing[0]:
                raise OutOfTime(f"'{out}': its {missing[missing.index(name) - 1]} is trained")
            _TRAIN[name if "detector" in recipe.stages else "whole"](run, fabric)
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
    start: str | Path | None

    @property
    def adopted(self) -> str | Path | None:
        """What `adopt` takes; None for a run that has a detector, or whose model has none."""
        is_trained = has_ended(self.out, "detector") and (self.resume or not self.force)
        return self.start if "detector" in self.recipe.stages and not is_trained else None

    def check(self, run: Run, data: RunData, stack: ExitStack) -> None:
        """Checks what may fail before a run is replaced, and locks the folder until the end of `stack`."""
        recipe, out, options = self.recipe, self.out, {"resume": self.resume, "force": self.force}
        if self.start is not None and "detector" not in recipe.stages:
            raise InputError(
                f"the {recipe.model.kind} of '{recipe.name}' has no detector to adopt: leave out --from"
            )
        trained = {name for name in recipe.stages if has_ended(out, name) and (self.resume or not self.force)}
        if (adopted := self.adopted) is not None:
            check_start(adopted, recipe, run.class_names, data, out)
            trained |= {*adopted_stages(adopted, recipe)}
        _check_stages(run, self.stages, trained)
        if "detector" not in trained:
            fetch_pretrained(recipe.model)
        check_folder(recipe, data, out, **options)
        stack.enter_context(resumable(out))
        stack.enter_context(locked(out))
        # Again: until the lock was taken, another process may have written into the folder.
        check_folder(recipe, data, out, **options)
        if self.start is not None and adopted is None:
            warn(f"'{out}' keeps the detector that it has, so --from has no effect: to adopt one, use a new --out")

    def write(self, run: Run, data: RunData) -> None:
        """Prepares the run's folder once all processes have met; with force, a finished run is deleted."""
        adopted = self.adopted
        prepare_folder(self.recipe, data, self.out, resume=self.resume)
        if adopted is not None:
            adopt(adopted, self.recipe, run.class_names, self.out)


def _shown_by_the_first(stage: str, done: int, total: int) -> None:
    """Shows no progress: of several processes, the first one does."""


def _stages(recipe: Recipe, asked: str) -> tuple[str, ...]:
    """The stages to run."""
    if asked != "all" and asked not in recipe.stages:
        hint = " (the preset tiny-video has one)" if asked == "memory" else ""
        raise InputError(
            f"the {recipe.model.kind} of '{recipe.name}' has no {asked} to train: leave out stage={asked}{hint}"
        )
    return recipe.stages if asked == "all" else (asked,)


def _open_splits(recipe: Recipe, data: Path) -> dict[str, ObjectDataset]:
    """The splits to train and to validate on, in memory, with something to learn."""
    names = {"train": recipe.train_split, "val": recipe.val_split}
    splits = {part: recipe.open_data(data, name, preload=True) for part, name in names.items()}
    learned, measured = splits.values()
    if not set(learned.image_paths).isdisjoint(measured.image_paths):
        warnings.warn(
            f"'{data}': {names['train']} and {names['val']} share images, so the validation says nothing about "
            "others: choose another val_split",
            InputWarning,
            stacklevel=3,
        )
    if learned.class_names != measured.class_names:
        raise InputError(
            f"'{data}': {names['train']} and {names['val']} number their classes differently "
            f"({', '.join(learned.class_names)}; {', '.join(measured.class_names)}): give both the same list, or "
            "train with classes=object"
        )
    if (problem := nothing_to_learn(learned.table, recipe.learned)) is not None:
        raise InputError(f"'{data}', split {names['train']}: {problem.sentence} ({'; '.join(problem.names)})")
    return splits


def _check_stages(run: Run, stages: tuple[str, ...], trained: set[str]) -> None:
    """Checks that the stages have what they need."""
    if "detector" in stages and run.recipe.detector.measures_epochs:
        check_measurable(run.splits["val"])
    if "memory" in stages:
        for split in run.splits.values():
            check_clips(split)
    before = run.recipe.stages[: run.recipe.stages.index(stages[0])]
    for name in before:
        if name not in trained:
            raise InputError(
                f"--force would delete the {name} of '{run.out}', which this stage needs: leave it out, then this "
                "with --resume builds on it"
                if has_ended(run.out, name)
                else f"'{run.out}' has no trained {name}: run stage={name} (or stage=all) into it first, then "
                "this with --resume"
            )


def _print_estimate(run: Run, stages: Sequence[str]) -> None:
    """Prints how long the training will take, if that is worth a few steps of each stage and one device trains."""
    recipe, train_split = run.recipe, run.splits["train"]
    if run.session.progress is None and is_worth_estimating(recipe, train_split, stages):
        try:
            time = estimate_stages(recipe, run.splits, stages, run.session.device)
        except (InputError, OSError) as error:  # Such as no space for temporary files, which training needs not.
            run.session.note(f"the time of the training could not be estimated: {error}")
        else:
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
    build_model(without_pretrained(recipe.frame_model), run.class_names)
    model = build_model(recipe.frame_model, run.class_names, detector).to(fabric.device)
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
    run.save(model, "representation")
    fabric.barrier()
    remove_cache(folder / CACHE)


def _train_memory(run: Run, fabric: Fabric) -> None:
    """Trains the memory, on the tracks that the frozen model makes of the clips."""
    recipe, folder = run.recipe, run.out / "memory"
    frame_model = load_model(run.out / "representation" / "model", fabric.device)
    assert isinstance(frame_model, SSDIR)
    with run.session.watching("tracking the objects of the clips by the frozen model") as progress:
        tracked = {split: track_clips(frame_model, dataset, progress) for split, dataset in run.splits.items()}
    torch.manual_seed(recipe.seed)
    model = build_model(without_pretrained(recipe.model), run.class_names, frame_model.detector)
    assert isinstance(model, SSDIR)
    assert model.memory is not None
    model.load_state_dict(frame_model.state_dict(), strict=False)
    model.freeze_all_but_memory()
    model.memory.fit(torch.cat([views.z_what[views.seen] for views in tracked["train"].clips]))
    stage = Stage(model, tracked["train"], tracked["val"], recipe, recipe.memory, folder)
    fit_stage(fabric, stage, run.session)
    run.save(model, "memory")
    fabric.barrier()


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
    run.save(model, "representation")


_TRAIN: dict[str, Callable[[Run, Fabric], None]] = {
    "detector": _train_detector,
    "representation": _train_representation,
    "memory": _train_memory,
    "whole": _train_whole,
}
"""How each stage is trained; `whole` is the representation of models without a detector."""
