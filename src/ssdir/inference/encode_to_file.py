"""Images to a file of their objects, by any engine; without torch where the engine does without."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ssdir.console import Advance, no_progress
from ssdir.data.image_files import find_images
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted, quote
from ssdir.identity import check_embeds
from ssdir.inference.engines import ONNX_SUFFIX, load_encoder
from ssdir.inference.files import EncodedBatch, Encoder, Precision, SkippedImage, encode_files, none_readable
from ssdir.models.shipped import model_source
from ssdir.object_arrays import BoxUnit
from ssdir.outputs import atomic_file, claim
from ssdir.storage import absolute
from ssdir.store.writer import ObjectWriter

if TYPE_CHECKING:
    from ssdir.inference.encode_boxes import PlacedBoxes
    from ssdir.inference.predictor import Predictor

MANY_OBJECTS = 100
"""Mean number of objects per image from which on a warning asks whether the detector has learned."""


@dataclass(frozen=True)
class EncodeOptions:
    """Options of encoding images.

    Attributes:
        batch_size: images at once.
        score_threshold: least score of an object; None takes the model's.
        strict: stop at the first unreadable image or box without area, instead of skipping it.
        device: where to run; None takes the best there is.
        engine: what runs the model; None takes the one that it is for.
        precision: of the products in encoding; None is single.
    """

    batch_size: int = 32
    score_threshold: float | None = None
    strict: bool = False
    device: str | None = None
    engine: Literal["torch", "onnx"] | None = None
    precision: Precision | None = None


@dataclass(frozen=True)
class BoxFile:
    """A file of boxes to encode, see `read_boxes`.

    Attributes:
        path: COCO `.json`, or a table as `.csv` or `.parquet`.
        annotations: for COCO's results, the COCO file that names their images.
        unit: of the boxes of a table.
    """

    path: Path
    annotations: Path | None = None
    unit: BoxUnit = "pixels"


@dataclass(frozen=True)
class EncodedFile:
    """The outcome of encoding images.

    Attributes:
        images: number of images.
        objects: number of their objects.
        skipped_images: the images that couldn't be read.
        skipped_boxes: why each other given box was not encoded, a sentence with its row.
        device: what the model ran on.
    """

    images: int
    objects: int
    skipped_images: list[SkippedImage]
    skipped_boxes: list[str]
    device: str

    def summary(self) -> str:
        """Returns the numbers, as part of a sentence."""
        parts = [counted(self.images, "image"), counted(self.objects, "object")]
        parts.append(f"{len(self.skipped_images)} skipped")
        if self.skipped_boxes:
            parts.append(f"{counted(len(self.skipped_boxes), 'box', 'boxes')} skipped")
        return f"{', '.join(parts)}, on {self.device}"


def encode_to_file(
    model: str,
    paths: Sequence[str],
    out: str | Path,
    options: EncodeOptions | None = None,
    boxes: BoxFile | None = None,
    force: bool = False,
    on_progress: Advance = no_progress,
) -> EncodedFile:
    """Encodes images into a Parquet file, see `ObjectWriter`, whole or not at all; memory doesn't grow with them.

    An `InputWarning` says where boxes and images don't meet, where very many objects are detected, and where the
    images are unlike the model's training data, see `check_files`.

    Args:
        model: a shipped model's name, a model's or run's folder, or a `.onnx` file.
        paths: images, folders and patterns, see `find_images`.
        out: file to write.
        options: how to encode.
        boxes: boxes to encode instead of detecting any.
        force: replace an existing file.
        on_progress: called with (files done, all files).

    Raises:
        InputError: if the output can't be written, options don't fit the model, or no image can be read.
    """
    options = options or EncodeOptions()
    claim(out, force, (".parquet",))
    if boxes is not None:
        _check_takes_boxes(model, options)
    files = find_images(paths)
    placed = None if boxes is None else _place(boxes, files)
    encoder = load_encoder(model, options.engine, options.device, options.precision)
    check_embeds(model, encoder)
    on_progress(0, len(files), f"encoding on {encoder.device_name}")
    _check_familiar(model, encoder, files)
    skipped: list[SkippedImage] = []
    refused: list[str] = []
    common = (files, options.batch_size, options.strict, on_progress)
    with atomic_file(out, force) as temporary:
        batches: Iterator[EncodedBatch[Any]]
        if placed is None:
            class_names, further = encoder.class_names, None
            batches = encode_files(encoder, *common, score_threshold=options.score_threshold)
        else:
            from ssdir.inference.encode_boxes import encode_placed_boxes

            class_names, further = placed.table.class_names, placed.table.given.schema
            batches = encode_placed_boxes(cast("Predictor", encoder), placed, *common)
        about = (class_names, encoder.latent_dim, encoder.fingerprint, further)
        with ObjectWriter(temporary, model_source(model), *about) as writer:
            for batch in batches:
                # Absolute paths: the file may be read from another folder.
                places = [absolute(path) for path in batch.paths]
                writer.write(batch.objects, places, batch.sizes, batch.given)
                skipped += batch.skipped
                refused += batch.refused
        if len(skipped) == len(files):
            raise InputError(none_readable(skipped))
    mean = writer.objects_written / max(1, writer.images_seen)
    if boxes is None and mean >= MANY_OBJECTS:
        _warn(
            f"{mean:.0f} objects per image on average: if there are not as many, the detector has learned too "
            "little (raise detector.epochs) or accepts too much (raise --score-threshold)"
        )
    return EncodedFile(writer.images_seen, writer.objects_written, skipped, refused, encoder.device_name)


def _check_familiar(model: str, encoder: Encoder[Any], files: list[Path]) -> None:
    """Warns where images are unlike the training data; an exported model has no decoder to ask."""
    if model.lower().endswith(ONNX_SUFFIX):
        return
    from ssdir.inference.domain import check_files

    check = check_files(cast("Predictor", encoder), files)
    if check is not None and (sentence := check.sentence(model)) is not None:
        _warn(sentence)


def _check_takes_boxes(model: str, options: EncodeOptions) -> None:
    if options.score_threshold is not None:
        raise InputError("--score-threshold chooses among detected objects: leave it out where --boxes are given")
    if options.engine == "onnx" or model.lower().endswith(".onnx"):
        raise InputError(
            "exported models only detect objects: give the model itself, by name or folder, for --boxes"
        )


def _place(boxes: BoxFile, files: list[Path]) -> PlacedBoxes:
    """Reads the boxes, and warns where they and the images given don't meet."""
    from ssdir.inference.encode_boxes import place
    from ssdir.store.box_files import read_boxes

    placed = place(read_boxes(boxes.path, boxes.annotations, boxes.unit), files)
    if placed.unknown:
        images = counted(len(placed.unknown), "image")
        _warn(f"'{boxes.path}' has boxes of {images} not given here, left out: {quote(placed.unknown[0])} ...")
    if placed.imageless:
        rows = placed.imageless
        _warn(f"'{boxes.path}' has {counted(len(rows), 'row')} without an image, left out: row {rows[0]} ...")
    if placed.without:
        images = counted(len(placed.without), "image")
        _warn(f"'{boxes.path}' has no boxes for {images}: '{placed.without[0]}' ...")
    return placed


def _warn(text: str) -> None:
    warnings.warn(InputWarning(text), stacklevel=3)
