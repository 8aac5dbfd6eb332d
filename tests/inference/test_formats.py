import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from typer.testing import CliRunner

from ssdir.cli import app
from ssdir.errors import InputError
from ssdir.inference.arrays import ObjectArrays
from ssdir.inference.formats import convert_objects, sidecar
from ssdir.inference.store import ObjectWriter

SIZES = [(100, 200), (50, 50), (80, 40)]
IMAGES = ["a/x.png", "a/y.png", "b/z.png"]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Three objects: two in the first image, one, without depth, in the last."""
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
    found = loaded.loadAnns(loaded.getAnnIds(imgIds=[1]))
    np.testing.assert_allclose(found[0]["bbox"], [50, 40, 100, 20], atol=1e-4)
    assert [loaded.loadCats(ann["category_id"])[0]["name"] for ann in found] == ["dog", "cat"]
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
            "same name",
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
    assert [sample["filepath"] for sample in samples] == IMAGES
    assert [len(sample["objects"]["detections"]) for sample in samples] == [2, 0, 1]
    first = samples[0]["objects"]["detections"][0]
    assert first["_cls"] == "Detection"
    assert (first["label"], first["confidence"]) == ("dog", 0.75)
    np.testing.assert_allclose(first["bounding_box"], [0.25, 0.4, 0.5, 0.2], atol=1e-6)
    assert first["z_what"] == [0, 1]
    assert first["z_what_scale"] is None


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


@pytest.mark.parametrize("to", ["coco", "csv", "fiftyone", "npz"])
def test_nothing_found(tmp_path: Path, to: str) -> None:
    path = tmp_path / "objects.parquet"
    with ObjectWriter(path, "m", ["cat"], 2, "weights") as writer:
        writer.write(ObjectArrays.empty(1), ["a.png"], [(5, 5)])
    assert convert_objects(path, to, tmp_path / "out") == 0


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


@pytest.mark.parametrize(
    ("names", "category"), [(["face"], {"id": 5, "name": "face"}), (["cat", "dog"], {"id": 7, "name": "object"})]
)
def test_objects_without_classes_take_the_ids_of_images(
    tmp_path: Path, names: list[str], category: dict[str, Any]
) -> None:
    stored, annotations, out = (tmp_path / name for name in ("o.parquet", "instances.json", "results.json"))
    with ObjectWriter(stored, "m", ["object"], 2, "weights") as writer:
        zero, one = np.zeros(1, dtype=np.int64), np.ones(1, np.float32)
        box = np.array([[0.5, 0.5, 0.2, 0.2]], np.float32)
        writer.write(
            ObjectArrays(zero, 1, box, one, zero, np.ones((1, 2), np.float32), None, one, zero),
            ["x.png"],
            [(9, 9)],
        )
    categories = [{"id": 5 + i, "name": name} for i, name in enumerate(names)]
    annotations.write_text(json.dumps({"images": [{"id": 70, "file_name": "x.png"}], "categories": categories}))
    result = CliRunner().invoke(
        app, ["convert", str(stored), "--to", "coco", "--out", str(out), "--annotations", str(annotations)]
    )
    assert result.exit_code == 0, result.output
    assert "useCats = 0" in result.output
    row = json.loads(out.read_text())[0]
    assert (row["image_id"], row["category_id"]) == (70, category["id"])
    assert json.loads(sidecar(out).read_text())["categories"] == [category]
