import itertools

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ssdir.data.scatter import generator as module
from ssdir.data.scatter.generator import (
    MIN_BOX_SIDE,
    MIN_INSIDE,
    ScatterConfig,
    image_rng,
    scatter_image,
    scattered_objects,
)
from ssdir.data.scatter.glyphs import INK_THRESHOLD, Glyphs, load_glyphs


@pytest.fixture(scope="module")
def digits():
    return load_glyphs("digits", "train")


@pytest.fixture(scope="module")
def scenes(digits):
    return [scatter_image(digits, ScatterConfig(), image_rng(0, "train", i)) for i in range(300)]


def make_glyphs(*images):
    count = len(images)
    return Glyphs(list(images), np.arange(count), [str(i) for i in range(count)], "test", 100 + np.arange(count))


def full(height, width, value=255):
    return np.full((height, width), value, np.uint8)


def obvious_scatter(glyphs, config, rng):
    """Applies the documented rules pixel by pixel, and draws random numbers in the order of the module."""
    g = config.grids[int(rng.integers(len(config.grids)))]
    num_tried = int(rng.integers(-(-g * g // 2), g * g + 1))
    order = rng.permutation(g * g)[:num_tried]
    draws = rng.random((num_tried, 4))
    side = config.canvas / g
    edges = np.round(np.arange(g + 1) * side).astype(int)
    image, covered = np.zeros((2, config.canvas, config.canvas), np.uint8)
    inks, boxes, chosen = [], [], []

    def filled(row, column):
        cell = covered[edges[row] : edges[row + 1], edges[column] : edges[column + 1]]
        return cell.sum() > config.filled_threshold * cell.size

    for cell, (which, size, right, down) in zip(order, draws, strict=True):
        row, column = divmod(int(cell), g)
        if filled(row, column):
            continue
        free = 0
        for r in range(1, g):
            rows, columns = range(row - r, row + r + 1), range(column - r, column + r + 1)
            # What lies outside the image is not free.
            if min(rows.start, columns.start) < 0 or max(rows.stop, columns.stop) > g:
                break
            if any(filled(y, x) for y, x in itertools.product(rows, columns)):
                break
            free = r
        low, high = round(config.min_size * config.canvas), round(config.max_size * config.canvas)
        allowed = int(np.clip((2 * free + 1) * side + 1e-6, low, high))
        pixels = low + int(size * (allowed - low + 1))
        index = int(which * len(glyphs.images))
        glyph = glyphs.images[index]
        scale = pixels / max(glyph.shape)
        height, width = (max(1, round(length * scale)) for length in glyph.shape)
        resized = cv2.resize(
            glyph, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        )
        reach = config.position_variance * side / 2
        left = round((column + 0.5) * side + (2 * right - 1) * reach - width / 2)
        top = round((row + 0.5) * side + (2 * down - 1) * reach - height / 2)
        pad = max(height, width) + config.canvas
        layer = np.zeros((config.canvas + 2 * pad,) * 2, np.uint8)
        layer[pad + top : pad + top + height, pad + left : pad + left + width] = resized
        layer[layer < INK_THRESHOLD] = 0
        whole = tight_box(layer > 0)
        layer = layer[pad:-pad, pad:-pad]
        if whole is None or not layer.any():
            continue
        inside = np.clip(np.array(whole) - pad, 0, config.canvas)
        box = tight_box(layer > 0)
        if area(inside) < MIN_INSIDE * area(whole) or min(box[2] - box[0], box[3] - box[1]) < MIN_BOX_SIDE:
            continue
        image = np.where(layer > 0, layer, image)
        covered[box[1] : box[3], box[0] : box[2]] = 1
        boxes.append(box)
        inks.append(layer > 0)
        chosen.append(index)
    above = [np.any(inks[i + 1 :], axis=0) if inks[i + 1 :] else np.zeros_like(ink) for i, ink in enumerate(inks)]
    visible = [(ink & ~over).sum() / ink.sum() for ink, over in zip(inks, above, strict=True)]
    return image, np.array(boxes).reshape(-1, 4), chosen, visible


def tight_box(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else None


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    canvas=st.sampled_from([64, 96, 100, 128]),
    threshold=st.sampled_from([0.0, 0.2, 0.4, 1.0]),
    variance=st.sampled_from([0.0, 0.7, 2.0]),
    grids=st.sampled_from([(1,), (2, 3), (6,), (9, 4)]),
)
def test_equals_the_obvious_loop(digits, seed, canvas, threshold, variance, grids):
    config = ScatterConfig(
        canvas=canvas,
        grids=grids,
        min_size=16 / canvas,
        max_size=48 / canvas,
        filled_threshold=threshold,
        position_variance=variance,
    )
    glyphs = make_glyphs(*digits.images[:20], full(9, 4), full(3, 40), full(5, 5, INK_THRESHOLD - 1))
    ours = scatter_image(glyphs, config, np.random.default_rng(seed))
    image, boxes, chosen, visible = obvious_scatter(glyphs, config, np.random.default_rng(seed))
    assert np.array_equal(ours.image, image)
    assert np.array_equal(ours.boxes_px, boxes)
    assert ours.labels.tolist() == chosen
    assert ours.source_index.tolist() == [100 + index for index in chosen]
    assert ours.visible == pytest.approx(visible)


def test_the_same_seed_makes_the_same_image_and_another_another(digits):
    first, again = (scatter_image(digits, ScatterConfig(), image_rng(3, "val", 7)) for _ in range(2))
    assert np.array_equal(first.image, again.image)
    for seed, split, index in ((4, "val", 7), (3, "train", 7), (3, "val", 8)):
        other = scatter_image(digits, ScatterConfig(), image_rng(seed, split, index))
        assert not np.array_equal(first.image, other.image)


def test_a_lone_objects_box_is_tight_on_its_ink(digits):
    for i in range(50):
        scene = scatter_image(digits, ScatterConfig(grids=(1,)), image_rng(0, "train", i))
        assert [tuple(box) for box in scene.boxes_px] == [tight_box(scene.image > 0)]


def test_boxes_contain_all_ink_and_lie_inside(scenes):
    for scene in scenes:
        inside = np.zeros_like(scene.image)
        for x1, y1, x2, y2 in scene.boxes_px:
            assert 0 <= x1 <= x2 - MIN_BOX_SIDE < 128
            assert 0 <= y1 <= y2 - MIN_BOX_SIDE < 128
            inside[y1:y2, x1:x2] = 1
        assert not scene.image[inside == 0].any()


def test_sizes_span_the_limits():
    square = make_glyphs(full(28, 28))
    config = ScatterConfig(position_variance=0)
    boxes = np.concatenate([scatter_image(square, config, image_rng(0, "train", i)).boxes_px for i in range(400)])
    whole = boxes[(boxes[:, :2] > 0).all(1) & (boxes[:, 2:] < 128).all(1)]
    extents = whole[:, 2:] - whole[:, :2]
    assert extents.min() == config.min_side == 24
    lone = ScatterConfig(position_variance=0, grids=(1,))
    sides = [scatter_image(square, lone, image_rng(0, "train", i)).boxes_px[0, 2:].min() for i in range(800)]
    assert (boxes[:, 2:] - boxes[:, :2]).max() <= config.max_side == 96
    assert max(sides) == 64 + 96 / 2
    assert np.array_equal(extents[:, 0], extents[:, 1])


def test_the_longer_side_is_the_size():
    config = ScatterConfig(min_size=0.25, max_size=0.25, position_variance=0, grids=(2,))
    boxes = scatter_image(make_glyphs(full(40, 10)), config, image_rng(0, "train", 0)).boxes_px
    assert {tuple(extent) for extent in boxes[:, 2:] - boxes[:, :2]} == {(8, 32)}


def test_half_to_all_cells_are_used_uniformly_over_grids():
    config = ScatterConfig(min_size=4 / 128, max_size=4 / 128, filled_threshold=1, position_variance=0)
    glyphs = make_glyphs(full(4, 4))
    counts = np.array([len(scatter_image(glyphs, config, image_rng(0, "train", i)).labels) for i in range(2000)])
    assert (counts.min(), counts.max()) == (2, 36)
    expected = np.mean([np.mean(np.arange(-(-g * g // 2), g * g + 1)) for g in config.grids])
    assert counts.mean() == pytest.approx(expected, rel=0.05)
    only_six = config.model_copy(update={"grids": (6,)})
    counts = np.array([len(scatter_image(glyphs, only_six, image_rng(0, "train", i)).labels) for i in range(800)])
    assert set(counts) == set(range(18, 37))


def test_centres_vary_by_at_most_the_variance():
    config = ScatterConfig(grids=(4,), min_size=8 / 128, max_size=8 / 128, position_variance=0.7)
    scenes = [scatter_image(make_glyphs(full(8, 8)), config, image_rng(0, "train", i)) for i in range(200)]
    boxes = np.concatenate([scene.boxes_px for scene in scenes])
    offsets = (boxes[:, :2] + boxes[:, 2:]) / 2 % 32 - 16
    assert np.abs(offsets).max() <= 0.7 * 16 + 0.5
    assert np.abs(offsets).max() >= 0.7 * 16 - 0.5
    assert abs(offsets.mean()) < 0.3


def test_classes_are_sampled_uniformly(digits, scenes):
    labels = np.concatenate([scene.labels for scene in scenes])
    shares = np.bincount(labels, minlength=10) / len(labels)
    assert shares == pytest.approx(np.bincount(digits.labels) / len(digits), abs=0.025)
    assert all(scene.source_index.max(initial=0) < 1797 for scene in scenes)
    label_of = dict(zip(digits.indices.tolist(), digits.labels.tolist(), strict=True))
    for scene in scenes:
        assert [label_of[index] for index in scene.source_index.tolist()] == scene.labels.tolist()


def test_filled_cells_are_skipped():
    # A glyph 1.5 cells wide covers a quarter of each of the four cells beside its own.
    config = ScatterConfig(grids=(3,), min_size=0.5, max_size=0.5, position_variance=0, filled_threshold=0.2)
    never_filled = config.model_copy(update={"filled_threshold": 1.0})
    glyphs = make_glyphs(full(9, 9))
    for i in range(20):
        boxes = scatter_image(glyphs, config, image_rng(0, "train", i)).boxes_px
        cells = ((boxes[:, :2] + boxes[:, 2:]) / 2 // (128 / 3)).astype(int)
        assert all(np.abs(one - other).sum() > 1 for one, other in itertools.combinations(cells, 2))
        assert len(scatter_image(glyphs, never_filled, image_rng(0, "train", i)).labels) >= 5


def test_later_objects_cover_earlier_ones():
    glyphs = make_glyphs(*(full(10, 10, value) for value in range(50, 250, 10)))
    config = ScatterConfig(grids=(2,), min_size=0.6, max_size=0.7, position_variance=0, filled_threshold=1)
    scenes = [scatter_image(glyphs, config, image_rng(0, "train", i)) for i in range(20)]
    scene = next(scene for scene in scenes if len(scene.labels) == 4)
    painted = np.zeros_like(scene.image)
    for (x1, y1, x2, y2), label in zip(scene.boxes_px, scene.labels, strict=True):
        painted[y1:y2, x1:x2] = glyphs.images[label][0, 0]
    assert np.array_equal(scene.image, painted)
    assert scene.visible[-1] == 1
    assert scene.visible[0] < 0.8


def test_barely_visible_objects_are_left_out():
    scene = module._Canvas(100, module._grid(100, 1, 0.4))
    glyph = full(20, 20)
    enough = round(20 * MIN_INSIDE)
    for x, y, pasted in ((enough, 50, True), (enough - 1, 50, False), (enough + 1, enough + 1, False)):
        assert scene.paste(glyph, 20, x - 10, y - 10) == pasted, (x, y)  # x columns are inside.
    assert not scene.paste(glyph, 20, 300, 300)
    assert not scene.paste(full(40, 2), 40, 50, 50)
    assert not scene.paste(full(20, 20, INK_THRESHOLD - 1), 20, 50, 50)
    assert scene.paste(full(20, 20, INK_THRESHOLD), 20, 50, 50)


def test_blank_glyphs_make_blank_images_without_objects():
    scene = scatter_image(make_glyphs(full(8, 8, 0)), ScatterConfig(), image_rng(0, "train", 0))
    assert not scene.image.any()
    assert scene.boxes_px.shape == (0, 4)
    assert scene.visible.shape == scene.labels.shape == (0,)
    assert len(scattered_objects(scene)) == 0


def test_objects_are_relative_and_ordered_by_depth(scenes):
    scene = max(scenes, key=lambda scene: len(scene.labels))
    objects = scattered_objects(scene)
    assert objects.boxes_px((128, 128)).numpy() == pytest.approx(scene.boxes_px, abs=1e-4)
    assert objects.z_depth.tolist() == list(range(len(scene.labels)))
    assert objects.labels.tolist() == scene.labels.tolist()
    assert objects.source_index.tolist() == scene.source_index.tolist()
    assert objects.z_where.dtype == torch.float32


def test_no_split_shares_a_glyph():
    seen = []
    for split in ("train", "val", "test"):
        glyphs = load_glyphs("digits", split)
        indices = [scatter_image(glyphs, ScatterConfig(), image_rng(0, split, i)).source_index for i in range(50)]
        seen.append(set(np.concatenate(indices).tolist()))
    assert all(len(part) > 100 for part in seen)
    assert all(one.isdisjoint(other) for one, other in itertools.combinations(seen, 2))


def test_the_papers_configuration():
    config = ScatterConfig.paper()
    assert (config.canvas, config.min_side, config.max_side) == (512, 96, 384)
    assert (config.grids, config.position_variance, config.filled_threshold) == ((2, 3, 4, 5, 6), 0.7, 0.4)
    assert (config.count("train"), config.count("val")) == (50_000, 5_000)
    assert (ScatterConfig().min_side, ScatterConfig().max_side) == (24, 96)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grids": ()}, "at least 1"),
        ({"grids": (2, 16)}, "1 ... 15"),
        ({"min_size": 0.5, "max_size": 0.4}, "must not exceed"),
        ({"canvas": 32, "min_size": 0.05}, "below 3 px"),
        ({"min_size": 0.0551, "max_size": 0.0552}, "no whole pixel size"),
        ({"filled_threshold": 1.1}, "less than or equal to 1"),
        ({"seed": -1}, "greater than or equal to 0"),
        ({"color": 1}, "Extra inputs"),
    ],
)
def test_impossible_configurations(values, message):
    with pytest.raises(ValidationError, match=message):
        ScatterConfig(**values)


def test_the_number_of_objects_can_be_set_and_objects_kept_apart(digits):
    config = ScatterConfig(
        canvas=64, grids=(3,), min_size=14 / 64, max_size=14 / 64, position_variance=0.33, objects=(2, 6)
    )
    scenes = [scatter_image(digits, config, image_rng(0, "train", i)) for i in range(300)]
    assert {len(scene.labels) for scene in scenes} == {2, 3, 4, 5, 6}
    assert all((scene.visible == 1).all() for scene in scenes)
    sides = np.concatenate([(scene.boxes_px[:, 2:] - scene.boxes_px[:, :2]).max(axis=1) for scene in scenes])
    assert sides.max() == 14
    assert (sides >= 12).mean() > 0.95  # faint strokes at the ends of a glyph are left out


@pytest.mark.parametrize("objects", [(3, 2), (-1, 2), (1, 5)])
def test_an_impossible_number_of_objects_is_refused(objects):
    with pytest.raises(ValidationError, match=r"objects must be a range within 0 \.\.\. 4"):
        ScatterConfig(grids=(2, 3), objects=objects)
