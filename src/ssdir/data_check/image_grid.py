"""The image grid of a data check: images with their boxes, suspicious ones first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssdir.data.annotations import AnnotationTable
from ssdir.data.images import Image8, read_image, shrink
from ssdir.data.letterbox import Resize
from ssdir.data_check.annotations import box_flags
from ssdir.errors import InputError
from ssdir.formatting import counted
from ssdir.plots.image_grids import ALERT_COLOUR, BOX_COLOURS, SMALL_COLOUR, BoxedImage, box_grid

GRID_IMAGES, GRID_SUSPECTS = 24, 2
_THUMBNAIL = 440


def draw_image_grid(
    tables: Mapping[str, AnnotationTable], main: str, classes: Sequence[str], image_size: int, resize: Resize
) -> Image8:
    """Draws images with each kind of suspicious boxes, of any split, then evenly spaced ones of the main split.

    Args:
        tables: the annotations by split.
        main: the split to learn from.
        classes: names of the classes with colours of their own, as far as there are colours.
        image_size: side of the model's square input, by which boxes are too small.
        resize: how images become square.
    """
    names = list(classes[: len(BOX_COLOURS) - 1])
    legend = [*zip(names, BOX_COLOURS, strict=False), ("other", BOX_COLOURS[-1])]
    legend += [(f"too small at {image_size} px", SMALL_COLOUR), ("broken or suspicious", ALERT_COLOUR)]
    flags = {split: box_flags(table, image_size, resize) for split, table in tables.items()}
    group = {split: _groups(table, flags[split], names) for split, table in tables.items()}
    images = []
    for split, index in _chosen(tables, flags, main):
        table = tables[split]
        try:
            image = shrink(read_image(table.image_paths[index]), _THUMBNAIL)
        except InputError:
            continue
        rows = np.flatnonzero((table.image == index) & ~table.ignored)
        boxes = table.boxes_px[rows] / table.image_sizes[index][[1, 0, 1, 0]]
        caption = f"{Path(table.image_names[index]).name}: {counted(len(rows), 'box', 'boxes')}"
        images.append(BoxedImage(image, boxes, group[split][rows], caption))
    return box_grid(images, legend)


def _groups(
    table: AnnotationTable, flags: Mapping[str, NDArray[np.bool_]], names: Sequence[str]
) -> NDArray[np.int64]:
    """Returns each object's row in the legend: its class, another one, too small, suspicious."""
    of_class = [names.index(name) if name in names else len(names) for name in table.category_names]
    group = np.array(of_class, dtype=np.int64)[table.category]
    group[flags["tiny_boxes"]] = len(names) + 1
    group[np.any([mask for kind, mask in flags.items() if kind != "tiny_boxes"], axis=0)] = len(names) + 2
    return group


def _chosen(
    tables: Mapping[str, AnnotationTable], flags: Mapping[str, Mapping[str, NDArray[np.bool_]]], main: str
) -> list[tuple[str, int]]:
    """Selects two images per split and kind of suspicious boxes, then evenly spaced ones of the main split."""
    suspects = [
        [(split, index) for index in np.unique(tables[split].image[mask])[:GRID_SUSPECTS].tolist()]
        for split in sorted(tables, key=lambda split: split != main)
        for mask in flags[split].values()
    ]
    n = len(tables[main].image_names)
    spread = np.linspace(0, n - 1, min(n, GRID_IMAGES)).round().astype(int).tolist()
    return list(dict.fromkeys([*chain.from_iterable(suspects), *((main, i) for i in spread)]))[:GRID_IMAGES]
