"""Nearest objects equal those of an exhaustive comparison, with filters too; invalid indexes are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import ssdir.analysis.search.index as index_module
import ssdir.analysis.search.plan as plan_module
from object_folder import split_into_parts
from ssdir.analysis.search import ObjectFilter, ObjectIndex
from ssdir.analysis.search.folders import LocalFolder
from ssdir.errors import InputError

from .conftest import DIM, MakeObjects


def embeddings_of(*files: Path) -> np.ndarray:
    return np.concatenate([np.stack(pq.read_table(file)["z_what"].to_numpy()) for file in files])


def by_cosine(embedding: np.ndarray, z_what: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    cosine = z_what[rows] @ embedding / np.linalg.norm(z_what[rows], axis=1) / np.linalg.norm(embedding)
    return rows[np.argsort(-cosine, kind="stable")[:k]]


def test_nearest_are_those_of_the_largest_cosine(make_objects: MakeObjects, tmp_path: Path) -> None:
    file = make_objects()
    index, z_what = ObjectIndex.create(tmp_path / "index", [file]), embeddings_of(file)
    queries = np.random.default_rng(1).normal(size=(5, DIM)).astype(np.float32)
    for query, found in zip(queries, index.nearest(queries, k=7), strict=True):
        np.testing.assert_array_equal(found.rows, by_cosine(query, z_what, np.arange(60), 7))
        cosines = z_what[found.rows] @ query / np.linalg.norm(z_what[found.rows], axis=1) / np.linalg.norm(query)
        np.testing.assert_allclose(found.similarity, cosines, atol=1e-5)
        np.testing.assert_allclose(np.stack(found.table["z_what"].to_numpy()), z_what[found.rows])
    assert len(index.nearest(queries[0], k=1000)[0]) == len(index) == 60


def test_similarities_are_at_most_1_and_zeros_are_like_nothing(make_objects: MakeObjects, tmp_path: Path) -> None:
    file = make_objects(count=500)
    index = ObjectIndex.create(tmp_path / "index", [file])
    assert max(each.similarity[0] for each in index.nearest(embeddings_of(file), k=1)) == 1
    with pytest.raises(InputError, match="holds zeros alone"):
        index.nearest(np.stack([np.ones(DIM), np.zeros(DIM)]))


def test_boxes_that_rounding_does_not_explain_are_of_two_objects(
    make_objects: MakeObjects, tmp_path: Path
) -> None:
    table, shifted = pq.ParquetFile(make_objects()).read().slice(0, 1), tmp_path / "shifted.parquet"
    place = table.schema.get_field_index("box_x1")
    for left, is_same in ((20.4, False), (20.01, True)):
        boxes = [
            table.set_column(place, table.schema.field(place), pa.array([x1], pa.float32())) for x1 in (20.0, left)
        ]
        pq.write_table(pa.concat_tables(boxes), shifted)
        if is_same:
            with pytest.raises(InputError, match=r"row 1 of .* is the same as row 0"):
                ObjectIndex.create(tmp_path / "index", [shifted], force=True)
        else:
            assert len(ObjectIndex.create(tmp_path / "index", [shifted])) == 2


def test_a_folder_of_parts_is_indexed_as_its_file(make_objects: MakeObjects, tmp_path: Path) -> None:
    whole = make_objects()
    folder = split_into_parts(whole, tmp_path / "objects")
    one, parts = (ObjectIndex.create(tmp_path / f"index-{path.suffix}", [path]) for path in (whole, folder))
    z_what = embeddings_of(whole)
    for mine, yours in zip(parts.nearest(z_what, 7), one.nearest(z_what, 7), strict=True):
        assert mine.rows.tolist() == yours.rows.tolist()
        assert mine.table.equals(yours.table)


@pytest.mark.parametrize("size", [(100, 200), (200, 100)])
def test_filters_leave_out_before_the_nearest_are_counted(
    make_objects: MakeObjects, tmp_path: Path, size: tuple[int, int]
) -> None:
    file = make_objects(size=size)
    index, table = ObjectIndex.create(tmp_path / "index", [file]), pq.read_table(file)
    labels, scores = table["label"].to_numpy(), table["score"].to_numpy()
    width = table["box_x2"].to_numpy() - table["box_x1"].to_numpy()
    height = table["box_y2"].to_numpy() - table["box_y1"].to_numpy()
    share = np.maximum(width, height) / 200
    query = embeddings_of(file)[0]
    where = ObjectFilter(("o'dog",), min_score=0.6, min_size=0.2, max_size=0.4)
    counted = np.flatnonzero((labels == 1) & (scores >= 0.6) & (share >= 0.2) & (share <= 0.4))
    assert 5 < len(counted) < 40
    found = index.nearest(query, k=5, where=where)[0]
    np.testing.assert_array_equal(found.rows, by_cosine(query, embeddings_of(file), counted, 5))
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
    np.testing.assert_allclose(np.stack(rows["z_what"].to_numpy()), embeddings_of(first, second)[[75, 2, 60]])
    with pytest.raises(InputError, match=r"rows 0 \.\.\. 89, not 90"):
        index.rows([90])


def test_an_index_keeps_to_one_model(make_objects: MakeObjects, tmp_path: Path) -> None:
    index = ObjectIndex.create(tmp_path / "index", [make_objects()])
    other = make_objects("other.parquet", names=["eel", "fox"], fingerprint="other")
    with pytest.raises(InputError, match=r"\(model 'tiny'\) don't go together: embeddings of different models"):
        index.add([other])
    with pytest.raises(InputError, match="different models"):
        ObjectIndex.create(tmp_path / "mixed", [make_objects(), other])
    assert not (tmp_path / "mixed").exists()
    with pytest.raises(InputError, match="of another model"):
        index.nearest(np.ones(DIM + 1))


def test_models_of_the_same_classes_and_sizes_are_distinguished(make_objects: MakeObjects, tmp_path: Path) -> None:
    ours = make_objects("ours.parquet", fingerprint="aa")
    again = make_objects("again.parquet", fingerprint="bb")
    index = ObjectIndex.create(tmp_path / "index", [ours])
    with pytest.raises(InputError, match="trained again"):
        index.add([again])
    with pytest.raises(InputError, match="trained again"):
        ObjectIndex.create(tmp_path / "mixed", [ours, again])
    assert len(ObjectIndex.open(tmp_path / "index")) == 60
    classes = make_objects("classes.parquet", fingerprint="aa", names=["eel", "fox"])
    with pytest.raises(InputError, match="has other classes than the index"):
        index.add([classes])


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
    np.testing.assert_array_equal(np.stack(index.rows(range(60))["z_what"].to_numpy()), embeddings_of(file))


def test_few_objects_that_pass_a_filter_are_found_among_many(
    make_objects: MakeObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few objects a filter leaves in a large index, the nearest of them are found."""
    monkeypatch.setattr(plan_module, "EXACT_UP_TO", 1000)
    monkeypatch.setattr(plan_module, "ROWS_PER_PARTITION", 50)
    monkeypatch.setattr(plan_module, "LEAST_PROBED", 6)
    file = make_objects(count=6000, names=[f"class {number}" for number in range(8)])
    index, z_what = ObjectIndex.create(tmp_path / "index", [file]), embeddings_of(file)
    scores = pq.read_table(file)["score"].to_numpy()
    for share in (0.3, 0.05, 0.001):
        least = float(np.quantile(scores, 1 - share))
        counted = np.flatnonzero(scores >= np.float32(least))
        recalls = []
        for query in z_what[::300]:
            expected = by_cosine(query, z_what, counted, 10)
            found = index.nearest(query, k=10, where=ObjectFilter(min_score=least))[0].rows
            assert len(found) == len(expected)
            recalls.append(np.isin(expected, found).mean())
        assert np.mean(recalls) > 0.95, share


def test_many_objects_are_found_through_partitions(
    make_objects: MakeObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recall@10 against an exhaustive comparison, with the index of large collections on a small one."""
    monkeypatch.setattr(plan_module, "EXACT_UP_TO", 1000)
    monkeypatch.setattr(plan_module, "ROWS_PER_PARTITION", 50)
    file = make_objects(count=6000, names=[f"class {number}" for number in range(8)])
    index, z_what = ObjectIndex.create(tmp_path / "index", [file]), embeddings_of(file)
    assert index._table.list_indices()
    queries = z_what[::200]
    found = index.nearest(queries, k=10)
    recall = np.mean(
        [
            np.isin(by_cosine(query, z_what, np.arange(6000), 10), each.rows).mean()
            for query, each in zip(queries, found, strict=True)
        ]
    )
    assert recall > 0.95
    assert all(each.rows[0] == row for each, row in zip(found, range(0, 6000, 200), strict=True))


def test_what_is_no_index_is_reported_in_one_sentence(make_objects: MakeObjects, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no index in .*none': make one with ssdir index"):
        ObjectIndex.open(tmp_path / "none")
    with pytest.raises(InputError, match="there is no index in"):
        ObjectIndex.open(tmp_path)
    ObjectIndex.create(tmp_path / "index", [make_objects()])
    with pytest.raises(InputError, match="exists already"):
        ObjectIndex.create(tmp_path / "index", [make_objects()])
    with pytest.raises(InputError, match="holds no objects"):
        ObjectIndex.create(tmp_path / "empty", [make_objects("none.parquet", count=0)])
    assert not (tmp_path / "empty").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"class_names": "cat"}, "'class_names' must be a list"),
        ({"latent_dim": "8"}, "'latent_dim' must be "),
        ({"latent_dim": 10**9}, "'latent_dim' must be "),
        ({"folder": 3}, "'folder' must be "),
        ({"files": []}, "'files' must be "),
        ({"version": -1}, "'version' must be "),
        ({"fingerprint": None}, "'fingerprint' must be "),
        ("{", "not valid JSON"),
        ("[" * 99_999, "too deep"),
        ("[]", "expected keys and values"),
        ({"format": 2}, "is of another ssdir: make it again"),
    ],
)
def test_a_header_of_wrong_types_is_one_sentence(
    make_objects: MakeObjects, tmp_path: Path, change: object, sentence: str
) -> None:
    ObjectIndex.create(tmp_path / "index", [make_objects()])
    header = tmp_path / "index" / "ssdir.json"
    whole = json.loads(header.read_text())
    header.write_text(change if isinstance(change, str) else json.dumps({**whole, **change}))  # type: ignore[dict-item]
    with pytest.raises(InputError, match=sentence):
        ObjectIndex.open(tmp_path / "index")


def test_any_damage_to_an_index_is_noticed(make_objects: MakeObjects, tmp_path: Path) -> None:
    """Damage is noticed even though Lance itself answers from most damaged files, or panics."""
    index = ObjectIndex.create(tmp_path / "index", [make_objects()])
    files = [path for path in Path(index.path).glob("objects.lance/**/*") if path.is_file()]
    files = [path for path in files if path.name != "latest_version_hint.json"]
    assert {".lance", ".manifest"} <= {path.suffix for path in files}
    for path in files:
        whole = path.read_bytes()
        for changed in (whole[:-1], whole[: len(whole) // 2], bytes([whole[0] ^ 1]) + whole[1:]):
            path.write_bytes(changed)
            with pytest.raises(InputError, match=rf"is damaged: make it again .*{path.name}' has changed"):
                ObjectIndex.open(index.path)
        path.unlink()
        with pytest.raises(InputError, match=rf"{path.name}' is missing"):
            ObjectIndex.open(index.path)
        path.write_bytes(whole)
    assert len(ObjectIndex.open(index.path)) == 60


def test_the_same_objects_are_not_added_twice(make_objects: MakeObjects, tmp_path: Path) -> None:
    one, other = make_objects(), make_objects("other.parquet", seed=1)
    with pytest.raises(InputError, match="given twice"):
        ObjectIndex.create(tmp_path / "index", [one, other, one])
    index = ObjectIndex.create(tmp_path / "index", [one])
    with pytest.raises(InputError, match=r"has objects of '.*objects.parquet' already, such as one of '.*-0.png'"):
        index.add([other, one])
    assert len(index) == len(ObjectIndex.open(tmp_path / "index")) == 60
    with pytest.raises(InputError, match="given twice"):
        index.add([other, other])
    index.add([other])
    assert len(index) == len(ObjectIndex.open(tmp_path / "index")) == 120
    assert index.rows([119])["row"].to_pylist() == [119]


def test_what_fails_after_rows_were_added_leaves_the_index_as_it_was(
    make_objects: MakeObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = ObjectIndex.create(tmp_path / "index", [make_objects()])

    def fail(*args: object) -> None:
        raise RuntimeError("lance error: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(index_module, "_with_partitions", fail)
        with pytest.raises(InputError, match="can't be extended: lance error: No space left on device"):
            index.add([make_objects("other.parquet", seed=1)])
    assert len(ObjectIndex.open(index.path)) == 60
    index.add([make_objects("other.parquet", seed=1)])
    assert len(ObjectIndex.open(index.path)) == 120


def with_paths(file: Path, out: Path, change: Callable[[str], str]) -> Path:
    table = pq.ParquetFile(file).read()
    images = pa.array([change(image) for image in table["image"].to_pylist()])
    pq.write_table(table.set_column(0, table.schema.field("image"), images), out)
    return out


def test_doubles_are_refused_whatever_their_pictures_are_called(
    make_objects: MakeObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    one = make_objects()
    again = {
        "copy": lambda image: image,
        "relative": lambda image: Path(image).name,
        "dotted": lambda image: f"../{tmp_path.name}/{Path(image).name}",
        "linked": lambda image: str(tmp_path / "link" / Path(image).name),
    }
    index = ObjectIndex.create(tmp_path / "index", [one])
    for name, change in again.items():
        double = with_paths(one, tmp_path / f"{name}.parquet", change)
        with pytest.raises(InputError, match=rf"'{double}' has objects of '{one}' again, such as one of "):
            ObjectIndex.create(tmp_path / "doubles", [one, double])
        with pytest.raises(InputError, match="the index has objects of"):
            index.add([double])
    assert not (tmp_path / "doubles").exists()
    assert len(index) == 60
    others = with_paths(one, tmp_path / "others.parquet", lambda image: image.replace("-", "-other-"))
    assert len(ObjectIndex.create(tmp_path / "both", [one, others])) == 120


def test_an_object_that_is_twice_in_a_file_is_refused(make_objects: MakeObjects, tmp_path: Path) -> None:
    table = pq.read_table(make_objects())
    names = table["image"].to_pylist()
    pq.write_table(pa.concat_tables([table, table]), tmp_path / "twice.parquet")
    with pytest.raises(InputError, match=r"row 60 of .* is the same as row 0, an object of '.*-0.png': encode"):
        ObjectIndex.create(tmp_path / "index", [tmp_path / "twice.parquet"])
    linked = [str(tmp_path / "latest.png") if image.endswith("-0.png") else image for image in names]
    Path(linked[0]).symlink_to(names[0])
    again = table.set_column(0, table.schema.field("image"), pa.array(linked)).slice(0, 1)
    pq.write_table(pa.concat_tables([table, again]), tmp_path / "linked.parquet")
    with pytest.raises(
        InputError, match=r"row 60 .*latest\.png', another name of '.*-0\.png': encode each image once"
    ):
        ObjectIndex.create(tmp_path / "index", [tmp_path / "linked.parquet"])


def test_pictures_of_objects_added_in_another_folder_are_found(
    make_objects: MakeObjects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both folders have pictures of the same relative names."""
    for number, folder in enumerate(("here", "there")):
        (tmp_path / folder).mkdir()
        for image in range(10):
            Image.new("RGB", (200, 100), (number, image, 0)).save(tmp_path / folder / f"{image}.png")
    relative = {
        folder: with_paths(
            make_objects(seed=seed), tmp_path / f"{folder}.parquet", lambda image: image.rpartition("-")[2]
        )
        for seed, folder in enumerate(("here", "there"))
    }
    monkeypatch.chdir(tmp_path / "here")
    index = ObjectIndex.create(tmp_path / "index", [relative["here"]])
    monkeypatch.chdir(tmp_path / "there")
    index.add([relative["there"]])
    for row, folder in ((0, "here"), (60, "there")):
        picture = index.image_path(index.rows([row])["image"][0].as_py())
        assert picture == tmp_path / folder / "0.png"


def test_pictures_that_moved_with_the_index_are_found(make_objects: MakeObjects, tmp_path: Path) -> None:
    index = ObjectIndex.create(tmp_path / "moved" / "index", [make_objects()])
    image = Path(index.rows([0])["image"][0].as_py())
    assert index.image_path(str(image)) == image
    moved = image.rename(tmp_path / "moved" / image.name)
    assert index.image_path(str(image)) == moved


def test_one_command_at_a_time_writes_to_an_index(make_objects: MakeObjects, tmp_path: Path) -> None:
    one, other = make_objects(), make_objects("other.parquet", seed=1)
    index, late = ObjectIndex.create(tmp_path / "index", [one]), ObjectIndex.open(tmp_path / "index")
    with LocalFolder(tmp_path / "index").sole_writer():
        with pytest.raises(InputError, match=r"another command is writing to '.*index': wait until it has ended"):
            index.add([other])
        with pytest.raises(InputError, match="another command is writing"):
            ObjectIndex.create(index.path, [one], force=True)
    index.add([other])
    # Opened before the other was added: its rows follow those all the same.
    late.add([make_objects("third.parquet", seed=2)])
    assert late.rows(range(180))["row"].to_pylist() == list(range(180))
    with pytest.raises(InputError, match="the index has objects of"):
        index.add([make_objects("third.parquet", seed=2)])


def test_embeddings_without_a_direction_are_refused(make_objects: MakeObjects, tmp_path: Path) -> None:
    file = make_objects()
    table = pq.ParquetFile(file).read()
    z_what = table["z_what"].to_pylist()
    z_what[7] = [0.0] * DIM
    kind = table.schema.field("z_what")
    pq.write_table(
        table.set_column(table.schema.get_field_index("z_what"), kind, pa.array(z_what, kind.type)), file
    )
    with pytest.raises(InputError, match=r"row 7 of .* has a z_what of zeros"):
        ObjectIndex.create(tmp_path / "index", [file])
    index = ObjectIndex.create(tmp_path / "index", [make_objects("other.parquet")])
    with pytest.raises(InputError, match="not finite"):
        index.nearest(np.full(DIM, np.nan))


def test_other_boxes_of_the_same_images_are_added(make_objects: MakeObjects, tmp_path: Path) -> None:
    index = ObjectIndex.create(tmp_path / "index", [make_objects()])
    other = make_objects("objects.parquet", seed=1)
    index.add([other])
    assert len(index) == 120


def test_limits_that_no_size_keeps(make_objects: MakeObjects, tmp_path: Path) -> None:
    index = ObjectIndex.create(tmp_path / "index", [make_objects()])
    with pytest.raises(InputError, match=r"no size is at least 0.5 and at most 0.4"):
        index.nearest(np.ones(DIM), where=ObjectFilter(min_size=0.5, max_size=0.4))
