"""A recipe: everything that decides the outcome of a training, beside the data."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from ssdir.config import Config, parse, read_values
from ssdir.data.transforms import AugmentConfig
from ssdir.models.detected import DetectedConfig
from ssdir.models.registry import AnyModelConfig
from ssdir.models.ssdir import SSDIRConfig

Stage = Literal["all", "detector", "representation"]
Precision = Literal["auto", "single", "bf16"]
STAGES = ("detector", "representation")
READ_OPTIONS = ("boxes", "vocabulary")
RECIPE_FILE, DATA_FILE, SUMMARY_FILE = "recipe.yaml", "data.json", "summary.json"


class StageConfig(Config):
    """How one stage is trained.

    Attributes:
        epochs: passes over the training split.
        batch_size: images per step.
        optimizer: `adamw`, which is Adam without `weight_decay`, or `muon` (Jordan et al. 2024), whose steps of
            matrices and of convolutions' weights are orthogonal; those of biases and norms are AdamW's.
        lr: (peak) learning rate; Muon's steps are scaled to be as large as Adam's usually are (Liu et al. 2025).
        weight_decay: decoupled weight decay.
        schedule: `constant`, as in the paper, or `one_cycle`: warm up, then anneal to zero. It is torch's
            `OneCycleLR`, which also moves AdamW's first beta (of Muon: of what is no matrix), from 0.95 to 0.85
            at the largest rate.
        grad_clip: largest norm of the gradient; null for none.
    """

    epochs: int = Field(10, ge=1)
    batch_size: int = Field(32, ge=1)
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(5e-4, gt=0, lt=10)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "one_cycle"] = "constant"
    grad_clip: float | None = Field(None, gt=0)


class Recipe(Config):
    """Model, stages, and the seed.

    Attributes:
        name: what the recipe is called in logs and model cards.
        seed: of initialisation, shuffling and sampling.
        stage: which stages run: the detector, then the representation, or either. Models without a detector have
            only the latter.
        classes: `all` classes of the data, one class-agnostic `object`, or a list of classes to attend to.
        boxes: for data whose layout has several: in CLEVR of `whole` objects or of their `visible` parts; null for
            the layout's default.
        vocabulary: what categories name, likewise: in CLEVR `shape`, `object`, or `full` descriptions.
        min_side: objects narrower or lower than this share of the image are left out (faces in the paper: 0.04).
        drop_empty: images without objects are left out.
        model: the model; `model.kind` says which, SSDIR where it is left out.
        augment: joint augmentation of image and boxes for the detector's stage, or of a model without a detector.
        detector: how the detector is trained.
        representation: how encoders and decoder are trained; of PooledFeatures, which has none, the `batch_size`.
        precision: of the detector's stage and of the representation that is learned on it: `bf16` multiplies in
            bfloat16 and sums in single precision; `auto` does so on GPUs, and on CPUs with instructions for it.
        cache_limit_mb: frozen features up to this size stay in memory; larger ones are memory-mapped on disk.
        workers: processes that load images; 0 loads in the main one.
    """

    name: str = "custom"
    seed: int = Field(0, ge=0)
    stage: Stage = "all"
    classes: Literal["all", "object"] | tuple[str, ...] = "object"
    boxes: str | None = None
    vocabulary: str | None = None
    min_side: float = Field(0.0, ge=0, lt=1)
    drop_empty: bool = False
    model: AnyModelConfig = SSDIRConfig()
    augment: AugmentConfig = AugmentConfig()
    detector: StageConfig = StageConfig()
    representation: StageConfig = StageConfig()
    precision: Precision = "auto"
    cache_limit_mb: int = Field(2048, ge=0)
    workers: int = Field(0, ge=0)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that the model has."""
        return STAGES if isinstance(self.model, DetectedConfig) else STAGES[1:]

    @property
    def read_options(self) -> dict[str, str | None]:
        """What the layout of the data is asked for."""
        return {name: getattr(self, name) for name in READ_OPTIONS}


def read_recipe(name_or_file: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """A preset by name or a YAML file, with ``key=value`` overrides applied and everything validated.

    Raises:
        InputError: naming the unknown preset, key or bad value.
    """
    values = {"name": Path(str(name_or_file)).stem, **read_values(name_or_file, overrides)}
    return parse(Recipe, values, source=str(name_or_file))


def read_fingerprint(run: Path) -> str | None:
    """The fingerprint of the data that a run was started on; None where the folder is no run's."""
    try:
        values = json.loads((run / DATA_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = values.get("fingerprint") if isinstance(values, dict) else None
    return None if known is None else str(known)


def read_training(model: Path) -> dict[str, Any] | None:
    """How the model in a run's folder was trained, for the record beside its figures.

    Args:
        model: folder of the model.

    Returns:
        `recipe`, `wall_seconds` of each stage, and, where they are known, the `device` of the last one and the
        `precision` that it was trained in, as Lightning calls it; None if the folder is in no run.
    """
    run = model.resolve().parent
    if not (run / RECIPE_FILE).is_file():
        return None
    files = {stage: run / stage / SUMMARY_FILE for stage in STAGES}
    summaries = {
        stage: json.loads(file.read_text(encoding="utf-8")) for stage, file in files.items() if file.is_file()
    }
    seconds = {stage: round(summary["wall_seconds"], 1) for stage, summary in summaries.items()}
    notes = {name: note for summary in summaries.values() for name, note in summary.items()}
    return {
        "recipe": yaml.safe_load((run / RECIPE_FILE).read_text(encoding="utf-8")),
        "wall_seconds": seconds,
        **{name: notes[name] for name in ("device", "precision") if name in notes},
    }
