"""Tests of the figures, pixel by pixel."""

from __future__ import annotations

import io
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ssdir import plots
from ssdir.objects import Objects, Scene
from ssdir.plots import charts
from ssdir.plots.charts import CLASS_COLOURS
from ssdir.plots.image_grids import BOX_COLOURS, GAP, OTHER_COLOUR

CELL = 128
PITCH = CELL + GAP
INPUT, REST = 0.25, 0.75


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def close_to(picture: NDArray[np.uint8], colour: str, tolerance: int = 12) -> NDArray[np.bool_]:
    return np.asarray((np.abs(picture.astype(int) - rgb(colour)) <= tolerance).all(axis=-1))


def decoded(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def scene_of(objects: Objects) -> tuple[Tensor, Scene]:
    """Returns grey images and a scene whose appearances have the intensity of their row."""
    shades = torch.arange(len(objects)).float().add(1).div(20).view(-1, 1, 1, 1)
    images = torch.full((objects.batch_size, 3, 32, 32), INPUT)
    return images, Scene(torch.full_like(images, REST), shades.expand(-1, 3, 8, 8))


def with_objects(objects: Objects) -> tuple[Tensor, Objects, Scene]:
    images, scene = scene_of(objects)
    return images, objects, scene


def row_of(count: int, scores: list[float] | None = None) -> Objects:
    """Returns the objects of one image with a row of boxes that don't touch."""
    z_where = torch.tensor([[(i + 0.5) / count, 0.5, 0.5 / count, 0.25] for i in range(count)])
    return Objects(
        torch.zeros(count, dtype=torch.int64),
        1,
        z_where,
        scores=None if scores is None else torch.tensor(scores),
        labels=torch.arange(count) % 2,
    )


def body(grid: NDArray[np.uint8], images: int) -> NDArray[np.uint8]:
    """Returns the grid below its column titles."""
    return grid[len(grid) - images * PITCH :]


def test_boxes_are_drawn_on_the_pixels_that_they_bound() -> None:
    objects = row_of(1)  # x 0.25 ... 0.75, y 0.375 ... 0.625
    grid = body(plots.reconstruction_grid(*with_objects(objects), ["object"], cell=CELL), 1)
    outline = close_to(grid[:CELL, PITCH : PITCH + CELL], BOX_COLOURS[0], 0)
    expected = np.zeros((CELL, CELL), dtype=bool)
    expected[48:80, 32:96] = True
    expected[49:79, 33:95] = False
    np.testing.assert_array_equal(outline, expected)


def test_a_row_shows_input_and_reconstruction() -> None:
    objects = Objects.cat([row_of(2), Objects.empty(1).replace(labels=torch.zeros(0).long()), row_of(3)])
    whole = plots.reconstruction_grid(*with_objects(objects), ["object"], cell=CELL)
    grid = body(whole, 3)
    assert whole.dtype == np.uint8
    assert 10 < len(whole) - len(grid) < 40  # titles
    for row in range(3):
        pixels = grid[row * PITCH : row * PITCH + CELL]
        assert (pixels[:, :CELL] == round(INPUT * 255)).all()
        assert (pixels[:, 2 * PITCH : 2 * PITCH + CELL] == round(REST * 255)).all()


def test_objects_are_ordered_by_score_and_framed_like_their_boxes() -> None:
    objects = row_of(3, scores=[0.6, 0.9, 0.7])
    grid = body(plots.reconstruction_grid(*with_objects(objects), ["object"], cell=CELL), 1)
    boxed, thumbs = grid[:CELL, PITCH : PITCH + CELL], grid[:, 3 * PITCH :]
    for rank, row in enumerate((1, 2, 0)):
        column, shade = (row * CELL) // 3, round((row + 1) / 20 * 255)
        assert close_to(boxed[:, column : column + CELL // 3], BOX_COLOURS[rank], 0).any()
        frame = np.argwhere(close_to(thumbs, BOX_COLOURS[rank], 0))
        low, high = frame.min(axis=0), frame.max(axis=0)
        inside = thumbs[low[0] + 1 : high[0], low[1] + 1 : high[1]]
        assert (inside == shade).all()
        assert (high - low)[0] > (high - low)[1]  # the proportions of the box


def test_objects_beyond_the_most_are_grey_boxes_only() -> None:
    grid = body(plots.reconstruction_grid(*with_objects(row_of(4)), ["object"], 2, CELL), 1)
    boxed, thumbs = grid[:CELL, PITCH : PITCH + CELL], grid[:, 3 * PITCH :]
    assert close_to(boxed[:, CELL // 2 :], OTHER_COLOUR, 0).any()
    assert not any(close_to(thumbs, colour, 0).any() for colour in BOX_COLOURS[2:])


def test_names_of_classes_are_written_where_there_are_several() -> None:
    objects = row_of(2, scores=[0.9, 0.8])
    named = plots.reconstruction_grid(*with_objects(objects), ["cat", "dog"], cell=CELL)
    renamed = plots.reconstruction_grid(*with_objects(objects), ["cat", "eel"], cell=CELL)
    changed = np.argwhere((named != renamed).any(axis=-1))
    assert len(changed)
    assert (changed[:, 1] >= 3 * PITCH).all()  # never over a picture of the scene


@pytest.mark.parametrize("batch_size", [0, 2])
def test_no_objects_at_all(batch_size: int) -> None:
    grid = plots.reconstruction_grid(*with_objects(Objects.empty(batch_size)), ["object"], cell=CELL)
    assert len(body(grid, batch_size)) == batch_size * PITCH


def test_parts_of_different_batches_are_an_error() -> None:
    images, scene = scene_of(row_of(2))
    with pytest.raises(ValueError, match="one batch"):
        plots.reconstruction_grid(images, Objects.empty(3), scene, ["object"])


def test_the_traversal_grid_has_every_step_in_its_place() -> None:
    shades = torch.linspace(0.1, 0.8, 2 * 3 * 5).view(2, 3, 5, 1, 1, 1)
    grid = plots.traversal_grid(shades.expand(-1, -1, -1, 3, 4, 4), cell=20)
    for shade in (shades.flatten() * 255).round().int().tolist():
        assert (grid == shade).all(axis=-1).sum() >= 400
    places = {
        name: np.argwhere((grid == round(float(shades[name]) * 255)).all(axis=-1)).mean(axis=0)
        for name in np.ndindex(2, 3, 5)
    }
    assert places[0, 0, 0][1] < places[0, 0, 4][1] < places[1, 0, 0][1]
    assert places[0, 0, 2][0] < places[0, 1, 2][0] < places[0, 2, 2][0]
    assert places[0, 1, 2][0] == pytest.approx(places[1, 1, 2][0], abs=2)


def test_png_is_lossless() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decoded(plots.to_png(picture)), picture)


def test_the_map_has_the_colour_of_each_class() -> None:
    points = np.random.default_rng(0).normal(size=(200, 2))
    labels = np.arange(200) % 3
    picture = decoded(plots.embedding_map(points, labels, ["a", "b", "c"]))
    shown = [close_to(picture, colour).sum() > 50 for colour in CLASS_COLOURS[:4]]
    assert shown == [True, True, True, False]


def test_the_map_copes_with_many_classes_and_with_none() -> None:
    names = [f"class {number}" for number in range(45)]
    assert decoded(plots.embedding_map(np.random.default_rng(0).random((90, 2)), np.arange(90) % 45, names)).size
    assert decoded(plots.embedding_map(np.zeros((0, 2)), np.zeros(0, dtype=int), names)).size


@pytest.mark.parametrize("name", ["$1_$5", "_background_"])
def test_names_are_no_markup(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    legends: list[list[str]] = []
    written = charts._png

    def noted(figure: Figure) -> bytes:
        found = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
        legends.extend([text.get_text() for text in legend.get_texts()] for legend in found if legend is not None)
        return written(figure)

    monkeypatch.setattr(charts, "_png", noted)
    names, labels = [name, "cat"], np.arange(20) % 2
    plots.embedding_map(np.random.default_rng(0).normal(size=(20, 2)), labels, names)
    charts.line_panels({"objects": {each: ([1, 2], [1, 2]) for each in names}}, "ms")
    assert legends == [names, names]
    plots.confusion_matrix(labels, labels, names)
    plots.heatmaps({name: np.eye(2)}, names, names, ("rows", "columns", "values"))


def test_logarithmic_axes_keep_their_powers(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    parse = MathTextParser.parse

    def noted(self: MathTextParser[Any], text: str, *arguments: Any, **options: Any) -> Any:
        parsed.append(text)
        return parse(self, text, *arguments, **options)

    monkeypatch.setattr(MathTextParser, "parse", noted)
    plots.loss_curves({"train/total": ([1, 2, 3], [1e-3, 1, 1e3])})
    assert any("10^{" in text for text in parsed)


def test_the_confusion_matrix_is_dark_where_classes_are_taken_for_each_other() -> None:
    def darkest(true: list[int], predicted: list[int]) -> tuple[float, float]:
        picture = decoded(plots.confusion_matrix(np.array(true), np.array(predicted), ["a", "b"]))
        dark = np.argwhere(close_to(picture[:, : picture.shape[1] * 2 // 3], "#08306b", 4))
        middle = dark.mean(axis=0) / picture.shape[:2]
        return float(middle[0]), float(middle[1])

    lower_row, left_column = darkest([1, 1, 1], [0, 0, 0])
    upper_row, right_column = darkest([0, 0, 0], [1, 1, 1])
    assert lower_row > upper_row
    assert left_column < right_column


def test_each_split_has_a_curve() -> None:
    curves = {"train/total": ([1, 2, 3], [3.0, 2.0, 1.0]), "val/total": ([1, 2, 3], [4.0, 3.0, 2.5])}
    both, one = decoded(plots.loss_curves(curves)), decoded(plots.loss_curves({"total": ([1], [0.0])}))
    assert close_to(both, CLASS_COLOURS[0]).any()
    assert close_to(both, CLASS_COLOURS[6]).any()
    assert one.size
    assert decoded(plots.loss_curves({})).size


def test_bars_are_as_long_as_their_times() -> None:
    picture = decoded(plots.timing_bar({"training": 100.0, "measuring": 25.0}))
    lengths = [length for length in close_to(picture, CLASS_COLOURS[0], 2).sum(axis=1).tolist() if length]
    assert max(lengths) / min(lengths) == pytest.approx(4, rel=0.05)


# Machado, Oliveira and Fernandes 2009, severity 1, on linear RGB.
COLOUR_BLINDNESS = {
    "protanopia": """
        0.152286  1.052583 -0.204868
        0.114503  0.786281  0.099216
       -0.003882 -0.048116  1.051998""",
    "deuteranopia": """
        0.367322  0.860646 -0.227968
        0.280085  0.672501  0.047413
       -0.011820  0.042940  0.968881""",
    "tritanopia": """
        1.255528 -0.076749 -0.178779
       -0.078411  0.930809  0.147602
        0.004733  0.691367  0.303900""",
}


@pytest.mark.parametrize("kind", COLOUR_BLINDNESS)
@pytest.mark.parametrize("colours", [CLASS_COLOURS, BOX_COLOURS])
def test_colours_differ_for_the_colour_blind(colours: tuple[str, ...], kind: str) -> None:
    matrix = np.array(COLOUR_BLINDNESS[kind].split(), dtype=float).reshape(3, 3)
    seen = [lab(matrix @ linear(colour)) for colour in colours]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 10  # ΔE; from 2.3 on it is noticed


def linear(colour: str) -> NDArray[np.float64]:
    values = np.array(rgb(colour)) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(linear_rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ linear_rgb.clip(0, 1) / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_a_box_grid_shows_pictures_and_the_boxes_of_each_group() -> None:
    wide, tall = np.full((100, 200, 3), 40, np.uint8), np.full((200, 100, 3), 90, np.uint8)
    images = [
        plots.BoxedImage(wide, np.array([[0.25, 0.2, 0.75, 0.8], [-9.0, 2.0, 30.0, 3.0]]), np.array([0, 0]), "a"),
        plots.BoxedImage(tall, np.array([[0.1, 0.1, 0.9, 0.5]] * 2), np.array([2, 0]), "b" * 200),
    ]
    legend = [("cat", "#00ff00"), ("absent", "#0000ff"), ("suspicious", "#ff0000")]
    grid = plots.box_grid(images, legend, columns=2, cell=200)
    top = 11 + 10
    first, second = grid[top : top + 100, :200], grid[top : top + 200, 200 + GAP : 300 + GAP]
    assert grid.shape[1] == 2 * (200 + GAP)
    rows, columns = np.nonzero(close_to(first, "#00ff00", 0))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 79, 50, 149)
    assert tuple(first[50, 100]) == (40, 40, 40)
    rows, columns = np.nonzero(close_to(second, "#ff0000", 0))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (20, 99, 10, 89)
    assert not close_to(second, "#00ff00", 0).any()  # The last group of equal boxes is seen.
    assert close_to(grid[:top], "#ff0000", 0).any()
    assert not close_to(grid[:top], "#0000ff", 0).any()  # The legend leaves out groups without a box.


def test_a_box_grid_of_nothing() -> None:
    assert plots.box_grid([], []).ndim == 3


def test_heatmaps_are_darker_where_values_are_larger_on_a_scale_of_their_own() -> None:
    labels = ("rows", "columns", "value")
    panels = {"first": np.array([[0.1, np.nan, 0.1]]), "second": np.array([[9, 90, 9]])}
    picture = decoded(plots.heatmaps(panels, ["row"], ["a", "b", "c"], labels))
    light, dark = close_to(picture, "#f7fbff", 2), close_to(picture, "#08306b", 2)
    assert dark.sum() > 1000
    assert light.sum() > 3.5 * dark.sum()  # four cells against one; NaN has no colour
    empty = {name: np.full((1, 3), np.nan) for name in panels}
    assert decoded(plots.heatmaps(empty, ["row"], ["a", "b", "c"], labels)).size > 0
