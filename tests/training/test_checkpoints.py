"""Checkpoints are read as written; damaged and foreign ones run no code and are refused in one sentence."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssdir.errors import InputError
from ssdir.training.checkpoints import read_checkpoint, run_key, write_checkpoint
from ssdir.training.fit import train
from ssdir.training.loop import CHECKPOINT
from ssdir.training.recipe import Recipe
from ssdir.training.session import OutOfTime, Session

from .common import changed

SOURCE = Path(__file__).parents[2] / "src" / "ssdir"

plain = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8"))
)
nested = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(st.characters(codec="utf-8")) | st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(values=st.dictionaries(st.text(st.characters(codec="utf-8")), nested, max_size=3))
def test_plain_values_come_back_as_they_were(
    values: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "values.ckpt"
    write_checkpoint(file, values, "key")
    assert repr(read_checkpoint(file, "key")) == repr(values)


def test_tensors_come_back_as_they_were(tmp_path: Path) -> None:
    shared = torch.arange(6.0)
    tensors = {
        "half": torch.tensor([1.5, torch.inf]).half(),
        "bfloat16": torch.ones(2, 3, dtype=torch.bfloat16),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False]),
        "transposed": torch.arange(6).reshape(2, 3).T,
        "shared": [shared, shared[2:]],
    }
    write_checkpoint(tmp_path / "a.ckpt", {0: tensors}, "key")
    read = read_checkpoint(tmp_path / "a.ckpt", "key")[0]
    for name in tensors.keys() - {"shared"}:
        assert read[name].dtype == tensors[name].dtype
        assert torch.equal(read[name], tensors[name]), name
    assert [tensor.tolist() for tensor in read["shared"]] == [[0, 1, 2, 3, 4, 5], [2, 3, 4, 5]]


def test_only_tensors_and_plain_values_are_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"plain values, got a (Posix|Windows)Path"):
        write_checkpoint(tmp_path / "a.ckpt", {"path": tmp_path}, "key")
    assert not (tmp_path / "a.ckpt").exists()


@pytest.fixture(scope="module")
def begun(recipe: Recipe, scattered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a run whose detector has been trained for one epoch of three."""
    out = tmp_path_factory.mktemp("runs") / "begun"
    with pytest.raises(OutOfTime):
        train(recipe, scattered, out, session=Session(deadline=0.0))
    return out


@pytest.fixture
def copied(begun: Path, tmp_path: Path) -> Path:
    out = tmp_path / "run"
    for source in (path for path in begun.rglob("*") if path.is_file()):
        target = out / source.relative_to(begun)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    return out


class Malicious:
    """An object that makes a file when it is unpickled, which is harmless and can be detected."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("save", [torch.save, lambda value, file: file.write_bytes(pickle.dumps(value))])
def test_a_checkpoint_from_somebody_else_runs_no_code(
    save: Callable[[Any, Path], None], copied: Path, recipe: Recipe, scattered: Path, tmp_path: Path
) -> None:
    trap = tmp_path / "executed"
    save({"epoch": 0, "state_dict": Malicious(trap)}, copied / "detector" / CHECKPOINT)
    with pytest.raises(InputError, match=r"last\.ckpt' is not a checkpoint that this version of ssdir wrote"):
        train(recipe, scattered, copied, resume=True)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Malicious(trap)))
    assert trap.exists(), "unpickling would make the file"


def flip(raw: bytes, at: int) -> bytes:
    changed = bytearray(raw)
    changed[at] ^= 1
    return bytes(changed)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda raw: b"", "is not a checkpoint"),
        (lambda raw: b"PK\x03\x04 something else", "is not a checkpoint"),
        (lambda raw: raw[:20], "is cut short or damaged"),
        (lambda raw: raw[: len(raw) // 2], "is cut short or damaged"),
        (lambda raw: raw[:-1], "is cut short or damaged"),
        (lambda raw: raw + b"\0", "is cut short or damaged"),
        (lambda raw: flip(raw, len(raw) // 2), "is cut short or damaged"),
        (lambda raw: flip(raw, 30), "is cut short or damaged"),
    ],
)
def test_a_damaged_checkpoint_is_one_sentence_that_says_what_to_do(
    damage: Callable[[bytes], bytes], sentence: str, copied: Path, recipe: Recipe, scattered: Path
) -> None:
    file = copied / "detector" / CHECKPOINT
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError) as raised:
        train(recipe, scattered, copied, stage="detector", resume=True)
    text = str(raised.value)
    assert sentence in text
    assert "\n" not in text
    advised = re.search(r"delete the folder '(.*)' to train this stage anew with --resume", text)
    assert advised is not None
    assert Path(advised[1]) == copied / "detector"


def test_a_checkpoint_of_another_run_is_refused(
    copied: Path, begun: Path, recipe: Recipe, scattered: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    with pytest.raises(OutOfTime):
        train(changed(recipe, "detector", lr=1e-3), scattered, other, session=Session(deadline=0.0))
    (copied / "detector" / CHECKPOINT).write_bytes((other / "detector" / CHECKPOINT).read_bytes())
    with pytest.raises(InputError, match="is a checkpoint of another run"):
        train(recipe, scattered, copied, resume=True)


def test_what_a_checkpoint_belongs_to(recipe: Recipe) -> None:
    keys = {
        run_key(recipe, "data", "detector"),
        run_key(recipe, "other data", "detector"),
        run_key(recipe, "data", "representation"),
        run_key(recipe.model_copy(update={"seed": 1}), "data", "detector"),
    }
    assert len(keys) == 4
    assert run_key(recipe.model_copy(update={"stage": "detector"}), "data", "detector") in keys


def test_nothing_that_ships_can_unpickle() -> None:
    """`allow_pickle` is False unless given, and torch's own loader is not used at all."""
    unsafe = re.compile(
        r"pickle\.loads?\(|torch\.load\(|allow_pickle=True|joblib|weights_only=False|import pickle"
    )
    unsafe_lines = [
        f"{path.relative_to(SOURCE)}: {line.strip()}"
        for path in sorted(SOURCE.rglob("*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if unsafe.search(line)
    ]
    assert unsafe_lines == []
