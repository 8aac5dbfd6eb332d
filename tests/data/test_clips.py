"""Clips of a data set are written and read as COCO, and never divided between training and validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssdir.data.annotations import AnnotationTable
from ssdir.data.clips import Clip, clips_of
from ssdir.data.readers.registry import find_layout, open_dataset, read_annotations
from ssdir.data.scatter.clip_writer import write_moving
from ssdir.data.scatter.generator import image_rng
from ssdir.data.scatter.glyphs import load_glyphs
from ssdir.data.scatter.moving import MovingConfig, moving_clip, moving_values
from ssdir.data.writers.convert import convert
from ssdir.data_check.check import check_data
from ssdir.data_check.report import screen_lines
from ssdir.errors import InputError

CONFIG = MovingConfig(**{**moving_values("hard"), "frames": 8, "train": 3, "val": 0, "test": 2})


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "moving"
    write_moving(folder, "digits", CONFIG)
    return folder


def write_frames(root: Path, document: dict[str, Any], split: str = "train") -> Path:
    """Writes a COCO file, and a black image for each that it names."""
    path = root / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"categories": [{"id": 1, "name": "car"}], **document}
    path.write_text(json.dumps(content))
    for image in content["images"]:
        file = root / split / image["file_name"]
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (image["width"], image["height"])).save(file)
    return root


def frames(*keys: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"id": i, "file_name": f"{i}.png", "width": 20, "height": 10, **given} for i, given in enumerate(keys, 1)
    ]


def boxes(*keys: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"id": i, "category_id": 1, "bbox": [i, 1, 5, 5], **given} for i, given in enumerate(keys, 1)]


def test_generated_clips_are_read_as_they_were_made(moving: Path) -> None:
    dataset = open_dataset(moving, "test", min_visible=0)
    clips = clips_of(dataset)
    assert clips == [Clip(f"test-000{i}", range(8 * i, 8 * i + 8), 10.0) for i in range(2)]
    assert dataset.class_names == [str(digit) for digit in range(10)]
    glyphs = load_glyphs("digits", "test")
    for number, clip in enumerate(clips):
        made = moving_clip(glyphs, CONFIG, image_rng(0, "test", number))
        for frame, image in enumerate(clip.images):
            rows, objects = made.frame == frame, dataset.objects(image)
            assert np.array_equal(dataset.pixels(image)[..., 0], made.images[frame])
            assert np.allclose(objects.boxes * 128, made.boxes_px[rows], atol=1e-4)
            columns = {"track_id": "track_id", "labels": "labels", "source_index": "source_index"}
            for name, column in {**columns, "z_depth": "draw_order"}.items():
                assert np.array_equal(getattr(objects, name), getattr(made, column)[rows]), name
            assert np.allclose(objects.visible, made.visible[rows], atol=1e-4)


def test_workers_write_the_same_bytes(moving: Path, tmp_path: Path) -> None:
    write_moving(tmp_path / "again", "digits", CONFIG, workers=2)
    files = sorted(path.relative_to(moving) for path in moving.rglob("*") if path.is_file())
    assert len([file for file in files if not file.name.startswith(".")]) == 5 * 8 + 5 * 3 + 2
    for file in files:
        assert (tmp_path / "again" / file).read_bytes() == (moving / file).read_bytes(), file


def test_almost_hidden_digits_are_no_objects_unless_asked_for(moving: Path) -> None:
    usual, every = open_dataset(moving, "train"), open_dataset(moving, "train", min_visible=0)
    shares = [dataset.all_objects().visible for dataset in (usual, every)]
    assert shares[0] is not None
    assert shares[1] is not None
    assert shares[0].min() >= 0.1
    hidden = int((shares[1] < 0.1).sum())
    assert hidden > 3
    assert usual.dropped_boxes == every.dropped_boxes + hidden
    assert sum(len(usual.ignored(image)) for image in range(len(usual))) == hidden


def test_training_holds_out_whole_clips(moving: Path) -> None:
    train, val = (open_dataset(moving, split, for_training=True) for split in ("train", "val"))
    assert (len(train), len(val)) == (16, 8)
    names = [{clip.name for clip in clips_of(dataset)} for dataset in (train, val)]
    assert names[0] | names[1] == {"train-0000", "train-0001", "train-0002"}
    assert not names[0] & names[1]
    assert "1 of the 3 clips" in val.table.notes[-1]
    assert all(name.startswith(clips_of(val)[0].name) for name in (Path(n).parts[-3] for n in val.file_names))


def test_a_single_clip_is_not_divided(tmp_path: Path) -> None:
    write_frames(tmp_path, {"images": frames(*[{"video_id": 1}] * 30), "annotations": boxes({"image_id": 1})})
    with pytest.raises(InputError, match="has one clip, so none can be held out to validate on: add clips"):
        find_layout(tmp_path).read_for_training(tmp_path, "train")


def read_pair(root: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]], **more: Any) -> Any:
    return read_annotations(write_frames(root, {"images": images, "annotations": annotations, **more}), "train")


def tracks(table: AnnotationTable) -> list[tuple[str, int]]:
    assert table.track_id is not None
    return [(table.image_names[image], track) for image, track in zip(table.image, table.track_id, strict=True)]


def test_frames_are_put_in_order_of_time_within_their_video(tmp_path: Path) -> None:
    """The images of two videos are listed in turn, and backwards, with CocoVID's keys."""
    images = frames(*({"video_id": video, "frame_id": frame} for frame in (1, 0) for video in (7, 3)))
    annotations = boxes(*({"image_id": i, "instance_id": 10 + i} for i in (1, 2, 3, 4)))
    videos = [{"id": 7, "name": "seven", "fps": 25}, {"id": 3, "name": "three", "fps": 25}]
    table = read_pair(tmp_path, images, annotations, videos=videos)
    assert table.image_names == [f"train/{i}.png" for i in (3, 1, 4, 2)]
    assert table.clip.tolist() == [0, 0, 1, 1]
    assert table.clip_names == ["seven", "three"]
    assert table.info["frame_rate"] == 25
    assert tracks(table) == [(f"train/{i}.png", 10 + i) for i in (1, 2, 3, 4)]


def test_taos_keys_are_read(tmp_path: Path) -> None:
    images = frames(*({"video_id": 1, "frame_index": frame} for frame in (30, 0)))
    annotations = boxes(*({"image_id": i, "track_id": 5, "video_id": 1} for i in (1, 2)))
    more = {"videos": [{"id": 1, "name": "val/A"}], "tracks": [{"id": 5, "category_id": 1, "video_id": 1}]}
    table = read_pair(tmp_path, images, annotations, **more)
    assert table.image_names == ["train/2.png", "train/1.png"]
    assert (table.clip_names, "frame_rate" in table.info) == (["val/A"], False)
    assert tracks(table) == [("train/1.png", 5), ("train/2.png", 5)]


def test_cvats_attributes_are_one_clip_with_tracks_from_one(tmp_path: Path) -> None:
    annotations = boxes(*({"image_id": i, "attributes": {"occluded": False, "track_id": 0}} for i in (1, 2)))
    table = read_pair(tmp_path, frames({}, {}), annotations)
    assert table.clip.tolist() == [0, 0]
    assert table.clip_names == ["instances_train"]
    assert tracks(table) == [("train/1.png", 1), ("train/2.png", 1)]
    assert any("taken for one clip" in note for note in table.notes)
    assert any("numbered from 0, and read as numbered from 1" in note for note in table.notes)


def test_numbers_of_instances_in_still_images_are_no_tracks(tmp_path: Path) -> None:
    annotations = boxes(*({"image_id": 1, "instance_id": i} for i in (1, 2)))
    table = read_pair(tmp_path, frames({}), annotations)
    assert (table.track_id, table.clip) == (None, None)
    with pytest.raises(InputError, match="has images, but no clips"):
        clips_of(open_dataset(tmp_path, "train"))


def test_a_track_twice_in_a_frame_is_an_error(tmp_path: Path) -> None:
    annotations = boxes(*({"image_id": 1, "track_id": track} for track in (4, 4, 4, 5)))
    with pytest.raises(InputError, match=r"image 'train/1\.png' has 3 boxes of track 4"):
        read_pair(tmp_path, frames({"video_id": 1}), annotations)


def test_two_images_of_one_frame_are_an_error(tmp_path: Path) -> None:
    images = frames(*[{"video_id": 8, "frame_id": 2}] * 2)
    with pytest.raises(InputError, match="video 8 has two images of frame 2"):
        read_pair(tmp_path, images, [])


def test_the_check_counts_clips_and_tracks_and_ignores_hidden_objects(moving: Path) -> None:
    check = check_data(moving)
    dataset = open_dataset(moving, "train")
    tracks = {
        (clip.name, track)
        for clip in clips_of(dataset)
        for i in clip.images
        for track in dataset.objects(i).track_id
    }
    summary = check.summary
    assert (summary.images, summary.clips, summary.tracks) == (24, 3, len({(a, int(b)) for a, b in tracks}))
    assert summary.objects == len(dataset.all_objects())
    assert summary.ignored == dataset.dropped_boxes
    screen = "\n".join(screen_lines(check))
    assert f"clips      3, 8 frames each in the mean; {summary.tracks} tracks" in screen
    assert "training holds out a tenth of the clips" in screen


def test_clips_are_converted_from_each_layout_to_the_other(moving: Path, tmp_path: Path) -> None:
    original = read_annotations(moving, "train")
    done = convert(moving, "mot", tmp_path / "mot")
    assert done.notes == [
        f"{split}: keys that mot has no place for, left out (draw_order, source_index): 2"
        for split in ("test", "train")
    ]
    mot = read_annotations(tmp_path / "mot", "train")
    convert(tmp_path / "mot", "coco", tmp_path / "coco")
    coco = read_annotations(tmp_path / "coco", "train")
    for table in (mot, coco):
        assert (table.clip_names, table.category_names) == (original.clip_names, original.category_names)
        assert table.info["frame_rate"] == 10
        for name in ("image", "track_id", "boxes_px", "category", "clip", "visible", "ignored"):
            assert np.array_equal(getattr(table, name), getattr(original, name)), name
        for path, other in zip(table.image_paths, original.image_paths, strict=True):
            assert path.read_bytes() == other.read_bytes()
    notes = convert(moving, "yolo", tmp_path / "yolo").notes
    lost = "clip, track_id, visible, draw_order, source_index"
    assert f"train: keys that yolo has no place for, left out ({lost}): 5" in notes


def test_ignored_objects_stay_ignored_as_mot_and_clips_get_names_of_folders(tmp_path: Path) -> None:
    images = frames({"video_id": 1, "frame_id": 0}, {"video_id": 1, "frame_id": 4}, {"video_id": 2})
    annotations = boxes(*({"image_id": i, "track_id": i, "iscrowd": int(i == 2)} for i in (1, 2, 3)))
    videos = [{"id": 1, "name": "val/A b"}, {"id": 2, "name": "val_A b"}]
    write_frames(tmp_path / "coco", {"images": images, "annotations": annotations, "videos": videos})
    convert(tmp_path / "coco", "mot", tmp_path / "mot")
    table = read_annotations(tmp_path / "mot", "train")
    assert table.clip_names == ["val_A b", "val_A b-2"]
    assert table.image_names == [
        f"train/{name}.png" for name in ("val_A b/img1/000001", "val_A b-2/img1/000001", "val_A b-2/img1/000002")
    ]
    assert table.ignored.tolist() == [False, False, True]
    assert tracks(table) == list(zip(table.image_names, [3, 1, 2], strict=True))


def test_frames_of_several_sizes_and_ignored_boxes_of_one_track_are_read_again_as_mot(tmp_path: Path) -> None:
    images = frames({"video_id": 1, "width": 200, "height": 100}, {"video_id": 1, "width": 100, "height": 50})
    tracked = [{"track_id": 1}, {"track_id": 2, "iscrowd": 1}, {"track_id": 2, "iscrowd": 1}]
    annotations = boxes(*({"image_id": i, **keys} for i in (1, 2) for keys in tracked))
    write_frames(tmp_path / "coco", {"images": images, "annotations": annotations})
    convert(tmp_path / "coco", "mot", tmp_path / "mot")
    tables = [read_annotations(tmp_path / name, "train") for name in ("coco", "mot")]
    assert tables[1].image_sizes.tolist() == [[100, 200], [50, 100]]
    for name in ("image", "track_id", "boxes_px", "ignored"):
        assert np.array_equal(*(getattr(table, name) for table in tables)), name


def test_still_images_are_not_written_as_mot(tmp_path: Path) -> None:
    write_frames(tmp_path / "coco", {"images": frames({}), "annotations": boxes({"image_id": 1})})
    with pytest.raises(InputError, match="split train, has no clips, so it can't be written as mot"):
        convert(tmp_path / "coco", "mot", tmp_path / "mot")
    assert not (tmp_path / "mot").exists()


@pytest.mark.parametrize("outside", [False, True])
def test_videos_without_images_are_no_clips(tmp_path: Path, outside: bool) -> None:
    """A video may have no image listed, or only images outside of the data set's folder, which are left out."""
    images = frames({"video_id": 2}, {"video_id": 3}, *[{"video_id": 1, "file_name": "../../out.png"}] * outside)
    videos = [{"id": i, "name": name} for i, name in enumerate("ABC", 1)]
    table = read_pair(tmp_path / "coco", images, boxes({"image_id": 1, "track_id": 5}), videos=videos)
    assert (table.clip_names, table.clip.tolist()) == (["B", "C"], [0, 1])
    convert(tmp_path / "coco", "mot", tmp_path / "mot")
    written = read_annotations(tmp_path / "mot", "train")
    assert written.image_names == ["train/B/img1/000001.png", "train/C/img1/000001.png"]
    assert tracks(written) == [("train/B/img1/000001.png", 5)]


def test_clips_get_folders_of_their_own_with_their_frame_rates(tmp_path: Path) -> None:
    names = ["a/b", "a_b", "a_b-1", "A_B-1", "x" * 260, ".", "x" * 260 + "y"]
    images = frames(*({"video_id": i, "frame_id": 0, "width": 20 + i} for i in range(len(names))))
    annotations = boxes(*({"image_id": i + 1, "track_id": 1} for i in range(len(names))))
    videos = [{"id": i, "name": name, "fps": 5 + i} for i, name in enumerate(names)]
    write_frames(tmp_path / "coco", {"images": images, "annotations": annotations, "videos": videos})
    done = convert(tmp_path / "coco", "mot", tmp_path / "mot")
    folders = ["a_b-2", "a_b", "a_b-1-2", "A_B-1-3", "x" * 180, "clip", "x" * 180 + "-2"]
    table = read_annotations(tmp_path / "mot", "train")
    assert sorted(table.clip_names) == sorted(folders)
    assert table.info["frame_rate"] == {folder: 5 + i for i, folder in enumerate(folders)}
    assert {table.clip_names[table.clip[i]]: size[1] for i, size in enumerate(table.image_sizes.tolist())} == {
        folder: 20 + i for i, folder in enumerate(folders)
    }
    (note,) = done.notes
    assert note.startswith(
        "clips renamed, as two would share a name or a name can't be kept: 6 ('a/b' is 'a_b-2')"
    )


def test_frames_whose_names_have_no_suffix_get_that_of_their_format(tmp_path: Path) -> None:
    images = frames({"video_id": 1}, {"video_id": 1})
    write_frames(tmp_path / "coco", {"images": images, "annotations": boxes({"image_id": 1, "track_id": 1})})
    path = tmp_path / "coco/annotations/instances_train.json"
    path.write_text(path.read_text().replace(".png", ""))
    for image in (tmp_path / "coco/train").iterdir():
        image.rename(image.with_suffix(""))
    convert(tmp_path / "coco", "mot", tmp_path / "mot")
    names = [Path(name).name for name in read_annotations(tmp_path / "mot", "train").image_names]
    assert names == ["000001.png", "000002.png"]


def test_clips_without_any_object_are_written_as_mot(tmp_path: Path) -> None:
    write_frames(
        tmp_path / "in", {"images": frames({"video_id": 1}), "annotations": boxes({"image_id": 1, "track_id": 1})}
    )
    write_frames(tmp_path / "in", {"images": frames({"video_id": 1}), "annotations": []}, "val")
    for before, target in (("in", "mot"), ("mot", "coco"), ("coco", "mot2")):
        done = convert(tmp_path / before, target.rstrip("2"), tmp_path / target)
        assert (done.images, done.objects) == ({"train": 1, "val": 1}, {"train": 1, "val": 0})


def test_frames_without_a_number_are_noted_and_change_no_other_video(tmp_path: Path) -> None:
    keys = [("text", "1"), ("text", "10"), ("text", "2"), ("none", 5), ("none", None), ("none", 0)]
    images = frames(*({"video_id": video, "frame_id": frame} for video, frame in keys))
    table = read_pair(tmp_path, images, boxes({"image_id": 1}))
    assert table.image_names == [f"train/{i}.png" for i in (1, 3, 2, 4, 5, 6)]
    (note,) = table.notes
    assert note.startswith("videos with an image whose frame_id is no number, taken in the order")
    assert note.endswith(": 1 ('none')")


def test_ids_of_videos_may_be_numbers_in_one_place_and_text_in_another(tmp_path: Path) -> None:
    images = frames(*({"video_id": video, "frame_id": i} for i, video in enumerate(("7", 7, 8, "8"))))
    videos = [{"id": 7, "name": "cam", "fps": 12}]
    table = read_pair(tmp_path, images, boxes({"image_id": 1}), videos=videos)
    assert (table.clip_names, table.clip.tolist()) == (["cam", "8"], [0, 0, 1, 1])
    assert table.info["frame_rate"] == {"cam": 12}
    (note,) = table.notes
    assert note == "ids of videos that are numbers in one place and text in another: 2 ('7')"


def test_two_videos_of_one_name_are_an_error(tmp_path: Path) -> None:
    """Videos that share a name are called by their ids, but an id may be another video's name."""
    images = frames(*({"video_id": i} for i in (1, 2, 3)))
    videos = [{"id": i, "name": name} for i, name in ((1, "4"), (2, "x"), (3, "x"))]
    assert read_pair(tmp_path, images, boxes({"image_id": 1}), videos=videos).clip_names == ["4", "2", "3"]
    videos[0]["name"] = "2"
    with pytest.raises(
        InputError, match="json: not COCO annotations: 2 videos are called '2', by name or id: give"
    ):
        read_pair(tmp_path, images, boxes({"image_id": 1}), videos=videos)
