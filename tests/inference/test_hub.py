"""Models of the Hugging Face Hub are uploaded to, and downloaded from, a folder in place of the Hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from numpy.typing import NDArray

import ssdir
from fake_hub import Hub
from ssdir.errors import InputError
from ssdir.inference.predictor import Predictor


def test_a_pushed_model_is_loaded_back_as_it_was(
    tiny_model_dir: Path, picture: NDArray[np.uint8], hub: Hub
) -> None:
    model = ssdir.load(tiny_model_dir, "cpu")
    model.push_to_hub("ada/tiny")
    folder = hub.folder / "ada" / "tiny"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    card = (folder / "README.md").read_text()
    assert 'ssdir.load("hf://' in card
    assert "library_name: ssdir" in card
    expected = model.encode(picture)
    for loaded in (
        ssdir.load("hf://ada/tiny", "cpu"),
        Predictor.from_pretrained("ada/tiny", revision="v1"),
        Predictor.from_pretrained(folder),
    ):
        objects = loaded.encode(picture)
        assert objects.z_what is not None
        assert expected.z_what is not None
        torch.testing.assert_close(objects.z_what, expected.z_what, rtol=1e-4, atol=1e-5)
    assert [asked["revision"] for asked in hub.asked] == [None, "v1"]
    assert set(hub.asked[0]["allow_patterns"]) == {"README.md", "config.json", "model.safetensors"}


def test_a_saved_model_is_a_model_folder(tiny_model_dir: Path, tmp_path: Path) -> None:
    ssdir.load(tiny_model_dir, "cpu").save_pretrained(tmp_path / "saved")
    assert ssdir.load(tmp_path / "saved", "cpu").class_names == ["cat", "dog", "eel"]


def test_a_missing_hub_is_reported_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="out of reach, and there is no copy in the cache"):
        Predictor.from_pretrained("ada/tiny", cache_dir=tmp_path)
    with pytest.raises(InputError, match="expected hf://USER/NAME"):
        ssdir.load("hf://a/b/c/d")
    with pytest.raises(InputError, match="no model folder 'ada/tiny'"):
        ssdir.load("ada/tiny")  # Without the prefix nobody is asked.


def test_names_that_the_hub_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **options: object) -> None:
        import httpx
        from huggingface_hub.errors import RepositoryNotFoundError

        answer = httpx.Response(404, request=httpx.Request("GET", "https://example.invalid"))
        raise RepositoryNotFoundError("404", response=answer)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(InputError, match="the Hub has no public model 'ada/none'"):
        ssdir.load("hf://ada/none")
