"""The models and presets that ship with ssdir, in one list, read without importing torch."""

from __future__ import annotations

from dataclasses import dataclass

from ssdir.config import preset_purpose, presets, read_values
from ssdir.models.shipped import model_cards


@dataclass(frozen=True)
class ModelEntry:
    """A shipped model or a preset.

    Attributes:
        name: name for `ssdir.load` if it is trained, else for `ssdir train`.
        description: its purpose, in one line.
        image_size: side of the square that images are resized to, in pixels.
        trained: whether it is a trained model; a preset is the recipe of a training.
    """

    name: str
    description: str
    image_size: int
    trained: bool


def list_models() -> list[ModelEntry]:
    """Lists the trained models that ship, then the presets; a name may be both."""
    trained = [ModelEntry(card.name, card.description, card.image_size, True) for card in model_cards()]
    return trained + [ModelEntry(name, preset_purpose(name), _image_size(name), False) for name in presets()]


def _image_size(preset: str) -> int:
    model = read_values(preset)["model"]
    return int(model.get("image_size") or model["ssd"]["image_size"])
