"""The Python of docs/interop.md, own-boxes.md and parquet.md runs as it stands.

FiftyOne is no dependency: here its first example runs against a stub that takes the arguments which FiftyOne's
classes name. `test_interop_fiftyone.py` runs both with FiftyOne itself.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import supervision
import torch
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

import ssdir
from fake_hub import Hub
from ssdir.cli import app
from ssdir.store.objects_file import read_info, read_objects
from ssdir.store.skipped import read_skipped

DOCS = Path(__file__).parent.parent / "docs"
PAGES = {name: (DOCS / name).read_text(encoding="utf-8") for name in ("interop.md", "own-boxes.md", "parquet.md")}
PAGE = "\n".join(PAGES.values())


def block_with(word: str) -> str:
    """Returns the one block of Python that contains a word."""
    blocks = [
        each for each in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if word in each
    ]
    assert len(blocks) == 1
    return str(blocks[0])


def run_block(word: str, **names: Any) -> dict[str, Any]:
    exec(compile(block_with(word), f"interop.md, {word}", "exec"), names)
    return names


@pytest.fixture
def work(
    tiny_model_dir: Path, tmp_path: Path, picture: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Makes a folder with the page's photos, encoded and converted to every format by its commands."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in "ab":
        Image.fromarray(picture).save(f"photos/{name}.png")
    steps = [["encode", str(tiny_model_dir), "photos/", "--score-threshold", "0.7", "--out", "objects.parquet"]]
    steps += [
        ["convert", "objects.parquet", "--to", kind, "--out", out]
        for kind, out in re.findall(r"^ssdir convert objects\.parquet --to (\w+) --out (\S+)$", PAGE, re.MULTILINE)
    ]
    assert len(steps) == 5
    for arguments in steps:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
    return tmp_path


def test_every_block_of_python_is_run_by_a_test() -> None:
    in_memory = ("COCOeval", "fo.Dataset", "compute_similarity", "sure.parquet", "box_unit", "push_to_hub")
    words = (*in_memory, "read_skipped", "spark.read")
    assert PAGE.count("```python\n") == len({block_with(word) for word in words})


def test_what_was_skipped_is_a_table(work: Path) -> None:
    Path("photos/c.png").write_bytes(b"no picture")
    encode = ["encode", str(work / "model"), "photos/", "--out", "objects.parquet", "--force"]
    (work / "model").symlink_to(read_info("objects.parquet").model)
    assert CliRunner().invoke(app, encode).exit_code == 0
    table = eval(block_with("read_skipped").rpartition("\n\n")[2], {"read_skipped": read_skipped})
    assert [Path(image).name for image in table["image"]] == ["c.png"]
    assert table["image_index"].tolist() == [2]


def test_folders_are_read_by_other_tools_as_documented(work: Path) -> None:
    model = read_info("objects.parquet").model
    encode = ["encode", model, "photos/", "--score-threshold", "0.7", "--images-per-part", "1", "--out", "objects"]
    assert CliRunner().invoke(app, encode).exit_code == 0
    names = {"pandas": importlib.import_module("pandas"), "pyarrow": importlib.import_module("pyarrow")}
    importlib.import_module("pyarrow.dataset")
    lines = [line for line in block_with("spark.read").splitlines() if line.partition(".")[0] in names]
    assert [len(eval(line, names)) for line in lines] == 2 * [read_info("objects.parquet").objects]


def test_tables_are_read_as_documented(work: Path) -> None:
    rows = re.findall(r"^\| [^|]+ \| [^|]+ \| `([^`]+)`", PAGE, re.MULTILINE)
    readers = [row for row in rows if '("' in row]
    assert len(readers) == 6
    objects = read_info("objects.parquet").objects
    assert objects > 0
    for reader in readers:
        names: dict[str, Any] = {}
        if reader.startswith("COCO"):
            names["COCO"] = importlib.import_module("pycocotools.coco").COCO
        else:
            module = reader.partition("(")[0].rpartition(".")[0]
            importlib.import_module(module)
            names[module.partition(".")[0]] = importlib.import_module(module.partition(".")[0])
        read = eval(reader, names)
        if reader.startswith("COCO"):
            assert len(read.anns) == objects
        else:
            assert len(read[0] if isinstance(read, tuple) else read["score"]) == objects


def test_rows_are_selected_and_remain_of_their_model(work: Path) -> None:
    names = run_block("sure.parquet")
    expected = int((names["frame"]["score"] > 0.9).sum())
    whole = read_info("objects.parquet")
    assert names["frame"].attrs["ssdir"]["fingerprint"] == whole.fingerprint
    info = read_info("sure.parquet")
    assert (info.objects, info.fingerprint, info.model) == (expected, whole.fingerprint, whole.model)
    names["pq"].write_table(names["table"].slice(1), "sure.parquet")
    assert read_info("sure.parquet").objects > 0
    assert read_info("sure.parquet").fingerprint == whole.fingerprint
    for to, suffix in (("csv", "csv"), ("coco", "json"), ("fiftyone", "json"), ("npz", "npz")):
        result = CliRunner().invoke(app, ["convert", "sure.parquet", "--to", to, "--out", f"sure-{to}.{suffix}"])
        assert result.exit_code == 0, result.output
        # A table of objects has no images without them.
        assert ("written again by another tool" in result.stderr) == (to != "csv")


def test_pycocotools_measures_what_was_converted(work: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Annotations are the detected objects with other classes, so the average precision by boxes alone is 1."""
    objects, images = read_objects("objects.parquet")
    boxes = objects.boxes_px((60, 90)).double()
    content = {
        "images": [
            {"id": f"i{i}", "file_name": image, "height": 60, "width": 90} for i, image in enumerate(images)
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(["cat", "dog", "eel", "fox"])],
        "annotations": [
            {"id": i + 1, "image_id": f"i{image}", "category_id": 3, "iscrowd": 0, "area": (w * h)}
            | {"bbox": [x1, y1, w, h]}
            for i, (image, (x1, y1, w, h)) in enumerate(
                zip(
                    objects.image_index.tolist(),
                    torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1).tolist(),
                    strict=True,
                )
            )
        ],
    }
    Path("instances.json").write_text(json.dumps(content))
    command = next(line for line in PAGE.splitlines() if line.endswith("--annotations instances.json"))
    result = CliRunner().invoke(app, command.split()[1:])
    assert result.exit_code == 0, result.output
    names = run_block("COCOeval")
    assert names["measured"].stats[:2].tolist() == pytest.approx([1, 1])


def test_objects_go_on_in_memory(work: Path) -> None:
    objects = read_objects("objects.parquet")[0]
    height, width = 60, 90
    assert "`objects.split()[0].to_supervision((height, width))`" in PAGE
    assert len(objects.split()[0].to_supervision((height, width))) == int(objects.counts[0])
    assert "`objects.to_arrow()`" in PAGE
    assert objects.to_arrow().num_rows == len(objects)


def test_own_boxes(picture: NDArray[np.uint8]) -> None:
    corners = np.array([[5.0, 5, 40, 40], [10, 10, 60, 50]])
    tracked = supervision.Detections(xyxy=corners[::-1], tracker_id=np.array([4, 9]))
    names = run_block(
        "box_unit", images=[picture, picture], arrays=[corners, corners[:1]], frame=picture, tracked=tracked
    )
    model = ssdir.load("tiny-digits")
    expected = model.encode(picture, boxes=corners[::-1].copy(), box_unit="pixels").z_what
    assert expected is not None
    np.testing.assert_allclose(names["tracked"].data["z_what"], expected, atol=1e-4)


def test_the_hub(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/digits").symlink_to(tiny_model_dir)
    names = run_block("push_to_hub")
    assert names["model"].class_names == ["cat", "dog", "eel"]
    assert hub.asked[-1]["revision"] == "v1"


def fiftyone_stub(samples: list[dict[str, Any]]) -> ModuleType:
    """Returns a stub with the four classes of the example, which take the arguments that FiftyOne documents."""
    stub = ModuleType("fiftyone")

    def detection(
        *, label: str, bounding_box: list[float], confidence: float, **attributes: Any
    ) -> dict[str, Any]:
        return {"label": label, "bounding_box": bounding_box, "confidence": confidence, **attributes}

    def detections(*, detections: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return detections

    def sample(*, filepath: str, **fields: Any) -> dict[str, Any]:
        return {"filepath": filepath, **fields}

    class Dataset:
        def __init__(self, name: str) -> None: ...

        def add_sample(self, each: dict[str, Any]) -> None:
            samples.append(each)

    vars(stub).update(Detection=detection, Detections=detections, Sample=sample, Dataset=Dataset)
    return stub


def test_fiftyone_takes_the_samples(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    samples: list[dict[str, Any]] = []
    monkeypatch.setitem(sys.modules, "fiftyone", fiftyone_stub(samples))
    run_block("fo.Dataset")
    objects, images = read_objects("objects.parquet")
    assert [sample["filepath"] for sample in samples] == [str(work / image) for image in images]
    detections = [each for sample in samples for each in sample["objects"]]
    assert [each["confidence"] for each in detections] == pytest.approx(objects.scores.tolist())  # type: ignore[union-attr]
    boxes = np.array([each["bounding_box"] for each in detections])
    np.testing.assert_allclose(boxes[:, 2:], objects.z_where[:, 2:], atol=1e-4)
    assert all("_cls" not in each and len(each["z_what"]) == 8 for each in detections)
