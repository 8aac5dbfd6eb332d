import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from typer.testing import CliRunner

from ssdir.cli import app
from ssdir.errors import InputError, InputWarning
from ssdir.object_arrays import ObjectArrays
from ssdir.store import convert as formats
from ssdir.store.convert import convert_objects, sidecar
from ssdir.store.writer import ObjectWriter

SIZES = [(100, 200), (50, 50), (80, 40)]
IMAGES = ["a/x.png", "a/y.png", "b/z.png"]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Writes three objects: two in the first image, and one, without depth, in the last."""
    path = tmp_path / "objects.parquet"
    objects = ObjectArrays(
        image_index=np.array([0, 0, 2]),
        batch_size=3,
        z_where=np.array([[0.5, 0.5, 0.5, 0.2], [0.25, 0.75, 0.1, 0.1], [0.5, 0.5, 1, 1]], np.float32),
        scores=np.array([0.75, 0.5, 0.25], np.float32),
        labels=np.array([1, 0, 1]),
        z_what=np.arange(6, dtype=np.float32).reshape(3, 2),
        z_what_scale=None,
        z_depth=np.array([1, 2, 3], np.float32),
        anchor_index=np.array([7, 8, 9]),
    )
    with ObjectWriter(path, "m", ["cat", "dog"], 2, "weights") as writer:
        writer.write(objects, IMAGES, SIZES)
    return path


def test_pycocotools_loads_the_results(stored: Path, tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    assert convert_objects(stored, "coco", out) == 3
    loaded = COCO(str(sidecar(out))).loadRes(str(out))
    annotations = loaded.loadAnns(loaded.getAnnIds(imgIds=[1]))
    np.testing.assert_allclose(annotations[0]["bbox"], [50, 40, 100, 20], atol=1e-4)
    assert [loaded.loadCats(ann["category_id"])[0]["name"] for ann in annotations] == ["dog", "cat"]
    assert loaded.loadImgs(3)[0]["file_name"] == "b/z.png"
    assert loaded.getAnnIds(imgIds=[2]) == []


def test_results_take_the_ids_of_a_data_set(stored: Path, tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "images": [{"id": 70 + i, "file_name": f"{name}.png"} for i, name in enumerate("zyx")],
        "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
    }
    annotations, out = tmp_path / "instances.json", tmp_path / "results.json"
    annotations.write_text(json.dumps(content))
    convert_objects(stored, "coco", out, annotations)
    results = json.loads(out.read_text())
    assert [(row["image_id"], row["category_id"]) for row in results] == [(72, 18), (72, 17), (70, 18)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "not valid JSON at line 1"),
        ('{"images": [], "categories": []}', "no image 'x.png'"),
        (
            '{"images": [{"id": 1, "file_name": "p/x.png"}, {"id": 2, "file_name": "q/x.png"}], "categories": []}',
            "may be 'p/x.png' or 'q/x.png'",
        ),
    ],
)
def test_annotations_that_do_not_fit(stored: Path, tmp_path: Path, content: str, sentence: str) -> None:
    annotations = tmp_path / "instances.json"
    annotations.write_text(content)
    with pytest.raises(InputError, match=sentence):
        convert_objects(stored, "coco", tmp_path / "out" / "results.json", annotations)
    assert not (tmp_path / "out").exists()


def test_fiftyone_has_relative_boxes_and_attributes(stored: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples.json"
    convert_objects(stored, "fiftyone", out)
    samples = json.loads(out.read_text())["samples"]
    assert [sample["filepath"] for sample in samples] == [str(Path(image).absolute()) for image in IMAGES]
    assert [len(sample["objects"]["detections"]) for sample in samples] == [2, 0, 1]
    first = samples[0]["objects"]["detections"][0]
    assert first["_cls"] == "Detection"
    assert (first["label"], first["confidence"]) == ("dog", 0.75)
    np.testing.assert_allclose(first["bounding_box"], [0.25, 0.4, 0.5, 0.2], atol=1e-6)
    assert first["z_what"] == [0, 1]
    assert first["z_what_scale"] is None


def test_fiftyone_is_given_frames_of_videos_with_a_warning(tmp_path: Path) -> None:
    path, names = tmp_path / "tracks.parquet", ["a.png", "clip.mp4#frame=0", "clip.mp4#frame=1"]
    with ObjectWriter(path, "m", ["cat"], 2, "weights") as writer:
        writer.write(ObjectArrays.empty(3), names, SIZES)
    with pytest.warns(
        InputWarning, match="has 2 frames of videos, such as 'clip.mp4#frame=0', and FiftyOne opens"
    ):
        convert_objects(path, "fiftyone", tmp_path / "samples.json")


def test_numpy_has_every_column(stored: Path, tmp_path: Path) -> None:
    out = tmp_path / "objects.npz"
    convert_objects(stored, "npz", out)
    arrays = np.load(out, allow_pickle=False)
    np.testing.assert_array_equal(arrays["z_what"], np.arange(6).reshape(3, 2))
    assert arrays["images"].tolist() == IMAGES
    assert arrays["class"].tolist() == ["dog", "cat", "dog"]
    assert "z_what_scale" not in arrays


def test_csv_has_a_column_per_coordinate(stored: Path, tmp_path: Path) -> None:
    out = tmp_path / "objects.csv"
    convert_objects(stored, "csv", out)
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(float(row["z_what_0"]), float(row["z_what_1"])) for row in rows] == [(0, 1), (2, 3), (4, 5)]
    assert rows[2]["image"] == "b/z.png"


@pytest.fixture
def with_further(stored: Path) -> Path:
    """Adds columns as other commands and tools do; the second object has no track, and an unknown probability."""
    table = pq.read_table(stored)
    further = {
        "track_id": pa.array([4, None, 7]),
        "probability": pa.array([0.5, float("nan"), None]),
        "predicted": pa.array(["kitten", None, "puppy"]).dictionary_encode(),
        "checked": pa.array([True, None, False]),
        "day": pa.array([19000, 19001, None], pa.date32()),
        "thumbnail": pa.array([b"\xff", b"", None]),
        "outline": pa.array([[1, 2], [], None]),
    }
    for name, column in further.items():
        table = table.append_column(name, column)
    pq.write_table(table, stored)
    return stored


def convert_with_warning(stored: Path, to: str, left: str) -> Path:
    out = stored.parent / f"further{formats.SUFFIXES[to]}"
    with pytest.warns(InputWarning) as record:
        convert_objects(stored, to, out)
    said = [str(each.message).partition(" of ")[0] for each in record]
    assert [each for each in said if each.startswith("left out")] == [f"left out: {left}"]
    return out


def test_csv_keeps_further_columns(with_further: Path) -> None:
    with convert_with_warning(with_further, "csv", "'thumbnail', 'outline'").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["track_id"] for row in rows] == ["4", "", "7"]
    assert [row["predicted"] for row in rows] == ["kitten", "", "puppy"]
    assert rows[0]["day"] == "2022-01-08"
    assert rows[0]["z_what_1"] == "1"


def test_numpy_keeps_further_columns(with_further: Path) -> None:
    arrays = np.load(convert_with_warning(with_further, "npz", "'thumbnail', 'outline'"), allow_pickle=False)
    np.testing.assert_array_equal(arrays["track_id"], [4, np.nan, 7])
    np.testing.assert_array_equal(arrays["probability"], [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(arrays["checked"], [1, np.nan, 0])
    assert arrays["predicted"].tolist() == ["kitten", "", "puppy"]
    assert arrays["day"][0] == np.datetime64("2022-01-08")


def test_fiftyone_keeps_further_columns_as_attributes(with_further: Path) -> None:
    out = convert_with_warning(with_further, "fiftyone", "'thumbnail', 'outline'")
    samples = json.loads(out.read_text())["samples"]
    first, second = samples[0]["objects"]["detections"]
    assert (first["index"], first["probability"], first["checked"]) == (4, 0.5, True)
    assert (first["predicted"], first["day"]) == ("kitten", "2022-01-08")
    assert [second[name] for name in ("index", "probability", "predicted")] == [None] * 3
    assert "track_id" not in first


def test_coco_results_keep_tracks(with_further: Path) -> None:
    out = convert_with_warning(
        with_further, "coco", "'probability', 'predicted', 'checked', 'day', 'thumbnail', 'outline'"
    )
    assert [row.get("track_id") for row in json.loads(out.read_text())] == [4, None, 7]
    assert COCO(str(sidecar(out))).loadRes(str(out)).anns[1]["track_id"] == 4


@pytest.mark.parametrize(("to", "name"), [("csv", "z_what_0"), ("fiftyone", "id"), ("npz", "images")])
def test_a_further_column_does_not_replace_what_the_format_has(stored: Path, to: str, name: str) -> None:
    pq.write_table(pq.read_table(stored).append_column(name, pa.array([7, 8, 9])), stored)
    out = convert_with_warning(stored, to, f"'{name}'")
    if to == "csv":
        with out.open(newline="") as stream:
            assert [row["z_what_0"] for row in csv.DictReader(stream)] == ["0", "2", "4"]
    elif to == "npz":
        assert np.load(out)["images"].tolist() == ["a/x.png", "b/z.png"]
    else:
        assert name not in json.loads(out.read_text())["samples"][0]["objects"]["detections"][0]


def test_files_that_another_tool_wrote_again_do_not_know_images_without_objects(
    stored: Path, tmp_path: Path
) -> None:
    pandas.read_parquet(stored).to_parquet(stored)
    with pytest.warns(InputWarning, match="written again by another tool, which leaves out the list of images"):
        assert convert_objects(stored, "npz", tmp_path / "objects.npz") == 3
    assert np.load(tmp_path / "objects.npz")["images"].tolist() == ["a/x.png", "b/z.png"]


@pytest.mark.parametrize("to", ["coco", "csv", "fiftyone", "npz"])
def test_nothing_detected(tmp_path: Path, to: str) -> None:
    path = tmp_path / "objects.parquet"
    with ObjectWriter(path, "m", ["cat"], 2, "weights") as writer:
        writer.write(ObjectArrays.empty(1), ["a.png"], [(5, 5)])
    assert convert_objects(path, to, tmp_path / f"out{formats.SUFFIXES[to]}") == 0


def test_command(stored: Path, tmp_path: Path) -> None:
    def run(*args: object) -> Any:
        return CliRunner().invoke(app, ["convert", str(stored), *(str(arg) for arg in args)])

    out = tmp_path / "results.json"
    assert "must end in .npz" in run("--to", "npz", "--out", out).stderr
    done = run("--to", "coco", "--out", out)
    assert done.exit_code == 0, done.output
    assert "3 objects as coco" in done.stdout
    assert "next: " in done.stdout
    assert "exists already" in run("--to", "coco", "--out", out).stderr
    assert run("--to", "coco", "--out", out, "--force").exit_code == 0
    stored.write_bytes(b"no Parquet")
    assert "not a Parquet file" in run("--to", "csv", "--out", tmp_path / "x.csv").stderr


def write_agnostic(path: Path, boxes: list[tuple[int, float, tuple[float, ...]]], size: tuple[int, int]) -> None:
    """Writes objects without classes, given (image, score, cxcywh), of the images `0.png`, `1.png`, …"""
    image, scores, z_where = zip(*boxes, strict=True)
    count, images = len(boxes), max(image) + 1
    ones, zeros = np.ones(count, np.float32), np.zeros(count, np.int64)
    what = np.ones((count, 2), np.float32)
    where = np.array(z_where, np.float32)
    objects = ObjectArrays(
        np.array(image), images, where, np.array(scores, np.float32), zeros, what, None, ones, zeros
    )
    with ObjectWriter(path, "m", ["object"], 2, "weights") as writer:
        writer.write(objects, [str(path.parent / f"{i}.png") for i in range(images)], [size] * images)


@pytest.mark.parametrize(
    ("categories", "category"),
    [
        ([{"id": 5, "name": "face"}], {"id": 5, "name": "face"}),
        ([{"id": 7, "name": "dog"}, {"id": 5, "name": "cat"}], {"id": 5, "name": "cat"}),
        ([{"id": 5, "name": "cat"}, {"id": 7, "name": "object"}], {"id": 7, "name": "object"}),
        ([], {"id": 1, "name": "object"}),
    ],
)
def test_objects_without_classes_take_the_id_of_a_category_that_there_is(
    tmp_path: Path, categories: list[dict[str, Any]], category: dict[str, Any]
) -> None:
    stored, annotations, out = (tmp_path / name for name in ("o.parquet", "instances.json", "results.json"))
    write_agnostic(stored, [(0, 1, (0.5, 0.5, 0.2, 0.2))], (9, 9))
    annotations.write_text(json.dumps({"images": [{"id": 70, "file_name": "0.png"}], "categories": categories}))
    result = CliRunner().invoke(
        app, ["convert", str(stored), "--to", "coco", "--out", str(out), "--annotations", str(annotations)]
    )
    assert result.exit_code == 0, result.output
    assert "useCats = 0" in result.output
    row = json.loads(out.read_text())[0]
    assert (row["image_id"], row["category_id"]) == (70, category["id"])
    assert json.loads(sidecar(out).read_text())["categories"] == [category]


def write_annotations(path: Path, size: tuple[int, int], boxes: list[tuple[int, int, list[float]]]) -> None:
    """Writes images `0.png` and `1.png` with the ids 10 and 11, and boxes (image, category, xywh)."""
    content = {
        "images": [{"id": 10 + i, "file_name": f"{i}.png", "height": size[0], "width": size[1]} for i in (0, 1)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [
            {"id": i + 1, "image_id": 10 + image, "category_id": category, "bbox": box, "area": box[2] * box[3]}
            | {"iscrowd": 0}
            for i, (image, category, box) in enumerate(boxes)
        ],
    }
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("scale", [1, 2])
def test_results_without_classes_have_the_expected_precision(tmp_path: Path, scale: int) -> None:
    """One of three objects of two classes is missed, and the second of three detections is wrong."""
    stored, annotations, out = (tmp_path / name for name in ("o.parquet", "instances.json", "results.json"))
    right = [(0, 0.9, (0.5, 0.5, 0.4, 0.4)), (1, 0.7, (0.25, 0.25, 0.2, 0.4))]
    write_agnostic(stored, [*right, (1, 0.8, (0.8, 0.8, 0.1, 0.1))], (100, 200))
    truth = [(0, 5, [60, 30, 80, 40]), (1, 3, [30, 5, 40, 40]), (1, 5, [150, 10, 20, 20])]
    scaled = [(image, category, [side * scale for side in box]) for image, category, box in truth]
    write_annotations(annotations, (100 * scale, 200 * scale), scaled)
    with pytest.warns(InputWarning, match="the model is class-agnostic"):
        assert convert_objects(stored, "coco", out, annotations) == 3
    given = COCO(str(annotations))
    measured = COCOeval(given, given.loadRes(str(out)), "bbox")
    measured.params.useCats = 0
    measured.evaluate()
    measured.accumulate()
    measured.summarize()
    # Precision is 1 up to a recall of 1/3 (34 of the 101 thresholds), then 2/3 up to 2/3 (33), then 0.
    assert measured.stats[:2].tolist() == pytest.approx([(34 + 33 * 2 / 3) / 101] * 2)


def test_results_are_of_pictures_as_annotated(tmp_path: Path) -> None:
    """The picture is stored and annotated on its side; with its EXIF orientation applied, it has 60×40 px."""
    stored, annotations, out = (tmp_path / name for name in ("o.parquet", "instances.json", "results.json"))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("0.png", "1.png"):
        Image.new("L", (60, 40)).save(tmp_path / name, exif=exif)
    write_agnostic(stored, [(0, 1, (0.25, 0.5, 0.5, 0.5)), (1, 1, (0.5, 0.5, 1, 1))], (60, 40))
    write_annotations(annotations, (40, 60), [])
    with pytest.warns(InputWarning, match="the model is class-agnostic"):
        convert_objects(stored, "coco", out, annotations)
    # As displayed: x 0 … 20, y 15 … 45. Turned back by a quarter: x is the old y, y is 40 less the old x.
    boxes = [row["bbox"] for row in json.loads(out.read_text())]
    np.testing.assert_allclose(boxes, [[15, 20, 30, 20], [0, 0, 60, 40]], atol=1e-4)
    (tmp_path / "0.png").unlink()
    with pytest.raises(InputError, match=r"0\.png' does not exist"):
        convert_objects(stored, "coco", out, annotations, force=True)
    write_annotations(annotations, (60, 60), [])
    Image.new("L", (40, 60)).save(tmp_path / "0.png")
    with pytest.raises(InputError, match=r"0\.png' has 40 x 60 pixels, but is annotated as 60 x 60"):
        convert_objects(stored, "coco", out, annotations, force=True)


def test_images_are_known_by_the_end_of_their_path(stored: Path, tmp_path: Path) -> None:
    annotations, out = tmp_path / "instances.json", tmp_path / "results.json"
    names = ["b\\x.png", "C:\\data\\a\\x.png", "y.png", "z.png"]
    content = {
        "images": [{"id": f"i{i}", "file_name": name} for i, name in enumerate(names)],
        "categories": [{"id": "d", "name": "dog"}, {"id": "c", "name": "cat"}],
    }
    annotations.write_text(json.dumps(content))
    convert_objects(stored, "coco", out, annotations)
    rows = [(row["image_id"], row["category_id"]) for row in json.loads(out.read_text())]
    assert rows == [("i1", "d"), ("i1", "c"), ("i3", "d")]


def test_no_json_with_numbers_that_are_none(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'o' holds numbers that are not finite"):
        formats._write_json([float("nan")], tmp_path / "r.json", "o")
