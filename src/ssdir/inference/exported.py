"""What an exported model says of itself, written by `ssdir export` and read without torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias

from ssdir.errors import InputError

FORMAT = 1
METADATA_KEY = "ssdir"

Part: TypeAlias = Literal["encoder", "decoder"]

ENCODER_INPUTS = ("images", "score_threshold")
ENCODER_OUTPUTS = (
    "image_index",
    "z_where",
    "scores",
    "labels",
    "z_what",
    "z_what_scale",
    "z_depth",
    "anchor_index",
)
DECODER_INPUTS = ("z_what",)
DECODER_OUTPUTS = ("appearances", "alpha")


@dataclass(frozen=True)
class ExportedModel:
    """Metadata of an exported model.

    Attributes:
        part: `encoder`, images to objects, or `decoder`, codes to appearances.
        kind: the model's class.
        description: one line, as `ssdir models` shows it.
        class_names: what `labels` index.
        image_size: side of the square that images are resized to, in pixels.
        latent_dim: size D of `z_what`.
        score_threshold: least score of an object, where none is given.
        nms_threshold: IoU above which the weaker of two detections goes; 1 where none does.
        max_objects: most objects per image.
        ssdir_version: what wrote the file.
        precision: of the convolutions.
        fingerprint: digest of the model's weights, before they became 8-bit integers; empty where it isn't known.
        format: version of these names.
    """

    part: Part
    kind: str
    description: str
    class_names: list[str]
    image_size: int
    latent_dim: int
    score_threshold: float
    nms_threshold: float
    max_objects: int
    ssdir_version: str
    precision: Literal["float32", "int8"] = "float32"
    fingerprint: str = ""
    format: int = FORMAT

    def to_json(self) -> str:
        """As `from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, source: str) -> ExportedModel:
        """Reads metadata.

        Raises:
            InputError: if it is damaged, or of another format, naming `source`.
        """
        try:
            values: dict[str, Any] = {"fingerprint": "", **json.loads(text)}
            if values["format"] != FORMAT:
                raise InputError(
                    f"'{source}' has format {values['format']}, this ssdir reads {FORMAT}: update ssdir"
                )
            return cls(**{field.name: values[field.name] for field in fields(cls)})
        except (json.JSONDecodeError, KeyError, TypeError):
            raise InputError(f"'{source}' is damaged: its metadata can't be read; export it again") from None
