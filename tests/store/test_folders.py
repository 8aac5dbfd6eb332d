"""Folders of parts are read as the file with their rows; parts of different encodings are refused."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch

from object_folder import split_into_parts
from ssdir.errors import InputError
from ssdir.objects import Objects
from ssdir.store import objects_file
from ssdir.store import writer as writer_module
from ssdir.store.convert import SUFFIXES, convert_objects, sidecar
from ssdir.store.folder import MANIFEST, part_name
from ssdir.store.join import join_parts
from ssdir.store.objects_file import read_info, read_objects, read_stored, stream_objects
from ssdir.store.skipped import read_skipped, write_skipped
from ssdir.store.writer import ObjectWriter

CLASSES, LATENT_DIM = ["cat", "dog"], 4
COUNTS = [3, 0, 1, 2, 0, 0, 4, 1, 2]
"""Number of objects of each of the nine images; parts have three images."""


def make_objects(counts: list[int], seed: int = 0) -> Objects:
    rng, number = torch.Generator().manual_seed(seed), sum(counts)
    return Objects(
        image_index=torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        batch_size=len(counts),
        z_where=torch.rand(number, 4, generator=rng) / 2 + 0.2,
        scores=torch.rand(number, generator=rng),
        labels=torch.randint(0, len(CLASSES), (number,), generator=rng),
        z_what=torch.randn(number, LATENT_DIM, generator=rng),
        z_what_scale=None,
        z_depth=torch.randn(number, generator=rng),
        anchor_index=torch.arange(number),
    )


def write(path: Path, counts: list[int], name: str = "image", seed: int = 0, weights: str = "weights") -> Path:
    images = [f"{name}-{number}.png" for number in range(len(counts))]
    with ObjectWriter(path, "tiny", CLASSES, LATENT_DIM, weights) as writer:
        writer.write(make_objects(counts, seed), images, [(60, 90)] * len(counts))
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return write(tmp_path / "whole.parquet", COUNTS)


@pytest.fixture
def folder(tmp_path: Path, whole: Path) -> Path:
    return split_into_parts(whole, tmp_path / "objects")


def same_objects(left: Objects, right: Objects) -> bool:
    mine, yours = left._tensors(), right._tensors()
    return mine.keys() == yours.keys() and all(torch.equal(mine[name], yours[name]) for name in mine)


@pytest.mark.parametrize("manifest", [True, False])
def test_a_folder_is_read_as_the_file_with_its_rows(whole: Path, tmp_path: Path, manifest: bool) -> None:
    folder = split_into_parts(whole, tmp_path / "objects", manifest=manifest)
    one, three = read_info(whole), read_info(folder)
    assert [part.objects for part in three.parts] == [4, 2, 7]
    for name in ("objects", "images_seen", "images_without_objects", "identity", "names_model"):
        assert getattr(three, name) == getattr(one, name), name
    assert three.images_without_objects == {1: "image-1.png", 4: "image-4.png", 5: "image-5.png"}
    assert read_stored(folder).table.equals(read_stored(whole).table)
    pieces = list(stream_objects(three, rows=3))
    assert pa.Table.from_batches(pieces).equals(pa.Table.from_batches(stream_objects(one)))
    assert [len(piece) for piece in pieces] == [3, 1, 2, 3, 3, 1]
    (ours, images), (theirs, names) = read_objects(folder), read_objects(whole)
    assert same_objects(ours, theirs)
    assert images == names


@pytest.mark.parametrize("row_group", [1, 5, 8192])
def test_joined_parts_are_the_file_byte_by_byte(
    tmp_path: Path, row_group: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "ROW_GROUP", row_group)
    whole = write(tmp_path / "whole.parquet", COUNTS)
    folder = split_into_parts(whole, tmp_path / "objects")
    assert join_parts(folder, tmp_path / "joined.parquet").objects == sum(COUNTS)
    assert (tmp_path / "joined.parquet").read_bytes() == whole.read_bytes()
    groups = pq.read_metadata(whole)
    sizes = [groups.row_group(number).num_rows for number in range(groups.num_row_groups)]
    assert sizes == [row_group] * (sum(COUNTS) // row_group) + [sum(COUNTS) % row_group] * (row_group > 1)


def test_further_columns_are_kept(whole: Path, folder: Path, tmp_path: Path) -> None:
    """Boxes of a tracker bring such columns."""
    for path in (whole, *folder.glob("*.parquet")):
        table = pq.ParquetFile(path).read()
        tracks = pa.array([f"track {index}" for index in table["anchor_index"].to_pylist()])
        pq.write_table(table.append_column("track", tracks), path)
    assert read_stored(folder).table.equals(read_stored(whole).table)
    join_parts(folder, tmp_path / "joined.parquet")
    joined = read_stored(tmp_path / "joined.parquet")
    assert joined.table.equals(read_stored(whole).table)
    assert joined.table["track"].to_pylist() == [f"track {index}" for index in range(sum(COUNTS))]


def test_files_of_two_encodings_in_a_folder_keep_their_images_apart(tmp_path: Path) -> None:
    """Both files count their images from 0."""
    folder = tmp_path / "objects"
    folder.mkdir()
    write(folder / "a.parquet", [2, 0, 1], "a")
    write(folder / "b.parquet", [0, 1, 0], "b", seed=1)
    objects, images = read_objects(folder)
    assert images == [f"{name}-{number}.png" for name in "ab" for number in range(3)]
    assert same_objects(objects, Objects.cat([make_objects([2, 0, 1]), make_objects([0, 1, 0], 1)]))
    assert read_info(folder).images_without_objects == {1: "a-1.png", 3: "b-0.png", 5: "b-2.png"}
    join_parts(folder, tmp_path / "joined.parquet")
    again, names = read_objects(tmp_path / "joined.parquet")
    assert same_objects(again, objects)
    assert names == images


def by_pandas(folder: Path, out: Path) -> None:
    frame = pandas.read_parquet(folder)
    frame[frame["score"] > 0.4].to_parquet(out / "0.parquet")


def by_arrow(folder: Path, out: Path) -> None:
    """Writes one file for each class, in a folder of files alone, as Spark and Ray do."""
    table = pyarrow.dataset.dataset(folder).to_table(filter=pyarrow.dataset.field("score") > 0.4)
    for name in CLASSES:
        pq.write_table(table.filter(pyarrow.dataset.field("class") == name), out / f"{name}.parquet")
    (out / "_SUCCESS").touch()


@pytest.mark.parametrize("select", [by_pandas, by_arrow])
def test_rows_that_other_tools_selected_are_read(
    folder: Path, tmp_path: Path, select: Callable[[Path, Path], None]
) -> None:
    out = tmp_path / "sure"
    out.mkdir()
    select(folder, out)
    expected = read_stored(folder).table
    expected = expected.filter(pyarrow.dataset.field("score") > 0.4).sort_by("anchor_index")
    stored = read_stored(out)
    assert stored.table.sort_by("anchor_index").equals(expected)
    assert (stored.info.images_seen, stored.info.images_without_objects) == (None, {})
    _, images = stored.by_image()
    assert sorted(images) == sorted(set(expected["image"].to_pylist()))
    with warnings.catch_warnings(record=True) as caught:
        convert_objects(out, "csv", tmp_path / "sure.csv")
    assert any("may have the same image_index" in str(each.message) for each in caught) == (select is by_arrow)


def test_pandas_and_arrow_read_the_objects_alone(folder: Path, whole: Path) -> None:
    (folder / "_skipped").mkdir()
    pq.write_table(pa.table({"reason": ["broken"]}), folder / "_skipped" / part_name(0))
    assert pandas.read_parquet(folder).equals(pandas.read_parquet(whole))
    assert pandas.read_parquet(folder).attrs["ssdir"]["fingerprint"] == "weights"
    assert pyarrow.dataset.dataset(folder).to_table().equals(pq.read_table(whole))
    assert read_info(folder).objects == sum(COUNTS)


@pytest.mark.parametrize("to", sorted(SUFFIXES))
def test_a_folder_is_converted_as_the_file_byte_by_byte(
    whole: Path, folder: Path, to: str, tmp_path: Path
) -> None:
    outs = [tmp_path / f"{each.stem}-out{SUFFIXES[to]}" for each in (whole, folder)]
    for path, out in zip((whole, folder), outs, strict=True):
        assert convert_objects(path, to, out) == sum(COUNTS)
    assert outs[0].read_bytes() == outs[1].read_bytes()
    if to == "coco":
        assert sidecar(outs[0]).read_bytes() == sidecar(outs[1]).read_bytes()


@pytest.mark.parametrize("rows", [1, 5, 100])
def test_csv_is_written_in_pieces(
    folder: Path, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_file.stream_objects, "__defaults__", (rows,))
    convert_objects(folder, "csv", tmp_path / "objects.csv")
    written = pandas.read_csv(tmp_path / "objects.csv")
    table = read_stored(folder).table
    assert "z_what_scale_0" not in written
    z_what = written[[f"z_what_{number}" for number in range(LATENT_DIM)]].to_numpy(np.float32)
    np.testing.assert_array_equal(z_what, np.stack(table["z_what"].to_numpy(zero_copy_only=False)))
    assert (
        written["image_index"].tolist()
        == table["image_index"].to_pylist()
        == [0] * 3 + [2, 3, 3] + [6] * 4 + [7, 8, 8]
    )


def test_a_joined_file_keeps_what_was_skipped(folder: Path, tmp_path: Path) -> None:
    assert len(read_skipped(folder)) == 0
    rows = [
        {"image_index": 4, "image": "image-4.png", "box_row": 17, "reason": "the box has no area"},
        {"image_index": 8, "image": "image-8.png", "box_row": None, "reason": "not an image"},
    ]
    for number in (2, 1):
        write_skipped(folder, number, [rows[number - 1]])
    assert read_skipped(folder).to_pylist() == rows
    join_parts(folder, tmp_path / "joined.parquet")
    convert_objects(tmp_path / "joined.parquet", "parquet", tmp_path / "again.parquet")
    assert read_skipped(tmp_path / "again.parquet").to_pylist() == rows
    for source in (folder, tmp_path / "joined.parquet"):
        read_stored(source).write(tmp_path / "more.parquet", {"cluster": np.zeros(13, np.int64)}, force=True)
        assert read_skipped(tmp_path / "more.parquet").to_pylist() == rows
    assert len(read_skipped(folder / part_name(0))) == 0
    table = pq.ParquetFile(tmp_path / "again.parquet").read()
    about = table.schema.metadata
    about[b"ssdir.skipped"] = about[b"ssdir.skipped"].replace(b"8", b"9")
    pq.write_table(table.replace_schema_metadata(about), tmp_path / "again.parquet")
    assert "its metadata under ssdir.skipped has changed" in refused(tmp_path / "again.parquet", read_skipped)


def test_files_of_several_encodings_keep_what_was_skipped(folder: Path, tmp_path: Path) -> None:
    """The last of the nine images of each encoding was skipped, too."""
    (tmp_path / "two").mkdir()
    skipped = [{"image_index": 9, "image": "image-9.png", "box_row": None, "reason": "not an image"}]
    write_skipped(folder, 2, skipped)
    for name in ("a", "b"):
        join_parts(folder, tmp_path / "two" / f"{name}.parquet")
    expected = [*skipped, {**skipped[0], "image_index": 10 + 9}]
    assert read_skipped(tmp_path / "two").to_pylist() == expected
    assert max(read_stored(tmp_path / "two").table["image_index"].to_pylist()) == 10 + 8
    convert_objects(tmp_path / "two", "parquet", tmp_path / "joined.parquet")
    assert read_skipped(tmp_path / "joined.parquet").to_pylist() == expected


# What does not belong together ----------------------------------------------------------------------------


def refused(path: Path, read: Callable[[Path], object] = read_info) -> str:
    with pytest.raises(InputError) as error:
        read(path)
    return str(error.value)


def test_a_part_that_has_lost_the_name_of_its_model(folder: Path) -> None:
    path, identity = folder / part_name(1), read_info(folder).identity
    pq.write_table(pq.ParquetFile(path).read().replace_schema_metadata({}), path)
    assert f"'{path}' does not say which model encoded it" in refused(folder)
    assert not read_info(folder, identity).names_model
    assert read_stored(folder, identity).by_image()[1] == [f"image-{number}.png" for number in (0, 2, 3, 6, 7, 8)]


def test_a_part_that_is_missing(folder: Path) -> None:
    (folder / part_name(1)).unlink()
    assert refused(folder) == (
        f"'{folder}' is not complete, 2 of 3 parts are encoded: the same ssdir encode command goes on"
    )


def test_a_part_of_another_model(folder: Path) -> None:
    write(folder / part_name(1), [1], weights="others")
    sentence = refused(folder)
    assert part_name(0) in sentence
    assert part_name(1) in sentence
    assert "embeddings of different models" in sentence


def test_all_parts_of_another_model_than_the_manifest_s(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**manifest, "fingerprint": "others"}))
    sentence = refused(folder)
    assert f"'{folder}' (model 'tiny')" in sentence
    assert "embeddings of different models" in sentence


def test_a_file_that_is_no_part_of_the_encoding(folder: Path, whole: Path) -> None:
    (folder / "more.parquet").write_bytes(whole.read_bytes())
    assert refused(folder) == (
        f"'{folder}' holds 'more.parquet', which is no part of its encoding: move it elsewhere"
    )


def test_a_part_under_the_name_of_another(folder: Path) -> None:
    (folder / part_name(1)).write_bytes((folder / part_name(2)).read_bytes())
    assert "has images 6 ... 8, expected 3 ... 5 by its name" in refused(folder)


def test_parts_with_other_classes(folder: Path) -> None:
    with ObjectWriter(folder / part_name(1), "tiny", ["cat"], LATENT_DIM, "weights"):
        pass
    sentence = refused(folder)
    assert part_name(0) in sentence
    assert part_name(1) in sentence
    assert "different classes" in sentence


def test_parts_with_embeddings_of_another_size(folder: Path) -> None:
    with ObjectWriter(folder / part_name(2), "tiny", CLASSES, 7, "weights"):
        pass
    assert refused(folder).endswith("don't go together: their embeddings have 4 and 7 numbers")


@pytest.mark.parametrize("kind", [pa.string(), pa.int64()])
def test_parts_with_other_columns(folder: Path, kind: pa.DataType) -> None:
    for number in range(2 if kind == pa.int64() else 1):
        path = folder / part_name(number)
        table = pq.ParquetFile(path).read()
        values = pa.array([1] * len(table)).cast(kind if number == 0 else pa.string())
        pq.write_table(table.append_column("track", values), path)
    sentence = refused(folder)
    assert "the columns 'track' don't go together" in sentence
    assert f"'{folder / part_name(0)}' holds {kind}" in sentence
    other = "holds string" if kind == pa.int64() else "has none"
    assert f"'{folder / part_name(1)}' {other}" in sentence


def test_a_part_without_a_column(folder: Path) -> None:
    path = folder / part_name(1)
    pq.write_table(pq.ParquetFile(path).read().drop_columns("score"), path)
    assert f"'{path}' has no column 'score'" in refused(folder)


def test_a_column_that_only_some_parts_fill(folder: Path) -> None:
    path = folder / part_name(1)
    table = pq.ParquetFile(path).read()
    column = table.schema.get_field_index("z_depth")
    pq.write_table(table.set_column(column, "z_depth", pa.nulls(len(table), pa.float32())), path)
    assert f"row 0 of '{path}' has no z_depth" in refused(folder, read_stored)


def test_a_damaged_part(folder: Path) -> None:
    path = folder / part_name(2)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert f"'{path}' is damaged" in refused(folder)
    place = pq.ParquetFile(io.BytesIO(content)).metadata.row_group(0).total_byte_size // 2
    path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
    assert f"'{path}' is damaged" in refused(folder, read_stored)
    assert f"'{path}' is damaged" in refused(folder, lambda each: join_parts(each, folder.parent / "out.parquet"))
    assert not (folder.parent / "out.parquet").exists()


def test_a_wrong_value_is_named_by_its_part_and_row(folder: Path) -> None:
    path = folder / part_name(2)
    table = pq.ParquetFile(path).read()
    scores = pa.array(np.array([0.5, 7, *[0.5] * (len(table) - 2)], dtype=np.float32))
    pq.write_table(table.set_column(table.schema.get_field_index("score"), "score", scores), path)
    assert refused(folder, read_stored).startswith(f"row 1 of '{path}' (image 'image-6.png') is wrong: score")


def test_a_part_that_changes_while_it_is_read(folder: Path) -> None:
    info = read_info(folder)
    path = folder / part_name(1)
    table = pq.ParquetFile(path).read()
    pq.write_table(table.slice(1), path)
    assert f"'{path}' has changed while it was read" in refused(folder, lambda _: list(stream_objects(info)))


def test_folders_without_objects(tmp_path: Path, folder: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "_part.parquet").touch()
    (empty / "notes.txt").touch()
    assert refused(empty) == f"'{empty}' is a folder without .parquet files of objects"
    (empty / "year=2024").mkdir()
    assert "has a folder 'year=2024' inside" in refused(empty)
    assert "has a folder 'empty' inside" in refused(tmp_path), (
        "objects beside other folders are not a folder of parts"
    )


def test_a_damaged_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("{")
    assert f"'{folder / MANIFEST}': not valid JSON" in refused(folder)
