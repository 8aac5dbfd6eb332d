"""Exported encoders with convolutions in 8-bit integers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from ssdir.data.images import Image8
from ssdir.errors import InputError
from ssdir.inference.export import quiet
from ssdir.inference.exported import METADATA_KEY
from ssdir.inference.files import chunks, read_file
from ssdir.inference.onnx_engine import OnnxEncoder

MAX_IMAGES = 128
"""Ranges of activations hardly change with more."""

_BATCH = 8
_ERRORS, _WARNINGS = 3, 2


def quantize_encoder(path: str | Path, out: str | Path, images: Sequence[Path]) -> None:
    """Writes an exported encoder with its convolutions in int8: statically, with quantise-dequantise pairs.

    Weights are scaled per channel, activations by the range that they have on `images`. The rest stays in single
    precision: it costs little, and box decoding and linear layers lose most.

    Args:
        path: an encoder that `export_model` wrote as ONNX.
        out: file to write.
        images: image files like those to come; at most `MAX_IMAGES` of them, evenly spread, are looked at.

    Raises:
        InputError: if an image can't be read, or nothing is found in any of them.
    """
    encoder = OnnxEncoder(path, "cpu")
    chosen = [images[index] for index in np.unique(np.linspace(0, len(images) - 1, MAX_IMAGES).astype(int))]
    batches = [
        np.stack([read_file(image, encoder.image_size)[1] for image in chunk]) for chunk in chunks(chosen, _BATCH)
    ]
    # The encoder of objects sees none in an empty batch, and would have no range.
    batches = [batch for batch in batches if len(encoder.encode_pixels(batch))]
    if not batches:
        raise InputError(f"the model finds nothing in the {len(chosen)} images to calibrate by: give others")
    onnxruntime.set_default_logger_severity(_ERRORS)
    try:
        with quiet():
            quantize_static(
                path,
                out,
                _Reader(batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                per_channel=True,
                # Products of 8 and 7 bits never saturate in the 16 that CPUs without VNNI add them in.
                reduce_range=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
    finally:
        onnxruntime.set_default_logger_severity(_WARNINGS)
    proto = onnx.load(out)
    exported = replace(encoder.exported, precision="int8")
    onnx.helper.set_model_props(proto, {METADATA_KEY: exported.to_json()})
    onnx.save(proto, str(out))


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
    """Batches of pixels, one at a time."""

    def __init__(self, batches: Sequence[Image8]) -> None:
        self._batches: Iterator[Image8] = iter(batches)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next batch by the name of its input; None after the last."""
        batch = next(self._batches, None)
        return None if batch is None else {"images": batch}
