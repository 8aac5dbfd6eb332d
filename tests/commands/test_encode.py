"""Tests of `ssdir encode`."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssdir
from command_line import cut_short, files_in, ok, refused, run
from ssdir.store.objects_file import read_info, read_objects
from ssdir.store.writer import ObjectWriter


def test_encode_is_what_the_library_encodes(tiny_model_dir: Path, photos: Path, out: Path) -> None:
    path = out / "objects.parquet"
    result = ok("encode", tiny_model_dir, photos, "--out", path, "--score-threshold", 0.7, "--batch-size", 2)
    objects, images = read_objects(path)
    assert images == [str(photos / f"{name}.png") for name in "abc"]
    assert objects.counts[0] > 0
    assert objects.counts[1] == 0
    expected = ssdir.load(tiny_model_dir, "cpu").encode(images, 0.7)
    assert objects.counts.tolist() == expected.counts.tolist()
    assert objects.z_what is not None
    assert expected.z_what is not None
    np.testing.assert_allclose(objects.z_what.numpy(), expected.z_what.numpy(), rtol=1e-4, atol=1e-5)
    assert f"3 images, {len(objects)} objects, 0 skipped" in result.stdout
    assert "next: " in result.stdout
    assert read_info(path).model == str(tiny_model_dir.resolve())
    assert files_in(out) == ["objects.parquet"]


def test_images_are_named_so_that_other_folders_find_them(
    tiny_model_dir: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    ok("encode", tiny_model_dir, photos.name, "--out", out / "o.parquet", "--score-threshold", 0.7)
    assert read_objects(out / "o.parquet")[1] == [str(photos / f"{name}.png") for name in "abc"]


def test_a_detector_that_detects_objects_everywhere_gets_a_warning(
    tiny_model_dir: Path, photos: Path, out: Path
) -> None:
    few = ok("encode", tiny_model_dir, photos, "--out", out / "few.parquet", "--score-threshold", 0.7)
    many = ok("encode", "tiny-digits", photos, "--out", out / "many.parquet", "--score-threshold", 0)
    assert "detector" not in few.stderr
    mean = len(read_objects(out / "many.parquet")[0]) / 3
    assert mean > 100
    assert f"{mean:.0f} objects per image on average" in many.stderr
    assert "raise --score-threshold" in many.stderr


def test_encode_skips_names_and_counts(tiny_model_dir: Path, photos: Path, out: Path) -> None:
    cut_short(photos / "c.png")
    result = ok("encode", tiny_model_dir, photos, "--out", out / "o.parquet")
    assert result.stderr.startswith(f"skipped: {photos / 'c.png'}: the image is damaged or cut short")
    assert result.stdout.startswith("2 images, ")
    assert " objects, 1 skipped, " in result.stdout
    assert len(read_objects(out / "o.parquet")[1]) == 2


def test_encode_strict_stops(tiny_model_dir: Path, photos: Path, out: Path) -> None:
    cut_short(photos / "c.png")
    sentence = refused("encode", tiny_model_dir, photos, "--out", out / "o.parquet", "--strict")
    assert sentence.startswith(f"error: {photos / 'c.png'}: the image is damaged or cut short")
    assert not out.exists()


def test_encode_without_any_readable_image(tiny_model_dir: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    result = run("encode", tiny_model_dir, tmp_path / "a.png", "--out", out / "o.parquet")
    assert result.exit_code == 2
    assert "a.png' is not an image in a known format" in result.stderr
    (tmp_path / "b.png").write_text("nor is this")
    result = run("encode", tiny_model_dir, tmp_path, "--out", out / "o.parquet")
    assert "error: none of the 2 images could be read, such as: " in result.stderr
    assert not out.exists()


def test_encode_without_objects(tiny_model_dir: Path, photos: Path, out: Path) -> None:
    result = ok("encode", tiny_model_dir, photos, "--out", out / "o.parquet", "--score-threshold", 1)
    assert "3 images, 0 objects" in result.stdout
    assert "ssdir index" not in result.stdout
    assert "try a lower --score-threshold" in result.stdout
    assert read_objects(out / "o.parquet")[0].batch_size == 3


def test_encode_keeps_an_existing_output(tiny_model_dir: Path, photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    path.write_text("precious")
    assert f"output '{path}' exists already" in refused("encode", tiny_model_dir, photos, "--out", path)
    assert path.read_text() == "precious"
    assert "must end in .parquet" in refused("encode", tiny_model_dir, photos, "--out", tmp_path / "o.csv")
    ok("encode", tiny_model_dir, photos, "--out", path, "--force")
    assert len(read_objects(path)[1]) == 3


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--device", "toaster", "unknown device 'toaster'"),
        ("--device", "cuda:99", "not available"),
    ],
)
def test_encode_bad_options(
    tiny_model_dir: Path, photos: Path, out: Path, option: str, value: str, sentence: str
) -> None:
    command = ["encode", tiny_model_dir, photos, "--out", out / "o.parquet"]
    assert sentence in refused(*command, option, value)
    assert not out.exists()


@pytest.mark.parametrize("command", ["encode", "reconstruct", "evaluate"])
def test_a_threshold_out_of_range_is_refused(command: str, tiny_model_dir: Path, photos: Path, out: Path) -> None:
    sentence = refused(command, tiny_model_dir, photos, "--out", out / "o", "--score-threshold", "1.5")
    assert sentence == "error: --score-threshold must be at most 1, got '1.5'"
    assert not out.exists()


def test_encode_missing_images(tiny_model_dir: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "empty").mkdir()
    command = ["encode", tiny_model_dir, "--out", out / "o.parquet"]
    assert "does not exist" in refused(*command, tmp_path / "nowhere")
    assert "no image" in refused(*command, tmp_path / "empty")
    assert "pattern" in refused(*command, tmp_path / "*.png")
    assert not out.exists()


def break_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"damaged")


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def swap_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model": "Other"}')


def drop_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("harm", [break_weights, break_config, swap_config, drop_weights])
def test_damaged_models(
    tiny_model_dir: Path, photos: Path, tmp_path: Path, out: Path, harm: Callable[[Path], None]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for file in tiny_model_dir.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    harm(folder)
    assert str(folder) in refused("encode", folder, photos, "--out", out / "o.parquet")
    assert not out.exists()


def test_unknown_model(photos: Path, out: Path) -> None:
    assert "no model folder 'nope'" in refused("encode", "nope", photos, "--out", out / "o.parquet")


def test_full_disk(tiny_model_dir: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ObjectWriter, "write", full)
    assert "the disk is full" in refused("encode", tiny_model_dir, photos, "--out", out / "o.parquet")
    assert not out.exists()


def test_interrupted_encode_leaves_nothing(
    tiny_model_dir: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ssdir.encoding import part

    original = part.encode_files

    def interrupted(*args: Any, **options: Any) -> Iterator[Any]:
        yield next(original(*args, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(part, "encode_files", interrupted)
    result = run("encode", tiny_model_dir, photos, "--out", out / "o.parquet", "--batch-size", 1)
    assert result.exit_code == 130
    assert result.stderr.startswith("interrupted")
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_process_leaves_nothing(
    tiny_model_dir: Path, photos: Path, out: Path, stop: signal.Signals
) -> None:
    slow = (
        "import signal, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # A shell's background jobs ignore it.
        "from ssdir.store import writer\n"
        "from ssdir.cli import main\n"
        "def write(*_):\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(2)\n"
        "writer.ObjectWriter.write = write\n"
        "main()"
    )
    command = [sys.executable, "-c", slow, "encode", tiny_model_dir, photos, "--out", out / "o.parquet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        time.sleep(0.1)
        os.kill(process.pid, stop)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == "interrupted: no unfinished output was kept\n"
    assert not out.exists()


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "RuntimeError() from KeyboardInterrupt()"])
def test_stopped_before_the_commands_are_there(error: str) -> None:
    stopped = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(name, *_):\n"
        f"        if name == 'ssdir.cli': raise {error}\n"
        "sys.meta_path.insert(0, Finder)\n"
        "from ssdir.__main__ import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", stopped], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted: no unfinished output was kept\n")


def test_bugs_keep_their_traceback(
    tiny_model_dir: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def buggy(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(ObjectWriter, "write", buggy)
    result = run("encode", tiny_model_dir, photos, "--out", out / "o.parquet")
    assert isinstance(result.exception, RuntimeError)
    assert not out.exists()
