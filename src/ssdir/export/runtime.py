"""Runs exported encoders on ONNX Runtime, without torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ssdir.data.images import Image8
from ssdir.data.letterbox import Resize
from ssdir.errors import InputError, InputWarning
from ssdir.export.metadata import (
    CHECKSUM_KEY,
    ENCODER_INPUTS,
    METADATA_KEY,
    ExportedModel,
    is_unchanged,
)
from ssdir.formatting import alternatives, printable
from ssdir.object_arrays import ObjectArrays

MAX_BYTES = 1 << 34
"""Maximum memory of graphs on the CPU: a damaged one may ask for any amount."""

Outputs: TypeAlias = Mapping[str, tuple[str, int]]

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class OnnxEncoder:
    """An encoder that `ssdir export` wrote.

    Attributes:
        exported: the file's metadata.
        device: cpu or cuda.

    Args:
        path: the file.
        device: cpu or cuda; None takes the best that the installed ONNX Runtime has.

    Raises:
        InputError: if ONNX Runtime is not installed, the file is missing, damaged, something else's, or a decoder,
            or the device is not available. Nothing in the file is run before that is checked. A file that has
            changed since it was written is an `InputWarning`.
    """

    def __init__(self, path: str | Path, device: str | None = None) -> None:
        self.path = Path(path)
        self._session, self.device = _open(self.path, device)
        try:
            about = self._session.get_modelmeta().custom_metadata_map
            header = about.get(METADATA_KEY)
            if header is None:
                raise InputError(f"'{path}' is an ONNX file that ssdir did not write: make one with ssdir export")
            self.exported = ExportedModel.from_json(header, str(path))
            if self.exported.part != "encoder":
                raise InputError(
                    f"'{path}' holds a {self.exported.part}, which encodes no images: export with --part encoder"
                )
            _check_signature(self._session, self.exported.encoder_outputs, path)
            if not is_unchanged(self.path, about.get(CHECKSUM_KEY, "")):
                message = f"'{path}' has changed since ssdir export wrote it: its embeddings may be wrong"
                warnings.warn(message, InputWarning, stacklevel=2)
        except UnicodeDecodeError:
            raise InputError(f"'{path}' is damaged: its metadata is not UTF-8 text; export it again") from None

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that `labels` index."""
        return self.exported.class_names

    @property
    def image_size(self) -> int:
        """Side of the model's square input, in pixels."""
        return self.exported.image_size

    @property
    def resize(self) -> Resize:
        """How images become square."""
        return self.exported.resize

    @property
    def latent_dim(self) -> int:
        """Size D of `z_what`; 0 for a detector, whose objects have none."""
        return self.exported.latent_dim

    @property
    def device_name(self) -> str:
        """The kind of device that it runs on."""
        return self.device

    @property
    def fingerprint(self) -> str:
        """Digest of the weights that were exported."""
        return self.exported.fingerprint

    def encode_pixels(self, pixels: Image8, score_threshold: float | None = None) -> ObjectArrays:
        """Encodes images uint8 (B, H, W, 3), RGB, as one batch; H and W may be any, and B may be 0.

        The file resizes them as `resize` says. Boxes are relative to the images as given.

        Raises:
            InputError: if the file can't be run, or its outputs are not those of an encoder, such as NaN.
        """
        if not len(pixels):
            return ObjectArrays.empty(0)
        feed: dict[str, Any] = {"images": pixels}
        outputs = self.exported.encoder_outputs
        if score_threshold is not None:
            feed["score_threshold"] = np.asarray(score_threshold, dtype=np.float32)
        try:
            arrays = self._session.run(list(outputs), feed)
        except _errors() as error:
            raise InputError(f"'{self.path}' can't be run: {_reason(error)}") from error
        if wrong := _wrong_dtype(arrays, outputs):
            raise InputError(f"'{self.path}' gave wrong objects: {wrong}")
        objects = ObjectArrays(batch_size=len(pixels), **dict(zip(outputs, arrays, strict=True)))
        if problem := objects.problem(len(self.class_names), self.latent_dim):
            raise InputError(f"'{self.path}' gave wrong objects: {problem}; export the model again")
        return objects


def _open(path: Path, device: str | None) -> tuple[Any, str]:
    """Opens an `onnxruntime.InferenceSession`, and returns it with the chosen device."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError("ONNX Runtime is not installed: pip install 'ssdir[export]'") from None
    if not path.is_file():
        raise InputError(f"'{path}' is a folder, not a file" if path.is_dir() else f"'{path}' does not exist")
    available = [name for name, provider in PROVIDERS.items() if provider in onnxruntime.get_available_providers()]
    chosen = available[0] if device is None else device
    if chosen not in available:
        extra = ", or install onnxruntime-gpu in place of onnxruntime" if chosen.startswith("cuda") else ""
        usable = alternatives(available)
        raise InputError(f"device '{chosen}' is not available to ONNX Runtime: use {usable}{extra}")
    options = onnxruntime.SessionOptions()
    _limit_memory()
    options.add_session_config_entry("session.use_env_allocators", "1")
    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        options.intra_op_num_threads = int(threads)  # ONNX Runtime takes all cores, whatever this variable says.
    options.log_severity_level = 4  # Errors become one sentence, from their exception.
    try:
        # The fallback of ONNX Runtime prints, and runs on another device than the requested one.
        session = onnxruntime.InferenceSession(path, options, providers=[PROVIDERS[chosen]], enable_fallback=0)
    except _errors() as error:
        raise InputError(f"'{path}' is damaged or not an ONNX file ({_reason(error)})") from error
    # Where the libraries of CUDA or a GPU are missing, ONNX Runtime takes the CPU in silence.
    if PROVIDERS[chosen] not in session.get_providers():
        if device is not None:
            raise InputError(
                f"ONNX Runtime can't use the device '{chosen}': use cpu, or install what it lacks (a driver, or "
                "the CUDA and cuDNN that onnxruntime-gpu was built for)"
            )
        chosen = "cpu"
    return session, chosen


@cache
def _limit_memory() -> None:
    """Makes the sessions of this process share one allocator on the CPU, which refuses more than `MAX_BYTES`."""
    import onnxruntime as ort

    defaults = ("initial_chunk_size_bytes", "max_dead_bytes_per_chunk", "initial_growth_chunk_size_bytes")
    settings = ort.OrtArenaCfg({"max_mem": MAX_BYTES, "arena_extend_strategy": -1, **dict.fromkeys(defaults, -1)})
    kind = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(kind, settings)


def _errors() -> tuple[type[Exception], ...]:
    """Lists ONNX Runtime's exceptions, which have no common base, and that of a damaged name in a message."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*own, UnicodeDecodeError)


def _reason(error: Exception) -> str:
    """Returns ONNX Runtime's message without its prefix of a code and a place in its source."""
    line = str(error).strip().splitlines()[0]
    message = line.rpartition("Status Message: ")[2] if "Status Message: " in line else line.rpartition(" : ")[2]
    return printable(message.rpartition(") ")[2] if message.startswith("/") else message)[:160]


def _check_signature(session: Any, outputs: Outputs, path: str | Path) -> None:
    """Checks the names, types and dimensions of inputs and outputs, so that a foreign graph is never run."""
    given = {value.name: value for value in (*session.get_inputs(), *session.get_overridable_initializers())}
    required = {value.name for value in session.get_inputs()}
    made = {value.name: value for value in session.get_outputs()}
    for what, values, expected in (("inputs", given, ENCODER_INPUTS), ("outputs", made, outputs)):
        if set(values) != set(expected):
            names = ", ".join(sorted(map(printable, values)))[:160] or "none"
            raise InputError(
                f"'{path}' is no encoder of ssdir: its {what} are {names}; expected {', '.join(expected)}"
            )
        for name, (dtype, dims) in expected.items():
            shape = values[name].shape
            if values[name].type != f"tensor({dtype})" or (shape and len(shape) != dims):
                raise InputError(
                    f"'{path}' is no encoder of ssdir: {name} is {values[name].type} with {len(shape)} "
                    f"dimensions, expected tensor({dtype}) with {dims}"
                )
    if "score_threshold" in required:
        raise InputError(f"'{path}' is no encoder of ssdir: score_threshold has no default")


def _wrong_dtype(arrays: list[Any], outputs: Outputs) -> str | None:
    """Names the first output that is not the array that the file declares, as the end of a sentence."""
    for values, (name, (dtype, dims)) in zip(arrays, outputs.items(), strict=True):
        wanted = np.dtype("float32" if dtype == "float" else dtype)
        if not isinstance(values, np.ndarray) or values.dtype != wanted or values.ndim != dims:
            return f"{name} is no {wanted} array with {dims} dimensions"
    return None
