"""Image grids: what a model sees, detects and reconstructs, with boxes and captions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ssdir.data.images import Image8
from ssdir.data.letterbox import fitted_size
from ssdir.objects import Objects, Scene

BOX_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2", "#bbbbbb")
"""Colours that are bright on dark images, for any colour vision (Okabe and Ito 2008, and grey)."""
OTHER_COLOUR = "#707070"
ALERT_COLOUR = "#ff0000"
SMALL_COLOUR = "#ff40ff"

GAP = 6
"""Pixels between images."""

_TEXT, _FAINT = "#202020", "#6e6e6e"


@dataclass(frozen=True, eq=False)
class BoxedImage:
    """An image with boxes and a caption.

    Attributes:
        image: uint8 (H, W, 3).
        boxes: float (n, 4), xyxy relative to the image; parts outside the image are not shown.
        groups: int (n,), the group of each box.
        caption: the text below the image.
    """

    image: Image8
    boxes: NDArray[np.float64]
    groups: NDArray[np.int64]
    caption: str


def reconstruction_grid(
    images: Tensor,
    objects: Objects,
    scene: Scene,
    class_names: Sequence[str],
    max_objects: int = 8,
    cell: int = 160,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> Image8:
    """Shows a row per image: input, boxes, reconstruction, and the objects of highest score, each decoded alone.

    Each object is framed in the colour of its box; the boxes beyond `max_objects` are grey. The class, where there
    are several, and the score are written below the object.

    Args:
        images: float (B, 3, H, W) in [0, 1].
        objects: the objects detected in them.
        scene: the decoded `objects`.
        class_names: the classes that `objects.labels` index.
        max_objects: maximum number of objects shown per image.
        cell: longer side of an image in the grid, in pixels; objects get a little less than half of it.
        sizes: (height, width) of each image, in whose proportions it and its reconstruction are shown; None shows
            them as they are.

    Raises:
        ValueError: if images, objects and scene are not of one batch.
    """
    counts = len(images), objects.batch_size, len(scene.reconstructions)
    if len(set(counts)) > 1 or len(scene.appearances) != len(objects):
        raise ValueError(f"images, objects and scene must be of one batch, got {counts} images")
    objects = objects.detach().to("cpu")
    order = _by_score(objects)
    objects, appearances = objects[order], scene.appearances.cpu()[order]
    captions = _captions(objects, class_names)
    font, pitch = max(9, cell // 15), cell + GAP
    side = (cell - GAP) // 2 - (font + 4 if any(captions) else 0)  # of an object; half a cell, less its caption
    columns = max(2, ceil(min(max_objects, max(objects.per_image, default=0)) / 2))
    title = font + 8
    canvas = _Canvas(title + len(images) * pitch, 3 * pitch + max(columns * pitch // 2, font * 14), font)
    for column, text in enumerate(("input", "detected", "reconstruction", "each object decoded alone")):
        canvas.write(text, 2, column * pitch)
    for number, part in enumerate(objects.split()):
        top = title + number * pitch
        shape = tuple(images.shape[-2:]) if sizes is None else sizes[number]
        height, width = fitted_size((shape[0], shape[1]), cell, "letterbox")
        image = to_pixels(images[number], height, width)
        canvas.paste(image, top, 0)
        colours = [_rank_colour(rank) if rank < max_objects else OTHER_COLOUR for rank in range(len(part))]
        boxes = part.boxes.numpy().astype(np.float64)
        # In reverse, so that the box of the highest score is on top.
        canvas.paste(_draw_boxes(image, boxes[::-1], colours[::-1], max(1, round(cell / 120))), top, pitch)
        canvas.paste(to_pixels(scene.reconstructions[number], height, width), top, 2 * pitch)
        rows = (objects.image_index == number).nonzero()[:max_objects, 0].tolist()
        for rank, row in enumerate(rows):
            down, left = top + rank // columns * pitch // 2, 3 * pitch + rank % columns * pitch // 2
            extent = objects.z_where[row, 2:] * torch.tensor([width, height])
            framed = _framed(appearances[row], extent, _rank_colour(rank), side, max(1, cell // 100))
            canvas.paste(framed, down, left)
            canvas.write(captions[row], down + side + 1, left, _FAINT)
        if not rows:
            canvas.write("no objects detected", top, 3 * pitch, _FAINT)
    return canvas.pixels()


def box_grid(
    images: Sequence[BoxedImage], legend: Sequence[tuple[str, str]], columns: int = 6, cell: int = 220
) -> Image8:
    """Shows images in their proportions, with their boxes and captions, below a legend of the groups.

    Args:
        images: of any size; the longer side is resized to `cell`. Of equal boxes, the last group's is on top.
        legend: name and colour, such as `#ff0000`, of each group; groups without a box are left out.
        columns: images per row.
        cell: side of the square around an image, in pixels; captions are cut to it.
    """
    font = max(9, cell // 18)
    sides = [
        [max(1, round(side * cell / max(each.image.shape[:2]))) for side in each.image.shape[:2]]
        for each in images
    ]
    starts = range(0, len(images), columns)
    heights = [max(height for height, _ in sides[start : start + columns]) for start in starts]
    line, title = font + 2 * GAP, font + 10
    canvas = _Canvas(title + sum(heights) + line * len(heights), columns * (cell + GAP), font)
    left = 0
    present = set().union(*(each.groups.tolist() for each in images))
    for name, colour in [entry for group, entry in enumerate(legend) if group in present]:
        left = canvas.write("■ ", 2, left, colour)
        left = canvas.write(name, 2, left) + 2 * font
    top = title
    for start, height in zip(starts, heights, strict=True):
        for column, number in enumerate(range(start, min(start + columns, len(images)))):
            each, left = images[number], column * (cell + GAP)
            # Large boxes first, so that small ones inside them stay visible.
            areas = np.prod(np.nan_to_num(each.boxes[:, 2:] - each.boxes[:, :2]), axis=1)
            order = np.lexsort((each.groups, -areas))
            colours = [legend[group][1] for group in each.groups[order].tolist()]
            canvas.paste(_draw_boxes(_resized(each.image, *sides[number]), each.boxes[order], colours), top, left)
            canvas.write(each.caption, top + height + 2, left, _FAINT, max_width=cell)
        top += height + line
    return canvas.pixels()


def traversal_grid(traversals: Tensor, extent: float = 3.0, cell: int = 48) -> Image8:
    """Shows traversals (n, k, steps, 3, S, S): a block of columns per object, a row per direction."""
    n, k, steps = traversals.shape[:3]
    font = max(10, cell // 4)
    title, margin, pitch = font + 8, 3 * font, cell + 2
    block = steps * pitch + 3 * GAP
    canvas = _Canvas(title + k * pitch, margin + n * block, font)
    for row in range(k):
        canvas.write(f"PC{row + 1}", title + row * pitch + (cell - font) // 2, 0)
    marks = {0: f"−{extent:g}σ", steps // 2: "object", steps - 1: f"+{extent:g}σ"}
    for number in range(n):
        left = margin + number * block
        for step, mark in marks.items():
            canvas.write(mark, 2, left + step * pitch, _FAINT)
        for row, step in np.ndindex(k, steps):
            picture = to_pixels(traversals[number, row, step], cell, cell)
            canvas.paste(picture, title + row * pitch, left + step * pitch)
    return canvas.pixels()


def to_pixels(image: Tensor, height: int | None = None, width: int | None = None) -> Image8:
    """Converts an image float (1 | 3, h, w) in [0, 1] to uint8 (height, width, 3); by default, the size stays."""
    scaled = (image.detach().float().cpu().clamp(0, 1) * 255).round().byte().expand(3, -1, -1)
    pixels = np.ascontiguousarray(scaled.permute(1, 2, 0).numpy())
    return pixels if height is None or width is None else _resized(pixels, height, width)


def to_png(image: Image8) -> bytes:
    """Encodes an image as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


class _Canvas:
    """A white canvas for images and text."""

    def __init__(self, height: int, width: int, font: int) -> None:
        self._image = Image.new("RGB", (width, height), "white")
        self._draw = ImageDraw.Draw(self._image)
        # Pillow's own font lacks most of Unicode, which class names may use.
        self._font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), font)

    def paste(self, image: Image8, top: int, left: int) -> None:
        self._image.paste(Image.fromarray(image), (left, top))

    def write(self, text: str, top: int, left: int, colour: str = _TEXT, max_width: int | None = None) -> int:
        """Writes a line and returns where it ends; a line beyond `max_width` is cut at its beginning."""
        shown, skipped = text, 0
        while max_width is not None and skipped < len(text) and self._font.getlength(shown) > max_width:
            skipped += 1
            shown = f"…{text[skipped:]}"
        self._draw.text((left, top), shown, fill=colour, font=self._font)
        return left + ceil(self._font.getlength(shown))

    def pixels(self) -> Image8:
        return np.array(self._image)


def _rank_colour(rank: int) -> str:
    return BOX_COLOURS[rank % len(BOX_COLOURS)]


def _by_score(objects: Objects) -> Tensor:
    """Returns the order of rows by image, then by falling score."""
    if objects.scores is None:
        return torch.arange(len(objects))
    order = objects.scores.argsort(descending=True, stable=True)
    return order[objects.image_index[order].argsort(stable=True)]


def _captions(objects: Objects, class_names: Sequence[str]) -> list[str]:
    """Returns each object's score, after its class where there are several."""
    scores = [""] * len(objects)
    if objects.scores is not None:
        scores = [f"{score:.2f}" for score in objects.scores.tolist()]
    if objects.labels is None or len(class_names) < 2:
        return scores
    names = [class_names[label] for label in objects.labels.tolist()]
    short = [name if len(name) <= 8 else f"{name[:7]}…" for name in names]
    return [f"{name} {score}".rstrip() for name, score in zip(short, scores, strict=True)]


def _draw_boxes(image: Image8, boxes: NDArray[np.float64], colours: Sequence[str], width: int = 1) -> Image8:
    """Draws boxes (n, 4), xyxy relative to the image, in their order."""
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    # Without a limit, Pillow would walk along lines that lie far outside.
    corners = np.clip(np.nan_to_num(boxes), -1, 2) * [canvas.width, canvas.height, canvas.width, canvas.height]
    for (x1, y1, x2, y2), colour in zip(np.rint(corners).astype(int).tolist(), colours, strict=True):
        # Pillow's corners are inclusive, ours are half-open.
        draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=colour, width=width)
    return np.array(canvas)


def _framed(appearance: Tensor, extent: Tensor, colour: str, side: int, border: int) -> Image8:
    """Returns an object in the proportions of `extent` = (width, height), framed, at most `side` pixels a side."""
    scale = (side - 2 * border) / max(float(extent.max()), 1e-6)
    width, height = (max(2, round(length * scale)) for length in extent.tolist())
    framed = np.empty((height + 2 * border, width + 2 * border, 3), dtype=np.uint8)
    framed[:] = tuple(bytes.fromhex(colour[1:]))
    framed[border:-border, border:-border] = to_pixels(appearance, height, width)
    return framed


def _resized(pixels: Image8, height: int, width: int) -> Image8:
    """Resizes pixels: bicubic to a larger size, by area to a smaller one."""
    smaller = height < pixels.shape[0] or width < pixels.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    resized: Image8 = cv2.resize(pixels, (width, height), interpolation=method)
    return resized
