"""Tests of indexes in object storage, on an S3 server in this process."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ssdir.analysis.search.index as index_module
import ssdir.analysis.search.plan as plan_module
from command_line import ok, run
from ssdir.analysis.search import ObjectFilter, ObjectIndex
from ssdir.analysis.search.remote import RemoteFolder
from ssdir.errors import InputError
from ssdir.storage import filesystem_of, read_bytes, write_bytes
from storages import use_environment

from .conftest import DIM, MakeObjects


def names_in(folder: str) -> set[str]:
    """Returns the names directly below a URI."""
    filesystem, path = filesystem_of(folder)
    return {name.rpartition("/")[2] for name in filesystem.ls(path, detail=False)}


def test_an_index_in_object_storage_answers_as_a_local_one(
    make_objects: MakeObjects, tmp_path: Path, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_module, "EXACT_UP_TO", 500)
    monkeypatch.setattr(plan_module, "WHOLE_UP_TO", 500)
    monkeypatch.setattr(plan_module, "ROWS_PER_PARTITION", 100)
    one, other = make_objects(count=1000), make_objects("other.parquet", count=300, seed=1)
    remote, local = (ObjectIndex.create(place, [one]) for place in (f"{s3_bucket}/index", tmp_path / "index"))
    for index in (remote, local):
        index.add([other])
    opened = ObjectIndex.open(f"{s3_bucket}/index/")
    assert len(remote) == len(opened) == len(local) == 1300
    queries = np.random.default_rng(1).normal(size=(5, DIM))
    for where in (None, ObjectFilter(("cat",), min_score=0.7)):
        for index in (remote, opened):
            for mine, yours in zip(
                index.nearest(queries, 7, where), local.nearest(queries, 7, where), strict=True
            ):
                np.testing.assert_array_equal(mine.rows, yours.rows)
                assert mine.table.equals(yours.table)
    opened.check()
    with pytest.raises(InputError, match="the index has objects of"):
        opened.add([one])
    assert len(ObjectIndex.open(f"{s3_bucket}/index")) == 1300


def test_it_appears_whole_or_not_at_all(
    make_objects: MakeObjects, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, file = f"{s3_bucket}/some/index", make_objects()

    def fail(*_: object) -> None:
        raise RuntimeError("lance error: the network is gone")

    with monkeypatch.context() as patch:
        patch.setattr(index_module, "_with_partitions", fail)
        with pytest.raises(InputError, match="can't be made: lance error: the network is gone"):
            ObjectIndex.create(uri, [file])
        assert not filesystem_of(uri)[0].exists(uri)
        with pytest.raises(InputError, match=f"there is no index in '{uri}'"):
            ObjectIndex.open(uri)
    ObjectIndex.create(uri, [file])
    before = names_in(uri)
    with pytest.raises(InputError, match="exists already"):
        ObjectIndex.create(uri, [make_objects("other.parquet", count=20)])
    with monkeypatch.context() as patch:
        patch.setattr(index_module, "_with_partitions", fail)
        with pytest.raises(InputError, match="can't be made"):
            ObjectIndex.create(uri, [make_objects("other.parquet", count=20)], force=True)
    assert names_in(uri) == before
    assert len(ObjectIndex.open(uri)) == 60
    assert len(ObjectIndex.create(uri, [make_objects("other.parquet", count=20)], force=True)) == 20
    assert len(ObjectIndex.open(uri)) == 20
    assert len(names_in(uri)) == len(before)


def test_of_two_writers_one_is_refused_and_changes_nothing(
    make_objects: MakeObjects, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [make_objects(f"{seed}.parquet", seed=seed) for seed in range(4)]
    uri = f"{s3_bucket}/index"
    index = ObjectIndex.create(uri, files[:1])
    original = index_module._with_partitions

    def while_another_adds(file: Path) -> None:
        def add_then_go_on(*given: object) -> object:
            monkeypatch.setattr(index_module, "_with_partitions", original)
            ObjectIndex.open(uri).add([file])
            return original(*given)  # type: ignore[arg-type]

        monkeypatch.setattr(index_module, "_with_partitions", add_then_go_on)

    while_another_adds(files[2])
    with pytest.raises(InputError, match=r"another command has written to .* run this one again"):
        index.add([files[1]])
    assert len(ObjectIndex.open(uri)) == 120
    index.add([files[1]])
    opened = ObjectIndex.open(uri)
    assert len(index) == len(opened) == 180
    assert opened.rows(range(180))["row"].to_pylist() == list(range(180))
    while_another_adds(files[3])
    with pytest.raises(InputError, match="another command has written to"):
        ObjectIndex.create(uri, [make_objects("4.parquet", seed=4)], force=True)
    assert len(ObjectIndex.open(uri)) == 240


@pytest.mark.parametrize("is_first", [True, False])
def test_a_header_written_at_the_same_moment_is_kept(
    s3_bucket: str, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    """The storage itself compares headers, so one that appears after the last comparison here is kept."""
    folder, header = RemoteFolder(f"{s3_bucket}/index"), f"{s3_bucket}/index/ssdir.json"
    if not is_first:
        write_bytes(header, b"before")
    folder.read_header()
    read = folder.read_header

    def read_before_another_writes() -> bytes | None:
        content = read()
        write_bytes(header, b"another")
        return content

    monkeypatch.setattr(folder, "read_header", read_before_another_writes)
    with pytest.raises(InputError, match="another command has written to"):
        folder.write_header(b"mine")
    assert read_bytes(header) == b"another"


def test_rows_that_another_command_has_just_written_do_not_get_in(
    make_objects: MakeObjects, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, original = f"{s3_bucket}/index", index_module.write_rows
    index = ObjectIndex.create(uri, [make_objects()])

    def write_beside_another(write: Any, rows: Any, on_progress: Any) -> Any:
        table = RemoteFolder(uri).connect().open_table(index.info.table)
        table.add(table.search().limit(5).to_arrow())
        return original(write, rows, on_progress)

    monkeypatch.setattr(index_module, "write_rows", write_beside_another)
    with pytest.raises(InputError, match="another command"):
        index.add([make_objects("other.parquet", seed=1)])
    monkeypatch.setattr(index_module, "write_rows", original)
    assert len(ObjectIndex.open(uri)) == 60
    index.add([make_objects("other.parquet", seed=1)])
    assert index.rows(range(120))["row"].to_pylist() == list(range(120))


def test_damage_is_noticed(make_objects: MakeObjects, s3_bucket: str) -> None:
    uri = f"{s3_bucket}/index"
    ObjectIndex.create(uri, [make_objects()])
    filesystem, path = filesystem_of(uri)
    for name in filesystem.find(path):
        if ".lance/" in name and not name.endswith("hint.json"):
            whole = filesystem.cat_file(name)
            filesystem.pipe_file(name, bytes([whole[0] ^ 1]) + whole[1:])
            with pytest.raises(InputError, match=r"is damaged: .* has changed"):
                ObjectIndex.open(uri)
            filesystem.rm_file(name)
            with pytest.raises(InputError, match=r"is damaged: .* is missing"):
                ObjectIndex.open(uri)
            filesystem.pipe_file(name, whole)
    assert len(ObjectIndex.open(uri)) == 60


def test_commands_take_uris(make_objects: MakeObjects, s3_bucket: str) -> None:
    uri, objects = f"{s3_bucket}/index", f"{s3_bucket}/objects.parquet"
    write_bytes(objects, make_objects().read_bytes())
    ok("index", objects, "--out", uri)
    assert "already, such as one of" in run("index", objects, "--out", uri, "--add").stderr.replace("\n", " ")
    ok("index", make_objects("other.parquet", seed=1), "--out", uri, "--add")
    assert "all files as written" in ok("index", "--out", uri, "--check").output
    answer = json.loads(ok("search", uri, "--row", 70, "--json").output)[0]
    assert answer["query"]["row"] == 70
    assert len(answer["nearest"]) == 5


def test_what_cannot_be_reached_is_reported_in_one_sentence_and_soon(
    make_objects: MakeObjects, s3_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, started = make_objects(), time.monotonic()
    assert "no such bucket" in run("index", file, "--out", "s3://no-such-bucket/index").stderr.replace("\n", " ")
    assert "there is no index" in run("search", "s3://no-such-bucket/index", "--row", 0).stderr.replace("\n", " ")
    assert "can't hold an index" in run("index", file, "--out", "memory://index").stderr.replace("\n", " ")
    ObjectIndex.create(f"{s3_bucket}/index", [file])
    use_environment(monkeypatch, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", HOME="/nowhere")
    for command in (("index", file, "--out", f"{s3_bucket}/new"), ("search", f"{s3_bucket}/index", "--row", 0)):
        result = run(*command)
        assert result.exit_code == 2
        assert "no credentials were found" in result.stderr.replace("\n", " ")
    assert time.monotonic() - started < 20
