"""ONNX Runtime as an engine: exported encoders, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ssdir.data.images import Image8
from ssdir.errors import InputError
from ssdir.inference.arrays import ObjectArrays
from ssdir.inference.exported import ENCODER_OUTPUTS, METADATA_KEY, ExportedModel

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class OnnxEncoder:
    """An encoder that `ssdir export` wrote.

    Attributes:
        exported: what the file says of itself.
        device: where it runs: cpu or cuda.

    Args:
        path: the file.
        device: cpu or cuda; None takes the best that the installed ONNX Runtime has.

    Raises:
        InputError: if ONNX Runtime is not installed, the file is missing, damaged, something else's, or a decoder,
            or the device isn't there.
    """

    def __init__(self, path: str | Path, device: str | None = None) -> None:
        self._session, self.device = _open(Path(path), device)
        header = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if header is None:
            raise InputError(f"'{path}' is an ONNX file that ssdir did not write: make one with ssdir export")
        self.exported = ExportedModel.from_json(header, str(path))
        if self.exported.part != "encoder":
            raise InputError(
                f"'{path}' holds a {self.exported.part}, which finds no objects: export with --part encoder"
            )

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that `labels` index."""
        return self.exported.class_names

    @property
    def image_size(self) -> int:
        """Side of the square that the model sees, in pixels."""
        return self.exported.image_size

    @property
    def latent_dim(self) -> int:
        """Size D of `z_what`."""
        return self.exported.latent_dim

    @property
    def fingerprint(self) -> str:
        """Digest of the weights that were exported; empty in files of an ssdir that didn't write it."""
        return self.exported.fingerprint

    def encode_pixels(self, pixels: Image8, score_threshold: float | None = None) -> ObjectArrays:
        """Finds the objects of images uint8 (B, H, W, 3), RGB, in one go; H and W may be any, and B may be 0."""
        if not len(pixels):
            return ObjectArrays.empty(0)
        feed: dict[str, Any] = {"images": pixels}
        if score_threshold is not None:
            feed["score_threshold"] = np.asarray(score_threshold, dtype=np.float32)
        found = self._session.run(list(ENCODER_OUTPUTS), feed)
        return ObjectArrays(batch_size=len(pixels), **dict(zip(ENCODER_OUTPUTS, found, strict=True)))


def _open(path: Path, device: str | None) -> tuple[Any, str]:
    """An `onnxruntime.InferenceSession`, and the device that was chosen."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError("ONNX Runtime is not installed: pip install 'ssdir[export]'") from None
    if not path.is_file():
        raise InputError(f"'{path}' is a folder, not a file" if path.is_dir() else f"'{path}' does not exist")
    available = [name for name, provider in PROVIDERS.items() if provider in onnxruntime.get_available_providers()]
    chosen = available[0] if device is None else device
    if chosen not in available:
        raise InputError(f"device '{chosen}' is not one that ONNX Runtime has here: {' or '.join(available)}")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # Errors alone: what it fuses or not is no news to a user.
    try:
        return onnxruntime.InferenceSession(path, options, providers=[PROVIDERS[chosen]]), chosen
    except Exception as error:  # ONNX Runtime has an exception of its own for each way of being damaged.
        if type(error).__module__.startswith("onnxruntime"):
            raise InputError(f"'{path}' is damaged or not an ONNX file") from error
        raise
