"""Boxes of the user's own detector are read from files, and bad files are reported."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

import ssdir
from ssdir.cli import app
from ssdir.data.images import read_image
from ssdir.data.orientation import fit_to_annotation, fit_to_picture
from ssdir.encoding.placed_boxes import place
from ssdir.errors import InputError, InputWarning
from ssdir.storage import Location
from ssdir.store.box_columns import CENTRE, XYXY
from ssdir.store.box_files import BoxTable, read_boxes
from ssdir.store.objects_file import read_info, read_objects, read_stored

ROWS = [
    {"image": "c.png", "x1": 1.0, "y1": 1.0, "x2": 20.0, "y2": 20.0, "score": 0.5, "class": "dog", "track_id": 8},
    {"image": "a.png", "x1": 5.0, "y1": 5.0, "x2": 40.0, "y2": 40.0, "score": 0.75, "class": "cat", "track_id": 7},
    {
        "image": "a.png",
        "x1": 70.0,
        "y1": 40.0,
        "x2": 120.0,
        "y2": 90.0,
        "score": 0.25,
        "class": "dog",
        "track_id": 9,
    },
]
"""Of three photos of 90×60 px, of which b.png has none; the last box reaches over the edge."""


def write_csv(folder: Path, rows: Any = ROWS, **names: str) -> Path:
    path = folder / "boxes.csv"
    lines = [",".join(names.get(name, name) for name in rows[0]), *(",".join(map(str, r.values())) for r in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_parquet(folder: Path) -> Path:
    path = folder / "boxes.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), path)
    return path


def coco_parts() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    images = [{"id": 10 + number, "file_name": f"{name}.png"} for number, name in enumerate("abc")]
    categories = [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}]
    boxes = [
        {
            "image_id": 10 + "abc".index(row["image"][0]),
            "bbox": [row["x1"], row["y1"], row["x2"] - row["x1"], row["y2"] - row["y1"]],
            "score": row["score"],
            "category_id": {"cat": 3, "dog": 5}[row["class"]],
            "track_id": row["track_id"],
            "segmentation": [[0, 0, 1, 1, 1, 0]],
        }
        for row in ROWS
    ]
    return {"images": images, "categories": categories}, boxes


def write_coco(folder: Path) -> Path:
    named, boxes = coco_parts()
    (folder / "coco.json").write_text(json.dumps({**named, "annotations": boxes}))
    return folder / "coco.json"


def write_results(folder: Path) -> list[Path | str]:
    named, boxes = coco_parts()
    (folder / "results.json").write_text(json.dumps(boxes))
    (folder / "instances.json").write_text(json.dumps(named))
    return [folder / "results.json", "--annotations", folder / "instances.json"]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({"class": 17, "name": "dog"}, "dog"),
        ({"category_id": 17, "category_name": "dog"}, "dog"),
        ({"class": 17, "class_name": "dog", "name": "mine"}, "dog"),
        ({"class": "dog", "name": "mine"}, "dog"),
        ({"class": 17}, "17"),
        ({"name": "mine"}, "object"),
    ],
)
def test_names_of_classes_are_preferred_to_their_numbers(
    tmp_path: Path, columns: dict[str, object], name: str, suffix: str
) -> None:
    row = {"image": "000.png", "xmin": 10, "ymin": 20, "xmax": 40, "ymax": 60, "confidence": 0.5, **columns}
    path = write_csv(tmp_path, [row])
    if suffix == ".parquet":
        path = path.with_suffix(suffix)
        pq.write_table(pa.Table.from_pylist([row]), path)
    assert read_boxes(path).class_names == [name]


def test_numbers_of_classes_are_the_same_where_one_is_missing(tmp_path: Path) -> None:
    corners = {"image": "a.png", "x1": 1.0, "y1": 1.0, "x2": 20.0, "y2": 20.0}
    table = pa.Table.from_pylist([corners | {"class_id": number} for number in (1.0, None, 2.0, 2.5)])
    pq.write_table(table, tmp_path / "boxes.parquet")
    boxes = read_boxes(tmp_path / "boxes.parquet")
    assert (boxes.class_names, dict(boxes.missing)) == (["1", "2", "2.5"], {1: "class"})


def test_centres_of_roboflow_are_no_corners(tmp_path: Path) -> None:
    row = {"image": "000.png", "x": 100, "y": 100, "width": 40, "height": 20, "confidence": 0.5, "class": "dog"}
    row |= {"class_id": 3, "detection_id": "0a1b"}
    table = read_boxes(write_csv(tmp_path, [row]))
    assert (table.boxes.tolist(), table.class_names) == ([[80, 90, 120, 110]], ["dog"])


def encode(*args: object) -> Any:
    return CliRunner().invoke(app, ["encode", *(str(arg) for arg in args)])


WRITERS: dict[str, Callable[[Path], Any]] = {
    "csv": write_csv,
    "parquet": write_parquet,
    "coco": write_coco,
    "results": write_results,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_each_kind_of_file_is_encoded_as_by_the_library(
    tiny_model_dir: Path, photos: Path, tmp_path: Path, kind: str
) -> None:
    given = WRITERS[kind](tmp_path)
    out = tmp_path / "o.parquet"
    options = given if isinstance(given, list) else [given]
    result = encode(tiny_model_dir, photos, "--boxes", *options, "--out", out, "--batch-size", 2)
    assert result.exit_code == 0, result.output
    assert "for 1 image: " in result.stderr
    objects, images = read_objects(out)
    assert [Path(image).name for image in images] == ["a.png", "b.png", "c.png"]
    assert objects.counts.tolist() == [2, 0, 1]
    # The oracle: the same boxes, handed over as arrays.
    corners = np.array([[row[name] for name in ("x1", "y1", "x2", "y2")] for row in ROWS])
    arrays = [corners[[1, 2]], np.zeros((0, 4)), corners[[0]]]
    expected = ssdir.load(tiny_model_dir, "cpu").encode(images, boxes=arrays, box_unit="pixels")
    np.testing.assert_allclose(objects.z_where, expected.z_where, atol=1e-6)
    assert objects.z_what is not None
    np.testing.assert_allclose(objects.z_what, expected.z_what, rtol=1e-3, atol=1e-4)
    assert objects.boxes_px((60, 90))[1].tolist() == pytest.approx([70, 40, 90, 60], abs=1e-3)
    table = pq.read_table(out)
    assert table["box_row"].to_pylist() == [1, 2, 0]
    assert table["track_id"].to_pylist() == [7, 9, 8]
    assert table["class"].to_pylist() == ["cat", "dog", "dog"]
    assert table["score"].to_pylist() == [0.75, 0.25, 0.5]
    assert "segmentation" not in table.column_names


def test_encoding_detected_boxes_again_gives_the_same_objects(
    tiny_model_dir: Path, photos: Path, tmp_path: Path
) -> None:
    first, again = tmp_path / "first.parquet", tmp_path / "again.parquet"
    assert encode(tiny_model_dir, photos, "--score-threshold", 0.7, "--out", first).exit_code == 0
    read_stored(first).write(first, {"class_name": np.full(read_info(first).objects, "mine")}, force=True)
    assert encode(tiny_model_dir, photos, "--boxes", first, "--out", again).exit_code == 0
    detected, encoded_again = read_objects(first)[0], read_objects(again)[0]
    assert len(detected) > 0
    assert encoded_again.image_index.tolist() == detected.image_index.tolist()
    np.testing.assert_allclose(encoded_again.z_where, detected.z_where, atol=1e-5)
    assert pq.read_table(again)["class"].equals(pq.read_table(first)["class"])
    assert read_info(again).fingerprint == read_info(first).fingerprint


@pytest.mark.parametrize(
    "names", [("x", "y", "w", "h"), ("left", "top", "width", "height"), ("X", " Y", "W", "H")]
)
def test_width_and_height_and_relative_units(tmp_path: Path, names: tuple[str, ...]) -> None:
    row = {"file_name": "000.png", **dict(zip(names, (0.1, 0.2, 0.3, 0.4), strict=True))}
    table = read_boxes(write_csv(tmp_path, [row]), unit="relative")
    np.testing.assert_allclose(table.boxes, [[0.1, 0.2, 0.4, 0.6]])
    assert (table.unit, table.images, table.class_names, table.scores.tolist()) == (
        "relative",
        ["000.png"],
        ["object"],
        [1.0],
    )


@pytest.mark.parametrize("names", XYXY)
def test_corners_by_the_names_of_common_writers(tmp_path: Path, names: tuple[str, ...]) -> None:
    row = {"Filename": "000.png", **dict(zip(names, (10, 20, 40, 60), strict=True))}
    assert read_boxes(write_csv(tmp_path, [row])).boxes.tolist() == [[10, 20, 40, 60]]


@pytest.mark.parametrize("names", CENTRE)
def test_boxes_by_their_centre(tmp_path: Path, names: tuple[str, ...]) -> None:
    row = {"image": "000.png", **dict(zip(names, (25, 40, 30, 40), strict=True))}
    assert read_boxes(write_csv(tmp_path, [row])).boxes.tolist() == [[10, 20, 40, 60]]


@pytest.mark.parametrize("name", ["z_depth", "row", "cluster", "views"])
def test_columns_that_are_also_ours_are_renamed(tmp_path: Path, name: str) -> None:
    table = read_boxes(write_csv(tmp_path, track_id=name))
    assert table.given.column_names == ["box_row", f"given_{name}"]


def test_spaces_after_commas_are_no_part_of_names_and_values(tmp_path: Path) -> None:
    expected, path = read_boxes(write_csv(tmp_path)), tmp_path / "boxes.csv"
    path.write_text(path.read_text().replace(",", ", "))
    table = read_boxes(path)
    assert (table.images, table.class_names) == (expected.images, expected.class_names)
    assert table.given.equals(expected.given)
    path.write_text(path.read_text().replace("x1", " score", 1))
    with pytest.raises(InputError, match="has two columns 'score'"):
        read_boxes(path)


def test_lists_of_other_tools_are_left_out(tmp_path: Path) -> None:
    pq.write_table(
        pa.Table.from_pylist([{**row, "embedding": [1.0, 2.0]} for row in ROWS]), tmp_path / "b.parquet"
    )
    assert read_boxes(tmp_path / "b.parquet").given.column_names == ["box_row", "track_id"]


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    expected = read_boxes(path)
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert np.array_equal(read_boxes(path).boxes, expected.boxes)


def bad(values: dict[str, Any]) -> list[dict[str, Any]]:
    return [ROWS[0], {**ROWS[1], **values}, ROWS[2]]


@pytest.mark.parametrize(
    "values",
    [{"x2": 5.0}, {"x1": 95.0, "x2": 99.0}, {"y1": float("nan")}, {"y2": ""}],
    ids=["no area", "outside", "nan", "missing"],
)
def test_boxes_without_area_are_skipped_by_their_row(
    tiny_model_dir: Path, photos: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    boxes, out = write_csv(tmp_path, bad(values)), tmp_path / "o.parquet"
    command = (tiny_model_dir, photos, "--boxes", boxes, "--out", out)
    strict = encode(*command, "--strict")
    assert strict.exit_code == 2
    assert "row 1 of" in strict.stderr
    assert not out.exists()
    result = encode(*command)
    assert result.exit_code == 0, result.output
    assert "skipped: row 1 of" in result.stderr
    assert "1 box skipped" in result.stdout
    assert pq.read_table(out)["box_row"].to_pylist() == [2, 0]


OUTER_JOIN = """file_name,x1,y1,x2,y2,score,class
a.png,5,5,40,40,0.5,cat
b.png,,,,,,
c.png,5,5,40,40,,cat
,5,5,40,40,0.5,cat
a.png,5,5,30,30,0.5,
"""


def test_rows_that_lack_something_are_left_out_and_counted(
    tiny_model_dir: Path, photos: Path, tmp_path: Path
) -> None:
    boxes, out = tmp_path / "boxes.csv", tmp_path / "o.parquet"
    boxes.write_text(OUTER_JOIN)
    result = encode(tiny_model_dir, photos, "--boxes", boxes, "--out", out)
    assert result.exit_code == 0, result.output
    assert pq.read_table(out)["box_row"].to_pylist() == [0]
    assert read_info(out).class_names == ["cat"]
    for row, what in ((1, "box"), (2, "score"), (4, "class")):
        assert f"skipped: row {row} of '{boxes}' has no {what}" in result.stderr
    assert "has 1 row without an image, left out: row 3" in result.stderr
    assert "3 boxes skipped" in result.stdout
    assert (
        encode(tiny_model_dir, photos, "--boxes", boxes, "--out", tmp_path / "s.parquet", "--strict").exit_code
        == 2
    )
    boxes.write_text("".join(OUTER_JOIN.splitlines(keepends=True)[i] for i in (0, 2, 3)))
    with pytest.raises(InputError, match="holds no boxes: row 0 has no box, and so on"):
        read_boxes(boxes)


def reduced(photos: Path) -> None:
    """Halves the photos to 45×30 px, and stores a.png turned by its EXIF orientation."""
    for path in photos.iterdir():
        image = Image.open(path).resize((45, 30))
        exif = Image.Exif()
        if path.stem == "a":
            exif[0x0112] = 6
            image = image.transpose(Image.Transpose.ROTATE_90)
        image.save(path, exif=exif)


@pytest.mark.parametrize("kind", ["csv", "tensorflow", "parquet", "coco", "results"])
def test_boxes_of_reduced_pictures_are_reduced_with_them(
    tiny_model_dir: Path, photos: Path, tmp_path: Path, kind: str
) -> None:
    reduced(photos)
    size = {"width": 90, "height": 60}
    if kind in ("coco", "results"):
        given = WRITERS[kind](tmp_path)
        path = tmp_path / ("coco.json" if kind == "coco" else "instances.json")
        content = json.loads(path.read_text())
        content["images"] = [{**image, **size} for image in content["images"]]
        path.write_text(json.dumps(content))
    elif kind == "tensorflow":  # Its tables call an image's size so; the last box is left out, it reaches over.
        given = write_csv(tmp_path, [{**row, **size} for row in ROWS[:2]])
    else:
        rows = [{**row, **{f"image_{name}": side for name, side in size.items()}} for row in ROWS]
        given = write_csv(tmp_path, rows)
        if kind == "parquet":
            given = tmp_path / "boxes.parquet"
            pq.write_table(pa.Table.from_pylist(rows), given)
    out = tmp_path / "o.parquet"
    options = given if isinstance(given, list) else [given]
    result = encode(tiny_model_dir, photos, "--boxes", *options, "--out", out)
    assert result.exit_code == 0, result.output
    rows = pq.read_table(out)
    boxes = np.stack([rows[f"box_{name}"].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)
    expected = [[2.5, 2.5, 20, 20], [35, 20, 45, 30], [0.5, 0.5, 10, 10]]
    np.testing.assert_allclose(
        boxes, [expected[i] for i in ((0, 2) if kind == "tensorflow" else (0, 1, 2))], atol=1e-4
    )


@pytest.mark.parametrize("orientation", range(5, 9))
def test_boxes_of_pictures_as_stored_are_turned_by_their_exif_orientation(
    tmp_path: Path, orientation: int
) -> None:
    pixels = np.zeros((48, 96), np.uint8)
    pixels[8:32, 16:40] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    rows, columns = np.nonzero(read_image(tmp_path / "a.png")[..., 0])
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    stored = np.array([[16.0, 8, 40, 32]])
    for scale in (1, 2):
        annotated_size = (48 // scale, 96 // scale)
        turned = fit_to_picture(stored / scale, annotated_size, (96, 48), tmp_path / "a.png")
        assert turned.tolist() == [seen]
        assert (
            fit_to_annotation(turned, (96, 48), annotated_size, tmp_path / "a.png") * scale
        ).tolist() == stored.tolist()


def test_boxes_annotated_for_another_picture_are_refused(
    tiny_model_dir: Path, photos: Path, tmp_path: Path
) -> None:
    rows = [{**row, "image_width": 90, "image_height": 90 if row["image"] == "c.png" else 60} for row in ROWS]
    boxes, out = write_csv(tmp_path, rows), tmp_path / "o.parquet"
    result = encode(tiny_model_dir, photos, "--boxes", boxes, "--out", out)
    assert result.exit_code == 0, result.output
    assert (
        f"row 0 of '{boxes}': '{photos / 'c.png'}' has 90 x 60 pixels, but is annotated as 90 x 90"
        in result.stderr
    )
    assert pq.read_table(out)["box_row"].to_pylist() == [1, 2]
    boxes = write_csv(tmp_path, [{**ROWS[0], "image_width": 90.5, "image_height": 60}])
    with pytest.raises(InputError, match=r"row 0 .* says that its image has 90\.5 x 60 pixels"):
        read_boxes(boxes)


def test_width_and_height_of_the_box_are_no_size_of_the_image(tmp_path: Path) -> None:
    rows = [{**row, "width": row["x2"] - row["x1"], "height": row["y2"] - row["y1"]} for row in ROWS]
    assert not read_boxes(write_csv(tmp_path, rows)).sizes.any()
    assert not read_boxes(write_csv(tmp_path, [{**row, "width": 30, "height": 30} for row in ROWS])).sizes.any()


def test_outlines_and_text_ids_of_coco_are_read_as_in_data_sets(tmp_path: Path) -> None:
    content = {
        "images": [{"id": "x", "file_name": "a.png"}],
        "annotations": [{"image_id": "x", "category_id": "c", "segmentation": [[10, 8, 40, 8, 40, 28]]}],
    }
    (tmp_path / "coco.json").write_text(json.dumps(content))
    table = read_boxes(tmp_path / "coco.json")
    assert (table.boxes.tolist(), table.images, table.class_names) == ([[10, 8, 40, 28]], ["a.png"], ["c"])
    content["annotations"] = [{"image_id": "x", "bbox": [1, 2, 3, 4], "score": score} for score in (0.5, None)]
    (tmp_path / "coco.json").write_text(json.dumps(content).replace("null", "NaN"))
    table = read_boxes(tmp_path / "coco.json")
    assert (table.class_names, dict(table.missing)) == (["object"], {1: "score"})


def test_images_that_are_not_given(tiny_model_dir: Path, photos: Path, tmp_path: Path) -> None:
    boxes, out = write_csv(tmp_path), tmp_path / "o.parquet"
    command = (tiny_model_dir, photos / "a.png", "--boxes", boxes, "--out", out)
    assert "image 'c.png'" in encode(*command, "--strict").stderr
    result = encode(*command)
    assert result.exit_code == 0, result.output
    assert "has boxes of 1 image not given here, left out: 'c.png'" in result.stderr
    assert pq.read_table(out)["box_row"].to_pylist() == [1, 2]
    nowhere = encode(tiny_model_dir, photos / "b.png", "--boxes", boxes, "--out", tmp_path / "n.parquet")
    assert nowhere.exit_code == 2
    assert "none of the 2 images" in nowhere.stderr


def boxes_of(*images: str) -> BoxTable:
    count = len(images)
    zeros = np.zeros((count, 4))
    labels, rows = np.zeros(count, np.int64), pa.table({"box_row": list(range(count))})
    ones, sizes = np.ones(count, np.float32), np.zeros((count, 2), np.int64)
    return BoxTable(Path("b"), list(images), zeros, "pixels", ones, labels, ["object"], rows, sizes)


def test_names_mean_the_file_whose_path_ends_with_them() -> None:
    files = [Path("x/one/1.png"), Path("x/two/1.png"), Path("x/two/2.png")]
    placed = place(boxes_of("two\\1.png", "C:\\moved\\2.png", "one/1.png", "two\\1.png", "three/2.png"), files)
    assert {file: rows.tolist() for file, rows in placed.rows.items()} == {
        files[1]: [0, 3],
        files[2]: [1],
        files[0]: [2],
    }
    assert placed.unknown == ["three/2.png"]
    with pytest.raises(InputError, match="may be"):
        place(boxes_of("1.png"), files)
    with pytest.raises(InputError, match="name it in one way"):
        place(boxes_of("2.png", "two/2.png"), files)


def test_whole_paths_mean_another_file_only_where_images_have_moved(tmp_path: Path) -> None:
    train, val, gone = (tmp_path / name / "0.png" for name in ("train", "val", "gone"))
    for path in (train, val):
        path.parent.mkdir()
        path.touch()
    assert place(boxes_of(str(train), str(val)), [val]).rows.keys() == {val}
    with pytest.raises(InputError, match=r"none of the 1 images"):
        place(boxes_of(str(train)), [val])
    with pytest.warns(InputWarning, match=r"1 image elsewhere.*gone/0\.png' on '.*val/0\.png'"):
        placed = place(boxes_of(str(gone)), [val, val])
    assert (list(placed.rows), placed.without) == ([val], [])
    placed = place(boxes_of(str(gone), str(val)), [val])
    assert placed.rows[val].tolist() == [1]
    assert placed.unknown == [str(gone)]


def test_equal_names_mean_the_same_file(tmp_path: Path) -> None:
    files: list[Location] = ["https://host/a.jpg?size=2", tmp_path / "a b.png", tmp_path / "x\\c.png"]
    names = ("https://host/a.jpg?size=2", f"{tmp_path.as_uri()}/a%20b.png", "x\\c.png")
    assert place(boxes_of(*names), files).rows.keys() == set(files)


def test_names_mean_uris_as_they_mean_paths() -> None:
    files: list[Location] = ["s3://b/one/1.png", "s3://b/two/1.png", "https://host/3.png?size=2", Path("x/2.png")]
    placed = place(boxes_of("two/1.png", "s3://b/one/1.png", "s3://old/bucket/2.png", "3.png"), files)
    assert {file: rows.tolist() for file, rows in placed.rows.items()} == {
        files[1]: [0],
        files[0]: [1],
        files[3]: [2],
        files[2]: [3],
    }
    with pytest.raises(InputError, match="may be"):
        place(boxes_of("1.png"), files)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("b.csv", "", "is empty"),
        ("b.csv", "image,x1,y1,x2,y2\n", "holds no boxes"),
        ("b.csv", "image,x1,y1,x2\na,1,2,3\n", r"the box \(x1.*it has image, x1, y1, x2"),
        ("b.csv", "frame,x1,y1,x2,y2\na,1,2,3,4\n", r"the image \(image, file_name.*it has frame"),
        ("b.csv", "image,x1,y1,x2,y2\na,1,2,3,four\n", "column 'y2' .* other than numbers"),
        ("b.csv", "image,x1,y1,x2,y2,score\na,1,2,3,4,7\n", r"row 0 .* score 7, expected 0 \.\.\. 1"),
        ("b.csv", "image,x1\na,1,2,3\n", "not a CSV table"),
        ("b.csv", "image,x1,y1,x2,y2,score,score\na,1,2,3,4,1,1\n", "two columns 'score'"),
        ("b.parquet", "no", "damaged or not a Parquet"),
        ("b.json", "{[", "not valid JSON"),
        ("b.json", "[]", "by --annotations"),
        ("b.json", "3", "not COCO annotations .it is a number, expected an object"),
        ("b.json", '{"images": [], "annotations": []}', "holds no boxes"),
        (
            "b.json",
            '{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3]}]}',
            "number 0 .* no bbox of four",
        ),
        (
            "b.json",
            '{"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}',
            "number 0 .* unknown image 1",
        ),
        ("b.txt", "1 2 3 4", "must be a .json"),
    ],
)
def test_bad_files_are_reported_in_one_sentence(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as error:
        read_boxes(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--boxes", "nope.csv"], "not there"),
        (["--annotations", "i.json"], "--boxes"),
        (["--boxes", "nope.csv", "--score-threshold", 0.5], "--score-threshold"),
        (["--boxes", "nope.csv", "--engine", "onnx"], "exported models only detect objects"),
    ],
)
def test_options_that_do_not_fit(
    tiny_model_dir: Path, photos: Path, tmp_path: Path, options: list[object], message: str
) -> None:
    result = encode(tiny_model_dir, photos, "--out", tmp_path / "o.parquet", *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "\n" not in result.stderr.strip()
