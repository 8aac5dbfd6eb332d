"""Loading of a model on its engine: torch or ONNX Runtime."""

from __future__ import annotations

from typing import Any, Literal

from ssdir.errors import InputError
from ssdir.identity import Identity
from ssdir.inference.files import Encoder, Precision
from ssdir.models.shipped import model_source

ONNX_SUFFIX = ".onnx"


def load_encoder(
    model: str,
    engine: Literal["torch", "onnx"] | None = None,
    device: str | None = None,
    precision: Precision | None = None,
) -> Encoder[Any]:
    """Loads a model on an engine.

    Args:
        model: a shipped model's name or a model's folder, for torch; a file of `ssdir export`, for ONNX Runtime.
        engine: None takes the engine that `model` is for.
        device: device to run on; None takes the best available.
        precision: precision of torch's products; an exported file has its own.

    Raises:
        InputError: if there is no such model, it is for the other engine, it can't have the precision, or the
            device is not available.
    """
    is_onnx = model.lower().endswith(ONNX_SUFFIX)
    if (engine or ("onnx" if is_onnx else "torch")) == "onnx":
        if not is_onnx:
            raise InputError(
                f"'{model}' is not an {ONNX_SUFFIX} file, which --engine onnx needs: make one with ssdir export"
            )
        if precision is not None:
            raise InputError(f"'{model}' has the precision in which it was exported: leave out --precision")
        from ssdir.export.runtime import OnnxEncoder

        return OnnxEncoder(model, device)
    if is_onnx:
        raise InputError(f"'{model}' is for ONNX Runtime: leave out --engine torch, or give a model's folder")
    from ssdir.inference.predictor import load

    return load(model, device, precision or "single")


def load_identity(model: str | None) -> Identity | None:
    """Reads the identity of a model; None without a name.

    Raises:
        InputError: as `load_encoder`.
    """
    return None if model is None else Identity.of(model_source(model), load_encoder(model, device="cpu"))
