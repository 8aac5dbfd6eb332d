"""Encoding in parts gives the same rows however often it is stopped, and however the work is divided."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from command_line import files_in, ok, refused
from ssdir import outputs
from ssdir.encoding.encode import encode_images
from ssdir.encoding.job import EncodingJob, alone_in
from ssdir.encoding.options import BoxFile, EncodeOptions
from ssdir.encoding.part import PartEncoder
from ssdir.errors import InputError, InputWarning
from ssdir.store.folder import missing_parts, part_name, read_manifest
from ssdir.store.info import read_info
from ssdir.store.objects_file import read_objects, read_stored
from ssdir.store.skipped import read_skipped
from ssdir.store.writer import ObjectWriter

IN_PARTS = EncodeOptions(batch_size=2, score_threshold=0.7, images_per_part=3)


@pytest.fixture
def images(tmp_path: Path, picture: NDArray[np.uint8]) -> Path:
    """Writes ten images, of which the third has no objects at a threshold of 0.7, and the fifth is damaged."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(10):
        image = np.zeros_like(picture) if number == 2 else np.roll(picture, 3 * number, axis=1)
        Image.fromarray(image).save(folder / f"{number}.png")
    damaged = folder / "4.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    return folder


@pytest.fixture
def undisturbed(tiny_model_dir: Path, images: Path, tmp_path: Path) -> pa.Table:
    return encoded_rows(tiny_model_dir, images, tmp_path / "undisturbed")


def encoded_rows(model: Path, images: Path, out: Path) -> pa.Table:
    encode_images(str(model), [images], out, IN_PARTS)
    return read_stored(out).table


def stop_after(monkeypatch: pytest.MonkeyPatch, parts: int, error: BaseException) -> list[int]:
    """Has encoding stop after some parts; returns the list of those that are encoded, which grows."""
    encode, encoded = PartEncoder.__call__, list[int]()

    def stopping(self: PartEncoder, number: int, *rest: object) -> None:
        if len(encoded) == parts:
            raise error
        encoded.append(number)
        encode(self, number)

    monkeypatch.setattr(PartEncoder, "__call__", stopping)
    return encoded


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_a_folder_has_the_rows_of_a_file(tiny_model_dir: Path, images: Path, out: Path) -> None:
    whole = encode_images(str(tiny_model_dir), [images], out / "o.parquet", IN_PARTS)
    parts = encode_images(str(tiny_model_dir), [images], out / "parts", IN_PARTS)
    visible = [name for name in files_in(out / "parts") if name[0] not in "._"]
    assert visible == [part_name(number) for number in range(4)]
    assert read_stored(out / "o.parquet").table == read_stored(out / "parts").table
    one, several = read_info(out / "o.parquet"), read_info(out / "parts")
    assert (one.identity, one.images_metadata()) == (several.identity, several.images_metadata())
    assert whole == parts
    assert sorted(os.listdir(out)) == ["o.parquet", "parts"]
    assert pq.read_table(out / "parts").num_rows == parts.objects  # as other tools read it


def test_rows_are_those_of_each_image_alone(tiny_model_dir: Path, images: Path, out: Path) -> None:
    import ssdir

    encode_images(str(tiny_model_dir), [images], out, IN_PARTS)
    objects, paths = read_objects(out)
    readable = [images / f"{number}.png" for number in range(10) if number != 4]
    assert paths == [str(path) for path in readable]
    expected = ssdir.load(tiny_model_dir, "cpu").encode(readable, 0.7)
    assert objects.counts.tolist() == expected.counts.tolist()
    assert objects.z_what is not None
    assert expected.z_what is not None
    np.testing.assert_allclose(objects.z_what.numpy(), expected.z_what.numpy(), rtol=1e-4, atol=1e-5)


def test_images_keep_their_numbers_and_skipped_ones_are_rows(
    tiny_model_dir: Path, images: Path, out: Path
) -> None:
    encoded = encode_images(str(tiny_model_dir), [images], out, IN_PARTS)
    table = read_stored(out).table
    named = dict(zip(table["image"].to_pylist(), table["image_index"].to_pylist(), strict=True))
    assert named == {str(images / f"{number}.png"): number for number in range(10) if number not in (2, 4)}
    (skipped,) = read_skipped(out).to_pylist()
    assert (skipped["image_index"], skipped["image"]) == (4, str(images / "4.png"))
    assert encoded.reasons == [skipped["reason"]]
    assert "4.png" in skipped["reason"]
    assert (encoded.images, encoded.skipped_images) == (9, 1)


@pytest.mark.parametrize("name", ["o.parquet", "parts"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("the disk is full")])
def test_a_stopped_encoding_goes_on_where_it_was(
    name: str,
    error: BaseException,
    tiny_model_dir: Path,
    images: Path,
    out: Path,
    undisturbed: pa.Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = out / name
    with monkeypatch.context() as patch:
        stop_after(patch, 2, error)
        with pytest.warns(InputWarning, match="2 of 4 parts are kept"), pytest.raises(type(error)):
            encode_images(str(tiny_model_dir), [images], path, IN_PARTS)
    assert not (out / "o.parquet").exists()
    if name == "parts":
        with pytest.raises(InputError, match="2 of 4 parts"):
            read_info(path)
    encoded = stop_after(monkeypatch, 4, error)
    outcome = encode_images(str(tiny_model_dir), [images], path, IN_PARTS)
    assert encoded == [2, 3]
    assert (outcome.images, outcome.skipped_images) == (9, 1)
    assert read_stored(path).table == undisturbed
    assert os.listdir(out) == [name]


def test_a_complete_folder_is_left_as_it_is(tiny_model_dir: Path, images: Path, out: Path) -> None:
    first = encode_images(str(tiny_model_dir), [images], out, IN_PARTS)
    times = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert encode_images(str(tiny_model_dir), [images], out, IN_PARTS) == first
    assert {path: path.stat().st_mtime_ns for path in out.glob("part-*")} == times


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("model", "by another model"),
        ("images", "of other images \\(10 images, now 11\\)"),
        ("threshold", "with another score threshold"),
        ("order", "of other images \\(10 images, now others or in another order\\)"),
        ("batch", "with another batch size"),
        ("config", "by the same model with another config"),
        ("precision", "with another precision"),
        ("boxes", "of other boxes"),
        ("parts", "in parts of 3 images"),
    ],
)
def test_another_encoding_is_not_overwritten(
    change: str,
    problem: str,
    tiny_model_dir: Path,
    agnostic_model_dir: Path,
    images: Path,
    out: Path,
    picture: NDArray[np.uint8],
    tmp_path: Path,
) -> None:
    before = encoded_rows(tiny_model_dir, images, out)
    model, options, boxes = tiny_model_dir, IN_PARTS, None
    paths: list[str | Path] = [images]
    if change == "order":
        paths = [images / f"{number}.png" for number in reversed(range(10))]
    elif change == "batch":
        options = replace(IN_PARTS, batch_size=3)
    elif change == "precision":
        options = replace(IN_PARTS, precision="bf16")
    elif change == "boxes":
        (tmp_path / "boxes.csv").write_text("image,x1,y1,x2,y2\n0.png,0,0,9,9\n")
        boxes, options = BoxFile(tmp_path / "boxes.csv"), replace(IN_PARTS, score_threshold=None)
    elif change == "config":
        model = Path(shutil.copytree(model, tmp_path / "model"))
        config = json.loads((model / "config.json").read_text())
        config["config"]["ssd"]["nms_threshold"] = 0.1
        (model / "config.json").write_text(json.dumps(config))
    elif change == "model":
        model = agnostic_model_dir
    elif change == "images":
        Image.fromarray(picture).save(images / "new.png")
    elif change == "threshold":
        options = replace(IN_PARTS, score_threshold=0.5)
    else:
        options = replace(IN_PARTS, images_per_part=4)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".* are kept")  # Nothing goes on from them.
        with pytest.raises(InputError, match=problem):
            encode_images(str(model), paths, out, options, boxes)
    assert read_stored(out).table == before
    encode_images(str(model), paths, out, options, boxes, force=True)
    assert read_stored(out).table != before or change == "parts"


def test_a_refused_command_leaves_what_another_has_just_begun(
    tiny_model_dir: Path, images: Path, out: Path, undisturbed: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    def after_another(*arguments: Any, **options: Any) -> Any:
        patch.undo()
        with monkeypatch.context() as stopping:
            stop_after(stopping, 0, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                encode_images(str(tiny_model_dir), [images], out, IN_PARTS)
        return alone_in(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr("ssdir.encoding.encode.alone_in", after_another)
        with pytest.raises(InputError, match="with another score threshold"):
            encode_images(str(tiny_model_dir), [images], out, replace(IN_PARTS, score_threshold=0.5))
    assert read_manifest(out) is not None
    assert encoded_rows(tiny_model_dir, images, out) == undisturbed


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("the disk is full")])
def test_nothing_is_left_of_what_was_not_begun(
    error: BaseException, tiny_model_dir: Path, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_after(monkeypatch, 0, error)
    with pytest.raises(type(error)):
        encode_images(str(tiny_model_dir), [images], out / "deep" / "o.parquet", IN_PARTS)
    monkeypatch.setattr("ssdir.encoding.job.write_manifest", raising(error))
    with pytest.raises(type(error)):
        encode_images(str(tiny_model_dir), [images], out / "deep" / "parts", IN_PARTS)
    assert not out.exists()


def test_parts_of_another_encoding_are_refused(
    tiny_model_dir: Path, images: Path, out: Path, undisturbed: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoding with another threshold writes a part into the folder of one that has begun anew."""
    lower = replace(IN_PARTS, score_threshold=0.5)
    encode_images(str(tiny_model_dir), [images], out, lower)
    manifest = read_manifest(out)
    assert manifest is not None
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        with pytest.warns(InputWarning, match="are kept"), pytest.raises(KeyboardInterrupt):
            encode_images(str(tiny_model_dir), [images], out, IN_PARTS, force=True)
    PartEncoder(EncodingJob(out, manifest, lower))(2)
    with pytest.raises(InputError, match=r"part-0000002.* is a part of another encoding .*: delete it"):
        encode_images(str(tiny_model_dir), [images], out, IN_PARTS)
    (out / part_name(2)).unlink()
    assert encoded_rows(tiny_model_dir, images, out) == undisturbed


def test_the_model_may_move(
    tiny_model_dir: Path, images: Path, out: Path, undisturbed: pa.Table, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    encode_images(str(model), [images], out, IN_PARTS)
    (out / part_name(2)).unlink()
    assert encoded_rows(model.rename(tmp_path / "moved"), images, out) == undisturbed
    assert read_info(out / part_name(2)).model == str(tmp_path / "moved")


@pytest.mark.parametrize("name", ["o.parquet", "parts"])
def test_force_begins_anew(
    name: str, tiny_model_dir: Path, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that have changed since a part of them was written are encoded as they are now."""
    path = out / name
    encode_images(str(tiny_model_dir), [images], path, IN_PARTS)
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        with pytest.warns(InputWarning, match=r"without --force.* goes on"), pytest.raises(KeyboardInterrupt):
            encode_images(str(tiny_model_dir), [images], path, IN_PARTS, force=True)
    (images / "0.png").write_bytes((images / "2.png").read_bytes())
    encode_images(str(tiny_model_dir), [images], path, IN_PARTS, force=True)
    assert str(images / "0.png") not in read_stored(path).table["image"].to_pylist()
    assert os.listdir(out) == [name]


def test_force_removes_nothing_else(tiny_model_dir: Path, images: Path, out: Path, undisturbed: pa.Table) -> None:
    encode_images(str(tiny_model_dir), [images], out, IN_PARTS)
    link = out.with_name("link")
    link.symlink_to(out, target_is_directory=True)
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="does not exist"):
        encode_images(str(tiny_model_dir), [images / "typo"], link, IN_PARTS, force=True)
    damaged = images.with_name("list.txt")
    damaged.write_text(f"{images}/0.png\n\0\n")
    with pytest.raises(InputError, match=r"not UTF-8 text \(line 2\)"):
        encode_images(str(tiny_model_dir), [damaged], link, IN_PARTS, force=True)
    assert read_stored(out).table == undisturbed
    encode_images(str(tiny_model_dir), [images / "0.png"], link, IN_PARTS, force=True)
    assert read_info(link).images_seen == 1
    assert (out / "thesis.txt").read_text() == "years of work"


def test_what_a_killed_process_has_left_does_not_block_the_folder(
    tiny_model_dir: Path, images: Path, out: Path, undisturbed: pa.Table
) -> None:
    out.mkdir()
    (out / ".0123abcd-_encoding.json").write_text("{")
    assert encoded_rows(tiny_model_dir, images, out) == undisturbed
    assert ".0123abcd-_encoding.json" not in files_in(out)


@pytest.mark.skipif(sys.platform == "win32", reason="locks files in another way")
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks(
    code: int,
    tiny_model_dir: Path,
    images: Path,
    out: Path,
    undisturbed: pa.Table,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_lock(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", no_lock)
    assert encoded_rows(tiny_model_dir, images, out) == undisturbed


def test_a_part_that_is_there_is_not_encoded_again(tiny_model_dir: Path, images: Path, out: Path) -> None:
    encode_images(str(tiny_model_dir), [images], out, IN_PARTS)
    manifest = read_manifest(out)
    assert manifest is not None
    before = (out / part_name(1)).stat()
    PartEncoder(EncodingJob(out, manifest, IN_PARTS))(1)
    assert (out / part_name(1)).stat() == before


def test_an_equal_command_may_finish_the_folder_first(
    tiny_model_dir: Path, images: Path, out: Path, undisturbed: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode_images(str(tiny_model_dir), [images], out, IN_PARTS)
    (out / part_name(3)).rename(out / "written meanwhile")
    write = ObjectWriter.__exit__

    def end(self: ObjectWriter, *error: Any) -> None:
        write(self, *error)
        (out / "written meanwhile").rename(out / part_name(3))
        for unfinished in out.glob(".*-part-*"):
            unfinished.unlink()

    monkeypatch.setattr(ObjectWriter, "__exit__", end)
    assert encoded_rows(tiny_model_dir, images, out) == undisturbed


def test_an_image_that_is_mended_is_no_longer_skipped(
    tiny_model_dir: Path, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the part of the damaged image is written."""
    with monkeypatch.context() as patch:
        patch.setattr("ssdir.outputs._put_file", full_disk_for(part_name(1)))
        with pytest.warns(InputWarning, match="1 of 4 parts"), pytest.raises(InputError, match="the disk is full"):
            encode_images(str(tiny_model_dir), [images], out, IN_PARTS)
    assert len(read_skipped(out)) == 1
    (images / "4.png").write_bytes((images / "3.png").read_bytes())
    encode_images(str(tiny_model_dir), [images], out, IN_PARTS)
    assert len(read_skipped(out)) == 0


def full_disk_for(name: str) -> Callable[..., None]:
    put = outputs._put_file

    def put_file(new: Path, target: Path, *rest: Any) -> None:
        if target.parent.name != "_skipped" and target.name == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(new, target, *rest)

    return put_file


def test_another_model_in_the_place_of_the_one_that_began(
    tiny_model_dir: Path, agnostic_model_dir: Path, images: Path, out: Path
) -> None:
    encode_images(str(tiny_model_dir), [images], out, IN_PARTS)
    manifest = read_manifest(out)
    assert manifest is not None
    moved = manifest.model_copy(update={"model": str(agnostic_model_dir)})
    with pytest.raises(InputError, match=r"is not the model of .* any more"):
        PartEncoder(EncodingJob(out, moved, IN_PARTS))


def test_a_strict_encoding_goes_on_when_the_image_is_mended(
    tiny_model_dir: Path, images: Path, out: Path, undisturbed: pa.Table
) -> None:
    strict, path = replace(IN_PARTS, strict=True), out / "o.parquet"
    with pytest.warns(InputWarning, match="1 of 4 parts are kept"), pytest.raises(InputError, match=r"4\.png"):
        encode_images(str(tiny_model_dir), [images], path, strict)
    (images / "4.png").write_bytes((images / "3.png").read_bytes())
    encode_images(str(tiny_model_dir), [images], path, strict)
    table = read_stored(path).table
    columns = ["image", "image_index", "label", "anchor_index"]  # The rest depends on who shares its batch.
    assert table.filter(pc.not_equal(table["image_index"], 4)).select(columns) == undisturbed.select(columns)
    assert table.num_rows > undisturbed.num_rows


@pytest.mark.parametrize("name", ["o.parquet", "parts"])
def test_a_strict_encoding_does_not_go_on_from_skipped_images(
    name: str, tiny_model_dir: Path, images: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = replace(IN_PARTS, strict=True)
    with monkeypatch.context() as patch:
        stop_after(patch, 2, KeyboardInterrupt())
        with pytest.warns(InputWarning, match="2 of 4 parts are kept"), pytest.raises(KeyboardInterrupt):
            encode_images(str(tiny_model_dir), [images], out / name, IN_PARTS)
    with pytest.raises(InputError, match=r"4\.png.* \(skipped by an earlier command without --strict"):
        encode_images(str(tiny_model_dir), [images], out / name, strict)
    (images / "4.png").write_bytes((images / "3.png").read_bytes())
    encoded = encode_images(str(tiny_model_dir), [images], out / name, strict, force=True)
    assert (encoded.images, encoded.skipped_images) == (10, 0)


def test_shares_make_up_the_whole(tiny_model_dir: Path, images: Path, out: Path, undisturbed: pa.Table) -> None:
    objects = 0
    for number, left, seen, skipped in ((2, 3, 2, 1), (1, 1, 4, 0), (3, 0, 3, 0)):
        share = replace(IN_PARTS, share=(number, 3))
        encoded = encode_images(str(tiny_model_dir), [images], out, share)
        assert encoded.missing_parts == left
        assert (encoded.images, encoded.skipped_images, len(encoded.reasons)) == (seen, skipped, skipped)
        objects += encoded.objects
    assert read_stored(out).table == undisturbed
    assert objects == undisturbed.num_rows


def test_a_folder_of_something_else_is_refused(tiny_model_dir: Path, images: Path, out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(InputError, match=r"holds files that are no encoding, such as 'thesis\.txt'"):
            encode_images(str(tiny_model_dir), [images], out, IN_PARTS, force=force)
    assert files_in(out) == ["thesis.txt"]


def test_nothing_is_left_where_no_image_can_be_read(tiny_model_dir: Path, tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for number in range(7):
        (folder / f"{number}.png").write_bytes(b"no picture")
    for name in ("o.parquet", "parts"):
        with pytest.raises(InputError, match="none of the 7 images could be read, such as"):
            encode_images(str(tiny_model_dir), [folder], out / name, IN_PARTS)
        assert not out.exists() or not files_in(out)


@pytest.mark.skipif(sys.platform != "linux", reason="other file systems have names in Unicode only")
def test_names_that_are_no_text(
    tiny_model_dir: Path, tmp_path: Path, picture: NDArray[np.uint8], out: Path
) -> None:
    name = os.fsdecode(b"\xff.png")
    (tmp_path / "odd").mkdir()
    Image.fromarray(picture).save(tmp_path / "odd" / "a.png")
    (tmp_path / "odd" / "a.png").rename(tmp_path / "odd" / name)
    assert encode_images(str(tiny_model_dir), [tmp_path / "odd"], out, IN_PARTS).images == 1


def test_two_processes_do_not_write_one_file(tiny_model_dir: Path, images: Path, out: Path) -> None:
    from filelock import FileLock

    folder = out / ".o.parquet.parts"
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"), pytest.raises(InputError, match="is being written by another process"):
        encode_images(str(tiny_model_dir), [images], out / "o.parquet", IN_PARTS)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_killed_process_loses_nothing(
    tiny_model_dir: Path, images: Path, out: Path, undisturbed: pa.Table
) -> None:
    slow = (
        "import time\n"
        "from ssdir.encoding.part import PartEncoder\n"
        "encode = PartEncoder.__call__\n"
        "def slowly(*arguments):\n"
        "    summary = encode(*arguments)\n"
        "    print('written', flush=True)\n"
        "    time.sleep(1)\n"
        "    return summary\n"
        "PartEncoder.__call__ = slowly\n"
        "from ssdir.cli import main\n"
        "main()"
    )
    options = ["--out", out, "--batch-size", 2, "--score-threshold", 0.7, "--images-per-part", 3]
    arguments = [str(argument) for argument in ("encode", tiny_model_dir, images, *options)]
    with subprocess.Popen([sys.executable, "-c", slow, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGKILL)
    manifest = read_manifest(out)
    assert manifest is not None
    assert 1 <= len(missing_parts(out, manifest)) <= 3
    stale = out / f".0123abcd-{part_name(3)}"
    stale.write_bytes(b"what a killed process has left")
    ok(*arguments)
    assert read_stored(out).table == undisturbed
    assert not stale.exists()


def test_commands_say_what_goes_on(tiny_model_dir: Path, images: Path, out: Path) -> None:
    common = ["--batch-size", 2, "--score-threshold", 0.7, "--images-per-part", 3]
    share = ok("encode", tiny_model_dir, images, "--out", out, *common, "--share", "1/2")
    assert "2 parts of other shares are missing" in share.stdout
    done = ok("encode", tiny_model_dir, images, "--out", out, *common, "--share", "2/2")
    assert "skipped: " in done.stderr
    assert "next: ssdir index" in done.stdout
    assert "there is no share 3/2" in refused("encode", tiny_model_dir, images, "--out", out, "--share", "3/2")
    assert "must look like 3/8" in refused("encode", tiny_model_dir, images, "--out", out, "--share", "half")
    assert "leave out .parquet" in refused(
        "encode", tiny_model_dir, images, "--out", out / "o.parquet", "--share", "1/2"
    )
    assert "for --engine ray" in refused("encode", tiny_model_dir, images, "--out", out, "--workers", 2)
