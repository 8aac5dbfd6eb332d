"""The data check names every defect, and counts correctly."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from data.defects import noise, write_defects, write_folder
from ssdir.data.learnable import usable_boxes
from ssdir.data.readers.coco.reader import read_coco
from ssdir.data_check.annotations import (
    box_flags,
    check_annotations,
    overlaps,
    summarise,
)
from ssdir.data_check.images import check_images, scan_images


def by_kind(problems):
    assert len({problem.kind for problem in problems}) == len(problems)
    return {problem.kind: problem for problem in problems}


def pair_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


@pytest.fixture(scope="module")
def defects(tmp_path_factory):
    return read_coco(write_defects(tmp_path_factory.mktemp("defects") / "data"), "train")


ANNOTATED = {
    "boxes_without_area": ["train/good.png: cat (10, 10, 10, 30)", "train/good.png: cat (nan, 10, nan, 30)"],
    "boxes_outside": ["train/good.png: dog (200, 10, 220, 30)"],
    "boxes_across_the_edge": ["train/good.png: dog (-10, 40, 20, 70)"],
    "duplicate_boxes": ["train/good.png: dog (30, 20, 60, 50)"],
    "tiny_boxes": ["train/wide.png: cat (100, 100, 104, 130)"],
    "unused_classes": ["eel"],
}
ON_DISK = {
    "missing_images": ["train/gone.png"],
    "damaged_images": ["train/cut.png: the image is damaged or cut short", "train/text.png' is not an image"],
    "images_of_other_shape": ["train/turned.png: 60 x 90, annotated as 90 x 60"],
    "rescaled_images": ["train/small.png: 45 x 30, annotated as 90 x 60"],
    "duplicate_images": ["train/copy.bmp: the same as train/good.png"],
}
STOPS = {"missing_images", "damaged_images", "images_of_other_shape"}


def test_broken_boxes_and_classes_are_named(defects):
    problems = by_kind(check_annotations(defects, 128))
    assert {kind: list(problem.names) for kind, problem in problems.items()} == ANNOTATED
    assert not any(problem.stops for problem in problems.values())
    assert "narrower than 4 px once images are 128 px" in problems["tiny_boxes"].sentence


def test_broken_images_are_named(defects):
    problems = by_kind(check_images(defects, scan_images(defects.image_paths)))
    assert set(problems) == set(ON_DISK)
    for kind, expected in ON_DISK.items():
        names = problems[kind].names
        assert len(names) == len(expected)
        for name, part in zip(names, expected, strict=True):
            assert part in name
            assert str(defects.root) not in name
        assert problems[kind].stops == (kind in STOPS)


def test_progress_counts_every_image(defects):
    seen = []
    scan_images(defects.image_paths, lambda done, total: seen.append((done, total)))
    n = len(defects.image_names)
    assert seen == [(i + 1, n) for i in range(n)]


def test_what_is_tiny_depends_on_the_image_size(defects):
    at = {size: box_flags(defects, size)["tiny_boxes"].sum() for size in (128, 1024)}
    assert at == {128: 1, 1024: 0}


def test_a_clean_folder_has_no_problems(tmp_path):
    images = [(f"{i}.png", noise(60, 90, i)) for i in range(3)]
    boxes = [(i, "cat", (5 + 10 * i, 5, 30, 40)) for i in range(3)]
    table = read_coco(write_folder(tmp_path, images, boxes, ["cat"]), "train")
    assert check_annotations(table, 128) == []
    assert check_images(table, scan_images(table.image_paths)) == []


def test_nothing_to_learn_stops(tmp_path):
    table = read_coco(write_folder(tmp_path, [("a.png", noise(8, 8))], [], ["cat"]), "train")
    problems = by_kind(check_annotations(table, 128))
    assert set(problems) == {"no_objects"}
    assert problems["no_objects"].stops
    summary = summarise(table)
    assert (summary.objects, summary.empty_images, summary.nms_cost) == (0, 1, 0)
    assert summary.per_image == {"min": 0, "median": 0, "mean": 0, "max": 0}


def test_rare_classes_and_remarks_are_named(tmp_path):
    boxes = [(0, "cat", (x, y, 8, 8)) for x in range(0, 80, 8) for y in range(0, 80, 8)]
    boxes += [(0, "dog", (81, 81, 8, 8)), (0, "eel", (90, 81, 8, 8)), (0, "eel", (90, 70, 8, 8))]
    table = read_coco(write_folder(tmp_path, [("a.png", noise(100, 100))], boxes, ["cat", "dog", "eel"]), "train")
    problems = by_kind(check_annotations(table, 128))
    assert problems["rare_classes"].names == ("dog: 1 of cat's 100",)
    noted = type(table)(**{**vars(table), "notes": ("labels/7.txt: line 3 is empty",)})
    assert by_kind(check_annotations(noted, 128))["notes"].names == noted.notes


def test_ignored_boxes_are_counted_and_are_no_problem(tmp_path):
    boxes = [(0, "cat", (5, 5, 30, 40)), (0, "cat", (-50, 0, 0, 0), {"iscrowd": 1})]
    table = read_coco(write_folder(tmp_path, [("a.png", noise(60, 90))], boxes, ["cat"]), "train")
    assert check_annotations(table, 128) == []
    assert (summarise(table).objects, summarise(table).ignored, summarise(table).dropped) == (1, 1, 0)


def test_counts_and_histograms_by_hand(defects):
    summary = summarise(defects)
    assert summary.images == 8
    assert summary.image_sizes == {"90 x 60": 7, "400 x 200": 1}
    assert summary.classes == {"dog": 9, "cat": 2, "eel": 0}
    assert (summary.objects, summary.dropped, summary.ignored, summary.empty_images) == (11, 3, 0, 0)
    assert summary.per_image == {"min": 1, "median": 1, "mean": 11 / 8, "max": 4}
    # 20 x 20 of 90 x 60 are left of the clipped one; 4 x 30 of 400 x 200; 40 x 10; the rest are 30 x 30.
    assert summary.sizes == {"< 3 %": 0, "3-6 %": 0, "6-12 %": 0, "12-25 %": 1, "25-50 %": 2, "> 50 %": 8}
    assert summary.aspects == {"< 1:3": 1, "1:3 - 2:3": 0, "2:3 - 3:2": 9, "3:2 - 3:1": 0, "> 3:1": 1}


def random_boxes(n: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 0.7, (n, 2))
    return np.concatenate([low, low + rng.uniform(0.1, 0.3, (n, 2))], axis=1), rng.integers(0, 5, n)


def test_overlaps_agree_with_a_loop_over_pairs():
    boxes, image = random_boxes(60)
    nearest, earlier = np.zeros(60), np.zeros(60)
    for i, j in combinations(range(60), 2):
        if image[i] == image[j]:
            iou = pair_iou(boxes[i], boxes[j])
            nearest[i], nearest[j] = max(nearest[i], iou), max(nearest[j], iou)
            earlier[j] = max(earlier[j], iou)
    measured = overlaps(boxes, image)
    np.testing.assert_allclose(measured[0], nearest, atol=1e-12)
    np.testing.assert_allclose(measured[1], earlier, atol=1e-12)
    assert earlier.max() > 0.3


def test_overlaps_of_a_crowd_are_computed_in_parts(monkeypatch):
    boxes, image = random_boxes(50)
    whole = overlaps(boxes, image * 0)
    monkeypatch.setattr("ssdir.data_check.annotations._ROWS", 7)
    np.testing.assert_array_equal(overlaps(boxes, image * 0), whole)


@pytest.mark.parametrize(("share", "threshold"), [(0, 0.3), (1, 0.65), (40, 0.65)])
def test_the_nms_threshold_spares_true_pairs(tmp_path, share, threshold):
    """A share of 200 objects overlaps an earlier one by an IoU of 0.6 ... 0.65."""
    boxes = []
    for i in range(100):
        boxes += [(i, "cat", (0, 0, 100, 50)), (i, "cat", (0 if i < share else 200, 0, 62, 50))]
    images = [(f"{i}.png", noise(4, 8, i), 200, 400) for i in range(100)]
    summary = summarise(read_coco(write_folder(tmp_path, images, boxes, ["cat"]), "train"))
    assert summary.overlapping == {"0.3": share / 100, "0.5": share / 100}
    # One pair in two hundred objects is within what may be lost.
    assert summary.nms_threshold == (0.3 if share == 1 else threshold)
    assert summary.nms_cost == (share / 200 if share == 1 else 0)


def test_duplicates_do_not_pass_for_overlap(tmp_path):
    boxes = [(0, "cat", (5, 5, 30, 40)), (0, "dog", (5, 5, 30, 40))]
    table = read_coco(write_folder(tmp_path, [("a.png", noise(60, 90))], boxes, ["cat", "dog"]), "train")
    assert summarise(table).overlapping == {"0.3": 0, "0.5": 0}
    assert by_kind(check_annotations(table, 128))["duplicate_boxes"].names == ("train/a.png: dog (5, 5, 35, 45)",)


def test_usable_boxes_are_those_of_the_data_set(defects):
    from ssdir.data.dataset import ObjectDataset

    dataset = ObjectDataset(defects)
    rows, _ = usable_boxes(defects)
    assert len(rows) == sum(len(dataset.objects(i)) for i in range(len(dataset)))


def test_a_copy_is_known_by_its_pixels(tmp_path):
    """A copy may have another format; an image of as many pixels in another shape is no copy."""
    grey = np.zeros((20, 40, 3), np.uint8)
    images = [("a.png", grey), ("b.bmp", grey), ("c.png", grey.reshape(40, 20, 3))]
    table = read_coco(write_folder(tmp_path, images, [(0, "cat", (1, 1, 9, 9))], ["cat"]), "train")
    problems = by_kind(check_images(table, scan_images(table.image_paths)))
    assert problems["duplicate_images"].names == ("train/b.bmp: the same as train/a.png",)


def test_a_turned_image_counts_with_its_exif_orientation_applied(tmp_path):
    root = write_folder(tmp_path, [("a.jpg", noise(60, 90))], [(0, "cat", (1, 1, 20, 20))], ["cat"])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(60, 90)).save(root / "train" / "a.jpg", exif=exif)
    table = read_coco(root, "train")
    assert by_kind(check_images(table, scan_images(table.image_paths))) == {}
    Image.fromarray(noise(60, 80)).save(root / "train" / "a.jpg", exif=exif)
    problem = by_kind(check_images(table, scan_images(table.image_paths)))["images_of_other_shape"]
    assert problem.names == ("train/a.jpg: 60 x 80, annotated as 60 x 90",)
