"""Tests of `ssdir index` and `ssdir search`, run as a user types them."""

from __future__ import annotations

import json
import math
import re
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import command_line
from command_line import run
from ssdir.analysis.search import ObjectIndex
from ssdir.analysis.search.query import Query, search_query
from ssdir.errors import InputWarning
from ssdir.models.io import load_model, save_model
from ssdir.storage import write_bytes

from .conftest import MakeObjects


def ok(*arguments: object) -> str:
    return command_line.ok(*arguments).output


@pytest.fixture
def photos(tmp_path: Path, picture: NDArray[np.uint8]) -> Path:
    """Writes a picture, its mirror image and a black image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, pixels in {"a": picture, "b": picture[:, ::-1], "black": picture * 0}.items():
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def index(tiny_model_dir: Path, photos: Path, tmp_path: Path) -> Path:
    ok("encode", tiny_model_dir, photos, "--out", tmp_path / "objects.parquet", "--score-threshold", 0.7)
    ok("index", tmp_path / "objects.parquet", "--out", tmp_path / "index")
    return tmp_path / "index"


def test_objects_of_a_picture_find_themselves(index: Path, photos: Path, tmp_path: Path) -> None:
    query = ("search", index, photos / "a.png", "-k", 3, "--score-threshold", 0.7)
    answers = json.loads(ok(*query, "--json"))
    assert len(answers) > 1
    for answer in answers:
        nearest = answer["nearest"][0]
        assert nearest["similarity"] == pytest.approx(1, abs=1e-4)
        assert nearest["image"] == str(photos / "a.png")
        assert nearest["box_x1"] == pytest.approx(answer["query"]["box_x1"], abs=0.01)
    one = json.loads(ok("search", index, f"{photos / 'a.png'}#1", "--score-threshold", 0.7, "--json"))
    assert [answer["query"] for answer in one] == [answers[1]["query"]]
    ok(*query, "--image-grid", tmp_path / "grid.png")
    grid = Image.open(tmp_path / "grid.png")
    assert grid.width == 4 * 126
    text = ok(*query)
    assert "a.png" in text
    assert "next: ssdir search" in text


def test_the_crop_of_a_query_is_of_the_image_that_was_searched_by(
    tiny_model_dir: Path, photos: Path, picture: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder where the index was made has another image of the same relative name."""
    monkeypatch.chdir(tmp_path)
    threshold = ("--score-threshold", 0.7)
    ok("encode", tiny_model_dir, photos, "--out", "objects.parquet", *threshold)
    ok("index", "objects.parquet", "--out", "index")
    other = tmp_path / "other" / "photos" / "a.png"
    other.parent.mkdir(parents=True)
    Image.fromarray(np.ascontiguousarray(picture[::-1])).save(other)
    monkeypatch.chdir(tmp_path / "other")
    for name in ("photos/a.png", str(other)):
        ok("search", "../index", name, *threshold, "--image-grid", f"{len(name)}.png")
    first, second = (np.asarray(Image.open(each)) for each in Path().glob("*.png"))
    np.testing.assert_array_equal(first, second)
    (answer, *_) = json.loads(ok("search", "../index", "photos/a.png", *threshold, "--json"))
    assert answer["query"]["image"] == str(other)
    ok("encode", tiny_model_dir, other, "--out", "objects.parquet", *threshold)
    table = pq.read_table("objects.parquet")
    names = pa.array(["photos/a.png"] * len(table))
    pq.write_table(table.set_column(0, table.schema.field("image"), names), "objects.parquet")
    result = search_query(ObjectIndex.open("../index"), "objects.parquet")
    assert Path(result.find_image("photos/a.png")).absolute() == other


def test_an_image_may_be_in_object_storage(index: Path, photos: Path, s3_bucket: str) -> None:
    write_bytes(f"{s3_bucket}/a.png", (photos / "a.png").read_bytes())
    queries = (f"{photos / 'a.png'}#1", f"{s3_bucket}/a.png#1")
    here, there = (json.loads(ok("search", index, each, "--score-threshold", 0.7, "--json")) for each in queries)
    assert here[0]["nearest"] == there[0]["nearest"]
    assert there[0]["query"]["image"] == f"{s3_bucket}/a.png"


def test_an_object_of_the_index_is_not_its_own_neighbour(index: Path) -> None:
    answer = json.loads(ok("search", index, "--row", 2, "-k", 3, "--json"))[0]
    assert answer["query"]["row"] == 2
    assert 2 not in [near["row"] for near in answer["nearest"]]
    assert len(answer["nearest"]) == 3


def test_further_columns_are_printed_as_json_has_them(make_objects: MakeObjects, tmp_path: Path) -> None:
    ok("index", path := make_objects(), "--out", tmp_path / "index")
    table = pq.read_table(path)
    further = {
        "taken": pa.array([datetime(2026, 5, 4, 3)] * len(table)),
        "size": pa.array([math.nan] * len(table)),
        "z_wide": pa.array([7] * len(table)),
        "parts": pa.array([[1]] * len(table)),
    }
    for name, column in further.items():
        table = table.append_column(name, column)
    pq.write_table(table, path)
    (answer,) = json.loads(ok("search", tmp_path / "index", f"{path}#0", "--json"))
    expected = {"taken": "2026-05-04 03:00:00.000000", "size": None, "z_wide": 7}
    assert {name: answer["query"].get(name) for name in further} == expected | {"parts": None}
    assert not {"z_what", "z_where", "anchor_index", "parts"} & answer["query"].keys()


def test_pictures_that_are_gone_leave_their_rows(make_objects: MakeObjects, tmp_path: Path) -> None:
    ok("index", make_objects(), "--out", tmp_path / "index")
    for image in tmp_path.glob("*.png"):
        image.unlink()
    ok("search", tmp_path / "index", "--row", 0, "--image-grid", tmp_path / "grid.png")
    grey = (np.asarray(Image.open(tmp_path / "grid.png")) == 224).all(axis=2)
    assert grey.mean() > 0.5


def test_an_image_grid_has_a_limit(make_objects: MakeObjects, tmp_path: Path) -> None:
    objects, grid = make_objects(), tmp_path / "grid.png"
    result = search_query(ObjectIndex.create(tmp_path / "index", [objects]), str(objects), k=12)
    with pytest.warns(InputWarning, match="grid.png' shows the first 12 of 60 queries and 10 of 12 neighbours"):
        result.write_image_grid(grid)
    assert Image.open(grid).width == 11 * 126
    assert Image.open(grid).height < 12 * 150


def test_what_cannot_be_searched_is_reported_in_one_sentence(
    index: Path, photos: Path, tmp_path: Path, tiny_model_dir: Path, agnostic_model_dir: Path
) -> None:
    cases = {
        "give either an image": ("search", index),
        f"image '{tmp_path / 'none.png'}' does not exist": ("search", index, tmp_path / "none.png"),
        "is a folder: give one image": ("search", index, photos),
        "there is no #99": ("search", index, f"{photos / 'a.png'}#99", "--score-threshold", 0.7),
        "no class 'dgo'; did you mean 'dog'?": ("search", index, "--row", 0, "--class", "dgo"),
        "and the index don't go together": ("search", index, photos / "a.png", "--model", agnostic_model_dir),
        "leave out --model": ("search", index, "--row", 0, "--model", tiny_model_dir),
        "leave out --model and --score-threshold": ("search", index, "--row", 0, "--score-threshold", 0.7),
        "whose objects are encoded already": (
            "search",
            index,
            tmp_path / "objects.parquet",
            "--score-threshold",
            0.7,
        ),
        "make one with ssdir index": ("search", tmp_path / "photos", photos / "a.png"),
        "exclude each other": (
            "index",
            tmp_path / "objects.parquet",
            "--out",
            index,
            "--add",
            "--force",
        ),
        "or --check alone": ("index", tmp_path / "objects.parquet", "--out", index, "--check"),
        "give files of objects": ("index", "--out", index),
        "exists already": ("index", tmp_path / "objects.parquet", "--out", index),
        "damaged or not a Parquet file": ("index", photos / "a.png", "--out", tmp_path / "other"),
    }
    for sentence, command in cases.items():
        result = run(*command)
        assert result.exit_code == 2, sentence
        assert sentence in result.stderr.replace("\n", " ")
        assert "Traceback" not in result.output
    assert "all files as written" in ok("index", "--out", index, "--check")
    assert "nothing was detected" in ok("search", index, photos / "a.png", "--score-threshold", 1)
    moved = tmp_path / "moved"
    shutil.copytree(tiny_model_dir, moved)
    found = ok("search", index, photos / "a.png", "--model", moved, "--score-threshold", 0.7, "--json")
    assert json.loads(found)


def test_the_model_of_a_query_that_no_longer_names_it_is_given(
    index: Path, tmp_path: Path, tiny_model_dir: Path, agnostic_model_dir: Path
) -> None:
    objects, lost = tmp_path / "objects.parquet", tmp_path / "lost.parquet"
    pq.write_table(pq.read_table(objects).replace_schema_metadata(None), lost)
    assert "name the model with --model" in run("search", index, lost).stderr.replace("\n", " ")
    for part in ("", "#1"):
        by_lost = ok("search", index, f"{lost}{part}", "--model", tiny_model_dir, "--json")
        assert by_lost == ok("search", index, f"{objects}{part}", "--json")
    result = run("search", index, f"{objects}#1", "--model", agnostic_model_dir)
    assert result.exit_code == 2
    assert "don't go together" in result.stderr.replace("\n", " ")


def test_a_model_that_was_trained_again_is_refused(
    index: Path, photos: Path, tmp_path: Path, tiny_model_dir: Path
) -> None:
    again = load_model(tiny_model_dir)
    with torch.no_grad():
        next(again.parameters()).add_(0.1)
    save_model(again, tmp_path / "again", "other weights")
    result = run("search", index, photos / "a.png", "--model", tmp_path / "again")
    assert result.exit_code == 2
    assert (
        "and the index don't go together: embeddings of different models, or of one that was trained"
        in result.stderr.replace("\n", " ")
    )
    command = ("outliers", tmp_path / "objects.parquet", "--out", tmp_path / "outliers.csv")
    result = run(*command, "--model", tmp_path / "again")
    assert result.exit_code == 2
    assert "don't go together" in result.stderr.replace("\n", " ")
    ok("encode", tmp_path / "again", photos, "--out", tmp_path / "again.parquet", "--score-threshold", 0.7)
    classifier = tmp_path / "classifier.json"
    labels = tmp_path / "labels.csv"
    labels.write_text("row,label\n0,one\n1,other\n")
    ok("classify", "fit", tmp_path / "objects.parquet", "--labels", labels, "--out", classifier)
    result = run("classify", "predict", classifier, tmp_path / "again.parquet", "--out", tmp_path / "p.csv")
    assert result.exit_code == 2
    assert "don't go together" in result.stderr.replace("\n", " ")


def test_the_python_of_the_documentation_runs(
    index: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs the last block of docs/search.md beside the files that it names."""
    monkeypatch.chdir(tmp_path)
    Path("photo.png").symlink_to(photos / "a.png")
    page = (Path(__file__).parents[3] / "docs" / "search.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    exec(re.findall(r"```python\n(.*?)```", page, re.DOTALL)[-1], names)
    assert sum(names["sizes"].values()) == len(names["ranking"].score) > 2
    assert set(names["ranking"].measures) == {"knn_distance", "reconstruction_error"}
    assert names["result"].records()
    assert Path("clusters.png").exists()


def test_no_image_grid_of_nothing(index: Path, photos: Path, tmp_path: Path) -> None:
    text = ok("search", index, photos / "black.png", "--score-threshold", 1, "--image-grid", tmp_path / "none.png")
    assert "nothing was detected" in text
    assert not (tmp_path / "none.png").exists()


def test_a_number_behind_the_picture_is_its_object(tmp_path: Path) -> None:
    (tmp_path / "odd#3").touch()
    assert Query.parse(f"{tmp_path}/odd#3") == Query(tmp_path / "odd#3")
    assert Query.parse(f"{tmp_path}/odd#3#12") == Query(tmp_path / "odd#3", 12)
    for name in ("a.png#x", "a.png#²"):
        assert Query.parse(name) == Query(Path(name))


def test_what_was_asked_for_is_called_by_its_number(index: Path, photos: Path) -> None:
    picture = photos / "a.png"
    assert "#1: " in ok("search", index, f"{picture}#1", "--score-threshold", 0.7)
    assert "#0: " not in ok("search", index, f"{picture}#1", "--score-threshold", 0.7)
    assert "row 2: " in ok("search", index, "--row", 2)
    every = json.loads(ok("search", index, picture, "--score-threshold", 0.7, "--json"))
    assert [answer["query"]["number"] for answer in every] == list(range(len(every)))
    one = json.loads(ok("search", index, f"{picture}#1", "--score-threshold", 0.7, "--json"))
    assert one[0]["query"]["number"] == 1
