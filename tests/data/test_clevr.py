import json
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdir.data.readers.clevr.cameras import NOMINAL_POSITION
from ssdir.data.readers.clevr.reader import ATTRIBUTES, VOCABULARIES, is_clevr, read_clevr, read_scenes
from ssdir.errors import InputError

from .clevr_scenes import OBJECTS, SIZE, box_of, camera_at, make_scene, render_masks, solids_of, write_clevr
from .real import real_data

CLEVR_MINI, needs_clevr_mini = real_data("clevr-mini")


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """Writes two scenes of five and two objects with their masks; returns the masks of each object alone, too."""
    cameras = [camera_at((0.2, -0.4, 0.1)), camera_at((-0.3, 0.1, 0.5))]
    objects = [OBJECTS, OBJECTS[2:4]]
    pairs = enumerate(zip(objects, cameras, strict=True))
    scenes = [make_scene(*pair, f"CLEVR_val_00000{i}.png") for i, pair in pairs]
    rendered = [render_masks(camera, solids_of(scene)) for camera, scene in zip(cameras, scenes, strict=True)]
    root = tmp_path_factory.mktemp("clevr")
    write_clevr(root, scenes, masks=[mask for _, mask in rendered])
    return root, scenes, rendered


def pair_iou(a, b):
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    return shared / ((a[:, 2:] - a[:, :2]).prod(axis=1) + (b[:, 2:] - b[:, :2]).prod(axis=1) - shared)


def test_a_golden_sample_is_read(golden):
    root, scenes, rendered = golden
    assert is_clevr(root)
    table = read_clevr(root, "val")
    assert table.category_names == ["cube", "sphere", "cylinder"]
    assert table.image_names == ["images/val/CLEVR_val_000000.png", "images/val/CLEVR_val_000001.png"]
    assert all((root / name).is_file() for name in table.image_names + table.mask_names)
    assert table.image_sizes.tolist() == [list(SIZE), list(SIZE)]
    assert table.image.tolist() == [0] * 5 + [1] * 2
    assert table.category.tolist() == [0, 1, 2, 1, 2, 2, 1]
    assert not table.ignored.any()
    assert table.visible is None
    assert table.source_index is None
    depth = [item["pixel_coords"][2] for scene in scenes for item in scene["objects"]]
    assert table.depth.tolist() == depth
    assert table.draw_order[:5].tolist() == np.argsort(np.argsort(-np.array(depth[:5]))).tolist()
    assert table.mask_value.tolist() == [1, 2, 3, 4, 5, 1, 2]
    whole = np.array([box_of(mask) for alone, _ in rendered for mask in alone])
    assert np.abs(table.boxes_px - whole).max() <= 1


def test_visible_boxes_are_those_of_the_masks(golden):
    root, _, rendered = golden
    table = read_clevr(root, "val", extent="visible")
    masks = [mask == i + 1 for alone, mask in rendered for i in range(len(alone))]
    assert table.boxes_px.tolist() == [box_of(mask) for mask in masks]
    shares = [
        mask.sum() / each.sum() for mask, each in zip(masks, [m for a, _ in rendered for m in a], strict=True)
    ]
    assert min(shares) < 0.95
    assert table.visible == pytest.approx(shares, abs=0.1)
    assert table.visible.max() <= 1


def test_attributes_and_vocabularies(golden):
    root, scenes, _ = golden
    table = read_clevr(root, "val", vocabulary="full")
    assert len(table.category_names) == len(set(table.category_names)) == 96
    assert table.category_names[0] == "large gray rubber cube"
    assert list(table.attributes) == ["size", "colour", "material", "shape"]
    items = [item for scene in scenes for item in scene["objects"]]
    for i, item in enumerate(items):
        words = [item["size"], item["color"], item["material"], item["shape"]]
        assert table.category_names[table.category[i]] == " ".join(words)
        assert [table.attribute_names[key][values[i]] for key, values in table.attributes.items()] == words
    agnostic = read_clevr(root, "val", vocabulary="object")
    assert agnostic.category_names == VOCABULARIES["object"] == ["object"]
    assert not agnostic.category.any()
    assert np.array_equal(agnostic.boxes_px, table.boxes_px)


def test_scenes_with_few_or_no_objects_are_read(tmp_path):
    camera = camera_at((0.1, 0.2, -0.3))
    scenes = [make_scene(OBJECTS[:n], camera, f"{n}.png") for n in (2, 0, 1)]
    table = read_clevr(write_clevr(tmp_path, scenes), "val")
    assert table.image.tolist() == [0, 0, 2]
    alone, _ = render_masks(camera, solids_of(scenes[0]))
    expected = np.array([box_of(alone[0]), box_of(alone[1]), box_of(alone[0])], dtype=float)
    assert pair_iou(table.boxes_px, expected).min() > 0.85


def test_a_split_without_masks_has_none(golden, tmp_path):
    _, scenes, _ = golden
    table = read_clevr(write_clevr(tmp_path, scenes), "val")
    assert table.mask_names is None
    assert table.mask_value is None
    with pytest.raises(InputError, match=r"has no masks/val, which extent 'visible' needs: use 'whole' instead"):
        read_clevr(tmp_path, "val", extent="visible")


def test_a_hidden_object_keeps_its_row(golden, tmp_path):
    _, scenes, rendered = golden
    mask = rendered[0][1].copy()
    mask[mask == 2] = 0
    table = read_clevr(write_clevr(tmp_path, scenes[:1], masks=[mask]), "val", extent="visible")
    assert table.boxes_px[1].tolist() == [0, 0, 0, 0]
    assert table.visible[1] == 0
    assert len(table.boxes_px) == 5


def test_memory_is_that_of_the_file(golden, tmp_path):
    """Relations are most of a scenes file, and would take several times its size if they were read as values."""
    _, scenes, _ = golden
    ballast = {"relationships": {"left": [list(range(2000))]}}
    many = [scenes[1] | ballast | {"image_filename": f"{i}.png"} for i in range(150)]
    write_clevr(tmp_path, many)
    tracemalloc.start()
    assert sum(1 for _ in read_scenes(tmp_path, "val")) == 150
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (tmp_path / "scenes" / "CLEVR_val_scenes.json").stat().st_size + (3 << 20)


def change_object(key, value):
    def change(scene):
        if value is None:
            del scene["objects"][1][key]
        else:
            scene["objects"][1][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("image_filename"), "scene 1: 'image_filename' is missing"),
        (lambda s: s.pop("objects"), "scene 1: 'objects' is missing"),
        (lambda s: s.update(objects=None), "scene 1: 'objects' must be a list, got None"),
        (lambda s: s.update(objects=["cube"]), "scene 1: 'objects.0' must be "),
        (lambda s: s.update(image_filename="no.png"), "images/val/no.png' does not exist"),
        (
            lambda s: s.update(image_filename="../../secret.png"),
            "must be a file in the folder of the data",
        ),
        (lambda s: s.update(image_filename="/etc/passwd"), "must be a file in the folder of the data"),
        (
            lambda s: s.update(image_filename="a\0b.png"),
            "in the folder of the data set (got 'a\\x00b",
        ),
        (lambda s: s.update(image_filename="CLEVR_val_000000.png"), "which an earlier scene is for too"),
        (change_object("3d_coords", None), "scene 1: 'objects.1.3d_coords' is missing"),
        (change_object("3d_coords", [1, 2]), "'objects.1.3d_coords' must have at least 3 entries"),
        (change_object("3d_coords", ["1", "2", "3"]), "'objects.1.3d_coords.0' must be a number"),
        (change_object("3d_coords", [1, 2, 10**400]), "'objects.1.3d_coords.2' must be a number"),
        (change_object("pixel_coords", [1, 2, "x"]), "'objects.1.pixel_coords.2' must be a number"),
        (change_object("pixel_coords", [1, 2, 1e300]), "'objects.1.pixel_coords.2' must be at most 1000000"),
        (change_object("pixel_coords", [1, 2, float("nan")]), "'objects.1.pixel_coords.2' must be a"),
        (change_object("rotation", True), "'objects.1.rotation' must be a number"),
        (change_object("shape", "cube" * 1000), "unknown shape 'cubecube"),
        (change_object("3d_coords", [1, 2, -0.7]), "object 1 stands below the ground"),
        (change_object("rotation", "much"), "'objects.1.rotation' must be a number"),
        (change_object("shape", "cubes"), "unknown shape 'cubes'; did you mean 'cube'?"),
        (change_object("color", "turquoise-ish"), "unknown color 'turquoise-ish'; CLEVR has gray, red"),
        (
            change_object("pixel_coords", [9, 9, 9.0]),
            "not those of CLEVR's camera in an image of 120 x 80 (off by",
        ),
    ],
)
def test_bad_scenes_are_named(golden, tmp_path, change, message):
    root = write_clevr(tmp_path, golden[1])
    path = root / "scenes" / "CLEVR_val_scenes.json"
    content = json.loads(path.read_text())
    change(content["scenes"][1])
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read_clevr(root, "val")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_all_faults_are_named_at_once(golden, tmp_path):
    scenes = [golden[1][0] | {"image_filename": f"{i}.png"} for i in range(13)]
    root = write_clevr(tmp_path, scenes)
    path = root / "scenes" / "CLEVR_val_scenes.json"
    content = json.loads(path.read_text())
    for number in range(1, 13):
        content["scenes"][number]["image_filename"] = f"../{number}.png"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"CLEVR_val_scenes\.json: 12 faults: .*scene 1: .*; and 2 more$"):
        read_clevr(root, "val")


def test_resized_images_are_refused(golden, tmp_path):
    root = write_clevr(tmp_path, golden[1], size=(40, 60))
    with pytest.raises(InputError, match=r"60 x 40 \(off by .* neither resized nor cropped"):
        read_clevr(root, "val")


def test_broken_files_are_named(golden, tmp_path):
    root = write_clevr(tmp_path, golden[1])
    (root / "images/val/CLEVR_val_000001.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"scene 1 is for an image that can't be read: '.*000001\.png' is not"):
        read_clevr(root, "val")
    path = root / "scenes" / "CLEVR_val_scenes.json"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:30], "?", *lines[30:]]))
    with pytest.raises(InputError, match=r"CLEVR_val_scenes\.json: not valid JSON at line 31 "):
        read_clevr(root, "val")
    path.write_text('{"scenes": []}')
    with pytest.raises(InputError, match="there are no scenes"):
        read_clevr(root, "val")


def test_missing_folders_and_splits(golden, tmp_path):
    assert not is_clevr(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_clevr(tmp_path / "no", "val")
    with pytest.raises(InputError, match=r"no split 'val' \(there is none: scenes/ does not exist\)"):
        read_clevr(tmp_path, "val")
    with pytest.raises(
        InputError,
        match=r"no split 'test' \(there is val\): scenes/CLEVR_test_scenes\.json is missing \(CLEVR publishes",
    ):
        read_clevr(golden[0], "test")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "does not exist"),
        (lambda path: path.write_bytes(b"no image"), "is not an image in a known format"),
        (
            lambda path: Image.new("L", (8, 8)).save(path),
            "must be 8-bit grey, 16-bit grey or palette, 120 x 80 pixels",
        ),
        (lambda path: Image.new("RGB", SIZE[::-1]).save(path), "must be 8-bit grey"),
        (lambda path: Image.new("L", SIZE[::-1], 6).save(path), "has a value 6, but its scene only 5 objects"),
    ],
)
def test_bad_masks_are_named(golden, tmp_path, spoil, message):
    root = write_clevr(tmp_path, golden[1], masks=[mask for _, mask in golden[2]])
    spoil(root / "masks/val/CLEVR_val_000000.png")
    with pytest.raises(InputError, match=message) as caught:
        read_clevr(root, "val", extent="visible")
    assert "CLEVR_val_000000.png" in str(caught.value)


@needs_clevr_mini
@pytest.mark.parametrize("split", ["train", "val"])
def test_boxes_agree_with_real_masks(split):
    whole, visible = read_clevr(CLEVR_MINI, split), read_clevr(CLEVR_MINI, split, extent="visible")
    published = json.loads((CLEVR_MINI / "boxes" / f"CLEVR_{split}_boxes.json").read_text())
    given = [box for name in whole.image_names for box in published[Path(name).name]]
    assert visible.boxes_px.tolist() == given
    iou, unhidden = pair_iou(whole.boxes_px, visible.boxes_px), visible.visible >= 0.9
    assert unhidden.mean() > 0.8
    assert iou[unhidden].mean() >= 0.99
    assert np.percentile(iou[unhidden], 5) >= 0.95
    for shape in range(3):
        assert iou[unhidden & (whole.category == shape)].mean() >= 0.99, ATTRIBUTES["shape"][shape]


@needs_clevr_mini
def test_cameras_of_real_scenes_are_within_the_jitter_and_fit():
    scenes = list(read_scenes(CLEVR_MINI, "train"))
    jitter = np.array([scene.camera.position - NOMINAL_POSITION for scene in scenes])
    assert np.abs(jitter).max() < 0.501
    assert jitter.std(axis=0) == pytest.approx(np.full(3, 1 / 12**0.5), rel=0.1)
    depth = np.concatenate([scene.camera.project(scene.solids.centers)[:, 2] - scene.depth for scene in scenes])
    assert np.abs(depth).max() < 1e-4
