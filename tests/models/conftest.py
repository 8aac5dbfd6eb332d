"""Fixtures that several tests of models share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file


@pytest.fixture
def network_file(tmp_path: Path) -> Callable[..., str]:
    """Returns a function that writes the weights of one of timm's networks, and returns the file's path."""

    def write(name: str = "test_resnet", suffix: str = ".safetensors", **options: Any) -> str:
        state, path = timm.create_model(name, **options).state_dict(), tmp_path / f"{name}{suffix}"
        if suffix == ".safetensors":
            save_file(state, path)
        else:
            torch.save({"state_dict": state, "epoch": 3}, path)
        return str(path)

    return write
