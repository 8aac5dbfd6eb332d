"""The header of a model's folder, and the models inside the package, read without importing torch."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field
from safetensors import safe_open

from ssdir.config import Record, parse
from ssdir.documents import read_json
from ssdir.errors import InputError
from ssdir.formatting import quote
from ssdir.models.sizes import check_class_names

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"

FORMAT = 1

_MAX_CONFIG_BYTES = 1 << 27


class ModelHeader(Record):
    """The content of a model's `config.json`.

    Attributes:
        format: version of the folder's layout.
        model: the model's class.
        description: one line for `ssdir models`.
        class_names: the classes that labels index.
        image_size: side of the square input, in pixels.
        latent_dim: size D of `z_what`; 0 for a detector.
        config: the model's config.
        fingerprint: digest of the weights, see `weights_fingerprint`; None in a folder that was written by hand.
        familiar_error: see `ObjectModel`.
    """

    format: int
    model: str
    description: str = Field("", max_length=10_000)
    class_names: list[str]
    image_size: int
    latent_dim: int
    config: dict[str, Any]
    fingerprint: str | None = None
    familiar_error: float | None = Field(None, gt=0)


@dataclass(frozen=True)
class ModelCard:
    """What `ssdir models` lists of a shipped model; `parameters` is their number, `image_size` is in pixels."""

    name: str
    description: str
    parameters: int
    image_size: int
    latent_dim: int
    classes: list[str]
    path: Path


def shipped_models() -> dict[str, Path]:
    """Folders of the models inside the package, by name."""
    root = Path(str(resources.files("ssdir") / "weights"))
    return {path.name: path for path in sorted(root.glob("*")) if (path / CONFIG_FILE).is_file()}


def model_source(name_or_path: str) -> str:
    """Returns the name that stored files use for a model.

    A shipped model is named by its name, even if a folder has that name too; a folder or file by its absolute
    path; any other name, such as `hf://USER/NAME`, is returned unchanged.
    """
    if name_or_path in shipped_models() or not os.path.exists(name_or_path):
        return name_or_path
    return str(Path(name_or_path).resolve())


def read_header(folder: Path) -> ModelHeader:
    """Reads the config of a model's folder.

    Raises:
        InputError: if the file can't be read, or is not the config of a model of this version.
    """
    path = folder / CONFIG_FILE
    values = read_json(path, _MAX_CONFIG_BYTES)
    if not isinstance(values, dict) or not {"format", "model", "config"} <= values.keys():
        raise InputError(f"'{path}' is not the config of an ssdir model")
    if values["format"] != FORMAT:
        raise InputError(f"'{path}' has format {quote(values['format'])}, this ssdir reads {FORMAT}: update ssdir")
    header = parse(ModelHeader, values, source=f"'{path}'")
    try:
        check_class_names(header.class_names)
    except InputError as error:
        raise InputError(f"'{path}': {error}") from None
    return header


def model_cards() -> list[ModelCard]:
    """Lists the shipped models, from the headers of their files."""
    cards = []
    for name, path in shipped_models().items():
        header = read_header(path)
        cards.append(
            ModelCard(
                name=name,
                description=header.description,
                parameters=_count_weights(path / WEIGHTS_FILE),
                image_size=header.image_size,
                latent_dim=header.latent_dim,
                classes=header.class_names,
                path=path,
            )
        )
    return cards


def _count_weights(file: Path) -> int:
    with safe_open(file, framework="numpy") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
