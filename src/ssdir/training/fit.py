"""Training: detector, then representation, each on Lightning, resumable, into one run folder."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch

from ssdir.console import warn
from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.data.learnable import nothing_to_learn
from ssdir.data.transforms import build_augmentation
from ssdir.device import choose_device
from ssdir.errors import InputError
from ssdir.models.backbone import build_backbone
from ssdir.models.base import GenerativeModel
from ssdir.models.detected.model import DetectedConfig, DetectedModel
from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.detector.ssd import SSD
from ssdir.models.io import load_model, save_model
from ssdir.models.pooled_features import PooledFeatures
from ssdir.models.registry import build_model
from ssdir.training.cache import build_cache, remove_cache
from ssdir.training.callbacks import SampleReconstructions
from ssdir.training.detector import adopt_detector, check_detector
from ssdir.training.modules import LitModel, LitRepresentation
from ssdir.training.pooling import fit_components
from ssdir.training.recipe import STAGES, Recipe
from ssdir.training.run_folder import check_folder, locked, prepare_folder, resumable
from ssdir.training.selection import BestEpoch, check_measurable
from ssdir.training.session import UNWATCHED, OutOfTime, Session
from ssdir.training.stage import fit_stage
from ssdir.training.summary import has_ended, stage_seconds

CACHE = "cache"
"""Folder of frozen features, within that of the representation's stage."""


@dataclass(frozen=True)
class RunSummary:
    """What a training left behind.

    Attributes:
        model_dir: folder that `ssdir.load` takes.
        seconds: wall-clock seconds of each stage that has run, over all resumed sessions.
    """

    model_dir: Path
    seconds: dict[str, float]


@contextmanager
def _flushed_denormals() -> Iterator[None]:
    """Numbers next to zero are zero: opacities make many, and CPUs are slow on them. Later code gets them back."""
    flushed_before = sys.float_info.min / 2 == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed_before)


@_flushed_denormals()
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
        session: how this session is watched, and when it must end.

    Raises:
        InputError: if `out` exists and neither resume nor force is set, if the data cannot be read or have nothing
            to learn, if the run to resume was started from another recipe, is damaged, or is being trained by
            another process, if `detector` has no such detector, or if the disk is full.
        OutOfTime: if the session's deadline came before the end of the training, which can be resumed.
    """
    stages = _stages(recipe, stage or recipe.stage)
    splits = {split: recipe.open_data(data, split, preload=True) for split in ("train", "val")}
    learned, measured = (splits[split].class_names for split in ("train", "val"))
    if learned != measured:
        raise InputError(
            f"'{data}': train and val number their classes differently ({', '.join(learned)}; "
            f"{', '.join(measured)}): give both the same list, or train with classes=object"
        )
    if (problem := nothing_to_learn(splits["train"].table, recipe.learned)) is not None:
        raise InputError(f"'{data}', split train: {problem.sentence} ({'; '.join(problem.names)})")
    if "detector" in stages and recipe.detector.measures_epochs:
        check_measurable(splits["val"])
    # What may fail comes first: with force, a finished run is deleted.
    data_hash = fingerprint(splits["train"])
    had_detector = has_ended(out, "detector")
    lacks_detector = "detector" in recipe.stages and (not had_detector or (force and not resume))
    if lacks_detector and "detector" not in stages:
        raise InputError(
            f"--force would delete the detector of '{out}', which this stage needs: leave it out, then this with "
            "--resume builds on it"
            if had_detector
            else f"'{out}' has no trained detector: run stage=detector (or stage=all) into it first, then this "
            "with --resume"
        )
    if lacks_detector and detector is None:
        _fetch_weights(recipe)
    if lacks_detector and detector is not None:
        check_detector(detector, recipe, data_hash, out)
    check_folder(recipe, data_hash, out, resume=resume, force=force)
    with resumable(out), locked(out):
        check_folder(recipe, data_hash, out, resume=resume, force=force)
        prepare_folder(recipe, data_hash, out, resume=resume)
        if lacks_detector and detector is not None:
            adopt_detector(detector, recipe, out)
        _train_stages(recipe, stages, data, splits, out, session)
    return RunSummary(out / "model", {name: stage_seconds(out, name) for name in STAGES if has_ended(out, name)})


def _train_stages(
    recipe: Recipe,
    stages: tuple[str, ...],
    data: Path,
    splits: dict[str, ObjectDataset],
    out: Path,
    session: Session,
) -> None:
    """Trains the stages that have not ended."""
    lightning.seed_everything(recipe.seed, verbose=False)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    class_names = splits["train"].class_names
    if "detector" in stages and not has_ended(out, "detector"):
        _train_detector(recipe, splits, out, session)
        if session.is_over and "representation" in stages:
            raise OutOfTime(f"'{out}': its detector is trained")
    if "representation" in stages and not has_ended(out, "representation"):
        if "detector" not in recipe.stages:
            _train_whole(recipe, data, splits, out, session)
        else:
            _train_representation(recipe, data, splits, class_names, out, session)


def _stages(recipe: Recipe, asked: str) -> tuple[str, ...]:
    """The stages to run."""
    if asked == "detector" and asked not in recipe.stages:
        raise InputError(f"{recipe.model.kind} has no detector to train: leave out stage={asked}")
    return recipe.stages if asked == "all" else (asked,)


def _fetch_weights(recipe: Recipe) -> None:
    """Gets the pretrained weights that the model wants, before a folder is made that a failure would leave."""
    if isinstance(recipe.model, DetectedConfig):
        backbone = recipe.model.detector.backbone
        if getattr(backbone, "pretrained", False):
            build_backbone(backbone, recipe.model.image_size)


def _augmented(recipe: Recipe, train_split: ObjectDataset) -> ObjectDataset:
    """The training split with the recipe's augmentation, if there is one."""
    return train_split.with_transform(build_augmentation(recipe.augment, recipe.model.image_size))


def _train_whole(
    recipe: Recipe, data: Path, splits: dict[str, ObjectDataset], out: Path, session: Session
) -> None:
    """Trains a model that finds and describes objects with the same weights."""
    train_split = _augmented(recipe, splits["train"])
    model = build_model(recipe.model, train_split.class_names)
    assert isinstance(model, GenerativeModel)
    folder = out / "representation"
    stage = LitModel(model, recipe.representation, recipe.seed)
    samples = SampleReconstructions(splits["val"], folder / "samples")
    fit_stage(
        stage,
        train_split,
        splits["val"],
        recipe,
        recipe.representation,
        folder,
        [samples],
        session,
    )
    save_model(model.eval(), out / "model", description=f"{recipe.name}, trained on {data.name}")


def _train_detector(recipe: Recipe, splits: dict[str, ObjectDataset], out: Path, session: Session) -> None:
    train_split = _augmented(recipe, splits["train"])
    assert isinstance(recipe.model, DetectedConfig)
    model = SSD(recipe.model.detector, train_split.class_names)
    stage = LitModel(model, recipe.detector, recipe.seed)
    selection = BestEpoch(splits["val"], recipe.detector) if recipe.detector.measures_epochs else None
    fit_stage(stage, train_split, splits["val"], recipe, recipe.detector, out / "detector", [], session, selection)
    whole = build_model(recipe.model, train_split.class_names, detector=model.eval())
    save_model(whole, out / "detector" / "model", description=f"{recipe.name}: detector only")


def _train_representation(
    recipe: Recipe,
    data: Path,
    splits: dict[str, ObjectDataset],
    class_names: list[str],
    out: Path,
    session: Session,
) -> None:
    """Trains what a model adds to its detector."""
    torch.manual_seed(recipe.seed)
    trained = load_model(out / "detector" / "model")
    assert isinstance(trained, DetectedModel)
    model = build_model(recipe.model, class_names, detector=trained.detector).to(choose_device())
    folder = out / "representation"
    if isinstance(model, PooledFeatures):
        fit_components(model.eval(), splits["train"], recipe, folder, session)
    else:
        assert isinstance(model, DetectedVAE)
        _train_vae(recipe, model, splits, folder, session)
    save_model(model.eval(), out / "model", description=f"{recipe.name}, trained on {data.name}")
    remove_cache(folder / CACHE)


def _train_vae(
    recipe: Recipe, model: DetectedVAE, splits: dict[str, ObjectDataset], folder: Path, session: Session
) -> None:
    """Trains encoders and decoder on the frozen detector's objects."""
    with session.watching("running the frozen detector once over the data") as progress:
        cached = {
            split: build_cache(
                model,
                dataset,
                folder / CACHE,
                limit_mb=recipe.cache_limit_mb,
                batch_size=2 * recipe.representation.batch_size,  # There is room, without gradients.
                progress=progress,
            )
            for split, dataset in splits.items()
        }
    if not len(cached["train"].objects):
        warn(
            "warning: the detector detects nothing in the training split, so the representation learns nothing: "
            "train the detector longer, or lower model.detector.score_threshold"
        )
    stage = LitRepresentation(model, recipe.representation, recipe.seed)
    samples = SampleReconstructions(splits["val"], folder / "samples")
    fit_stage(
        stage,
        cached["train"],
        cached["val"],
        recipe,
        recipe.representation,
        folder,
        [samples],
        session,
    )
