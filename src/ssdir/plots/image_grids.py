"""Sheets of pictures: what a model sees, finds and draws, and what its codes mean."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssdir.objects import Objects, Scene

Picture: TypeAlias = NDArray[np.uint8]
"""RGB, (H, W, 3)."""
Decode: TypeAlias = Callable[[Tensor], Tensor]
"""`z_what` (M, D) to appearances (M, 3, S, S) in [0, 1]."""

BOX_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#0072b2", "#bbbbbb")
"""Bright on dark pictures, for any colour vision (Okabe and Ito 2008, and grey)."""
OTHER_COLOUR = "#707070"
ALERT_COLOUR = "#ff0000"
SMALL_COLOUR = "#ff40ff"

GAP = 6
"""Pixels between pictures."""

_INK, _FAINT = (32, 32, 32), (110, 110, 110)


def reconstruction_grid(
    images: Tensor,
    objects: Objects,
    scene: Scene,
    class_names: Sequence[str],
    max_objects: int = 8,
    cell: int = 160,
) -> Picture:
    """A row per image: input, boxes, reconstruction, and its best objects, each decoded alone.

    An object is framed in the colour of its box; boxes beyond `max_objects` are grey. Below it are its class,
    where there are several, and its score.

    Args:
        images: float (B, 3, H, W) in [0, 1].
        objects: what was found in them.
        scene: what the model drew for `objects`.
        class_names: the classes that `objects.labels` index.
        max_objects: most objects shown of an image, by falling score.
        cell: side of an image on the sheet, in pixels; objects get a little less than half of it.

    Raises:
        ValueError: if images, objects and scene are not of one batch.
    """
    sizes = len(images), objects.batch_size, len(scene.reconstructions)
    if len(set(sizes)) > 1 or len(scene.appearances) != len(objects):
        raise ValueError(f"images, objects and scene must be of one batch, got {sizes} images")
    objects = objects.detach().to("cpu")
    order = _by_score(objects)
    objects, appearances = objects[order], scene.appearances.cpu()[order]
    captions = _captions(objects, class_names)
    layout = _Layout.of(objects, max_objects, cell, captioned=any(captions))
    sheet = _Sheet(layout.title + len(images) * layout.pitch, layout.width, layout.font)
    for column, title in enumerate(("input", "detected", "reconstruction", "each object decoded alone")):
        sheet.write(title, 2, column * layout.pitch, _INK)
    for number, part in enumerate(objects.split()):
        top = layout.title + number * layout.pitch
        picture = _pixels(images[number], cell, cell)
        sheet.put(picture, top, 0)
        sheet.put(_with_boxes(picture, part, max_objects), top, layout.pitch)
        sheet.put(_pixels(scene.reconstructions[number], cell, cell), top, 2 * layout.pitch)
        rows = (objects.image_index == number).nonzero()[:max_objects, 0].tolist()
        for rank, row in enumerate(rows):
            down, left = layout.place(rank)
            sheet.put(_framed(appearances[row], objects.z_where[row], rank, layout), top + down, left)
            sheet.write(captions[row], top + down + layout.thumb + 1, left, _FAINT)
        if not rows:
            sheet.write("nothing found", top, 3 * layout.pitch, _FAINT)
    return sheet.picture()


def box_grid(
    pictures: Sequence[Picture],
    boxes: Sequence[NDArray[np.float64]],
    groups: Sequence[NDArray[np.int64]],
    captions: Sequence[str],
    legend: Sequence[tuple[str, str]],
    columns: int = 6,
    cell: int = 220,
) -> Picture:
    """Pictures in their proportions, with boxes, a caption below each, and what the colours mean above all.

    Args:
        pictures: of any size; drawn with their longer side as `cell`.
        boxes: of each picture, float (n, 4), xyxy relative to it; what reaches out of it is not seen.
        groups: of each picture, int (n,): the row of `legend`; of equal boxes, the last group is seen.
        captions: one per picture, cut to its width.
        legend: names and colours, such as `#ff0000`.
        columns: pictures in a row.
        cell: side of the square that a picture has, in pixels.
    """
    font = max(9, cell // 18)
    colours = [colour for _, colour in legend]
    sides = [[max(1, round(side * cell / max(each.shape[:2]))) for side in each.shape[:2]] for each in pictures]
    starts = range(0, len(pictures), columns)
    heights = [max(height for height, _ in sides[start : start + columns]) for start in starts]
    line, title = font + 2 * GAP, font + 10
    sheet = _Sheet(title + sum(heights) + line * len(heights), columns * (cell + GAP), font)
    left = 0
    for name, colour in legend:
        left = sheet.write("■ ", 2, left, tuple(bytes.fromhex(colour[1:])))
        left = sheet.write(name, 2, left, _INK) + 2 * font
    top = title
    for start, height in zip(starts, heights, strict=True):
        for column, number in enumerate(range(start, min(start + columns, len(pictures)))):
            image = torch.from_numpy(pictures[number]).permute(2, 0, 1) / 255
            drawn = _outlined(_pixels(image, *sides[number]), boxes[number], groups[number], colours)
            sheet.put(drawn, top, column * (cell + GAP))
            sheet.write(captions[number], top + height + 2, column * (cell + GAP), _FAINT, room=cell)
        top += height + line
    return sheet.picture()


def principal_directions(latents: Tensor, count: int = 4) -> Tensor:
    """The first principal components (count, D) of latents (N, D), each as long as a standard deviation."""
    from sklearn.decomposition import PCA

    pca = PCA(min(count, *latents.shape)).fit(latents.double().numpy())
    return torch.from_numpy(pca.components_ * np.sqrt(pca.explained_variance_)[:, None]).to(latents)


@torch.no_grad()
def traverse(decode: Decode, latents: Tensor, directions: Tensor, steps: int = 7, extent: float = 3.0) -> Tensor:
    """Decodes objects while they walk along directions of the latent space.

    Args:
        decode: the model's what decoder.
        latents: float (n, D), where the walks are centred.
        directions: float (k, D), see `principal_directions`.
        steps: pictures of a walk, odd: the middle one is the object itself.
        extent: how far it goes to either side, in lengths of the direction.

    Returns:
        float (n, k, steps, 3, S, S).
    """
    if steps % 2 == 0:
        raise ValueError(f"steps must be odd, got {steps}")
    offsets = torch.arange(-(steps // 2), steps // 2 + 1).to(latents) * (extent / max(steps // 2, 1))
    moved = latents[:, None, None] + offsets[:, None] * directions[:, None].to(latents)
    appearances = decode(moved.flatten(0, 2))
    return appearances.view(*moved.shape[:3], *appearances.shape[1:])


def traversal_grid(walks: Tensor, extent: float = 3.0, cell: int = 48) -> Picture:
    """Draws walks (n, k, steps, 3, S, S): a block of columns per object, a row per direction."""
    n, k, steps = walks.shape[:3]
    font = max(10, cell // 4)
    title, margin, pitch = font + 8, 3 * font, cell + 2
    block = steps * pitch + 3 * GAP
    sheet = _Sheet(title + k * pitch, margin + n * block, font)
    for row in range(k):
        sheet.write(f"PC{row + 1}", title + row * pitch + (cell - font) // 2, 0, _INK)
    marks = {0: f"−{extent:g}σ", steps // 2: "object", steps - 1: f"+{extent:g}σ"}
    for number in range(n):
        left = margin + number * block
        for step, mark in marks.items():
            sheet.write(mark, 2, left + step * pitch, _FAINT)
        for row, step in np.ndindex(k, steps):
            sheet.put(_pixels(walks[number, row, step], cell, cell), title + row * pitch, left + step * pitch)
    return sheet.picture()


def to_png(picture: Picture) -> bytes:
    """Encodes a picture losslessly."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True)
class _Layout:
    """Where things are on a reconstruction sheet, in pixels.

    Attributes:
        cell: side of an image.
        columns: of objects, in two rows beside each image.
        font: size of text.
        caption: height of the line below an object; 0 without captions.
    """

    cell: int
    columns: int
    font: int
    caption: int

    @classmethod
    def of(cls, objects: Objects, max_objects: int, cell: int, *, captioned: bool) -> _Layout:
        most = min(max_objects, max(objects.per_image, default=0))
        font = max(9, cell // 15)
        return cls(cell, max(2, ceil(most / 2)), font, font + 4 if captioned else 0)

    @property
    def title(self) -> int:
        return self.font + 8

    @property
    def pitch(self) -> int:
        return self.cell + GAP

    @property
    def thumb(self) -> int:
        return (self.cell - GAP) // 2 - self.caption

    @property
    def width(self) -> int:
        return 3 * self.pitch + max(self.columns * self.pitch // 2, self.font * 14)

    def place(self, rank: int) -> tuple[int, int]:
        """Top, from that of the image, and left of an object's square."""
        row, column = divmod(rank, self.columns)
        return row * self.pitch // 2, 3 * self.pitch + column * self.pitch // 2


class _Sheet:
    """White paper to put pictures and text on."""

    def __init__(self, height: int, width: int, font: int) -> None:
        import matplotlib
        from PIL import Image, ImageDraw, ImageFont

        self._canvas = Image.new("RGB", (width, height), "white")
        self._draw = ImageDraw.Draw(self._canvas)
        # Pillow's own font lacks most of Unicode, which names of classes may use.
        self._font = ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf"), font)

    def put(self, picture: Picture, top: int, left: int) -> None:
        from PIL import Image

        self._canvas.paste(Image.fromarray(picture), (left, top))

    def write(self, text: str, top: int, left: int, colour: tuple[int, ...], room: int | None = None) -> int:
        """Returns where the text ends; with `room`, it loses as much of its beginning as does not fit."""
        shown, skipped = text, 0
        while room is not None and skipped < len(text) and self._font.getlength(shown) > room:
            skipped += 1
            shown = f"…{text[skipped:]}"
        self._draw.text((left, top), shown, fill=colour, font=self._font)
        return left + ceil(self._font.getlength(shown))

    def picture(self) -> Picture:
        return np.array(self._canvas)


def _by_score(objects: Objects) -> Tensor:
    """Rows by image, then by falling score."""
    if objects.scores is None:
        return torch.arange(len(objects))
    order = objects.scores.argsort(descending=True, stable=True)
    return order[objects.image_index[order].argsort(stable=True)]


def _captions(objects: Objects, class_names: Sequence[str]) -> list[str]:
    """Class, where there are several, and score of each object."""
    scores = [""] * len(objects)
    if objects.scores is not None:
        scores = [f"{score:.2f}" for score in objects.scores.tolist()]
    if objects.labels is None or len(class_names) < 2:
        return scores
    names = [class_names[label] for label in objects.labels.tolist()]
    short = [name if len(name) <= 8 else f"{name[:7]}…" for name in names]
    return [f"{name} {score}".rstrip() for name, score in zip(short, scores, strict=True)]


def _with_boxes(picture: Picture, objects: Objects, max_objects: int) -> Picture:
    """Draws one image's boxes, the first `max_objects` coloured, the first on top."""
    import supervision as sv

    height, width = picture.shape[:2]
    last_first = np.arange(len(objects))[::-1]
    detections = objects.replace(z_what=None, z_what_scale=None).to_supervision((height, width))[last_first]
    # supervision's corners are inclusive, ours are half-open.
    detections.xyxy[:, 2:] = np.maximum(detections.xyxy[:, 2:] - 1, detections.xyxy[:, :2])
    colours = np.where(last_first < max_objects, last_first % len(BOX_COLOURS), len(BOX_COLOURS))
    palette = sv.ColorPalette.from_hex([*BOX_COLOURS, OTHER_COLOUR])
    annotator = sv.BoxAnnotator(color=palette, thickness=max(1, round(height / 120)))
    bgr = np.ascontiguousarray(picture[..., ::-1])
    return np.ascontiguousarray(annotator.annotate(bgr, detections, custom_color_lookup=colours)[..., ::-1])


def _outlined(
    picture: Picture, boxes: NDArray[np.float64], groups: NDArray[np.int64], colours: Sequence[str]
) -> Picture:
    """Draws boxes, xyxy relative to the picture, the large ones first."""
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(picture)
    draw = ImageDraw.Draw(canvas)
    # Without a limit, Pillow would walk along lines that lie far outside.
    corners = np.clip(np.nan_to_num(boxes), -1, 2) * [canvas.width, canvas.height, canvas.width, canvas.height]
    for row in np.lexsort((groups, -np.prod(corners[:, 2:] - corners[:, :2], axis=1))):
        x1, y1, x2, y2 = np.rint(corners[row]).astype(int).tolist()
        draw.rectangle((x1, y1, max(x2 - 1, x1), max(y2 - 1, y1)), outline=colours[groups[row]])
    return np.array(canvas)


def _framed(appearance: Tensor, z_where: Tensor, rank: int, layout: _Layout) -> Picture:
    """An object in the proportions of its box and the frame of its rank."""
    border = max(1, layout.cell // 100)
    room = layout.thumb - 2 * border
    scale = room / max(float(z_where[2:].max()), 1e-6)
    width, height = (max(2, round(side * scale)) for side in z_where[2:].tolist())
    framed = np.empty((height + 2 * border, width + 2 * border, 3), dtype=np.uint8)
    framed[:] = tuple(bytes.fromhex(BOX_COLOURS[rank % len(BOX_COLOURS)][1:]))
    framed[border:-border, border:-border] = _pixels(appearance, height, width)
    return framed


def _pixels(image: Tensor, height: int, width: int) -> Picture:
    """Float (3, h, w) in [0, 1] as pixels of another size: bicubic upwards, by area downwards."""
    import cv2

    pixels = (image.detach().float().cpu().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    smaller = height < pixels.shape[0] or width < pixels.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    resized: Picture = cv2.resize(np.ascontiguousarray(pixels), (width, height), interpolation=method)
    return resized
