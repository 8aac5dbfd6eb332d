"""The precision in which a model is trained."""

from __future__ import annotations

from typing import Literal

import torch

from ssdir.models.detected.model import DetectedConfig
from ssdir.ops.precision import multiplies_bf16
from ssdir.training.recipe import Recipe


def trainer_precision(recipe: Recipe) -> Literal["32-true", "bf16-mixed"]:
    """What to ask Lightning's trainer for on this machine.

    SPACE and SPAIR are always trained in single precision: the likelihoods that they compare are of small standard
    deviations, and so large.
    """
    asked = recipe.precision if isinstance(recipe.model, DetectedConfig) else "single"
    if asked == "auto":
        device_type = "cuda" if torch.cuda.is_available() else "cpu"
        asked = "bf16" if multiplies_bf16(device_type) else "single"
    return "bf16-mixed" if asked == "bf16" else "32-true"
