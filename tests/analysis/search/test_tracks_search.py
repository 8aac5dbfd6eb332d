"""Re-identification matches tracks of one clip in another one, and refuses invalid queries."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

import command_line
from command_line import run
from ssdir.analysis.search import ObjectFilter, ObjectIndex
from ssdir.analysis.search.query import search_query, search_row
from ssdir.analysis.tracks import read_entries
from ssdir.data.scatter.glyphs import load_glyphs
from ssdir.errors import InputError

from ..track_files import write_tracks

CELLS, SIDE = 4, 32


def ok(*arguments: object) -> str:
    return command_line.ok(*arguments).output


def make_clip(folder: Path, glyphs: NDArray[np.uint8], seed: int, frames: int = 8) -> Path:
    """Writes frames in which each glyph has another cell, place and size each time; half of them are covered."""
    rng, rows = np.random.default_rng(seed), []
    folder.mkdir()
    for number in range(frames):
        canvas = np.zeros((CELLS * SIDE, CELLS * SIDE), dtype=np.uint8)
        for track, cell in enumerate(rng.permutation(CELLS * CELLS), start=1):
            side, visible = int(rng.integers(10, 29)), float(rng.choice([1, 0.3]))
            dx, dy = rng.integers(0, SIDE - side, 2)
            x, y = cell % CELLS * SIDE + dx, cell // CELLS * SIDE + dy
            canvas[y : y + side, x : x + side] = cv2.resize(glyphs[track - 1], (side, side))
            ys, xs = np.nonzero(canvas[y : y + side, x : x + side] > 40)
            corners = (x + xs.min(), y + ys.min(), x + xs.max() + 1, y + ys.max() + 1)
            canvas[y + round(side * visible) : y + side, x : x + side] = 0
            rows.append((f"{number:06d}.png", *corners, track, visible))
        Image.fromarray(canvas).convert("RGB").save(folder / f"{number:06d}.png")
    with (folder / "boxes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "x1", "y1", "x2", "y2", "track_id", "visible"), *rows])
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files of the tracks of sixteen handwritten digits, which tiny-digits never saw, in two clips."""
    folder, test = tmp_path_factory.mktemp("clips"), load_glyphs("digits", "test")
    glyphs = np.stack([np.asarray(test.images[number]) for number in range(CELLS * CELLS)])
    files = []
    for name, seed in (("a", 0), ("b", 1)):
        clip = make_clip(folder / name, glyphs, seed)
        boxes = ("--boxes", clip / "boxes.csv")
        ok("encode", "tiny-digits", clip, *boxes, "--out", clip / "tracks.parquet", "--batch-size", 4)
        files.append(clip / "tracks.parquet")
    return files[0], files[1]


@pytest.fixture(scope="module")
def index(clips: tuple[Path, Path]) -> Path:
    out = clips[0].parent / "index"
    assert "16 tracks of tiny-digits" in ok("index", clips[0], "--out", out)
    return out


def rank_one(answers: list[dict[str, Any]]) -> float:
    """Returns the share of queries whose nearest track is the same digit: 1 / 16 by chance."""
    return float(np.mean([each["query"]["track_id"] == each["nearest"][0]["track_id"] for each in answers]))


@pytest.mark.slow
def test_the_same_objects_are_matched_in_another_clip(clips: tuple[Path, Path], index: Path) -> None:
    answers = json.loads(ok("search", index, clips[1], "--json"))
    assert [each["query"]["track_id"] for each in answers] == list(range(1, 17))
    assert all(each["query"]["views"] == 8 for each in answers)
    assert "clips" in answers[0]["nearest"][0]["image"]
    of_tracks = rank_one(answers)
    single = np.mean(
        [rank_one(json.loads(ok("search", index, f"{clips[1]}#{row}", "--json"))) for row in range(16)]
    )
    assert of_tracks >= 0.9
    assert of_tracks > single > 3 / 16


@pytest.mark.slow
def test_a_track_is_addressed_by_its_number(clips: tuple[Path, Path], index: Path, tmp_path: Path) -> None:
    every = json.loads(ok("search", index, clips[1], "--json"))
    (one,) = json.loads(ok("search", index, f"{clips[1]}#track=3", "--json"))
    assert one == every[2]
    text = ok("search", index, f"{clips[1]}#track=3", "-k", 2, "--image-grid", tmp_path / "grid.png")
    assert "track 3: object in 8 views" in text.replace("\n", " ")
    assert "0–7" in text
    assert Image.open(tmp_path / "grid.png").width == 3 * 126
    itself = json.loads(ok("search", index, "--row", 2, "-k", 15, "--json"))[0]
    assert {2} | {near["row"] for near in itself["nearest"]} == set(range(16))


@pytest.mark.slow
def test_every_view_can_be_indexed_on_its_own(clips: tuple[Path, Path], tmp_path: Path) -> None:
    made = json.loads(ok("index", clips[0], "--per-view", "--out", tmp_path / "views", "--json"))
    assert made["objects"] == 128
    answers = json.loads(ok("search", tmp_path / "views", f"{clips[1]}#track=3", "-k", 2, "--json"))
    assert len(answers[0]["nearest"]) == 2
    assert "views" not in answers[0]["nearest"][0]


@pytest.mark.slow
def test_clusters_classes_and_outliers_are_of_tracks(clips: tuple[Path, Path], tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("track_id,label\n1,odd\n2,even\n3,odd\n4,even\n")
    ok("classify", "fit", clips[0], "--labels", labels, "--out", tmp_path / "c.json")
    ok("classify", "predict", tmp_path / "c.json", clips[1], "--out", tmp_path / "predicted.csv")
    ok("cluster", clips[0], "-k", 3, "--out", tmp_path / "clusters.parquet", "--image-grid", tmp_path / "c.png")
    ok("outliers", clips[0], "--out", tmp_path / "outliers.csv")
    assert len((tmp_path / "predicted.csv").read_text().splitlines()) == 17
    clusters = pq.read_table(tmp_path / "clusters.parquet")
    assert clusters["track_id"].to_pylist() == list(range(1, 17))
    ok("index", tmp_path / "clusters.parquet", "--out", tmp_path / "again")
    assert len((tmp_path / "outliers.csv").read_text().splitlines()) == 17
    ok("cluster", clips[0], "-k", 3, "--per-view", "--out", tmp_path / "views.csv")
    assert len((tmp_path / "views.csv").read_text().splitlines()) == 129
    labels.write_text("track_id,label\n1,odd\n77,even\n")
    result = run("classify", "fit", clips[0], "--labels", labels, "--out", tmp_path / "d.json")
    assert "labels track 77, which is not in the file of tracks" in result.stderr.replace("\n", " ")


@pytest.fixture
def tracks(tmp_path: Path) -> Path:
    """Writes three tracks of two views, whose embeddings are far apart."""
    z_what = np.repeat(np.eye(3, 4), 2, axis=0)[[0, 2, 4, 1, 3, 5]]
    track, frame = np.array([1, 2, 9, 1, 2, 9]), np.array([0, 0, 0, 1, 1, 1])
    return write_tracks(tmp_path / "tracks.parquet", z_what, track, frame, np.linspace(0.4, 0.9, 6), np.ones(6))


def test_an_index_of_tracks_keeps_to_tracks(tracks: Path, tmp_path: Path) -> None:
    index = ObjectIndex.create(tmp_path / "index", [tracks])
    assert index.info.entries == "tracks"
    table = index.rows([0, 1, 2])
    entries = read_entries(tracks).table
    for name in ("track_id", "views", "first_frame", "last_frame", "image", "score", "box_x1"):
        assert table[name].to_pylist() == entries[name].to_pylist(), name
    assert len(index.nearest(np.eye(4)[0], where=ObjectFilter(min_score=0.75))[0]) == 2
    views = ObjectIndex.create(tmp_path / "views", [tracks], per_view=True)
    assert (views.info.entries, len(views)) == ("objects", 6)
    assert search_row(index, 0, k=5).neighbours[0].rows.tolist() in ([1, 2], [2, 1])
    with pytest.raises(InputError, match="the index has objects of"):
        index.add([tracks])
    plain = tmp_path / "plain.parquet"
    pq.write_table(pq.read_table(tracks).drop_columns(["track_id", "visible"]), plain)
    with pytest.raises(InputError, match=r"plain.parquet' has no tracks"):
        index.add([plain])
    with pytest.raises(InputError, match=r"plain.parquet' has no tracks"):
        ObjectIndex.create(tmp_path / "both", [tracks, plain])
    assert not (tmp_path / "both").exists()


def test_queries_by_files_are_checked(tracks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = ObjectIndex.create(tmp_path / "index", [tracks])
    result = search_query(index, f"{tracks}#track=9", k=1)
    assert (result.names, result.neighbours[0].rows.tolist()) == (["track 9"], [2])
    assert search_query(index, f"{tracks}#4", k=1).neighbours[0].rows.tolist() == [1]
    assert search_query(index, str(tracks), k=1).names == ["track 1", "track 2", "track 9"]
    plain = tmp_path / "plain.parquet"
    pq.write_table(pq.read_table(tracks).drop_columns(["track_id"]), plain)
    assert search_query(index, str(plain), k=1).names == [f"row {row}" for row in range(6)]
    (tmp_path / "folder").mkdir()
    plain.rename(tmp_path / "folder" / "of another tool.parquet")
    assert search_query(index, str(tmp_path / "folder"), k=1).names == [f"row {row}" for row in range(6)]
    other = write_tracks(
        tmp_path / "o.parquet",
        np.eye(1, 4),
        np.ones(1, int),
        np.zeros(1, int),
        np.ones(1),
        np.ones(1),
        None,
        "else",
    )
    for query, problem in {
        f"{tracks}#track=5": "has no track 5: it has numbers 1 ... 9",
        f"{tracks}#6": "has rows 0 ... 5, not 6",
        f"{tmp_path}/folder#track=1": "has no tracks: make a file that has with ssdir track",
        f"{tmp_path}/photo.png#track=1": "photo.png' is not a file of tracks",
        f"{tmp_path}/none.parquet": "none.parquet' does not exist",
        str(other): "don't go together",
    }.items():
        with pytest.raises(InputError, match=problem.replace("...", r"\.\.\.")):
            search_query(index, query)
    monkeypatch.setattr("ssdir.analysis.search.stored_query.MOST_QUERIES", 2)
    with pytest.raises(
        InputError, match=r"holds 3 tracks, at most 2 can be searched for at once: choose one, .*=5"
    ):
        search_query(index, str(tracks))
