"""Evaluates a model on a data set: opens both, computes all metrics that they allow, records the provenance."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ssdir.console import Advance
from ssdir.data.dataset import ObjectDataset, fingerprint
from ssdir.data.images import Image8
from ssdir.data.readers.registry import find_layout, open_dataset
from ssdir.data.scatter.glyphs import load_glyphs
from ssdir.device import device_name
from ssdir.documents import json_text
from ssdir.errors import InputError, InputWarning, MissingSplitError
from ssdir.evaluation.measure import Measurement, MeasureOptions, measure
from ssdir.evaluation.protocols import EmbedsBoxes
from ssdir.evaluation.provenance import provenance, with_undefined_as_null
from ssdir.export.model import OnnxModel
from ssdir.export.runtime import OnnxEncoder
from ssdir.inference.engines import load_encoder
from ssdir.inference.files import Precision
from ssdir.inference.predictor import Predictor
from ssdir.models.base import ObjectModel
from ssdir.models.io import find_model, random_encoder
from ssdir.training.recipe import READ_OPTIONS
from ssdir.training.run_folder import read_training

_RECORDED = (
    "max_images",
    "max_train_images",
    "similarity",
    "score_threshold",
    "sizes_in_px",
    "floors",
    "batch_size",
    "num_glyphs",
    "random_seed",
)
"""The options that are in the provenance of every evaluation, because they change its numbers."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions(MeasureOptions):
    """Options of `evaluate`; see also `MeasureOptions`.

    Attributes:
        train_split: the split that probes learn from; None for no probes.
        min_side: objects narrower or lower than this share of the image are left out; None uses the training's.
        drop_empty: whether images without objects are left out; None uses the training's.
        read_options: options of the data's layout by name, such as CLEVR's `vocabulary`; options that are not
            given are the training's.
        num_glyphs: number of unseen glyphs whose embeddings are compared across sizes, if the images were
            generated from a known source of glyphs; at least 2. 0 leaves out these metrics.
        glyph_root: folder with MNIST's files; None downloads them where they are needed.
        random_seed: seed of the weights of the untrained encoder that serves as a floor; None takes `seed`.

    Raises:
        InputError: if an option is out of its range.
    """

    train_split: str | None = "train"
    min_side: float | None = None
    drop_empty: bool | None = None
    read_options: Mapping[str, str | None] = field(default_factory=dict)
    num_glyphs: int = 500
    glyph_root: Path | None = None
    random_seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_glyphs < 0 or self.num_glyphs == 1:
            raise InputError(f"num_glyphs must be 0, or at least 2 to compare, got {self.num_glyphs}")
        if self.min_side is not None and not 0 <= self.min_side <= 1:
            raise InputError(f"min_side must be in [0, 1], got {self.min_side:g}")
        if self.random_seed is not None and self.random_seed < 0:
            raise InputError(f"random_seed must be at least 0, got {self.random_seed}")


@dataclass(frozen=True)
class Evaluation(Measurement):
    """The metrics of a model and their provenance.

    Attributes:
        data: the images that were measured.
        provenance: the options, the seed, a hash of the data, versions, device and time; if the model is in the
            folder of its run, also how it was trained.
    """

    data: ObjectDataset
    provenance: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Returns `metrics`, with None for undefined ones, and `provenance`."""
        return {"metrics": with_undefined_as_null(self.metrics), "provenance": self.provenance}

    def to_json(self) -> str:
        """Formats `to_dict` as the JSON that `ssdir evaluate` writes."""
        return json_text(self.to_dict())


def evaluate(
    model: str | Path | Predictor | OnnxEncoder,
    data: str | Path,
    split: str = "test",
    options: EvaluationOptions | None = None,
    *,
    device: str | None = None,
    precision: Precision | None = None,
    progress: Advance | None = None,
) -> Evaluation:
    """Measures a model: detection, reconstruction, masks, probes of the embedding, scale invariance, tracks.

    Metrics that need a part which the model lacks (a decoder, an embedding), or of the data (true tracks, masks),
    are left out. Probes never learn from images that are measured. The data are read with the options of the
    model's training, if these are known.

    >>> report = ssdir.evaluate("tiny-digits", "data/digits")
    >>> report.metrics["detection/ap50"]
    0.9898...
    >>> options = EvaluationOptions(train_split=None, max_images=100)
    >>> Path("metrics.json").write_text(ssdir.evaluate("runs/faces", "data/faces", "val", options).to_json())

    Args:
        model: name of a shipped model, folder of a model or a run, or an exported `.onnx` file; or a loaded model,
            whose training is unknown.
        data: folder of a data set in any known layout.
        split: the split to measure.
        options: further options.
        device: device of a model that is not loaded yet; None takes the best one available.
        precision: precision of the products in encoding, for a model that is not loaded yet.
        progress: called as batches and probes are done.

    Raises:
        InputError: if the model or the data can't be read, there is no such split, or the data lack a class of the
            model.
        ValueError: if embeddings are not finite.
    """
    options = options or EvaluationOptions()
    seed = options.seed if options.random_seed is None else options.random_seed
    subject = _load(model, device, precision, seed)
    started = time.perf_counter()
    read_options = _read_options(subject.training, data, options)
    test, train = _open_splits(subject, data, split, options.train_split, read_options)
    measurement = measure(
        subject.model,
        test,
        train,
        options,
        glyphs=_unseen_glyphs(test, options.num_glyphs, options.glyph_root),
        random_model=subject.random_model,
        progress=progress,
    )
    config = {
        "split": split,
        "train_split": "none" if train is None else options.train_split,
        "model": Path(model).name if isinstance(model, str | Path) else None,
        "precision": precision,
        **{name: getattr(options, name) for name in _RECORDED},
        **({"track": asdict(options.tracking()), "true_boxes": options.true_boxes} if test.clip_ranges else {}),
        **read_options,
        **subject.config,
    }
    record = provenance(config, options.seed, fingerprint(test), subject.device, time.perf_counter() - started)
    if subject.training is not None:
        record["training"] = subject.training
    return Evaluation(measurement.metrics, measurement.test, measurement.train, test, record)


@dataclass(frozen=True)
class _Subject:
    """The model that is measured.

    Attributes:
        model: the model as evaluation sees it.
        class_names: names of its classes.
        config: its parts, for the provenance.
        device: where it runs.
        training: how it was trained, see `read_training`; None where that is not known.
        random_model: the same detector with an untrained encoder; None where there can be none.
    """

    model: ObjectModel | OnnxModel
    class_names: list[str]
    config: dict[str, Any]
    device: str
    training: dict[str, Any] | None = None
    random_model: EmbedsBoxes | None = None


def _load(
    model: str | Path | Predictor | OnnxEncoder, device: str | None, precision: Precision | None, seed: int
) -> _Subject:
    named = isinstance(model, str | Path)
    encoder = load_encoder(str(model), None, device, precision) if named else model
    if isinstance(encoder, OnnxEncoder):
        config = {"exported": encoder.exported.model_dump()}
        return _Subject(OnnxModel(encoder), encoder.class_names, config, encoder.device)
    assert isinstance(encoder, Predictor)
    return _Subject(
        encoder.encoder,
        encoder.class_names,
        {"model_config": encoder.model.config.model_dump(mode="json")},
        device_name(encoder.device),
        read_training(find_model(str(model))) if named else None,
        random_encoder(encoder.encoder, seed),  # It shares the detector, so that images are read once.
    )


def _read_options(
    training: Mapping[str, Any] | None, data: str | Path, options: EvaluationOptions
) -> dict[str, Any]:
    """Returns the options to read the data with: the given ones, then the training's that the layout has."""
    recipe = {} if training is None else training["recipe"]
    given = {"min_side": options.min_side, "drop_empty": options.drop_empty, **options.read_options}
    return {
        "min_side": recipe.get("min_side") or 0.0,
        "drop_empty": bool(recipe.get("drop_empty")),
        **dict.fromkeys(READ_OPTIONS),
        **find_layout(data).known({name: recipe.get(name) for name in READ_OPTIONS}),
        **{name: value for name, value in given.items() if value is not None},
    }


def _open_splits(
    subject: _Subject, data: str | Path, test: str, train: str | None, read_options: Mapping[str, Any]
) -> tuple[ObjectDataset, ObjectDataset | None]:
    """Opens the splits to measure and to learn from, with the model's image size and classes.

    The split to learn from is None if it shares images with the measured one: probes would have seen the answers.
    """
    names, size, resize = subject.class_names, subject.model.image_size, subject.model.resize
    classes: Literal["object"] | list[str] = "object" if names == ["object"] else names
    trained_on_all = subject.training is not None and subject.training["recipe"].get("classes") == "all"

    def opened(split: str, hint: str) -> ObjectDataset:
        # If training held out a part as val, that part is measured, and probes must not learn from it.
        held_out, trained = test == "val", "all" if trained_on_all else classes
        try:
            how: dict[str, Any] = {"resize": resize, "for_training": held_out, **read_options}
            dataset = open_dataset(data, split, trained, size, **how)
        except MissingSplitError as error:
            raise InputError(f"{error}; {hint}") from None
        # These may be other data than those of the training, with other classes.
        return (
            dataset if dataset.class_names == names else ObjectDataset(dataset.table, classes, size, resize=resize)
        )

    measured = opened(test, "choose another split to measure")
    if train is None:
        return measured, None
    learned = opened(train, "choose another train split, from which probes learn, or none")
    if set(learned.image_paths).isdisjoint(measured.image_paths):
        return measured, learned
    warnings.warn(
        f"no probes: they would learn from images of '{test}', which are measured; choose another train split",
        InputWarning,
        stacklevel=3,
    )
    return measured, None


def _unseen_glyphs(test: ObjectDataset, count: int, root: Path | None) -> list[Image8] | None:
    """Loads glyphs of the test split, if the data set records the source of the glyphs in its images."""
    source = test.table.info.get("source")
    if source is None or not count:
        return None
    try:
        images = load_glyphs(str(source), "test", root).images
    except InputError as error:
        message = f"no metrics of the same object at several sizes: {error}"
        warnings.warn(message, InputWarning, stacklevel=3)
        return None
    return images[:: max(1, len(images) // count)][:count]
