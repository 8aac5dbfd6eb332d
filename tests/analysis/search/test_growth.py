"""Tests of large and growing indexes: their plan, added and repeated objects, and which files are read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ssdir.analysis.search.header as header_module
import ssdir.analysis.search.keys as keys_module
import ssdir.analysis.search.plan as plan_module
import ssdir.analysis.search.rows as rows_module
from ssdir.analysis.search import ObjectFilter, ObjectIndex
from ssdir.analysis.search.folders import LocalFolder
from ssdir.analysis.search.plan import SearchPlan, upkeep
from ssdir.errors import InputError

from .conftest import DIM, MakeObjects

NAMES = [f"class {number}" for number in range(8)]


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lowers the limits of the plan, so that thousands of objects are indexed as millions are."""
    limits = {"EXACT_UP_TO": 1000, "WHOLE_UP_TO": 2000, "ROWS_PER_PARTITION": 50, "LEAST_PROBED": 12}
    for name, limit in limits.items():
        monkeypatch.setattr(plan_module, name, limit)


def embeddings_of(*files: Path) -> np.ndarray:
    return np.concatenate([np.stack(pq.read_table(file)["z_what"].to_numpy()) for file in files])


def recall(
    index: ObjectIndex, z_what: np.ndarray, queries: np.ndarray, counted: np.ndarray | None = None
) -> float:
    """Returns recall@10 against an exhaustive comparison with the objects `counted`, or with all objects."""
    rows = np.arange(len(z_what)) if counted is None else counted
    directions = z_what[rows] / np.linalg.norm(z_what[rows], axis=1, keepdims=True)
    shares = []
    for query, found in zip(queries, index.nearest(queries, k=10), strict=True):
        expected = np.argsort(-directions @ query)[:10]
        shares.append(np.isin(expected, found.rows).mean())
    return float(np.mean(shares))


def test_a_plan_fits_any_number_of_objects_and_size_of_embeddings() -> None:
    assert SearchPlan.of(50_000, 64) == SearchPlan()
    assert SearchPlan.of(50_001, 64).partitions == 50
    assert SearchPlan.of(1_000_000, 64).sub_vectors == 0
    assert SearchPlan.of(10_000_000, 64).sub_vectors == 32
    for count in (60_000, 10**6, 10**7, 10**9):
        for latent_dim in range(1, 300):
            plan = SearchPlan.of(count, latent_dim)
            assert 0 < plan.probed <= plan.partitions <= plan.probed_of(0.0)
            assert plan.probed == plan.probed_of(1.0) <= plan.probed_of(0.5)
            assert plan.sub_vectors == 0 or latent_dim % plan.sub_vectors == 0
            assert plan.sub_vectors == 0 or latent_dim <= 8 * plan.sub_vectors


def test_partitions_are_made_anew_when_there_are_twice_as_many_objects() -> None:
    assert upkeep(50_000, 0, 50_000) == "none"
    assert upkeep(60_000, 0, 60_000) == "make"
    assert upkeep(10**7 + 10_000, 10**7, 10_000) == "none"
    assert upkeep(10**7 + 60_000, 10**7, 60_000) == "assign"
    assert upkeep(2 * 10**7 + 1, 10**7, 40_000) == "make"


@pytest.mark.usefixtures("small_limits")
def test_added_objects_are_found_whatever_is_done_with_the_partitions(
    make_objects: MakeObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [make_objects("0.parquet", count=3000, names=NAMES)]
    index = ObjectIndex.create(tmp_path / "index", files)
    assert index.info.partitioned == 3000
    done: list[str] = []

    def noted(*numbers: int) -> str:
        done.append(upkeep(*numbers))
        return done[-1]

    monkeypatch.setattr("ssdir.analysis.search.index.upkeep", noted)
    for seed, count in enumerate((900, 900, 1500), 1):
        files.append(make_objects(f"{seed}.parquet", count=count, seed=seed, names=NAMES))
        index.add(files[-1:])
        added = embeddings_of(files[-1])
        for opened in (index, ObjectIndex.open(tmp_path / "index")):
            first = [found.rows[0] for found in opened.nearest(added[::30], k=1)]
            assert np.mean(first == np.arange(len(index) - count, len(index), 30)) > 0.95
        assert recall(index, embeddings_of(*files), added[::30]) > 0.95
    assert done == ["none", "assign", "make"]
    assert index.info.partitioned == len(index) == 6300
    np.testing.assert_array_equal(index.rows([0, 6299])["row"], [0, 6299])


@pytest.mark.usefixtures("small_limits")
def test_quantised_embeddings_keep_recall_and_exact_similarities(
    make_objects: MakeObjects, tmp_path: Path
) -> None:
    file = make_objects(count=4000, names=NAMES)
    index, z_what = ObjectIndex.create(tmp_path / "index", [file]), embeddings_of(file)
    (made,) = index._table.list_indices()
    assert made.index_type == "IvfPq"
    assert recall(index, z_what, z_what[::100]) > 0.95
    (found,) = index.nearest(z_what[7])
    directions = z_what / np.linalg.norm(z_what, axis=1, keepdims=True)
    np.testing.assert_allclose(found.similarity, directions[found.rows] @ directions[7], atol=1e-5)
    where = ObjectFilter(("class 3",), min_score=0.9)
    table = pq.read_table(file, columns=["label", "score"])
    counted = np.flatnonzero((table["label"].to_numpy() == 3) & (table["score"].to_numpy() >= 0.9))
    (found,) = index.nearest(z_what[7], where=where)
    np.testing.assert_array_equal(found.rows, counted[np.argsort(-directions[counted] @ z_what[7])[:10]])


def test_rows_of_a_killed_command_are_no_part_of_the_index(make_objects: MakeObjects, tmp_path: Path) -> None:
    """A command that is killed leaves rows in Lance's table, whose new version no header names."""
    index = ObjectIndex.create(tmp_path / "index", [make_objects()])
    table = lancedb.connect(tmp_path / "index").open_table("objects")
    table.add(table.search().to_arrow())
    opened = ObjectIndex.open(tmp_path / "index")
    assert len(opened) == len(opened.nearest(np.ones(DIM), k=1000)[0]) == 60
    more = make_objects("more.parquet", count=30, seed=1)
    opened.add([more])
    assert len(opened) == len(ObjectIndex.open(tmp_path / "index")) == 90
    np.testing.assert_allclose(np.stack(opened.rows([60])["z_what"].to_numpy()), embeddings_of(more)[:1])
    assert len(index) == 60


def test_different_objects_of_the_same_key_are_both_kept(
    make_objects: MakeObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "object_keys", lambda rows, real: np.full(len(rows), 7, dtype=np.uint64))
    file = make_objects()
    assert len(ObjectIndex.create(tmp_path / "index", [file])) == 60
    table = pq.ParquetFile(file).read()
    pq.write_table(pa.concat_tables([table, table.slice(20, 1)]), tmp_path / "twice.parquet")
    with pytest.raises(InputError, match=r"row 60 of .* is the same as row 20"):
        ObjectIndex.create(tmp_path / "other", [tmp_path / "twice.parquet"])


def test_repeated_objects_are_noticed_in_several_passes(
    make_objects: MakeObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keys_module, "KEYS_AT_ONCE", 7)
    file, other = make_objects(), make_objects("other.parquet", seed=1)
    index = ObjectIndex.create(tmp_path / "index", [file])
    for row in range(0, 60, 7):
        one = tmp_path / f"{row}.parquet"
        pq.write_table(pq.ParquetFile(file).read().slice(row, 1), one)
        with pytest.raises(InputError, match=r"has objects of .* again"):
            ObjectIndex.create(tmp_path / "double", [file, one])
        with pytest.raises(InputError, match="the index has objects of"):
            index.add([other, one])
    index.add([other])
    assert len(index) == 120


def test_large_files_are_read_when_they_may_have_changed_or_when_asked(
    make_objects: MakeObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header_module, "READ_AT_OPENING", 0)
    ObjectIndex.create(tmp_path / "index", [make_objects()]).check()
    shutil.copytree(tmp_path / "index", tmp_path / "copy", copy_function=shutil.copyfile)
    copy = ObjectIndex.open(tmp_path / "copy")
    assert len(copy) == 60
    copy.check()
    with monkeypatch.context() as patch:
        patch.setattr(LocalFolder, "checksum", lambda *_: pytest.fail("a file was read"))
        assert len(ObjectIndex.open(tmp_path / "copy")) == 60
    (data,) = (tmp_path / "index").glob("objects.lance/data/*.lance")
    whole, times = data.read_bytes(), data.stat()
    data.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    with pytest.raises(InputError, match="has changed"):
        ObjectIndex.open(tmp_path / "index")
    os.utime(data, ns=(times.st_atime_ns, times.st_mtime_ns))
    opened = ObjectIndex.open(tmp_path / "index")
    with pytest.raises(InputError, match=r"is damaged: make it again .*lance' has changed"):
        opened.check()


def test_objects_of_images_elsewhere_are_repeated_in_any_folder(
    make_objects: MakeObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_objects()
    table = pq.ParquetFile(file).read()
    column = table.schema.get_field_index("image")
    folders = {"uri": "s3://bucket", "local": f"file://{tmp_path}"}
    for name, folder in folders.items():
        images = pa.array([f"{folder}/{Path(image).name}" for image in table["image"].to_pylist()])
        pq.write_table(table.set_column(column, table.schema.field(column), images), tmp_path / f"{name}.parquet")
    index = ObjectIndex.create(tmp_path / "index", [file, tmp_path / "uri.parquet"])
    monkeypatch.chdir("/")
    for name in folders:
        with pytest.raises(InputError, match="the index has objects of"):
            index.add([tmp_path / f"{name}.parquet"])
    assert index.rows([60])["image"][0].as_py().startswith("s3://bucket/")
