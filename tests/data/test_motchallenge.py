"""Tests of the MOTChallenge layout: folders, frames, boxes with tracks, and faults in them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdir.data.clips import Clip, clips_of
from ssdir.data.readers.motchallenge.reader import LAYOUT, MOT_CLASSES
from ssdir.data.readers.registry import find_layout, open_dataset, read_annotations
from ssdir.data.scatter.clip_writer import write_moving
from ssdir.data.scatter.moving import MovingConfig, moving_values
from ssdir.errors import InputError

TRUTH = ["1,1,0,0,5,4,1,1,1", "2,1,1,0,5,4,1,1,0.5", "2,2,10,2,5,4,0,8,1"]


def write_sequence(
    folder: Path,
    lines: Sequence[str] | None = TRUTH,
    frames: Sequence[str] = ("000001.png", "000002.png"),
    info: str
    | None = "[Sequence]\nname=x\nimDir=img1\nframeRate=5\nseqLength=2\nimWidth=20\nimHeight=10\nimExt=.png",
    labels: Sequence[str] = (),
) -> Path:
    (folder / "gt").mkdir(parents=True)
    (folder / "img1").mkdir()
    for frame in frames:
        Image.new("L", (20, 10)).save(folder / "img1" / frame)
    if lines is not None:
        (folder / "gt" / "gt.txt").write_text("".join(f"{line}\n" for line in lines))
    if labels:
        (folder / "gt" / "labels.txt").write_text("".join(f"{label}\n" for label in labels))
    if info is not None:
        (folder / "seqinfo.ini").write_text(info)
    return folder


def test_a_sequence_is_read_with_tracks_classes_flags_and_visible_shares(tmp_path: Path) -> None:
    write_sequence(tmp_path / "A")
    table = read_annotations(tmp_path / "A", "train")
    assert table.image_names == ["img1/000001.png", "img1/000002.png"]
    assert table.image_sizes.tolist() == [[10, 20]] * 2
    assert table.image.tolist() == [0, 1, 1]
    assert table.track_id.tolist() == [1, 1, 2]
    assert table.boxes_px.tolist() == [[0, 0, 5, 4], [1, 0, 6, 4], [10, 2, 15, 6]]
    assert [table.category_names[category] for category in table.category] == ["pedestrian"] * 2 + ["distractor"]
    assert table.ignored.tolist() == [False, False, True]
    assert table.visible.tolist() == [1, 0.5, 1]
    assert table.notes == ()
    assert clips_of(open_dataset(tmp_path / "A", "train")) == [Clip("A", range(2), 5.0)]


@pytest.mark.parametrize(
    ("places", "splits"),
    [([""], ["all"]), (["A", "B"], ["all"]), (["train/A", "train/B", "test/C", "notes"], ["test", "train"])],
)
def test_one_sequence_a_folder_of_them_and_a_folder_of_splits(
    places: list[str], splits: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "data"
    for place in places:
        if place == "notes":
            (root / place).mkdir()
        else:
            write_sequence(root / place)
    assert find_layout(root) is LAYOUT
    assert LAYOUT.splits(root) == splits
    dataset = open_dataset(root, "train")
    names = [Path(place).name or "data" for place in places if place.startswith("train") or splits == ["all"]]
    assert [clip.name for clip in clips_of(dataset)] == names
    assert all(path.is_file() for path in dataset.image_paths)


def test_generated_clips_are_equal_in_both_layouts(tmp_path: Path) -> None:
    """COCO is read where both layouts exist, because it has draw order, source and class as well."""
    config = MovingConfig(**{**moving_values("hard"), "frames": 6, "train": 2, "val": 0, "test": 0})
    write_moving(tmp_path / "both", "digits", config)
    assert find_layout(tmp_path / "both").name == "COCO"
    coco = read_annotations(tmp_path / "both", "train")
    shutil.copytree(tmp_path / "both" / "train", tmp_path / "mot" / "train")
    assert find_layout(tmp_path / "mot") is LAYOUT
    mot = read_annotations(tmp_path / "mot", "train")
    assert mot.image_names == coco.image_names
    assert mot.clip_names == coco.clip_names
    assert mot.info["frame_rate"] == coco.info["frame_rate"]
    assert mot.category_names == ["object"]
    for name in ("image", "track_id", "boxes_px", "ignored", "clip", "image_sizes", "visible"):
        assert np.array_equal(getattr(mot, name), getattr(coco, name)), name


def test_other_readers_read_generated_files_alike(tmp_path: Path) -> None:
    from motmetrics.io import loadtxt
    from trackers.io.mot import load_mot_file

    config = MovingConfig(**{**moving_values("hard"), "frames": 6, "train": 1, "val": 0, "test": 0})
    write_moving(tmp_path / "data", "digits", config)
    path = tmp_path / "data" / "train" / "train-0000" / "gt" / "gt.txt"
    table = read_annotations(tmp_path / "data" / "train" / "train-0000", "train")
    frames = load_mot_file(path)
    for image in range(6):
        rows = table.image == image
        theirs = frames[image + 1]
        assert theirs.ids.tolist() == table.track_id[rows].tolist()
        corners = np.concatenate([theirs.boxes[:, :2], theirs.boxes[:, :2] + theirs.boxes[:, 2:]], axis=1)
        assert np.allclose(corners, table.boxes_px[rows])
        assert (theirs.classes == 1).all()
        assert (theirs.confidences == 1).all()
    read = loadtxt(path, fmt="mot16").reset_index()
    assert read["FrameId"].tolist() == (table.image + 1).tolist()
    assert read["Id"].tolist() == table.track_id.tolist()
    # motmetrics takes pixels to count from 1, and moves all boxes by 1; measures do not depend on it.
    assert np.allclose(read[["X", "Y"]].to_numpy() + 1, table.boxes_px[:, :2])
    assert np.allclose(read["Visibility"], table.visible)


def test_classes_are_named_by_labels_or_mot16s_and_the_same_in_each_split(tmp_path: Path) -> None:
    write_sequence(tmp_path / "named/train/A", ["1,1,0,0,5,4,1,2,1"], labels=["cat", "dog"])
    write_sequence(tmp_path / "named/test/B", ["1,1,0,0,5,4,1,1,1"], labels=["cat", "dog"])
    write_sequence(tmp_path / "mot/train/A", ["1,1,0,0,5,4,1,3,1"])
    write_sequence(tmp_path / "mot/test/B", ["1,1,0,0,5,4,1,1,1", "2,1,0,0,5,4,1,99,1"])
    for data, names in (("named", ["cat", "dog"]), ("mot", ["pedestrian", "car", "99"])):
        tables = [read_annotations(tmp_path / data, split) for split in ("train", "test")]
        assert [table.category_names for table in tables] == [names, names]
        assert tables[0].category.tolist() == [1]
    assert MOT_CLASSES[6] == "static_person"


@pytest.mark.parametrize(
    "fields", ["1,7,0,0,5,4", "1,7,0,0,5,4,1", "1,7,0,0,5,4,1,-1,-1", "1,7,0,0,5,4,1,3.5,2,0"]
)
def test_boxes_without_class_and_visibility(fields: str, tmp_path: Path) -> None:
    """MOT15's lines of ten fields end with a position in world coordinates."""
    table = read_annotations(write_sequence(tmp_path / "A", [fields]), "train")
    assert table.category_names == ["object"]
    assert table.visible is None
    assert table.track_id.tolist() == [7]
    assert not table.ignored.any()


def test_a_sequence_without_a_description_takes_sizes_from_its_images(tmp_path: Path) -> None:
    table = read_annotations(write_sequence(tmp_path / "A", info=None), "train")
    assert table.image_sizes.tolist() == [[10, 20]] * 2
    assert table.sizes_from_files
    assert "frame_rate" not in table.info


def test_frames_with_gaps_other_numbers_and_another_count_are_noted(tmp_path: Path) -> None:
    frames = ("000001.png", "000002.png", "000005.png", "000010.png")
    lines = [*TRUTH, "4,1,0,0,5,4,1,1,1", "10,1,1,1,5,4,1,1,1"]
    table = read_annotations(write_sequence(tmp_path / "A", lines, frames), "train")
    assert [table.image_names[image] for image in table.image] == [
        f"img1/{frame}" for frame in ("000001.png", "000002.png", "000002.png", "000010.png")
    ]
    notes = " | ".join(table.notes)
    assert "A: frames that are missing: 6 (the first is 3)" in notes
    assert "boxes in frames that have no image: 1 (line 4 is of frame 4), left out" in notes
    assert "seqinfo.ini says 2 frames, but there are 4" in notes


def test_images_and_tracks_numbered_from_zero(tmp_path: Path) -> None:
    table = read_annotations(write_sequence(tmp_path / "A", ["1,0,0,0,5,4"], ("0.png", "1.png")), "train")
    assert (table.image.tolist(), table.track_id.tolist()) == ([0], [1])
    assert len(table.notes) == 2


@pytest.mark.parametrize(
    ("numbers", "used", "expected", "note"),
    [
        ((1, 3), (1, 2, 3), [1, 3], "boxes in frames that have no image: 1 (line 2 is of frame 2)"),
        ((0, 2), (1, 3), [0, 2], "images are numbered from 0"),
        ((9, 10), (9, 10), [9, 10], ""),
        ((9, 10), (1, 2), [9, 10], "images are taken in the order of their names"),
        ((0, 5, 10), (1, 2, 3), [0, 5, 10], "images are taken in the order of their names"),
    ],
)
def test_frames_have_the_number_at_the_end_of_their_names_or_their_place(
    numbers: Sequence[int], used: Sequence[int], expected: list[int], note: str, tmp_path: Path
) -> None:
    lines, names = [f"{frame},1,0,0,5,4" for frame in used], [f"cam2_{number}.png" for number in numbers]
    table = read_annotations(write_sequence(tmp_path / "A", lines, names, info=None), "train")
    assert [table.image_names[image] for image in table.image] == [f"img1/cam2_{each}.png" for each in expected]
    assert bool(table.notes) == bool(note)
    assert note in " | ".join(table.notes)


def test_sequences_that_repeat_another_are_read_once(tmp_path: Path) -> None:
    for name in ("MOT17-02-DPM", "MOT17-02-FRCNN", "MOT17-02-SDP", "MOT17-04-SDP"):
        write_sequence(tmp_path / name)
    write_sequence(tmp_path / "MOT17-01-SDP", None)
    table = read_annotations(tmp_path, "train")
    assert table.clip_names == ["MOT17-02-DPM", "MOT17-04-SDP"]
    assert any("sequences without gt/gt.txt, left out: 1 ('MOT17-01-SDP')" in note for note in table.notes)
    assert any("one is read: 2 left out ('MOT17-02-FRCNN')" in note for note in table.notes)


def test_a_sequence_of_detections_alone_is_an_error(tmp_path: Path) -> None:
    folder = write_sequence(tmp_path / "test" / "A", None)
    (folder / "det").mkdir()
    (folder / "det" / "det.txt").write_text("1,-1,0,0,5,4,0.9\n")
    assert find_layout(tmp_path) is LAYOUT
    with pytest.raises(
        InputError, match=r"has no gt/gt\.txt.*det/det\.txt has detections, which are no annotations"
    ):
        read_annotations(tmp_path, "test")


def test_a_split_without_true_boxes_is_none_and_noted(tmp_path: Path) -> None:
    write_sequence(tmp_path / "train" / "A")
    write_sequence(tmp_path / "test" / "B", None)
    assert LAYOUT.splits(tmp_path) == ["train"]
    assert read_annotations(tmp_path, "train").notes == ("splits without gt/gt.txt, left out: 1 ('test')",)
    with pytest.raises(InputError, match=r"has no split 'test' \(there is train\)"):
        read_annotations(tmp_path, "test")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,1,0,0,5", r"line 2 is not 6 to 10 numbers with commas between them \(got '1,1,0,0,5'\)"),
        ("1 1 0 0 5 5", "line 2 is not 6 to 10 numbers"),
        ("1,a,0,0,5,5", "line 2 is not 6 to 10 numbers"),
        ("1.5,1,0,0,5,5", "line 2 has frame 1.5, expected a whole number"),
        ("-3,1,0,0,5,5", "line 2 has frame -3, but frames count from 1"),
        ("1,1,nan,0,5,5", "line 2 has left nan"),
        ("2,-1,0,0,5,5,1", "line 2 has track -1: true boxes need one"),
        ("1,1,1,1,5,5,1,1,1", "line 2 has another box of track 1 in frame 1, beside line 1"),
        ("2,1,1,1,5,5,1,0,1", "line 2 has class 0, but classes count from 1"),
        ("2,1,1,1,5,5,1,1,1.5", "line 2 has visibility 1.5"),
    ],
)
def test_a_line_with_a_fault_is_named(line: str, message: str, tmp_path: Path) -> None:
    write_sequence(tmp_path / "A", ["1,1,0,0,5,4,1,1,1", line])
    with pytest.raises(InputError, match=f"gt/gt.txt: {message}"):
        read_annotations(tmp_path / "A", "train")


def test_all_faulty_lines_are_counted_and_ten_are_named(tmp_path: Path) -> None:
    write_sequence(tmp_path / "A", ["x"] * 25)
    with pytest.raises(InputError, match=r"25 faults: .*line 10 .*and 15 more"):
        read_annotations(tmp_path / "A", "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"info": "name=x"}, "seqinfo.ini: not the description of a sequence"),
        ({"info": "[Other]\nname=x"}, r"it has no section \[Sequence\]"),
        ({"info": "[Sequence]\nimWidth=0\nimHeight=9"}, "imWidth is '0', expected a number above 0"),
        ({"info": "[Sequence]\nimDir=frames"}, "A/frames' is missing"),
        ({"info": "[Sequence]\nimDir=../B/img1"}, "imDir is '../B/img1', expected a folder within the sequence"),
        ({"frames": ()}, "img1' has no images"),
        ({"frames": ("1.png", "01.png")}, "two images of one frame, such as 1"),
        ({"lines": ["7,1,0,0,5,4"]}, "boxes in frames that have no image: 1"),
        ({"lines": ["1,1,0,0,5,4,1,3,1"], "labels": ["cat"]}, "line 1 has class 3, but .*labels.txt' names 1"),
    ],
)
def test_faults_of_a_sequence_are_reported(change: dict[str, object], message: str, tmp_path: Path) -> None:
    write_sequence(tmp_path / "A", **change)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        read_annotations(tmp_path / "A", "train")


def test_boxes_beyond_the_image_are_clipped_and_those_outside_left_out(tmp_path: Path) -> None:
    write_sequence(tmp_path / "A", ["1,1,-5,2,10,4,1,1,1", "1,2,30,2,5,5,1,1,1"])
    dataset = open_dataset(tmp_path / "A", "train")
    assert dataset.objects(0).boxes.numpy() == pytest.approx(np.array([[0, 0.2, 0.25, 0.6]]))
    assert len(dataset.objects(0)) == 1


@pytest.mark.parametrize(
    ("labels", "unnamed"), [(["car", "person"], "object"), (["car"], "car"), (["object", "car"], "object")]
)
def test_boxes_without_class_are_of_the_only_class_or_of_none(
    labels: list[str], unnamed: str, tmp_path: Path
) -> None:
    lines = ["1,1,0,0,5,4,1,1,1", "1,2,1,0,5,4,1,-1,1", "2,1,1,0,5,4"]
    write_sequence(tmp_path / "train" / "A", lines, labels=labels)
    write_sequence(tmp_path / "val" / "B", labels=labels, lines=lines[:1])
    train, val = (read_annotations(tmp_path, split) for split in ("train", "val"))
    assert [train.category_names[category] for category in train.category] == [labels[0], unnamed, unnamed]
    assert train.category_names == val.category_names == list(dict.fromkeys([*labels, unnamed]))


def test_links_to_sequences_are_clips_by_their_own_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    for link, folder in (("d1", "x"), ("d2", "y")):
        (tmp_path / "data" / link).symlink_to(write_sequence(tmp_path / folder / "seq"))
    assert [clip.name for clip in clips_of(open_dataset(tmp_path / "data", "train"))] == ["d1", "d2"]
    monkeypatch.chdir(tmp_path / "x" / "seq" / "img1")
    assert read_annotations(Path(".."), "train").clip_names == ["seq"]
