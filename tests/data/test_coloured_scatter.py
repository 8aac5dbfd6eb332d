"""Scattered coloured shapes are written as images with index masks, which the readers open."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ssdir.data.masks import mask_boxes
from ssdir.data.readers.registry import open_dataset
from ssdir.data.scatter.generator import COLOURS, ScatterConfig, image_rng, scatter_image
from ssdir.data.scatter.glyphs import load_glyphs
from ssdir.data.scatter.shapes import SHAPES, draw_shape, shape_angles
from ssdir.data.scatter.writer import write_scatter

CONFIG = ScatterConfig(
    canvas=48, grids=(3,), min_size=0.3, max_size=0.5, objects=(2, 4), colours=True, train=6, val=1, test=5
)


def test_shapes_are_split_by_angle():
    splits = {split: load_glyphs("shapes", split) for split in ("train", "val", "test")}
    assert [len(glyphs) for glyphs in splits.values()] == [72, 18, 30]
    numbers = sorted(np.concatenate([glyphs.indices for glyphs in splits.values()]).tolist())
    assert numbers == [*range(120)]
    assert splits["test"].class_names == ["ellipse", "heart", "square"]
    assert all(np.bincount(glyphs.labels).tolist() == [len(glyphs) // 3] * 3 for glyphs in splits.values())


@pytest.mark.parametrize("shape", SHAPES)
def test_each_angle_looks_different_and_fits_the_image(shape):
    images = np.stack([draw_shape(shape, angle) for angle in shape_angles(shape)]).astype(np.float64) / 255
    apart = np.abs(images[:, None] - images[None]).sum(axis=(2, 3))
    assert apart[~np.eye(len(images), dtype=bool)].min() > 10
    rows, columns = images.any(axis=2).sum(axis=1), images.any(axis=1).sum(axis=1)
    assert set(np.maximum(rows, columns)) <= {62, 63, 64}  # with their soft edges


def test_a_square_and_an_ellipse_fill_their_known_share_of_the_box():
    square, ellipse = (draw_shape(shape, 0.0).astype(np.float64).sum() / 255 for shape in ("square", "ellipse"))
    assert square == pytest.approx(60**2, rel=0.05)
    assert ellipse == pytest.approx(np.pi * 30 * 18, rel=0.06)


def test_masks_match_the_colours_of_pixels():
    glyphs = load_glyphs("shapes", "train")
    grey = scatter_image(glyphs, CONFIG.model_copy(update={"colours": False}), image_rng(0, "train", 3))
    scene = scatter_image(glyphs, CONFIG, image_rng(0, "train", 3))
    assert scene.mask is not None
    assert np.array_equal(scene.boxes_px, grey.boxes_px)  # colours change nothing else
    assert len(scene.colours) == len(scene.labels) >= 2
    assert np.array_equal(scene.mask > 0, grey.image >= 128)
    for number, colour in enumerate(scene.colours, start=1):
        assert np.array_equal(np.unique(scene.image[scene.mask == number], axis=0), [COLOURS[colour]])
    assert not scene.image[scene.mask == 0].any()


def test_written_scenes_are_read_with_masks_and_attributes(tmp_path):
    write_scatter(tmp_path / "data", "shapes", CONFIG)
    data = open_dataset(tmp_path / "data", "test", image_size=48)
    assert len(data) == 5
    assert list(data.category_names) == ["ellipse", "heart", "square"]
    glyphs = load_glyphs("shapes", "test")
    for index in range(5):
        scene = scatter_image(glyphs, CONFIG, image_rng(0, "test", index))
        image, objects = data[index]
        assert torch.equal(image, torch.from_numpy(scene.image).permute(2, 0, 1))
        assert np.array_equal(data.mask(index), scene.mask)
        assert data.categories(index).tolist() == scene.labels.tolist()
        names = data.table.attribute_names["colour"]
        assert [names[value] for value in data.attributes(index)["colour"].tolist()] == list(scene.colours)
        assert np.allclose(objects.boxes_px((48, 48)), mask_boxes(scene.mask, len(scene.labels))[0])
        assert objects.z_depth.diff().min() > 0  # later ones are nearer
