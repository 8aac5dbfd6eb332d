"""Which objects are nearest: against comparing everything, with filters, and what indices refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import ssdir.search.index as index_module
from ssdir.errors import InputError
from ssdir.search import ObjectFilter, ObjectIndex

from .conftest import DIM, MakeObjects


def codes_of(*files: Path) -> np.ndarray:
    return np.concatenate([np.stack(pq.read_table(file)["z_what"].to_numpy()) for file in files])


def by_cosine(code: np.ndarray, codes: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    cosine = codes[rows] @ code / np.linalg.norm(codes[rows], axis=1) / np.linalg.norm(code)
    return rows[np.argsort(-cosine, kind="stable")[:k]]


def test_nearest_are_those_of_the_largest_cosine(make_objects: MakeObjects, tmp_path: Path) -> None:
    file = make_objects()
    index, codes = ObjectIndex.create(tmp_path / "index", [file]), codes_of(file)
    queries = np.random.default_rng(1).normal(size=(5, DIM)).astype(np.float32)
    for query, found in zip(queries, index.nearest(queries, k=7), strict=True):
        np.testing.assert_array_equal(found.rows, by_cosine(query, codes, np.arange(60), 7))
        cosines = codes[found.rows] @ query / np.linalg.norm(codes[found.rows], axis=1) / np.linalg.norm(query)
        np.testing.assert_allclose(found.similarity, cosines, atol=1e-5)
        np.testing.assert_allclose(np.stack(found.table["z_what"].to_numpy()), codes[found.rows])
    assert len(index.nearest(queries[0], k=1000)[0]) == len(index) == 60


def test_filters_leave_out_before_the_nearest_are_counted(make_objects: MakeObjects, tmp_path: Path) -> None:
    file = make_objects()
    index, table = ObjectIndex.create(tmp_path / "index", [file]), pq.read_table(file)
    labels, scores = table["label"].to_numpy(), table["score"].to_numpy()
    width = table["box_x2"].to_numpy() - table["box_x1"].to_numpy()
    height = table["box_y2"].to_numpy() - table["box_y1"].to_numpy()
    size = np.maximum(width, height) / 200
    query = codes_of(file)[0]
    where = ObjectFilter(("o'dog",), min_score=0.6, min_size=0.2, max_size=0.4)
    counted = np.flatnonzero((labels == 1) & (scores >= 0.6) & (size >= 0.2) & (size <= 0.4))
    assert 5 < len(counted) < 40
    found = index.nearest(query, k=5, where=where)[0]
    np.testing.assert_array_equal(found.rows, by_cosine(query, codes_of(file), counted, 5))
    assert set(found.table["class"].to_pylist()) == {"o'dog"}
    assert len(index.nearest(query, where=ObjectFilter(min_score=2))[0]) == 0


def test_names_never_become_part_of_a_query(make_objects: MakeObjects, tmp_path: Path) -> None:
    index = ObjectIndex.create(tmp_path / "index", [make_objects()])
    with pytest.raises(InputError, match=r"no class 'cats'; did you mean 'cat'\?"):
        index.nearest(np.ones(DIM), where=ObjectFilter(("cats",)))
    with pytest.raises(InputError, match="no class"):
        index.nearest(np.ones(DIM), where=ObjectFilter(("cat') OR (1=1",)))
    with pytest.raises(InputError, match="must be a number"):
        index.nearest(np.ones(DIM), where=ObjectFilter(min_score=float("nan")))
    assert ObjectFilter(("o'dog", "cat")).sql(["cat", "o'dog"]) == "label IN (0, 1)"


def test_objects_are_added_behind_the_others(make_objects: MakeObjects, tmp_path: Path) -> None:
    first, second = make_objects("a.parquet"), make_objects("b.parquet", count=30, seed=1)
    together = ObjectIndex.create(tmp_path / "together", [first, second])
    index = ObjectIndex.create(tmp_path / "index", [first])
    index.add([second])
    assert len(index) == len(together) == 90
    query = np.ones(DIM)
    np.testing.assert_array_equal(index.nearest(query)[0].rows, together.nearest(query)[0].rows)
    rows = index.rows([75, 2, 60])
    assert rows["row"].to_pylist() == [75, 2, 60]
    np.testing.assert_allclose(np.stack(rows["z_what"].to_numpy()), codes_of(first, second)[[75, 2, 60]])
    with pytest.raises(InputError, match=r"rows 0 \.\.\. 89, not 90"):
        index.rows([90])


def test_an_index_keeps_to_one_model(make_objects: MakeObjects, tmp_path: Path) -> None:
    index = ObjectIndex.create(tmp_path / "index", [make_objects()])
    other = make_objects("other.parquet", names=["eel", "fox"])
    with pytest.raises(InputError, match="codes of different models can't be compared"):
        index.add([other])
    with pytest.raises(InputError, match="different models"):
        ObjectIndex.create(tmp_path / "mixed", [make_objects(), other])
    assert not (tmp_path / "mixed").exists()
    with pytest.raises(InputError, match="of another model"):
        index.nearest(np.ones(DIM + 1))


def test_models_of_the_same_classes_and_sizes_are_told_apart(make_objects: MakeObjects, tmp_path: Path) -> None:
    ours = make_objects("ours.parquet", fingerprint="aa")
    again = make_objects("again.parquet", fingerprint="bb")
    unknown = make_objects("unknown.parquet")
    index = ObjectIndex.create(tmp_path / "index", [ours])
    with pytest.raises(InputError, match="trained again"):
        index.add([again])
    with pytest.raises(InputError, match="trained again"):
        ObjectIndex.create(tmp_path / "mixed", [ours, again])
    assert len(ObjectIndex.open(tmp_path / "index")) == 60
    index.add([unknown])
    assert len(index) == 120


def test_damage_inside_a_file_is_one_sentence_and_leaves_nothing(
    make_objects: MakeObjects, tmp_path: Path
) -> None:
    good, bad = make_objects("good.parquet"), make_objects("bad.parquet", count=300)
    content = bytearray(bad.read_bytes())
    content[2000:2400] = bytes(400)
    bad.write_bytes(content)
    with pytest.raises(InputError, match=r"bad.parquet' is damaged"):
        ObjectIndex.create(tmp_path / "index", [good, bad])
    assert not list(tmp_path.glob("*index*"))
    index = ObjectIndex.create(tmp_path / "index", [good])
    with pytest.raises(InputError, match=r"bad.parquet' is damaged"):
        index.add([bad])
    assert len(ObjectIndex.open(tmp_path / "index")) == 60
    assert len(index.nearest(np.ones(DIM), k=100)[0]) == 60


def test_columns_added_since_do_not_matter(make_objects: MakeObjects, tmp_path: Path) -> None:
    file = make_objects()
    plain = pq.ParquetFile(file).read()
    wider = plain.add_column(0, "predicted", [["seven"] * 60]).append_column("row", [range(60)])
    pq.write_table(wider, tmp_path / "wider.parquet")
    index = ObjectIndex.create(tmp_path / "index", [tmp_path / "wider.parquet"])
    np.testing.assert_array_equal(np.stack(index.rows(range(60))["z_what"].to_numpy()), codes_of(file))


def test_few_that_count_are_found_among_many(
    make_objects: MakeObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few objects a filter leaves in a large index, the nearest of them are found."""
    monkeypatch.setattr(index_module, "EXACT_UP_TO", 1000)
    monkeypatch.setattr(index_module, "ROWS_PER_PARTITION", 50)
    monkeypatch.setattr(index_module, "LEAST_PROBED", 6)
    file = make_objects(count=6000, names=[f"class {number}" for number in range(8)])
    index, codes = ObjectIndex.create(tmp_path / "index", [file]), codes_of(file)
    scores = pq.read_table(file)["score"].to_numpy()
    for share in (0.3, 0.05, 0.001):
        least = float(np.quantile(scores, 1 - share))
        counted = np.flatnonzero(scores >= np.float32(least))
        recalls = []
        for query in codes[::300]:
            expected = by_cosine(query, codes, counted, 10)
            found = index.nearest(query, k=10, where=ObjectFilter(min_score=least))[0].rows
            assert len(found) == len(expected)
            recalls.append(np.isin(expected, found).mean())
        assert np.mean(recalls) > 0.95, share


def test_many_objects_are_found_through_partitions(
    make_objects: MakeObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recall@10 against comparing everything, with the index of large collections on a small one."""
    monkeypatch.setattr(index_module, "EXACT_UP_TO", 1000)
    monkeypatch.setattr(index_module, "ROWS_PER_PARTITION", 50)
    file = make_objects(count=6000, names=[f"class {number}" for number in range(8)])
    index, codes = ObjectIndex.create(tmp_path / "index", [file]), codes_of(file)
    assert index._table.list_indices()
    queries = codes[::200]
    found = index.nearest(queries, k=10)
    recall = np.mean(
        [
            np.isin(by_cosine(query, codes, np.arange(6000), 10), each.rows).mean()
            for query, each in zip(queries, found, strict=True)
        ]
    )
    assert recall > 0.95
    assert all(each.rows[0] == row for each, row in zip(found, range(0, 6000, 200), strict=True))


def test_what_is_no_index_is_said_in_a_sentence(make_objects: MakeObjects, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist: make one with ssdir index"):
        ObjectIndex.open(tmp_path / "none")
    with pytest.raises(InputError, match="is not an index"):
        ObjectIndex.open(tmp_path)
    index = ObjectIndex.create(tmp_path / "index", [make_objects()])
    (index.path / "ssdir.json").write_text("{")
    with pytest.raises(InputError, match="is damaged: make it again"):
        ObjectIndex.open(index.path)
    with pytest.raises(InputError, match="exists already"):
        ObjectIndex.create(tmp_path / "index", [make_objects()])
    with pytest.raises(InputError, match="holds no objects"):
        ObjectIndex.create(tmp_path / "empty", [make_objects("none.parquet", count=0)])
    assert not (tmp_path / "empty").exists()


def test_the_same_objects_are_not_added_twice(make_objects: MakeObjects, tmp_path: Path) -> None:
    one, other = make_objects(), make_objects("other.parquet", seed=1)
    with pytest.raises(InputError, match="given twice"):
        ObjectIndex.create(tmp_path / "index", [one, other, one])
    index = ObjectIndex.create(tmp_path / "index", [one])
    with pytest.raises(InputError, match=r"has objects of '.*objects.parquet' already, such as one of '.*-0.png'"):
        index.add([other, one])
    assert len(index) == 60
    with pytest.raises(InputError, match="given twice"):
        index.add([other, other])
    index.add([other])
    assert len(index) == 120


def test_other_boxes_of_the_same_images_are_added(make_objects: MakeObjects, tmp_path: Path) -> None:
    index = ObjectIndex.create(tmp_path / "index", [make_objects()])
    other = make_objects("objects.parquet", seed=1)
    index.add([other])
    assert len(index) == 120


def test_limits_that_no_size_keeps(make_objects: MakeObjects, tmp_path: Path) -> None:
    index = ObjectIndex.create(tmp_path / "index", [make_objects()])
    with pytest.raises(InputError, match=r"no size is at least 0.5 and at most 0.4"):
        index.nearest(np.ones(DIM), where=ObjectFilter(min_size=0.5, max_size=0.4))
