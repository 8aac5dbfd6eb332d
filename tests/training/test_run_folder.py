"""Damaged files of a run, a full disk and a second process are reported in one sentence each."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from ssdir.documents import parse_yaml, yaml_text
from ssdir.errors import InputError
from ssdir.models.io import load_model, weights_fingerprint
from ssdir.training.fit import train
from ssdir.training.recipe import Recipe, read_recipe
from ssdir.training.run_folder import LOCK, has_ended, read_summary, read_training
from ssdir.training.session import OutOfTime, Session

from .common import changed

DAMAGE: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"ended": tr',
    "a list": b"[1, 2]",
    "a number": b"7",
    "another encoding": "{'ended': 'näher'}".encode("latin-1"),
    "no text": bytes(range(128, 256)),
    "nested too deep": b"[" * 100_000,
    "swapped types": b'{"ended": "yes", "wall_seconds": "1", "fingerprint": 3}',
    "not finite": b'{"ended": true, "wall_seconds": NaN, "fingerprint": null}',
}


@pytest.fixture(scope="module")
def whole(recipe: Recipe, scattered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes a run that has ended after one epoch of the detector alone."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "run"
    train(changed(recipe, "detector", epochs=1), scattered, out, stage="detector")
    return out


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["recipe.yaml", "data.json", "detector/summary.json"])
def test_a_damaged_file_is_one_sentence_that_names_it(
    name: str, damage: str, whole: Path, recipe: Recipe, scattered: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / name).write_bytes(DAMAGE[damage])
    with pytest.raises(InputError) as raised:
        train(changed(recipe, "detector", epochs=1), scattered, out, stage="detector", resume=True)
    text = str(raised.value)
    assert str(out / name) in text
    assert "\n" not in text
    assert len(text) < 400


def test_aliases_that_explode_are_refused(whole: Path, recipe: Recipe, scattered: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    (tmp_path / "run" / "recipe.yaml").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"recipe\.yaml.*aliases stand for more than"):
        train(recipe, scattered, tmp_path / "run", resume=True)


def test_the_record_of_a_training_is_read_from_whole_files_only(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "model").mkdir()
    assert read_training(tmp_path / "run" / "model") is not None
    (tmp_path / "run" / "detector" / "summary.json").write_bytes(b"[]")
    with pytest.raises(InputError, match=r"summary\.json"):
        read_training(tmp_path / "run" / "model")
    with pytest.raises(InputError, match=r"summary\.json"):
        has_ended(tmp_path / "run", "detector")


def test_a_recipe_of_an_earlier_version_can_be_resumed(
    whole: Path, recipe: Recipe, scattered: Path, tmp_path: Path
) -> None:
    """The recipe lacks settings that were added later, which then have their defaults."""
    shutil.copytree(whole, tmp_path / "run")
    file = tmp_path / "run" / "recipe.yaml"
    values = yaml.safe_load(file.read_text())
    del values["detector"]["keep"], values["detector"]["patience"]
    file.write_text(yaml.safe_dump(values))
    train(changed(recipe, "detector", epochs=1), scattered, tmp_path / "run", stage="detector", resume=True)
    with pytest.raises(InputError, match=r"from another recipe .*'detector'"):
        train(changed(recipe, "detector", epochs=2), scattered, tmp_path / "run", stage="detector", resume=True)


def test_a_second_training_in_the_same_folder_is_refused(
    whole: Path, recipe: Recipe, scattered: Path, tmp_path: Path
) -> None:
    shutil.copytree(whole, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    other = changed(recipe, "detector", epochs=1, lr=1e-3)
    hold = f"import filelock, sys\nwith filelock.FileLock({str(tmp_path / 'run' / LOCK)!r}):\n"
    hold += "    print('held', flush=True)\n    sys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        for options in ({"force": True}, {"resume": True}):
            asked = other if "force" in options else changed(recipe, "detector", epochs=1)
            with pytest.raises(InputError, match="is being trained by another process"):
                train(asked, scattered, tmp_path / "run", stage="detector", **options)
        process.communicate("")
    after = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert after == before | {tmp_path / "run" / LOCK: b""}
    train(other, scattered, tmp_path / "run", stage="detector", force=True)


def test_the_folder_is_free_again_after_a_failure(recipe: Recipe, scattered: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(OutOfTime):
        train(recipe, scattered, out, stage="detector", session=Session(deadline=0.0))
    with FileLock(out / LOCK, timeout=0):
        pass


def test_a_stage_that_stops_leaves_no_thread(recipe: Recipe, scattered: Path, tmp_path: Path) -> None:
    before = threading.active_count()
    for _ in range(2):
        with pytest.raises(OutOfTime, match="epochs"):
            train(recipe, scattered, tmp_path / "run", resume=True, session=Session(deadline=0.0))
    assert threading.active_count() == before


def no_space(*args: Any, **options: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def no_permission(*args: Any, **options: Any) -> None:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "somewhere")


@pytest.mark.parametrize(("refuse", "reason"), [(no_space, "the disk is full"), (no_permission, "no permission")])
@pytest.mark.parametrize(
    "writer",
    [
        "ssdir.training.logs.csv.DictWriter.writerows",
        "torch.utils.tensorboard.SummaryWriter.add_scalar",
        "ssdir.outputs._flush",
        "ssdir.models.io.save_file",
    ],
)
def test_a_full_disk_ends_a_run_that_can_be_resumed(
    writer: str,
    refuse: Callable[..., None],
    reason: str,
    whole: Path,
    recipe: Recipe,
    scattered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, short = tmp_path / "run", changed(recipe, "detector", epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(writer, refuse)
        with pytest.raises(InputError, match=reason) as raised:
            train(short, scattered, out, stage="detector")
    assert "\n" not in str(raised.value)
    train(short, scattered, out, stage="detector", resume=True)
    expected = load_model(whole / "detector" / "model").state_dict()
    resumed = load_model(out / "detector" / "model").state_dict()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in expected.items())
    assert read_summary(out, "detector").ended


def test_a_disk_that_is_full_at_the_last_file_leaves_no_half_model(
    whole: Path, recipe: Recipe, scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, short = tmp_path / "run", changed(recipe, "detector", epochs=1)
    write_text = Path.write_text

    def write_half_of_a_config(path: Path, text: str, **options: Any) -> int:
        if not path.name.endswith("config.json"):
            return write_text(path, text, **options)
        write_text(path, text[: len(text) // 2], **options)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", write_half_of_a_config)
        with pytest.raises(InputError, match=r"the disk is full; mend this, and go on with --resume"):
            train(short, scattered, out, stage="detector")
    train(short, scattered, out, stage="detector", resume=True)
    assert weights_fingerprint(load_model(out / "detector" / "model")) == weights_fingerprint(
        load_model(whole / "detector" / "model")
    )


def test_a_folder_that_cannot_be_made_is_one_sentence(
    recipe: Recipe, scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", no_permission)
    with pytest.raises(
        InputError, match=r"training can't write to '.*run': no permission to write \('somewhere'\)"
    ):
        train(recipe, scattered, tmp_path / "run")


@given(
    values=st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1),
        st.text(st.characters(codec="utf-8"))
        | st.integers(-(10**9), 10**9)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.lists(st.sampled_from(["no", "010", "0o7", "1e5", "2020-01-01", "~", "null", "1_000", "0x1F", ".5"])),
    )
)
def test_a_recipes_values_are_read_as_they_were_written(values: dict[str, Any]) -> None:
    for flow in (False, None):
        text = yaml_text(values, flow)
        assert parse_yaml(text, "here") == values
        assert yaml.safe_load(text) == values, "other tools read the same"


@pytest.mark.parametrize(
    "override",
    [
        "seed=4294967296",
        "seed=-1",
        "workers=100000",
        "detector.batch_size=10000000000000000000000",
        "detector.epochs=1e30",
        "detector.epochs=0",
        "detector.weight_decay=.inf",
        "detector.grad_clip=.inf",
        "detector.lr=.nan",
        "augment.flip=2",
        "augment.flip=.nan",
        "min_side=1",
        "min_side=.nan",
        "devices=0",
        "nodes=0",
        "classes={}",
    ],
)
def test_sizes_are_bounded(override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(InputError, match=f"'{key}'"):
        read_recipe("tiny", [override])


def test_the_summary_is_json(whole: Path) -> None:
    content = json.loads((whole / "detector" / "summary.json").read_text())
    assert content["ended"] is True
    assert "kept_epoch" not in content
