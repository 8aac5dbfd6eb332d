"""Quantisation of exported encoders: convolutions in 8-bit integers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from torchvision.ops import box_iou

from ssdir.data.images import Image8
from ssdir.data.letterbox import read_square
from ssdir.errors import InputError
from ssdir.export.metadata import CHECKSUM_KEY, METADATA_KEY, NO_CHECKSUM, ExportedModel, write_checksum
from ssdir.export.onnx import quiet
from ssdir.export.runtime import OnnxEncoder
from ssdir.object_arrays import ObjectArrays
from ssdir.storage import Location

MAX_IMAGES = 128
"""Maximum number of calibration images: with more, the ranges of activations hardly change."""

IN_SINGLE = (0, 2, 4)
"""Numbers of first convolutions in single precision to try, in this order."""

_BATCH = 8
_ERRORS, _WARNINGS = 3, 2


@dataclass(frozen=True)
class Quantized:
    """The result of quantisation.

    Attributes:
        in_single: number of first convolutions that stay in single precision.
        agrees: whether it detects the same objects as before on the calibration images, see `agree`.
    """

    in_single: int
    agrees: bool


def quantize_encoder(
    path: str | Path, out: str | Path, images: Sequence[Location], in_single: int | None = None
) -> Quantized:
    """Quantises the convolutions of an exported encoder to int8, statically, with quantise-dequantise pairs.

    Weights are scaled per channel, activations by their range on `images`. Everything else stays in single
    precision: it takes little time, and box decoding and linear layers would lose most accuracy. The first
    convolutions may stay in single precision too, because their rounding error is constant over areas of one
    colour, where some detectors would then detect objects.

    Args:
        path: an encoder that `export_model` wrote as ONNX.
        out: file to write; may be `path`.
        images: calibration images, similar to those to encode; at most `MAX_IMAGES`, evenly spread, are used.
        in_single: number of first convolutions in single precision; None takes the fewest of `IN_SINGLE` with
            which the encoder detects the same objects in `images` as before.

    Raises:
        InputError: if an image can't be read, or no object is detected in any of them.
    """
    encoder = OnnxEncoder(path, "cpu")
    chosen = [images[index] for index in np.unique(np.linspace(0, len(images) - 1, MAX_IMAGES).astype(int))]
    how = encoder.image_size, encoder.resize
    batches = [
        np.stack([read_square(image, *how)[1] for image in chosen[start : start + _BATCH]])
        for start in range(0, len(chosen), _BATCH)
    ]
    expected = [encoder.encode_pixels(batch) for batch in batches]
    # A batch without objects has no range for the layers that encode objects.
    with_objects = [batch for batch, objects in zip(batches, expected, strict=True) if len(objects)]
    if not with_objects:
        raise InputError(f"the model detects nothing in the {len(chosen)} images to calibrate by: give others")
    with TemporaryDirectory() as folder:
        candidate = Path(folder) / "int8.onnx"
        for count in IN_SINGLE if in_single is None else (in_single,):
            _quantize(path, candidate, with_objects, encoder.exported, count)
            eight = OnnxEncoder(candidate, "cpu")
            agrees = agree(expected, [eight.encode_pixels(batch) for batch in batches])
            if agrees:
                break
        shutil.copyfile(candidate, out)
    return Quantized(count, agrees)


def agree(expected: Sequence[ObjectArrays], detected: Sequence[ObjectArrays]) -> bool:
    """Returns whether two encoders detect nearly the same objects in batches of images.

    The number of objects may differ by 2 %, more than 98 % must have an IoU above 0.5 with the nearest object of
    their class of the other encoder, and the mean IoU must be above 0.95.
    """
    num_expected, num_detected = (sum(map(len, batches)) for batches in (expected, detected))
    if not num_expected:
        return not num_detected
    overlaps = []
    for one, other in zip(expected, detected, strict=True):
        comparable = one.image_index[:, None] == other.image_index
        if one.labels is not None and other.labels is not None:
            comparable &= one.labels[:, None] == other.labels
        iou = box_iou(torch.from_numpy(one.boxes), torch.from_numpy(other.boxes)).numpy() * comparable
        overlaps.append(iou.max(axis=1, initial=0))
    overlap = np.concatenate(overlaps)
    close = abs(num_detected - num_expected) <= 0.02 * num_expected
    return bool(close and (overlap > 0.5).mean() > 0.98 and overlap.mean() > 0.95)


def _quantize(
    path: str | Path, out: Path, batches: Sequence[Image8], exported: ExportedModel, in_single: int
) -> None:
    nodes = onnx.load(path).graph.node
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    # For the input of a ReLU6, the range after the activation is used, which is far smaller than before it.
    clamped = {output for node in convolutions[in_single:] for output in node.output}
    other_clamps = [node for node in nodes if node.op_type == "Clip" and node.input[0] not in clamped]
    onnxruntime.set_default_logger_severity(_ERRORS)
    try:
        with quiet():
            quantize_static(
                path,
                out,
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Clip"],
                nodes_to_exclude=[node.name for node in [*convolutions[:in_single], *other_clamps]],
                per_channel=True,
                # Products of 8 and 7 bits never saturate in the 16 that CPUs without VNNI add them in.
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
    proto = onnx.load(out)
    about = exported.model_copy(update={"precision": "int8"}).to_json()
    onnx.helper.set_model_props(proto, {METADATA_KEY: about, CHECKSUM_KEY: NO_CHECKSUM})
    onnx.save(proto, str(out))
    write_checksum(Path(out))


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
    """Returns batches of pixels one at a time, for calibration."""

    def __init__(self, batches: Sequence[Image8]) -> None:
        self._batches: Iterator[Image8] = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """Returns the next batch by the name of its input; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}
