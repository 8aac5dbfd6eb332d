"""Metadata of exported models, written by `ssdir export` and read without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from ssdir.config import Record, parse
from ssdir.data.letterbox import Resize
from ssdir.documents import json_text, parse_json
from ssdir.errors import InputError
from ssdir.formatting import quote
from ssdir.identity import MAX_LATENT_DIM, ClassNames, Fingerprint

FORMAT = 1
METADATA_KEY = "ssdir"
CHECKSUM_KEY = "ssdir.sha256"
"""Key of the SHA-256 of an ONNX file, computed with `NO_CHECKSUM` in its place."""
NO_CHECKSUM = "0" * 64

# The bytes before the checksum, which has 64 bytes, as protocol buffers write them.
_BEFORE_CHECKSUM = CHECKSUM_KEY.encode() + b"\x12\x40"

Part: TypeAlias = Literal["encoder", "decoder"]
Share = Annotated[float, Field(ge=0, le=1)]

# Type and number of dimensions of inputs and outputs.
ENCODER_INPUTS = {"images": ("uint8", 4), "score_threshold": ("float", 0)}
DETECTOR_OUTPUTS = {
    "image_index": ("int64", 1),
    "z_where": ("float", 2),
    "scores": ("float", 1),
    "labels": ("int64", 1),
    "anchor_index": ("int64", 1),
}
ENCODER_OUTPUTS = {
    **DETECTOR_OUTPUTS,
    "z_what": ("float", 2),
    "z_what_scale": ("float", 2),
    "z_depth": ("float", 1),
}
DECODER_INPUTS = ("z_what",)
DECODER_OUTPUTS = ("appearances", "alpha")


def write_checksum(path: Path) -> None:
    """Replaces `NO_CHECKSUM` in the metadata of an ONNX file by its SHA-256."""
    raw = path.read_bytes()
    path.write_bytes(raw.replace(_BEFORE_CHECKSUM + NO_CHECKSUM.encode(), _BEFORE_CHECKSUM + _digest(raw)))


def is_unchanged(path: Path, checksum: str) -> bool:
    """Returns whether an ONNX file is as `write_checksum` wrote it."""
    value = checksum.encode("utf-8", "replace")
    raw = path.read_bytes().replace(_BEFORE_CHECKSUM + value, _BEFORE_CHECKSUM + NO_CHECKSUM.encode())
    return _digest(raw) == value


def _digest(raw: bytes) -> bytes:
    return hashlib.sha256(raw).hexdigest().encode()


class ExportedModel(Record):
    """Metadata of an exported model.

    Attributes:
        part: `encoder`, images to objects, or `decoder`, embeddings to appearances.
        kind: the model's class.
        description: one line, as `ssdir models` shows it.
        class_names: the classes that `labels` index.
        image_size: side of the square that images are resized to, in pixels.
        resize: `stretch`, or `letterbox`, which keeps proportions and pads images at the right or bottom.
        latent_dim: size D of `z_what`; 0 for a detector, whose objects have none.
        score_threshold: minimum score of an object, where none is given.
        nms_threshold: IoU above which the weaker of two detections is suppressed; 1 without suppression.
        max_objects: maximum number of objects per image.
        ssdir_version: version that wrote the file.
        precision: precision of the convolutions.
        fingerprint: digest of the model's weights before quantisation.
        format: version of this metadata.
    """

    part: Part
    kind: str
    description: str
    class_names: ClassNames
    image_size: Annotated[int, Field(ge=1, le=8192)]
    resize: Resize = "stretch"
    latent_dim: Annotated[int, Field(ge=0, le=MAX_LATENT_DIM)]
    score_threshold: Share
    nms_threshold: Share
    max_objects: Annotated[int, Field(ge=1, le=1_000_000)]
    ssdir_version: str
    precision: Literal["float32", "int8"] = "float32"
    fingerprint: Fingerprint
    format: int = FORMAT

    @property
    def encoder_outputs(self) -> dict[str, tuple[str, int]]:
        """Type and number of dimensions of the encoder's outputs, by field of `Objects`."""
        return ENCODER_OUTPUTS if self.latent_dim else DETECTOR_OUTPUTS

    def to_json(self) -> str:
        """Formats the metadata as JSON, for `from_json`."""
        return json_text(self.model_dump(), None)

    @classmethod
    def from_json(cls, text: str, source: str) -> ExportedModel:
        """Reads metadata.

        Raises:
            InputError: if it is damaged, or of another format, naming `source`.
        """
        where = f"'{source}' is damaged: export it again; its metadata"
        values = parse_json(text, where)
        if isinstance(values, Mapping) and values.get("format", FORMAT) != FORMAT:
            raise InputError(
                f"'{source}' has format {quote(values['format'])}, this ssdir reads {FORMAT}: update ssdir"
            )
        return parse(cls, values, source=where)
