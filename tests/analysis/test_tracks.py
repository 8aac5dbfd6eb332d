"""Entries of tracks equal those of a plain loop, keep their views and frames, and refuse invalid columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import ssdir.analysis.tracks as tracks_module
from ssdir.analysis.tracks import read_entries, track_entries, track_spans
from ssdir.errors import InputError, InputWarning
from ssdir.object_table import SPAN_COLUMNS, TRACK
from ssdir.store.info import read_info
from ssdir.store.join import join_parts
from ssdir.store.objects_file import StoredObjects, read_stored

from .track_files import write_tracks

DIM = 5


@pytest.fixture
def tracks(tmp_path: Path) -> Path:
    """Writes 200 views of nine tracks in forty frames, which are not in the order of their tracks."""
    rng = np.random.default_rng(0)
    pairs = rng.permutation([(track, frame) for track in (1, 2, 3, 5, 8, 13, 21, 34, 55) for frame in range(40)])[
        :200
    ]
    track, frame = pairs[np.argsort(pairs[:, 1], kind="stable")].T
    z_what = rng.normal(size=(200, DIM)) * rng.uniform(0.5, 20, (200, 1))
    scores, visible = rng.uniform(0.3, 1, 200), rng.uniform(0, 1, 200)
    return write_tracks(tmp_path / "tracks.parquet", z_what, track, frame, scores, visible)


def by_loop(path: Path) -> pandas.DataFrame:
    """Returns the entries as the documentation of `ssdir.analysis.tracks` says, one view after the other."""
    rows, views = [], pandas.read_parquet(path)
    for track, seen in views.groupby("track_id"):
        weight = seen["score"] * seen["visible"]
        clear = seen[weight >= 0.5 * weight.max()]
        directions = [z / np.linalg.norm(z) for z in clear["z_what"]]
        lengths = [np.linalg.norm(z) for z in clear["z_what"]]
        clear_weight = weight[clear.index].to_numpy(dtype=np.float64)
        mean = np.average(directions, axis=0, weights=clear_weight)
        z_what = mean / np.linalg.norm(mean) * np.average(lengths, weights=clear_weight)
        best = seen.loc[weight.idxmax()]
        first, last = seen["image_index"].min(), seen["image_index"].max()
        rows.append((track, z_what, best["image"], best["box_x1"], len(seen), first, last))
    names = ["track_id", "z_what", "image", "box_x1", "views", "first_frame", "last_frame"]
    return pandas.DataFrame(rows, columns=names)


def assert_are(entries: StoredObjects, expected: pandas.DataFrame) -> None:
    np.testing.assert_allclose(entries.z_what, np.stack(expected["z_what"].to_list()), rtol=1e-4, atol=1e-5)
    for name in expected.columns.drop("z_what"):
        assert entries.table[name].to_pylist() == expected[name].tolist(), name


def test_entries_are_those_of_a_plain_loop(tracks: Path, tmp_path: Path) -> None:
    expected = by_loop(tracks)
    assert len(expected) == 9
    assert_are(read_entries(tracks), expected)
    table, folder = pq.read_table(tracks), tmp_path / "parts"
    folder.mkdir()
    early = pc.less(table["image_index"], 20)
    pq.write_table(table.filter(early), folder / "part-0000000.parquet")
    pq.write_table(table.filter(pc.invert(early)), folder / "part-0000001.parquet")
    assert_are(read_entries(folder), expected)


def test_objects_keep_their_tracks(tracks: Path) -> None:
    objects, _ = read_stored(tracks).to_objects()
    stored = pq.read_table(tracks)
    assert objects.track_id is not None
    assert objects.track_id.tolist() == stored["track_id"].to_pylist()
    assert objects.visible is not None
    assert objects.visible.tolist() == stored["visible"].to_pylist()


def test_groups_of_tracks_and_of_views_change_nothing(tracks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_entries(tracks).table
    monkeypatch.setattr(tracks_module, "_BYTES_AT_ONCE", 2 * 8 * DIM)
    monkeypatch.setattr(tracks_module, "_MERGED_AT", 7)
    pieces = list(tracks_module.stream_rows(read_info(tracks)))
    small = [piece.slice(start, 9) for piece in pieces for start in range(0, len(piece), 9)]
    monkeypatch.setattr(tracks_module, "stream_rows", lambda info: iter(small))
    batches = list(track_entries(read_info(tracks)))
    assert [len(batch) for batch in batches] == [2, 2, 2, 2, 1]
    table = pa.Table.from_batches(batches)
    assert table.drop_columns(["z_what"]).equals(whole.drop_columns(["z_what"]))
    np.testing.assert_allclose(
        np.stack(table["z_what"].to_numpy()), np.stack(whole["z_what"].to_numpy()), rtol=1e-5
    )


def test_hidden_views_do_not_count(tmp_path: Path) -> None:
    z_what = np.array([[4.0, 0], [2, 0], [0, 9], [0, 9]])
    track, frame, scores = np.ones(4, np.int64), np.arange(4), np.full(4, 0.9)
    path = write_tracks(tmp_path / "t.parquet", z_what, track, frame, scores, np.array([1, 1, 0.3, 0]))
    np.testing.assert_allclose(read_entries(path).z_what, [[3, 0]], rtol=1e-6)
    never = write_tracks(tmp_path / "n.parquet", z_what, track, frame, scores, np.zeros(4))
    np.testing.assert_allclose(read_entries(never).z_what, [np.full(2, 6 / np.sqrt(2))], rtol=1e-6)


def test_entries_are_a_file_of_tracks_themselves(tracks: Path, tmp_path: Path) -> None:
    entries = read_entries(tracks)
    entries.write(tmp_path / "again.parquet", {})
    again = read_entries(tmp_path / "again.parquet")
    names = [name for name in entries.table.column_names if name != "z_what"]
    assert again.table.select(names).equals(entries.table.select(names))
    np.testing.assert_allclose(again.z_what, entries.z_what, rtol=1e-5)
    objects, images = again.to_objects()
    assert len(objects) == 9
    assert set(images) == set(entries.table["image"].to_pylist())


def test_files_without_tracks_and_views_stay_rows(tracks: Path, tmp_path: Path) -> None:
    assert len(read_entries(tracks, per_view=True)) == 200
    table = pq.read_table(tracks)
    pq.write_table(table.drop_columns([TRACK]), tmp_path / "objects.parquet")
    assert len(read_entries(tmp_path / "objects.parquet")) == 200
    with pytest.raises(InputError, match="has no tracks: make a file that has with ssdir track"):
        track_spans(read_info(tmp_path / "objects.parquet"))
    with pytest.raises(InputError, match="holds 9 tracks, at least 10 are needed"):
        read_entries(tracks, at_least=10)


def test_the_clips_of_a_folder_are_not_merged(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("a.parquet", "b.parquet"):
        rng = np.random.default_rng(0)
        frame = np.arange(4)
        write_tracks(folder / name, rng.normal(size=(4, DIM)), np.ones(4, np.int64), frame, np.ones(4), np.ones(4))
    assert len(read_entries(folder / "a.parquet")) == 1
    assert len(read_entries(folder, per_view=True)) == 8
    for refused in (read_entries, lambda path: join_parts(path, tmp_path / "joined.parquet")):
        with pytest.raises(InputError, match=r"'.*clips' holds the tracks of several clips"):
            refused(folder)


def selected_clips(tmp_path: Path, name: str) -> Path:
    """Writes track 1 of two clips, each into a file of a folder, as rows that pyarrow has selected."""
    folder = tmp_path / "selected"
    folder.mkdir()
    for clip, first in (("a", 0), ("b", 30)):
        rng, frame = np.random.default_rng(0), np.arange(first, first + 4)
        names = [name.format(clip=clip, number=number) for number in range(first + 4)]
        ones, track = np.ones(4), np.ones(4, np.int64)
        path = write_tracks(folder / f"{clip}.parquet", rng.normal(size=(4, DIM)), track, frame, ones, ones, names)
        table = pq.read_table(path)
        pq.write_table(table.filter(pc.greater(table["image_index"], first)), path)
    return folder


def test_a_track_of_two_videos_is_refused_in_selected_rows(tmp_path: Path) -> None:
    folder = selected_clips(tmp_path, "clips/{clip}.mp4#frame={number}")
    problem = r"track 1 of .* has views in '.*a\.mp4' and '.*b\.mp4': keep the tracks of each clip in a file"
    with pytest.raises(InputError, match=problem):
        read_entries(folder)


def test_a_track_of_two_folders_is_counted(tmp_path: Path) -> None:
    folder = selected_clips(tmp_path, "clips/{clip}/img1/{number:06d}.png")
    with pytest.warns(InputWarning, match=r"has 1 track with images of several folders, such as track 1 in"):
        entries = read_entries(folder)
    assert entries.table["views"].to_pylist() == [6]


def test_two_views_in_one_frame_are_refused_in_tracks_with_gaps(tmp_path: Path) -> None:
    rng, frame = np.random.default_rng(0), np.array([0, 5, 5])
    path = tmp_path / "t.parquet"
    write_tracks(path, rng.normal(size=(3, DIM)), np.full(3, 2), frame, np.ones(3), np.ones(3))
    with pytest.raises(InputError, match=r"track 2 of .* has two views in one frame"):
        read_entries(path)


def changed(tracks: Path, column: str, values: list[object]) -> Path:
    """Replaces a column by values, which are repeated."""
    table, path = pq.read_table(tracks), tracks.with_name("changed.parquet")
    new = pa.array([values[row % len(values)] for row in range(len(table))])
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, new), path)
    return path


@pytest.mark.parametrize(
    ("names", "values"),
    [(SPAN_COLUMNS[:1], ["left"]), (SPAN_COLUMNS[:1], [5]), (SPAN_COLUMNS, ["left"]), (SPAN_COLUMNS, [5, None])],
)
def test_columns_of_other_tools_are_no_numbers_of_views(
    tracks: Path, names: tuple[str, ...], values: list[object]
) -> None:
    expected, table = track_spans(read_info(tracks)).views.tolist(), pq.read_table(tracks)
    for name in names:
        table = table.append_column(name, pa.array([values[row % len(values)] for row in range(len(table))]))
    pq.write_table(table, tracks)
    assert track_spans(read_info(tracks)).views.tolist() == expected


def test_objects_without_a_track_are_counted(tracks: Path) -> None:
    given = pq.read_table(tracks)[TRACK].to_pylist()
    given[0] = None
    given[7] = 0
    some = changed(tracks, TRACK, given)
    with pytest.warns(InputWarning, match=r"2 objects of '.*changed.parquet' are of no track, and left out"):
        spans = track_spans(read_info(some))
    assert spans.views.sum() == 198


@pytest.mark.parametrize(
    ("column", "values", "problem"),
    [
        (TRACK, ["a"], "the column 'track_id' of .* holds something other than numbers"),
        (TRACK, [1, -3], "row 1 of .* has the track_id -3, not 1, 2, …"),
        (TRACK, [1.0, 1.5], "row 1 of .* has the track_id 1.5"),
        (TRACK, [1], "track 1 of .* has two views in one frame: keep the tracks of each clip in a file"),
        ("visible", [0.5, 2.0], "row 1 of .* is visible to 2: it must be 0 … 1"),
        ("visible", ["b"], "the column 'visible' of .* holds something other than numbers"),
    ],
)
def test_wrong_columns_are_one_sentence(tracks: Path, column: str, values: list[object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read_entries(changed(tracks, column, values))
