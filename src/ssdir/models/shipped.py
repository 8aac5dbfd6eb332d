"""The models inside the package: where and what they are, told without torch, which takes seconds to import."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from safetensors import safe_open

WEIGHTS_FILE, CONFIG_FILE = "model.safetensors", "config.json"


@dataclass(frozen=True)
class ModelCard:
    """What `ssdir models` shows of a shipped model."""

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


def list_models() -> list[ModelCard]:
    """What ships, from the headers of its files."""
    cards = []
    for name, path in shipped_models().items():
        header = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
        cards.append(
            ModelCard(
                name=name,
                description=header["description"],
                parameters=_count_weights(path / WEIGHTS_FILE),
                image_size=header["image_size"],
                latent_dim=header["latent_dim"],
                classes=header["class_names"],
                path=path,
            )
        )
    return cards


def _count_weights(file: Path) -> int:
    with safe_open(file, framework="numpy") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
