"""Objects in other storages are read with the same rows, and errors are one sentence."""

from pathlib import Path

import pytest

from command_line import ok, refused
from object_folder import split_into_parts
from ssdir.errors import InputError
from ssdir.storage import Location, join, write_bytes
from ssdir.store.folder import part_name
from ssdir.store.objects_file import find_picture, read_info, read_stored
from storages import use_environment

from .test_folders import COUNTS, write


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write(tmp_path / "whole.parquet", COUNTS)


def copied(folder: Path, to: Location) -> Location:
    for path in folder.rglob("*"):
        if path.is_file():
            write_bytes(join(to, path.relative_to(folder).as_posix()), path.read_bytes())
    return to


def test_a_folder_anywhere_is_read_as_the_file_with_its_rows(
    whole: Path, tmp_path: Path, any_folder: Location
) -> None:
    local = split_into_parts(whole, tmp_path / "objects")
    (local / "_skipped").mkdir()
    (local / "_skipped" / part_name(0)).write_bytes(b"ignored")
    folder = copied(local, any_folder)
    assert read_stored(folder).table.equals(read_stored(whole).table)
    assert read_info(folder).images_without_objects == read_info(whole).images_without_objects
    assert read_stored(join(folder, part_name(0))).table.equals(read_stored(whole).table[:4])
    write_bytes(join(folder, part_name(1)), b"cut short")
    with pytest.raises(InputError, match=r"part-0000001.parquet' is damaged or not a Parquet file"):
        read_info(folder)
    write_bytes(join(folder, "year=2024/a.parquet"), b"")
    with pytest.raises(InputError, match="has a folder 'year=2024' inside"):
        read_info(folder)


@pytest.mark.slow
def test_commands_take_a_uri(whole: Path, tmp_path: Path, s3_bucket: str) -> None:
    folder = copied(split_into_parts(whole, tmp_path / "objects"), f"{s3_bucket}/objects")
    ok("convert", folder, "--to", "parquet", "--out", tmp_path / "joined.parquet")
    assert (tmp_path / "joined.parquet").read_bytes() == whole.read_bytes()
    for command in ("cluster", "outliers"):
        for objects, out in ((whole, f"{command}-1.csv"), (folder, f"{command}-3.csv")):
            ok(
                command,
                objects,
                "--out",
                tmp_path / out,
                *(["--embeddings-only"] if command == "outliers" else []),
            )
        assert (tmp_path / f"{command}-1.csv").read_bytes() == (tmp_path / f"{command}-3.csv").read_bytes()
    ok("index", folder, "--out", tmp_path / "index")


def test_what_can_not_be_read_is_one_sentence(
    whole: Path, tmp_path: Path, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = ("--to", "csv", "--out", tmp_path / "out.csv")
    assert refused("convert", f"{s3_bucket}/nothing", *out) == f"error: '{s3_bucket}/nothing' does not exist"
    assert "does not exist" in refused("convert", "s3://no-such-bucket/objects", *out)
    assert "'nowhere://a' can't be opened" in refused("convert", "nowhere://a", *out)
    use_environment(monkeypatch, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert "no credentials were found" in refused("convert", f"{s3_bucket}/objects", *out)


def test_images_elsewhere_stay_where_they_are(tmp_path: Path) -> None:
    assert find_picture("s3://bucket/a/b.png", ".", beside=tmp_path) == "s3://bucket/a/b.png"
