"""Functions that the tests of training share."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssdir.training.recipe import Recipe

SIZE = 64


def changed(recipe: Recipe, stage: str, **values: Any) -> Recipe:
    """Returns the recipe with other values in one of its stages."""
    return recipe.model_copy(update={stage: getattr(recipe, stage).model_copy(update=values)})


def with_detector(recipe: Recipe, **values: Any) -> Recipe:
    """Returns the recipe with other values in the detector's config."""
    detector = recipe.model.ssd.model_copy(update=values)
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"ssd": detector})})


def summary(run: Path, stage: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / stage / "summary.json").read_text())
    return content


def all_finite(tensors: Iterable[Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor.is_floating_point())


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open() as stream:
        return list(csv.DictReader(stream))
