import json
import os
import shutil

import cv2
import numpy as np
import pytest
import supervision
import torch
from PIL import Image
from pycocotools.coco import COCO
from torch.utils.data import DataLoader

from ssdir.data import dataset
from ssdir.data.dataset import collate, fingerprint
from ssdir.data.processes import run_jobs, starts_by_fork
from ssdir.data.readers.registry import open_dataset, read_annotations
from ssdir.data.readers.splits import SPLITS
from ssdir.data.scatter.generator import ScatterConfig, image_rng, scatter_image, scattered_objects
from ssdir.data.scatter.glyphs import load_glyphs
from ssdir.data.scatter.writer import write_scatter
from ssdir.errors import InputError
from ssdir.objects import Objects

CONFIG = ScatterConfig(canvas=64, train=70, val=5, test=5, seed=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("coco") / "scatter"
    write_scatter(out, "digits", CONFIG)
    return out


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_coco(root, images, annotations, categories=("cat", "dog"), split="train"):
    """Writes `images`, (id, height, width), and `annotations`, (image id, category id, xywh[, more keys])."""
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    for i, height, width in images:
        Image.fromarray(np.full((height, width, 3), 40 * i % 256, np.uint8)).save(root / split / f"{i}.png")
    content = {
        "categories": [{"id": 10 * (i + 1), "name": name} for i, name in reversed(list(enumerate(categories)))],
        "images": [{"id": i, "file_name": f"{i}.png", "height": h, "width": w} for i, h, w in images],
        "annotations": [
            {
                "id": i,
                "image_id": entry[0],
                "category_id": entry[1],
                "bbox": entry[2],
                **(entry[3:] or ({},))[0],
            }
            for i, entry in enumerate(annotations)
        ],
    }
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


@pytest.fixture
def small(tmp_path):
    annotations = [
        (2, 20, [0, 0, 10, 20]),
        (1, 10, [5, 5, 10, 10]),
        (1, 20, [-5, 10, 10, 100]),
        (1, 20, [3, 3, 0, 5]),
        (1, 10, [50, 3, 9, 9]),
        (1, 10, [1, 1, 9, 9], {"iscrowd": 1}),
    ]
    return write_coco(tmp_path / "small", [(1, 20, 40), (2, 30, 30), (3, 8, 8)], annotations)


def test_a_written_set_holds_what_was_scattered(folder):
    for split in ("train", "val", "test"):
        data, glyphs = open_dataset(folder, split), load_glyphs("digits", split)
        assert len(data) == CONFIG.count(split)
        assert data.class_names == data.category_names == [str(digit) for digit in range(10)]
        assert data.dropped_boxes == 0
        for i in (0, 3, len(data) - 1):
            scattered = scatter_image(glyphs, CONFIG, image_rng(2, split, i))
            image, objects = data[i]
            expected = scattered_objects(scattered)
            assert np.array_equal(image, np.broadcast_to(scattered.image, (3, 64, 64)))
            assert torch.allclose(objects.z_where, expected.z_where, atol=1e-6)
            for field in ("labels", "z_depth", "source_index"):
                assert torch.equal(getattr(objects, field), getattr(expected, field)), field


@pytest.mark.parametrize("colours", [False, True])
def test_splits_without_images_are_not_written(tmp_path, colours):
    write_scatter(tmp_path / "out", "digits", ScatterConfig(canvas=64, train=3, val=0, test=0, colours=colours))
    names = {path.stem for path in (tmp_path / "out").rglob("*")}
    assert not {name for name in names if "val" in name or "test" in name}
    assert [len(open_dataset(tmp_path / "out", split, for_training=True)) for split in ("train", "val")] == [2, 1]


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_do_not_change_a_byte(folder, tmp_path, workers):
    write_scatter(tmp_path / "parallel", "digits", CONFIG, workers=workers)
    assert contents(tmp_path / "parallel") == contents(folder)


def test_pycocotools_reads_it(folder, capsys):
    coco, data = COCO(str(folder / "annotations/instances_train.json")), open_dataset(folder, "train")
    assert [coco.cats[i]["name"] for i in sorted(coco.cats)] == data.class_names
    assert sorted(coco.cats) == list(range(1, 11))
    for i, image_id in enumerate(coco.getImgIds()):
        entries = coco.loadAnns(coco.getAnnIds(image_id))
        x, y, w, h = np.array([entry["bbox"] for entry in entries]).T
        objects = data.objects(i)
        assert objects.boxes_px((64, 64)).numpy() == pytest.approx(np.stack([x, y, x + w, y + h], 1), abs=1e-4)
        assert [entry["category_id"] - 1 for entry in entries] == objects.labels.tolist()
        assert [entry["draw_order"] for entry in entries] == list(range(len(objects)))
        assert [entry["area"] for entry in entries] == (w * h).tolist()
        assert all(0 <= entry["visible"] <= 1 for entry in entries)


def test_supervision_reads_it(folder):
    theirs = supervision.DetectionDataset.from_coco(
        str(folder / "val"), str(folder / "annotations/instances_val.json")
    )
    data = open_dataset(folder, "val")
    assert theirs.classes == data.class_names
    assert len(theirs) == len(data)
    for i, (_, image, detections) in enumerate(theirs):
        ours, objects = data[i]
        assert np.array_equal(image, ours.permute(1, 2, 0))
        assert detections.xyxy == pytest.approx(objects.boxes_px((64, 64)).numpy(), abs=1e-4)
        assert detections.class_id.tolist() == objects.labels.tolist()


def test_images_are_8_bit_grey_pngs_and_info_states_their_origin(folder):
    pixels = cv2.imread(str(folder / "train" / "000000.png"), cv2.IMREAD_UNCHANGED)
    assert (pixels.shape, pixels.dtype) == ((64, 64), np.uint8)
    info = json.loads((folder / "annotations/instances_test.json").read_text())["info"]
    assert (info["source"], info["seed"]) == ("digits", 2)
    assert ScatterConfig.model_validate(info["config"]) == CONFIG
    assert info["ssdir_version"]


def test_progress_counts_all_images(tmp_path):
    seen = []
    write_scatter(tmp_path / "out", "digits", CONFIG, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (80, 80)
    assert seen == sorted(set(seen))


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_leaves_nothing_behind(tmp_path, workers):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_scatter(tmp_path / "out", "digits", CONFIG, workers=workers, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_replaced_only_by_force(tmp_path):
    out, few = tmp_path / "out", ScatterConfig(canvas=32, train=1, val=1, test=0)
    out.mkdir()
    write_scatter(out, "digits", few)  # An empty folder is fine.
    before = contents(out)
    with pytest.raises(InputError, match="exists already"):
        write_scatter(out, "digits", few.model_copy(update={"seed": 1}))
    assert contents(out) == before
    (out / "stale.txt").touch()
    write_scatter(out, "digits", few.model_copy(update={"seed": 1}), force=True)
    assert contents(out).keys() == before.keys()
    assert contents(out) != before
    assert list(tmp_path.iterdir()) == [out]


def test_a_failing_replacement_keeps_the_old_set(tmp_path):
    out, few = tmp_path / "out", ScatterConfig(canvas=32, train=1, val=0, test=0)
    write_scatter(out, "digits", few)
    before = contents(out)

    def fail(done, total):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_scatter(out, "digits", few, force=True, progress=fail)
    assert contents(out) == before
    assert list(tmp_path.iterdir()) == [out]


def test_force_does_not_replace_what_is_no_data_set(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    for out, message in ((home, "did not write"), (home / "letter.txt", "is a file")):
        with pytest.raises(InputError, match=message):
            write_scatter(out, "digits", CONFIG, force=True)
    assert (home / "letter.txt").read_text() == "dear"
    with pytest.raises(InputError, match="nothing to write"):
        write_scatter(tmp_path / "none", "digits", ScatterConfig(train=0, val=0, test=0))


def test_boxes_are_cleaned_at_reading(small):
    data = open_dataset(small, "train")
    assert data.dropped_boxes == 3
    assert data.category_names == ["cat", "dog"]
    objects = data.objects(0)
    assert objects.boxes_px((20, 40)).tolist() == [[5, 5, 15, 15], [0, 10, 5, 20]]
    assert objects.labels.tolist() == [0, 1]
    assert objects.z_depth is None
    assert objects.source_index is None
    assert data.objects(1).boxes_px((30, 30)).tolist() == [[0, 0, 10, 20]]
    assert len(data.objects(2)) == 0
    assert data.objects(-3).labels.tolist() == [0, 1]
    with pytest.raises(IndexError):
        data[3]


def test_crowds_are_no_objects_but_known(small):
    data = open_dataset(small, "train", classes=["dog", "cat"])
    crowd = data.ignored(0)
    assert crowd.boxes_px((20, 40)).round().tolist() == [[1, 1, 10, 10]]
    assert crowd.labels.tolist() == [1]
    assert [len(data.ignored(index)) for index in (1, 2)] == [0, 0]
    assert len(open_dataset(small, "train", classes=["dog"]).ignored(0)) == 0


def test_class_agnostic_labels_keep_the_categories(small):
    data = open_dataset(small, "train", classes="object")
    assert data.class_names == ["object"]
    assert data.objects(0).labels.tolist() == [0, 0]
    assert data.categories(0).tolist() == [0, 1]
    assert data.category_names == ["cat", "dog"]


def test_chosen_classes_are_labelled_in_the_given_order(small):
    data = open_dataset(small, "train", classes=["dog", "cat"])
    assert data.class_names == ["dog", "cat"]
    assert data.objects(0).labels.tolist() == [1, 0]
    assert data.categories(0).tolist() == [0, 1]
    dogs = open_dataset(small, "train", classes=["dog"])
    assert dogs.objects(0).boxes_px((20, 40)).tolist() == [[0, 10, 5, 20]]
    assert dogs.dropped_boxes == 3


def test_images_are_squashed_and_their_boxes_with_them(small):
    data = open_dataset(small, "train", image_size=16)
    images, objects = collate([data[i] for i in range(3)])
    assert images.shape == (3, 3, 16, 16)
    assert images.dtype == torch.float32
    assert images[1].unique().tolist() == pytest.approx([80 / 255])
    assert objects.image_index.tolist() == [0, 0, 1]
    assert objects.batch_size == 3
    assert objects.boxes_px((16, 16))[0].tolist() == [2, 4, 6, 12]


def test_collate_takes_images_without_objects_and_refuses_different_sizes(small):
    data = open_dataset(small, "train")
    images, objects = collate([data[2], data[2]])
    assert (len(objects), objects.batch_size, images.shape) == (0, 2, (2, 3, 8, 8))
    assert objects.labels is not None
    with pytest.raises(InputError, match="set image_size"):
        collate([data[0], data[1]])


def test_preloading_changes_nothing_and_is_safe_from_callers(folder):
    lazy, preloaded = (open_dataset(folder, "val", image_size=48, preload=preload) for preload in (False, True))
    for i in range(len(lazy)):
        image = preloaded[i][0]
        assert torch.equal(image, lazy[i][0])
        image.zero_()
        assert torch.equal(preloaded[i][0], lazy[i][0])
    assert preloaded._preloaded[0].shape == (48, 48, 1)


@pytest.mark.skipif(not starts_by_fork(), reason="read by threads")
def test_many_images_are_read_by_processes(folder, tmp_path, monkeypatch):
    folder = shutil.copytree(folder, tmp_path / "data")
    plain, used = open_dataset(folder, "val", image_size=48, preload=True), []
    monkeypatch.setattr(dataset, "_MANY_CORES", 1)
    monkeypatch.setattr(dataset, "_MANY_IMAGES", len(plain))
    monkeypatch.setattr(dataset, "_IMAGES_PER_JOB", 2)
    monkeypatch.setattr(dataset.os, "cpu_count", lambda: 3)
    monkeypatch.setattr(dataset, "run_jobs", lambda *args: used.append(args[2]) or run_jobs(*args))
    read = open_dataset(folder, "val", image_size=48, preload=True)
    assert used == [3]
    assert all(torch.equal(read[i][0], plain[i][0]) for i in range(len(plain)))
    read.image_paths[-1].write_bytes(b"no image")
    with pytest.raises(InputError, match=f"{read.file_names[-1]}' is not an image"):
        open_dataset(folder, "val", image_size=48, preload=True)


@pytest.mark.parametrize("preload", [True, False])
def test_another_transform_shares_the_images(small, preload):
    plain = open_dataset(small, "train", image_size=10, preload=preload)
    black = plain.with_transform(lambda image, objects: (torch.zeros_like(image), objects[:1]))
    assert black._preloaded is plain._preloaded
    assert not black[0][0].any()
    assert plain[0][0].any()
    assert (len(black[0][1]), len(plain[0][1])) == (1, 2)
    assert torch.equal(black.with_transform(None)[0][0], plain[0][0])


def test_the_transform_comes_last(small):
    def blacken(image: torch.Tensor, objects: Objects) -> tuple[torch.Tensor, Objects]:
        return torch.zeros_like(image), objects[:1]

    data = open_dataset(small, "train", image_size=10).with_transform(blacken)
    image, objects = data[0]
    assert image.shape == (3, 10, 10)
    assert not image.any()
    assert len(objects) == 1
    assert len(data.objects(0)) == 2


def test_loaders_with_workers_read_it(folder):
    loader = DataLoader(open_dataset(folder, "train"), batch_size=32, num_workers=1, collate_fn=collate)
    assert [images.shape[0] for images, _ in loader] == [32, 32, 6]


def test_large_jpegs_are_squashed_like_any_image(tmp_path):
    root = write_coco(tmp_path, [(1, 300, 900)], [])
    stripes = np.zeros((300, 900, 3), np.uint8)
    stripes[:, 450:] = 200
    Image.fromarray(stripes).save(root / "train" / "1.png", "JPEG")
    image, objects = open_dataset(root, "train", image_size=20)[0]
    assert image.shape == (3, 20, 20)
    assert image[:, :, :9].max() < 5
    assert image[:, :, 11:].min() > 190
    assert len(objects) == 0


@pytest.mark.parametrize(("width", "height"), [(1208, 1153), (640, 525), (640, 625)])
def test_jpegs_are_not_refused_for_what_decoding_at_a_smaller_scale_rounds(tmp_path, width, height):
    root = write_coco(tmp_path, [(1, height, width)], [])
    Image.new("RGB", (width, height)).save(root / "train" / "1.png", "JPEG")
    assert open_dataset(root, "train", image_size=128)[0][0].shape == (3, 128, 128)
    Image.new("RGB", (width, 300)).save(root / "train" / "1.png", "JPEG")
    with pytest.raises(InputError, match=f"{width} x 300 pixels, but annotated as {width} x {height}"):
        open_dataset(root, "train", image_size=128)[0]


def test_images_are_also_found_below_images(small):
    (small / "images").mkdir()
    (small / "train").rename(small / "images" / "train")
    assert open_dataset(small, "train")[0][0].shape == (3, 20, 40)
    (small / "images" / "train" / "1.png").unlink()
    assert open_dataset(small, "train")[1][0].shape == (3, 30, 30)


def test_whole_paths_within_the_folder_are_taken_as_they_are(small):
    moved = small / "elsewhere.png"
    (small / "train" / "1.png").rename(moved)
    edit(small / "annotations" / "instances_train.json", lambda c: c["images"][0].update(file_name=str(moved)))
    assert [open_dataset(small, "train")[i][0].shape[1] for i in range(2)] == [20, 30]
    assert read_annotations(small, "train").notes == ()


def test_a_byte_order_mark_is_no_mistake(small):
    path = small / "annotations" / "instances_train.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert len(open_dataset(small, "train")) == 3


def test_names_may_be_any_bytes(tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    for place in ("images", "labels"):
        (tmp_path / place).mkdir()
    for each in (name, "a.png", "b.png"):
        Image.new("L", (8, 8)).save(tmp_path / "images" / each)
        (tmp_path / "labels" / each).with_suffix(".txt").write_text("0 0.5 0.5 0.5 0.5\n")
    assert {image for split in SPLITS for image in read_annotations(tmp_path, split).image_names} == {
        f"images/{each}" for each in (name, "a.png", "b.png")
    }
    before = fingerprint(open_dataset(tmp_path, "all"))
    (tmp_path / "images" / name).rename(tmp_path / "images" / os.fsdecode(b"caf\xe8.png"))
    (tmp_path / "labels" / name).with_suffix(".txt").rename(tmp_path / "labels" / os.fsdecode(b"caf\xe8.txt"))
    assert fingerprint(open_dataset(tmp_path, "all")) != before


def test_fingerprints_follow_the_data_and_the_settings(small):
    def mark(**settings):
        return fingerprint(open_dataset(small, "train", **settings))

    marks = [mark(), mark(image_size=8), mark(classes="object"), mark(classes=["cat"])]
    assert len(set(marks)) == 4
    assert mark() == mark(preload=True) == marks[0]
    assert len(marks[0]) == 16
    annotations = small / "annotations" / "instances_train.json"
    annotations.write_text(annotations.read_text().replace("[5, 5, 10, 10]", "[5, 5, 10, 11]"))
    marks.append(mark())
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
        small / "train/3.png"
    )
    marks.append(mark())
    assert len(set(marks)) == 6
    (small / "train" / "3.png").unlink()
    with pytest.raises(InputError, match=r"3\.png' is missing"):
        mark()


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["annotations"][0].update(image_id=99), "annotation 0 is for unknown image 99"),
        (lambda c: c["annotations"][1].update(category_id=7), "annotation 1 is for unknown category 7"),
        (lambda c: c["annotations"][1].update(bbox=[1, 2, 3]), "annotation 1 has no bbox"),
        (lambda c: c["annotations"][1].pop("bbox"), "annotation 1 has no bbox"),
        (lambda c: c["annotations"][1].update(bbox=7), "annotation 1 has bbox 7, expected a list or null"),
        (lambda c: c["annotations"][1].update(bbox=[7]), "annotation 1 has no bbox"),
        (
            lambda c: c["annotations"][1].update(bbox=[1, 2, "3", 4]),
            r"annotation 1 has bbox\[2\] '3', expected a number",
        ),
        (
            lambda c: c["annotations"][1].update(iscrowd="0"),
            "annotation 1 has iscrowd '0', expected true or false",
        ),
        (lambda c: c["annotations"][1].update(iscrowd=2), "annotation 1 has iscrowd 2, expected 0 or 1"),
        (lambda c: c["annotations"][1].update(image_id="9"), "annotation 1 is for unknown image '9'"),
        (lambda c: c["annotations"][1].pop("image_id"), "annotation 1 has no image_id"),
        (lambda c: c["annotations"][1].update(segmentation="x", bbox=None), "neither polygons nor run lengths"),
        (lambda c: c["images"][0].update(width="40"), "image 1 has width '40', expected a number"),
        (lambda c: c["images"][0].update(file_name=None), "image 1 has file_name None, expected text"),
        (lambda c: c["categories"][0].update(name=None), "category 20 has name None, expected text"),
        (lambda c: c["categories"][1].update(name=c["categories"][0]["name"]), "two classes are called"),
        (lambda c: c.pop("images"), "it has no images"),
        (lambda c: c.update(annotations=None), "not COCO annotations"),
        (lambda c: c.update(annotations=[[]]), "not COCO annotations"),
        (lambda c: c["images"][0].pop("width"), "image 1 has no width"),
        (lambda c: c["images"][0].update(width=0), r"image 1 has no size in pixels \(width 0, height 20\)"),
        (lambda c: c["images"][1].update(id=1), "two images share the id 1"),
        (lambda c: c.update(images=[], annotations=[]), "empty"),
    ],
)
def test_corrupted_annotations(small, change, message):
    path = small / "annotations" / "instances_train.json"
    edit(path, change)
    with pytest.raises(InputError, match=message) as caught:
        open_dataset(small, "train")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_invalid_json_names_the_line(small):
    path = small / "annotations" / "instances_train.json"
    path.write_text('{"images": [],\n"annotations": [}\n')
    with pytest.raises(InputError, match="line 2"):
        open_dataset(small, "train")
    path.write_text("[]")
    with pytest.raises(InputError, match="it is a list, expected an object"):
        open_dataset(small, "train")


def test_missing_folders_splits_and_classes(small, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        open_dataset(tmp_path / "no", "train")
    with pytest.raises(InputError, match=r"\(there is train\): annotations/instances_val\.json is missing"):
        open_dataset(small, "val")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no layout that ssdir knows: it has nothing; known are .*COCO"):
        open_dataset(tmp_path / "empty", "train")
    with pytest.raises(InputError, match="'dogg'; did you mean 'dog'"):
        open_dataset(small, "train", classes=["cat", "dogg"])
    with pytest.raises(InputError, match="classes: cat, dog"):
        open_dataset(small, "train", classes=["zebra"])


def test_bad_images_are_named_on_access(small):
    data = open_dataset(small, "train")
    (small / "train" / "1.png").unlink()
    with pytest.raises(InputError, match=r"1\.png' does not exist"):
        data[0]
    content = (small / "train" / "2.png").read_bytes()
    (small / "train" / "2.png").write_bytes(content[:50])
    with pytest.raises(InputError, match=r"2\.png"):
        data[1]
    Image.new("L", (8, 16)).save(small / "train" / "3.png")
    for size in (None, 4):
        with pytest.raises(InputError, match="annotated as 8 x 8"):
            open_dataset(small, "train", image_size=size)[2]


def test_boxes_that_are_not_finite_are_dropped(tmp_path):
    root = write_coco(tmp_path, [(1, 9, 9)], [(1, 10, [float("nan"), 0, 3, 3]), (1, 10, [0, 0, float("inf"), 3])])
    data = open_dataset(root, "train")
    assert (data.dropped_boxes, len(data.objects(0))) == (2, 0)


@pytest.mark.parametrize(("key", "index"), [("file_name", 1), ("height", 2), ("width", 0)])
def test_an_image_without_a_key_is_named(small, key, index):
    edit(small / "annotations" / "instances_train.json", lambda c: c["images"][index].pop(key))
    with pytest.raises(InputError, match=f"image {index + 1} has no {key}"):
        open_dataset(small, "train")


def test_a_key_that_only_some_annotations_have_is_left_out_with_a_note(tmp_path):
    annotations = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "draw_order": order, "difficult": 1}
        for number, order in enumerate([0, "1"])
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 10}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": annotations,
    }
    path = tmp_path / "annotations" / "instances_train.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    (tmp_path / "train").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "train" / "a.png")
    table = read_annotations(tmp_path, "train")
    assert table.draw_order is None
    assert table.difficult is not None
    assert table.notes == ("keys left out, as some annotations have no usable number there: draw_order",)
