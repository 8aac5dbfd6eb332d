"""Tests of `track_clip`, `stream_tracks` and `ssdir track`, from clips to tracks and their files."""

from __future__ import annotations

import errno
import json
import re
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
import torch
from numpy.typing import NDArray

import ssdir
from clip_files import moving_squares, write_frames, write_video
from command_line import files_in, ok, refused, run
from ssdir.data.video import Frame, ImageFrames, open_frames
from ssdir.encoding.options import BoxFile
from ssdir.errors import InputError, InputWarning
from ssdir.inference.predictor import Predictor, load
from ssdir.objects import Objects
from ssdir.store.objects_file import read_objects, read_stored
from ssdir.tracking import output
from ssdir.tracking.annotated_video import AnnotatedVideo
from ssdir.tracking.frames import TrackedFrame
from ssdir.tracking.options import TrackOptions
from ssdir.tracking.output import TrackFiles, mot_lines
from ssdir.tracking.track import stream_tracks, track_clip

pytest.importorskip("av", reason="PyAV is not installed")
pytest.importorskip("trackers", reason="trackers is not installed")

THRESHOLD = TrackOptions(score_threshold=0.7)


@pytest.fixture
def pictures(picture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Returns twelve frames (60, 90, 3) in which everything moves to the right."""
    return [np.roll(picture, 2 * number, axis=1) for number in range(12)]


@pytest.fixture
def folder(tmp_path: Path, pictures: list[NDArray[np.uint8]]) -> Path:
    return write_frames(tmp_path / "clip", pictures)


@pytest.fixture
def model(tiny_model_dir: Path) -> Predictor:
    return load(tiny_model_dir, "cpu")


class _SquareDetector:
    """An exported model that detects the red and the green square of `moving_squares`."""

    class_names, image_size, resize, latent_dim = ["square"], 64, "stretch", 2
    fingerprint, device_name = "0" * 16, "cpu"

    def encode_pixels(self, pixels: NDArray[np.uint8], score_threshold: float | None = None) -> Objects:
        parts = [self._of(image) for image in pixels]
        return Objects.cat(parts)

    def _of(self, image: NDArray[np.uint8]) -> Objects:
        boxes, embeddings = [], []
        for channel, other in ((0, 1), (1, 0)):
            mask = (image[..., channel] > 150) & (image[..., other] < 220) & (image[..., 2] < 120)
            mask &= image[..., channel] > image[..., other]
            rows, columns = np.nonzero(mask)
            low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()]) + 1
            boxes.append([*(low + high) / 128, *(high - low) / 64])
            embeddings.append([1.0 - channel, float(channel)])
        z_where = torch.tensor(boxes, dtype=torch.float32)
        count = len(boxes)
        return Objects(
            torch.zeros(count, dtype=torch.int64),
            1,
            z_where,
            scores=torch.full((count,), 0.9),
            labels=torch.zeros(count, dtype=torch.int64),
            z_what=torch.tensor(embeddings),
            anchor_index=torch.arange(count),
        )


def _same(one: list[TrackedFrame], other: list[TrackedFrame]) -> None:
    assert len(one) == len(other)
    for first, second in zip(one, other, strict=True):
        assert (first.index, first.size) == (second.index, second.size)
        assert first.objects.track_id is not None
        assert second.objects.track_id is not None
        assert first.objects.track_id.tolist() == second.objects.track_id.tolist()
        torch.testing.assert_close(first.objects.boxes, second.objects.boxes, rtol=1e-4, atol=1e-5)


def test_each_object_keeps_its_number(tmp_path: Path) -> None:
    detector: Any = _SquareDetector()
    clip = open_frames(write_video(tmp_path / "a.mkv", moving_squares(40)))
    frames = list(stream_tracks(detector, clip, TrackOptions(score_threshold=0.5)))
    assert [frame.index for frame in frames] == list(range(40))
    ids = [dict(zip(("red", "green"), frame.objects.track_id.tolist(), strict=True)) for frame in frames]
    assert all(each == ids[0] for each in ids)
    assert {*ids[0].values()} == {1, 2}


def test_a_clip_is_the_same_as_video_and_as_folder(
    tmp_path: Path, model: Predictor, folder: Path, pictures: list[NDArray[np.uint8]]
) -> None:
    video = write_video(tmp_path / "clip.mkv", pictures)
    by_video = list(stream_tracks(model, open_frames(video), THRESHOLD))
    by_folder = list(stream_tracks(model, open_frames(folder), THRESHOLD))
    assert sum(len(frame.objects) for frame in by_folder) > 12
    _same(by_video, by_folder)
    assert by_video[3].name == f"{video}#frame=3"
    assert by_folder[3].name == str(folder / "000004.png")


def test_frames_stream_one_by_one(model: Predictor, folder: Path) -> None:
    whole = list(stream_tracks(model, open_frames(folder), THRESHOLD))
    read = []

    def watched() -> Iterator[Frame]:
        for frame in open_frames(folder):
            read.append(frame.index)
            yield frame

    stream = stream_tracks(model, watched(), THRESHOLD, batch_size=1)
    first = next(stream)
    assert read[-1] <= 2, "a live clip is not read to its end before the first frame is given out"
    _same([first, *stream], whole)


def test_few_frames_are_in_memory(model: Predictor) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    most = 0

    def endless() -> Iterator[Frame]:
        nonlocal most
        for index in range(96):
            pixels = np.zeros((32, 32, 3), np.uint8).view(_Tracked)
            alive.add(pixels)
            most = max(most, len(alive))
            yield Frame(index, pixels, f"{index}")
            del pixels

    for frame in stream_tracks(model, endless(), THRESHOLD, batch_size=8, keep_pixels=True):
        assert frame.pixels is not None
    assert most <= 8 * 5


class _Tracked(np.ndarray):
    """An array that can be referred to weakly, and hashed by its identity."""

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> Any:
        return self is other


def test_the_table_holds_what_was_streamed(
    model: Predictor, folder: Path, out: Path, tiny_model_dir: Path
) -> None:
    tracked = track_clip(str(tiny_model_dir), folder, TrackFiles(out / "t.parquet"), THRESHOLD, device="cpu")
    frames = list(stream_tracks(model, open_frames(folder), THRESHOLD))
    objects, names = read_objects(out / "t.parquet")
    assert names == [frame.name for frame in frames]
    for frame, stored in zip(frames, objects.split(), strict=True):
        for name in ("track_id", "visible", "z_where", "z_what", "z_depth", "scores", "labels"):
            torch.testing.assert_close(getattr(stored, name), getattr(frame.objects, name), rtol=1e-4, atol=1e-5)
    assert (tracked.frames, tracked.objects) == (12, len(objects))
    assert objects.track_id is not None
    assert tracked.tracks == len(objects.track_id.unique())
    table = read_stored(out / "t.parquet").table
    assert (table.schema.field("track_id").type, table.schema.field("visible").type) == (pa.int64(), pa.float32())


def test_other_commands_read_tracks(folder: Path, out: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    video = write_video(tmp_path / "v.mkv", [np.asarray(frame.pixels) for frame in open_frames(folder)])
    table = out / "t.parquet"
    ok("track", tiny_model_dir, video, "--out", table, "--score-threshold", 0.7)
    ok("cluster", table, "--out", out / "c.csv", "--image-grid", out / "c.png", "-k", 2)
    assert "track_id" in (out / "c.csv").read_text().splitlines()[0]
    ok("convert", table, "--to", "coco", "--out", out / "c.json")
    ok("encode", tiny_model_dir, table, "--out", out / "again.parquet", "--score-threshold", 0.7)
    assert read_objects(out / "again.parquet")[1] == list(dict.fromkeys(read_objects(table)[1]))


def test_motchallenge_text_is_read_by_motmetrics(model: Predictor, folder: Path, out: Path) -> None:
    motmetrics = pytest.importorskip("motmetrics", reason="motmetrics is not installed")
    track_clip(model, folder, TrackFiles(mot=out / "t.txt"), THRESHOLD)
    read = motmetrics.io.loadtxt(out / "t.txt", fmt="mot15-2D")
    for frame in stream_tracks(model, open_frames(folder), THRESHOLD):
        assert frame.objects.track_id is not None
        if not len(frame.objects):
            continue
        rows = read.loc[frame.index + 1].loc[frame.objects.track_id.tolist()]
        corners = frame.objects.boxes_px(frame.size).numpy()
        # motmetrics counts pixels from 0.
        np.testing.assert_allclose(rows[["X", "Y"]].to_numpy() + 1, corners[:, :2], atol=0.02)
        np.testing.assert_allclose(
            rows[["Width", "Height"]].to_numpy(), corners[:, 2:] - corners[:, :2], atol=0.02
        )
        np.testing.assert_allclose(rows["Confidence"].to_numpy(), frame.objects.scores, atol=1e-3)


def test_the_video_shows_each_frame_at_a_readable_size(model: Predictor, folder: Path, out: Path) -> None:
    track_clip(model, folder, TrackFiles(video=out / "t.mp4"), THRESHOLD)
    clip = open_frames(out / "t.mp4")
    frames = list(clip)
    assert (len(frames), clip.frame_rate) == (12, 25)
    assert frames[0].size == (426, 640)


def test_a_time_lapse_keeps_its_rate(tmp_path: Path, pictures: list[NDArray[np.uint8]]) -> None:
    frame = TrackedFrame(0, "a.png", (60, 90), Objects.empty(1), pictures[0])
    with AnnotatedVideo(tmp_path / "t.mp4", 1 / 3600) as video:
        video.write(frame)
        video.write(frame)
    assert open_frames(tmp_path / "t.mp4").frame_rate == pytest.approx(1 / 3600)


def test_boxes_are_painted_in_the_colour_of_their_track(tmp_path: Path) -> None:
    detector: Any = _SquareDetector()
    clip = list(open_frames(write_frames(tmp_path / "squares", moving_squares(24))))
    frames = list(stream_tracks(detector, iter(clip), TrackOptions(score_threshold=0.5), keep_pixels=True))
    from ssdir.tracking.annotated_video import _Painter

    painter = _Painter((480, 640))
    colours = []
    for frame in frames:
        canvas = np.zeros((480, 640, 3), np.uint8)
        painted = painter.paint(canvas, frame.objects, (480, 640), frame.index)
        x1, _, x2, y2 = frame.objects.boxes_px((480, 640))[0].round().int().tolist()
        colours.append(tuple(painted[min(y2, 479), (x1 + x2) // 2].tolist()))
    assert len({*colours}) == 1
    assert colours[0] != (0, 0, 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_nothing_is_left_of_an_interrupted_clip(
    model: Predictor, folder: Path, out: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, count = output._MotWriter.write, 0

    def failing(self: Any, frame: TrackedFrame) -> None:
        nonlocal count
        count += 1
        if count == 7:
            raise error
        original(self, frame)

    monkeypatch.setattr(output._MotWriter, "write", failing)
    files = TrackFiles(out / "t.parquet", out / "t.txt", out / "t.mp4")
    with pytest.raises(
        (KeyboardInterrupt, InputError), match="disk is full" if isinstance(error, OSError) else ""
    ):
        track_clip(model, folder, files, THRESHOLD)
    assert not out.exists()


def test_outputs_are_checked_before_anything_is_read(folder: Path, out: Path, tiny_model_dir: Path) -> None:
    assert "nothing to write" in refused("track", tiny_model_dir, folder)
    assert "must end in .parquet" in refused("track", tiny_model_dir, folder, "--out", out / "t.csv")
    assert "must end in one of .mp4" in refused("track", tiny_model_dir, folder, "--video", out / "t.gif")
    ok("track", tiny_model_dir, folder, "--mot", out / "t.txt", "--score-threshold", 0.7)
    assert "exists already" in refused("track", tiny_model_dir, folder, "--mot", out / "t.txt")
    ok("track", tiny_model_dir, folder, "--mot", out / "t.txt", "--force", "--score-threshold", 0.7)
    assert files_in(out) == ["t.txt"]
    assert "does not exist" in refused("track", tiny_model_dir, folder / "no.mp4", "--mot", out / "u.txt")


def test_the_command_prints_numbers_or_json(folder: Path, out: Path, tiny_model_dir: Path) -> None:
    arguments = ("track", tiny_model_dir, folder, "--score-threshold", 0.7, "--out")
    printed = ok(*arguments, out / "a.parquet").stdout
    assert "12 frames, " in printed
    assert "next: ssdir index" in printed
    about = json.loads(ok(*arguments, out / "b.parquet", "--json").stdout)
    assert about["frames"] == 12
    assert about["objects"] == len(read_objects(out / "b.parquet")[0])
    assert about["mot"] is None


@pytest.mark.parametrize("as_json", [False, True])
def test_that_nothing_was_tracked_is_a_warning_with_the_numbers(
    folder: Path, out: Path, tiny_model_dir: Path, tmp_path: Path, as_json: bool
) -> None:
    strict = shutil.copytree(tiny_model_dir, tmp_path / "strict")
    config = (strict / "config.json").read_text()
    (strict / "config.json").write_text(re.sub(r'"score_threshold": [0-9.]+', '"score_threshold": 0.9', config))
    arguments = ("track", strict, folder, "--mot", out / "n.txt", "--force", *(["--json"] if as_json else []))
    middle = (
        r"a track starts at 0\.95 \(in the middle between the model's threshold of 0\.9 and 1\), so give a lower"
    )
    given = r"a track starts at 1 \(as given; the model's threshold is 0\.9\), so give a lower --score-threshold"
    for more, least, rule in (((), r"0\.45", middle), (("--score-threshold", 1), r"0\.5", given)):
        result = ok(*arguments, *more)
        count = re.search(
            rf"nothing was tracked: ([0-9,]+) detections scored at least {least}, but {rule}", result.stderr
        )
        assert count
        assert int(count[1].replace(",", "")) > 12
        assert (out / "n.txt").read_text() == ""
        assert not as_json or json.loads(result.stdout)["tracks"] == 0


def test_the_help_names_the_score_that_photos_needs() -> None:
    config = Path(ssdir.__file__).parent / "weights" / "photos" / "config.json"
    (threshold,) = map(float, re.findall(r'"score_threshold": ([0-9.]+)', config.read_text()))
    start = TrackOptions().thresholds(threshold).start
    words = " ".join(ok("track", "--help").stdout.split())
    assert f"for photos, whose threshold is {threshold:g}, at {start:g}." in words


def test_motion_alone_needs_no_embeddings(model: Predictor, folder: Path) -> None:
    options = TrackOptions(score_threshold=0.7, appearance=False)
    frames = list(stream_tracks(model, open_frames(folder), options))
    assert sum(len(frame.objects) for frame in frames) > 12


# Given boxes ----------------------------------------------------------------------------------------------


def _det(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def test_boxes_of_motchallenge_are_tracked(folder: Path, out: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    lines = [f"{frame},-1,{10 + 2 * frame},12,20,30,0.8" for frame in range(1, 13)]
    lines += [f"{frame},-1,{60 - 2 * frame},5,8,9,0.6" for frame in range(1, 13)]
    det = _det(tmp_path / "det.txt", lines)
    ok("track", tiny_model_dir, folder, "--boxes", det, "--out", out / "t.parquet", "--mot", out / "t.txt")
    objects, _ = read_objects(out / "t.parquet")
    assert objects.counts.tolist() == [2] * 12
    table = read_stored(out / "t.parquet").table
    assert {*table["class"].to_pylist()} == {"object"}
    for row in table.to_pylist():
        own = lines[row["box_row"]].split(",")
        assert row["image_index"] == int(own[0]) - 1
        assert row["score"] == pytest.approx(float(own[6]))
        corners = [row[name] for name in ("box_x1", "box_y1", "box_x2", "box_y2")]
        left, top, width, height = map(float, own[2:6])
        assert corners == pytest.approx([left, top, left + width, top + height], abs=1e-3)
    groups = table.group_by("track_id").aggregate([("box_row", "list")]).to_pydict()["box_row_list"]
    assert sorted(map(sorted, groups)) == [list(range(12)), list(range(12, 24))]
    expected = load(tiny_model_dir, "cpu").encode(
        folder / "000003.png", boxes=np.array([[16.0, 12, 36, 42], [54, 5, 62, 14]]), box_unit="pixels"
    )
    torch.testing.assert_close(objects.split()[2].z_what, expected.z_what, rtol=1e-4, atol=1e-5)


def test_boxes_of_a_video_are_named_by_its_frames(
    tmp_path: Path, model: Predictor, pictures: list[NDArray[np.uint8]], out: Path, tiny_model_dir: Path
) -> None:
    video = write_video(tmp_path / "clip.mkv", pictures)
    rows = {
        "image": [f"clip.mkv#frame={number}" for number in range(12)],
        "x1": [10 + number for number in range(12)],
        "y1": [10] * 12,
        "x2": [30 + number for number in range(12)],
        "y2": [40] * 12,
        "track_id": list(range(100, 112)),
    }
    pyarrow.csv.write_csv(pa.table(rows), tmp_path / "boxes.csv")
    ok("track", tiny_model_dir, video, "--boxes", tmp_path / "boxes.csv", "--out", out / "t.parquet")
    table = read_stored(out / "t.parquet").table
    assert table["track_id"].to_pylist() == [1] * 12
    assert table["given_track_id"].to_pylist() == rows["track_id"]
    rows["image"] = [f"{number}" for number in range(12)]
    pyarrow.csv.write_csv(pa.table(rows), tmp_path / "boxes.csv")
    problem = refused("track", tiny_model_dir, video, "--boxes", tmp_path / "boxes.csv", "--mot", out / "t.txt")
    assert "frames of a video are called 'clip.mkv#frame=0'" in problem


def test_frames_of_motchallenge_have_the_numbers_of_their_names(
    model: Predictor, pictures: list[NDArray[np.uint8]], out: Path, tmp_path: Path
) -> None:
    folder = write_frames(tmp_path / "late", pictures, first=6)
    det = _det(tmp_path / "det.txt", [f"\ufeff{frame},-1,{2 * frame},12,20,30,0.8" for frame in (8,)])
    track_clip(model, folder, TrackFiles(out / "t.parquet", out / "t.txt"), boxes=BoxFile(det))
    table = read_stored(out / "t.parquet").table
    assert table["image"].to_pylist() == [str(folder / "000008.png")]
    assert (out / "t.txt").read_text().startswith("8,1,16.00,12.00,20.00,30.00,")


def test_tracks_have_the_frame_numbers_of_the_boxes_given(model: Predictor, out: Path, tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "cut", moving_squares(6), "frame_{:06d}.png", first=100)
    det = _det(tmp_path / "det.txt", [f"{frame},-1,8,8,12,12,0.9" for frame in range(1, 7)])
    track_clip(model, folder, TrackFiles(mot=out / "t.txt"), boxes=BoxFile(det))
    assert [line.split(",")[0] for line in (out / "t.txt").read_text().splitlines()] == [*"123456"]


def test_boxes_beyond_the_end_of_a_video_are_counted(
    model: Predictor, pictures: list[NDArray[np.uint8]], out: Path, tmp_path: Path
) -> None:
    video = write_video(tmp_path / "a.mkv", pictures)
    det = _det(tmp_path / "det.txt", [f"{frame},-1,20,12,20,30,0.8" for frame in (12, 13, 14)])
    with pytest.warns(InputWarning, match=r"boxes of 2 frames that were not read, left out: '.*a\.mkv#frame=12'"):
        tracked = track_clip(model, video, TrackFiles(mot=out / "t.txt"), boxes=BoxFile(det))
    assert tracked.objects == 1


def test_a_file_of_tracks_can_be_tracked_again_and_again(model: Predictor, folder: Path, out: Path) -> None:
    boxes = BoxFile(_det(folder.parent / "det.txt", ["1,-1,20,12,20,30,0.8"]))
    for name in ("one", "two", "three"):
        track_clip(model, folder, TrackFiles(out / f"{name}.parquet"), boxes=boxes)
        boxes = BoxFile(out / f"{name}.parquet")
    table = read_stored(out / "three.parquet").table
    assert [table[name].to_pylist() for name in ("given_track_id", "given_given_track_id")] == [[1], [1]]


def test_given_boxes_keep_their_class(folder: Path, model: Predictor, out: Path, tmp_path: Path) -> None:
    lines = ["image,x1,y1,x2,y2,class,score"]
    rows = enumerate((("cat", 0.4), ("dog", 0.9), ("cat", 0.4)), start=1)
    lines += [f"{frame:06d}.png,20,12,40,42,{name},{score}" for frame, (name, score) in rows]
    boxes = BoxFile(_det(tmp_path / "boxes.csv", lines))
    track_clip(model, folder, TrackFiles(out / "t.parquet"), boxes=boxes)
    table = read_stored(out / "t.parquet").table
    assert table["track_id"].to_pylist() == [1, 1, 1]
    assert table["class"].to_pylist() == ["cat", "dog", "cat"]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(None, ["pedestrian", "car", "object"]), ("ball\nbox\ncat\n", ["ball", "cat", "object"])],
)
def test_boxes_of_motchallenge_keep_their_class(
    folder: Path, model: Predictor, out: Path, tmp_path: Path, labels: str | None, expected: list[str]
) -> None:
    for name in ("gt", "det"):
        (tmp_path / "seq" / name).mkdir(parents=True)
    if labels is not None:
        (tmp_path / "seq/gt/labels.txt").write_text(labels)
    lines = ["1,-1,8,8,12,12,0.9,1,1", "1,-1,37,28,12,12,0.9,3,1", "1,-1,60,8,12,12,0.9,-1,-1,-1"]
    det = _det(tmp_path / "seq/det/det.txt", lines)
    track_clip(model, folder, TrackFiles(out / "t.parquet"), boxes=BoxFile(det))
    table = read_stored(out / "t.parquet").table
    assert dict(zip(table["box_row"].to_pylist(), table["class"].to_pylist(), strict=True)) == dict(
        enumerate(expected)
    )


def test_ignored_objects_of_motchallenge_are_left_out(
    folder: Path, model: Predictor, out: Path, tmp_path: Path
) -> None:
    lines = ["1,1,8,8,12,12,1,1,1", "1,2,37,28,12,12,0,1,1", "2,1,8,8,12,12,1,1,1", "1,-1,60,8,12,12,0,1,1"]
    files, truth = TrackFiles(out / "t.parquet"), _det(tmp_path / "gt.txt", lines)
    with pytest.warns(
        InputWarning, match=r"1 box of '.*gt\.txt' left out, such as row 1 .* marks an ignored object"
    ):
        tracked = track_clip(model, folder, files, boxes=BoxFile(truth))
    assert tracked.skipped_boxes == 1
    assert {*read_stored(out / "t.parquet").table["box_row"].to_pylist()} == {0, 2, 3}


@pytest.mark.parametrize("batch_size", [2, 16])
def test_frames_that_cannot_be_read_count_as_frames(
    folder: Path, model: Predictor, out: Path, tmp_path: Path, batch_size: int
) -> None:
    seen = [1, 2, 3, 4, 8, 9, 10]
    det = _det(tmp_path / "det.txt", [f"{frame},-1,20,12,20,30,0.8" for frame in seen])
    options = TrackOptions(max_gap=2)
    whole, broken = TrackFiles(mot=out / "whole.txt"), TrackFiles(mot=out / "broken.txt")
    track_clip(model, folder, whole, options, boxes=BoxFile(det), batch_size=batch_size)
    for frame in (5, 6, 7):
        (folder / f"{frame:06d}.png").write_bytes(b"broken")
    with pytest.warns(InputWarning, match="3 frames of 12"):
        track_clip(model, folder, broken, options, boxes=BoxFile(det), batch_size=batch_size)
    tracks = [int(line.split(",")[1]) for line in (out / "broken.txt").read_text().splitlines()]
    assert tracks == [1, 1, 1, 1, 2, 2, 2]
    assert (out / "broken.txt").read_text() == (out / "whole.txt").read_text()


def test_boxes_that_do_not_fit_are_counted(folder: Path, out: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    lines = [f"{frame},-1,20,12,20,30,{frame}" for frame in range(1, 15)] + ["3,-1,200,5,8,9,4"]
    det = _det(tmp_path / "det.txt", lines)
    result = run("track", tiny_model_dir, folder, "--boxes", det, "--out", out / "t.parquet")
    assert result.exit_code == 0
    assert "confidences of" in result.stderr
    assert "they are scaled to 0 … 1" in result.stderr
    assert "boxes of 2 frames not in the clip, left out: 'frame 13' ..." in result.stderr
    assert "1 box of" in result.stderr
    assert "has no area inside" in result.stderr
    assert "12 frames, 1 track, 12 objects, 1 box skipped" in result.stdout
    for lines, problem in (
        (["1,2,3"], "line 1 is not 6 to 10 numbers"),
        (["1,,10,20,30,40,0.9"], "line 1 is not 6 to 10 numbers"),
        (["1,-1,1,1,5,5,nan", "2,-1,1,1,5,5,0.5"], "line 1 has conf nan"),
        (["0,-1,1,1,5,5,1"], "count from 1"),
        ([], "is empty"),
    ):
        assert problem in refused(
            "track", tiny_model_dir, folder, "--boxes", _det(det, lines), "--mot", out / "t.txt"
        )


def test_mot_lines_have_pixels_and_score() -> None:
    objects = Objects(
        torch.zeros(1, dtype=torch.int64),
        1,
        torch.tensor([[0.5, 0.5, 0.5, 0.25]]),
        scores=torch.tensor([0.75]),
        track_id=torch.tensor([7]),
    )
    assert mot_lines(1, objects, (100, 200)) == ["1,7,50.00,37.50,100.00,25.00,0.7500,-1,-1,-1\n"]


def test_frames_of_several_sizes_are_remarked_on(model: Predictor, folder: Path) -> None:
    clip = open_frames(folder)
    assert isinstance(clip, ImageFrames)

    def mixed() -> Iterator[Frame]:
        for frame in clip:
            yield frame if frame.index else Frame(0, frame.pixels[:30], frame.name)

    with pytest.warns(InputWarning, match=r"11 frames of another size than the first \(90×30 px\)"):
        frames = list(stream_tracks(model, mixed(), THRESHOLD))
    assert [frame.size for frame in frames[:2]] == [(30, 90), (60, 90)]


@pytest.mark.slow
def test_an_exported_model_tracks_alike(tmp_path: Path, out: Path) -> None:
    ok("export", "tiny-digits", "--out", tmp_path / "m.onnx")
    ok("data", "scatter", "--out", tmp_path / "clips", "--frames", 12, "--train", 0, "--val", 0, "--test", 1)
    (clip,) = (tmp_path / "clips" / "test").iterdir()
    for model in ("tiny-digits", tmp_path / "m.onnx"):
        ok("track", model, clip, "--out", out / f"{Path(model).stem}.parquet")
    ours, exported = (read_objects(out / f"{name}.parquet")[0] for name in ("tiny-digits", "m"))
    assert len(ours) > 12
    torch.testing.assert_close(ours.boxes, exported.boxes, rtol=0, atol=1e-3)
    assert ours.track_id is not None
    assert exported.track_id is not None
    assert ours.track_id.tolist() == exported.track_id.tolist()
    det = _det(tmp_path / "det.txt", ["1,-1,5,5,20,20,1"])
    problem = refused("track", tmp_path / "m.onnx", clip, "--boxes", det, "--mot", out / "t.txt")
    assert "exported models only detect objects" in problem


def test_the_library_exports_tracking() -> None:
    assert ssdir.track_clip is track_clip
