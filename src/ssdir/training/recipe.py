"""A recipe: everything that decides the outcome of a training, beside the data."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ssdir.config import Config, parse, presets, read_values
from ssdir.data.dataset import ObjectDataset
from ssdir.data.learnable import Learned
from ssdir.data.readers.registry import open_dataset
from ssdir.data.transforms import AugmentConfig
from ssdir.errors import InputError
from ssdir.models.detected.model import DetectedConfig
from ssdir.models.registry import AnyModelConfig
from ssdir.models.shipped import shipped_models
from ssdir.models.ssdir import SSDIRConfig

Precision = Literal["auto", "single", "bf16"]
STAGES = ("detector", "representation", "memory")
NOT_DECIDING = {"stage", "devices", "nodes"}
"""Settings with which a run can be resumed changed: its weights do not depend on them, within rounding."""
READ_OPTIONS = ("extent", "vocabulary", "outside")


class StageConfig(Config):
    """Options of one training stage.

    Attributes:
        epochs: passes over the training split.
        batch_size: images per step, on all devices together.
        optimizer: `adamw`, which is Adam without `weight_decay`, or `muon` (Jordan et al. 2024), whose steps of
            matrices and of convolutions' weights are orthogonal; those of biases and norms are AdamW's.
        lr: (peak) learning rate; Muon's steps are scaled to be as large as Adam's usually are (Liu et al. 2025).
        weight_decay: decoupled weight decay.
        schedule: `constant`, as in the paper, or `one_cycle`: warm up, then anneal to zero. It is torch's
            `OneCycleLR`, which also moves AdamW's first beta (of Muon: of what is no matrix), from 0.95 to 0.85
            at the largest rate. `exponential`: a linear warm-up, and all along a decay by half.
        warmup_steps: steps of the warm-up of `exponential`.
        half_life: steps in which `exponential` halves the learning rate.
        grad_clip: largest norm of the gradient; null for none.
    """

    epochs: int = Field(10, ge=1, le=10**6)
    batch_size: int = Field(32, ge=1, le=2**16)
    optimizer: Literal["adamw", "muon"] = "adamw"
    lr: float = Field(5e-4, gt=0, lt=10)
    weight_decay: float = Field(0.0, ge=0, le=1e3)
    schedule: Literal["constant", "one_cycle", "exponential"] = "constant"
    warmup_steps: int = Field(0, ge=0, le=10**9)
    half_life: int = Field(100_000, ge=1, le=10**9)
    grad_clip: float | None = Field(None, gt=0, allow_inf_nan=False)


class DetectorStageConfig(StageConfig):
    """Options of the stage that trains the detector.

    Attributes:
        keep: `last` keeps the weights of the last epoch, `best` those of the epoch with the
            largest AP50 on the validation split, of several equal ones the first. Few images are soon learned by
            heart: a detector then gets worse on others while its training loss falls.
        patience: training stops once AP50 on the validation split has not exceeded its largest
            value for so many epochs; null never stops early.
    """

    keep: Literal["last", "best"] = "last"
    patience: int | None = Field(None, ge=1)

    @property
    def measures_epochs(self) -> bool:
        """True if AP50 of the validation split is measured after epochs, see `measuring_interval`."""
        return self.keep == "best" or self.patience is not None


class Recipe(Config):
    """Model, stages, and the seed.

    Attributes:
        name: what the recipe is called in logs and model cards.
        seed: seed of initialisation, shuffling and sampling.
        stage: which stages run: the detector, then the representation, then the memory, or one of them. Models
            without a detector have the representation only, and those without `memory` no stage for it.
        train_split: the split to train on; `train[:260]` is the first 260 images of train.
        val_split: the split to validate on. Where there is no `val`, a tenth of `train` is held out.
        classes: `all` classes of the data, one class-agnostic `object`, or a list of classes to attend to.
        extent: extent of boxes, where the layout has several: in CLEVR `whole` objects or their `visible` parts;
            null for the layout's default.
        vocabulary: what categories name, likewise: in CLEVR `shape`, `object`, or `full` descriptions.
        outside: whether to `read` COCO's pictures that are not in the data set's folder, or to `leave` them out.
        min_side: objects narrower or lower than this share of the image are left out (faces in the paper: 0.04).
        drop_empty: images without objects are left out.
        model: the model; `model.kind` says which, SSDIR where it is left out.
        augment: joint augmentation of image and boxes for the detector's stage, and for the representation's if it
            says so; or of a model without a detector.
        detector: how the detector is trained.
        representation: how encoders and decoder are trained; of PooledFeatures, which has none, the `batch_size`.
        memory: how `model.memory` is trained; a batch is of clips.
        precision: precision of the detector's stage and of the representation that is learned on it: `bf16`
            multiplies in bfloat16 and sums in single precision; `auto` does so on GPUs, and on CPUs with
            instructions for it.
        workers: processes that load images; 0 loads in the main one.
        devices: GPUs, or processes on the CPU, of each node that train together.
        nodes: machines that train together; on several, `torchrun` starts the command on each.
    """

    name: str = Field("custom", max_length=255)
    seed: int = Field(0, ge=0, lt=2**32)
    stage: Literal["all", "detector", "representation", "memory"] = "all"
    train_split: str = Field("train", min_length=1, max_length=255)
    val_split: str = Field("val", min_length=1, max_length=255)
    classes: Literal["all", "object"] | Annotated[tuple[str, ...], Field(max_length=10_000)] = "object"
    extent: str | None = None
    vocabulary: str | None = None
    outside: str | None = None
    min_side: float = Field(0.0, ge=0, lt=1)
    drop_empty: bool = False
    model: AnyModelConfig = SSDIRConfig()
    augment: AugmentConfig = AugmentConfig()
    detector: DetectorStageConfig = DetectorStageConfig()
    representation: StageConfig = StageConfig()
    memory: StageConfig = StageConfig()
    precision: Precision = "auto"
    workers: int = Field(0, ge=0, le=256)
    devices: int = Field(1, ge=1, le=1024)
    nodes: int = Field(1, ge=1, le=1024)

    @model_validator(mode="after")
    def _devices_share_batches(self) -> Self:
        for name in self.stages[:2]:  # A memory's batches are not divided.
            size = getattr(self, name).batch_size
            if size % (self.devices * self.nodes):
                raise ValueError(
                    f"{name}.batch_size={size} cannot be divided among devices={self.devices} on "
                    f"nodes={self.nodes}"
                )
        return self

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages that the model has."""
        if not isinstance(self.model, DetectedConfig):
            return ("representation",)
        return STAGES if isinstance(self.model, SSDIRConfig) and self.model.memory is not None else STAGES[:2]

    @property
    def frame_model(self) -> AnyModelConfig:
        """The model without its memory: what the first stages train."""
        return self.model.model_copy(update={"memory": None}) if "memory" in self.stages else self.model

    @property
    def learned(self) -> Learned:
        """The objects of the data that are learned."""
        return Learned(self.classes, self.min_side, needs_objects=isinstance(self.model, DetectedConfig))

    def open_data(self, data: Path, split: str, *, preload: bool = False) -> ObjectDataset:
        """Opens a split as this recipe trains on it: its classes, image size and options; without augmentation.

        Args:
            data: folder of a data set in any known layout.
            split: name of the split; without one to validate on, `val` is held out of `train`.
            preload: read all images into memory now.

        Raises:
            InputError: if the data can't be read, or no image is left.
        """
        return open_dataset(
            data,
            split,
            self.classes,
            self.model.image_size,
            preload=preload,
            resize=self.model.resize,
            min_side=self.min_side,
            drop_empty=self.drop_empty,
            for_training=True,
            **self.read_options,
        )

    @property
    def read_options(self) -> dict[str, Any]:
        """Options of the data's layout, by name."""
        return {name: getattr(self, name) for name in READ_OPTIONS}


def read_recipe(name_or_file: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Reads a preset by name or a YAML file, with ``key=value`` overrides applied and everything validated.

    Raises:
        InputError: naming the unknown preset, key or bad value.
    """
    if (name := str(name_or_file)) in shipped_models() and name not in presets():
        raise InputError(f"'{name}' is a trained model, not a preset to train: ssdir models lists both")
    values = {"name": Path(str(name_or_file)).stem, **read_values(name_or_file, overrides)}
    return parse(Recipe, values, source=str(name_or_file))
