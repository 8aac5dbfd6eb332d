"""The annotations of a split as columns, which every layout's reader returns and every data set is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class AnnotationTable:
    """A table of N objects in n images; images and categories are numbered by position.

    Attributes:
        root: folder that `image_names` and `mask_names` are relative to.
        sources: the annotation files.
        category_names: one per category.
        image_names: one per image.
        image_sizes: int64 (n, 2), height and width in pixels.
        image: int64 (N,), the image of each object, in any order.
        category: int64 (N,).
        boxes_px: float (N, 4), xyxy, as annotated: not clipped, and with or without area.
        ignored: bool (N,), boxes that don't count as objects: crowd regions, boxes marked as invalid, and
            boxes that are `unreadable`.
        difficult: bool (N,), or None where the layout has no such flag.
        draw_order: int64 (N,), larger is nearer.
        source_index: int64 (N,), which asset the object shows.
        depth: float (N,), the distance along the viewing direction, in the scene's units: smaller is nearer.
        visible: float (N,), the share of the object's pixels that nothing covers, in [0, 1].
        track_id: int64 (N,), the object's number through its clip, from 1; None where images are no clips.
        clip: int64 (n,), the clip that each image is a frame of; the frames of a clip follow each other in order.
        clip_names: one per clip; each clip has an image.
        attributes: by name, int64 (N,): index into `attribute_names`.
        attribute_names: by attribute, the names of its values.
        mask_names: one file per image, of one channel: each object's visible pixels have its `mask_value`.
        mask_value: int64 (N,).
        unreadable: bool (N,), the objects that `ignore_hidden` and `keep_readable` marked as ignored; None if
            neither was called.
        info: metadata of the data set, by name.
        notes: what the reader corrected or ignored, as sentences that name file and line.
        sizes_from_files: whether `image_sizes` are those of the files, because the annotations have none.
    """

    root: Path
    sources: tuple[Path, ...]
    category_names: list[str]
    image_names: list[str]
    image_sizes: NDArray[np.int64]
    image: NDArray[np.int64]
    category: NDArray[np.int64]
    boxes_px: NDArray[np.float64]
    ignored: NDArray[np.bool_]
    difficult: NDArray[np.bool_] | None = None
    draw_order: NDArray[np.int64] | None = None
    source_index: NDArray[np.int64] | None = None
    depth: NDArray[np.float64] | None = None
    visible: NDArray[np.float64] | None = None
    track_id: NDArray[np.int64] | None = None
    clip: NDArray[np.int64] | None = None
    clip_names: list[str] | None = None
    attributes: dict[str, NDArray[np.int64]] | None = None
    attribute_names: dict[str, list[str]] | None = None
    mask_names: list[str] | None = None
    mask_value: NDArray[np.int64] | None = None
    unreadable: NDArray[np.bool_] | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sizes_from_files: bool = False

    @property
    def image_paths(self) -> list[Path]:
        """The path of each image."""
        return [self.root / name for name in self.image_names]

    def subset(self, objects: NDArray[np.int64], images: NDArray[np.int64]) -> AnnotationTable:
        """Selects objects and images by position, and drops the objects in other images."""
        place = np.full(len(self.image_names), -1, dtype=np.int64)
        place[images] = np.arange(len(images))
        rows = objects[place[self.image[objects]] >= 0]
        columns = ("category", "boxes_px", "ignored", *_OPTIONAL_COLUMNS)
        kept = {name: getattr(self, name)[rows] for name in columns if getattr(self, name) is not None}
        attributes, clip, clip_names = self.attributes, self.clip, self.clip_names
        if clip is not None:
            present, clip = np.unique(clip[images], return_inverse=True)
            clip_names = clip_names and [clip_names[each] for each in present]
        return replace(
            self,
            image_names=[self.image_names[i] for i in images],
            image_sizes=self.image_sizes[images],
            image=place[self.image[rows]],
            clip=clip,
            clip_names=clip_names,
            mask_names=None if self.mask_names is None else [self.mask_names[i] for i in images],
            attributes=None if attributes is None else {name: column[rows] for name, column in attributes.items()},
            **kept,
        )


MIN_VISIBLE = 0.1
"""The least visible share of an object in a clip that is learned and measured: clips have wholly hidden ones."""

_OPTIONAL_COLUMNS = (
    "difficult",
    "draw_order",
    "source_index",
    "depth",
    "visible",
    "track_id",
    "mask_value",
    "unreadable",
)


def ignore_hidden(table: AnnotationTable, min_visible: float = MIN_VISIBLE) -> AnnotationTable:
    """Marks the objects of clips of which less than a share is visible, where this is known, as ignored.

    Nothing is learned from ignored objects, and detecting one is neither right nor wrong.
    """
    if table.clip is None or table.visible is None:
        return table
    hidden = (table.visible < min_visible) & ~table.ignored
    return replace(table, ignored=table.ignored | hidden, unreadable=hidden)


def keep_readable(table: AnnotationTable, min_side: float, drop_empty: bool) -> AnnotationTable:
    """Marks objects that are too small to learn from as ignored, and leaves out images without objects.

    Args:
        table: the annotations.
        min_side: least width and height of the part of an object inside its image, relative to the image.
        drop_empty: also leave out images that have no object, or only ignored ones. The frames of clips all stay:
            without them, an object's frames would be nearer in time than they are.
    """
    boxes, has_area = clip_boxes(table.boxes_px, table.image_sizes[table.image])
    large = has_area & (boxes[:, 2:] - boxes[:, :2] >= min_side).all(axis=1)
    small = has_area & ~large & ~table.ignored
    images = np.arange(len(table.image_names))
    if drop_empty and table.clip is None:
        images = np.unique(table.image[large & ~table.ignored])
    unreadable = small if table.unreadable is None else small | table.unreadable
    marked = replace(table, ignored=table.ignored | small, unreadable=unreadable)
    return marked.subset(np.flatnonzero(has_area | table.ignored), images)


def clip_boxes(
    boxes_px: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Clips boxes to their images.

    Args:
        boxes_px: (N, 4), xyxy in pixels.
        sizes: (N, 2), height and width of each box's image, in pixels.

    Returns:
        The boxes (N, 4), xyxy relative to their image, in [0, 1]; and a mask (N,) of those with an area.
    """
    height_width = sizes[:, [1, 0, 1, 0]]
    relative = np.clip(boxes_px / height_width, 0, 1)
    with np.errstate(invalid="ignore"):
        has_area = np.isfinite(boxes_px).all(axis=1) & (relative[:, 2:] > relative[:, :2]).all(axis=1)
    return relative, np.asarray(has_area, dtype=np.bool_)


def same_shape(size: tuple[int, int], annotated: tuple[int, int]) -> bool:
    """Returns whether an image (height, width) has the annotated proportions, to a pixel, so that boxes fit it."""
    return abs(size[0] * annotated[1] - size[1] * annotated[0]) <= max(annotated)
