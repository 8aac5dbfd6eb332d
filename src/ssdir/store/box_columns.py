"""Columns of tables of boxes, recognised by the names that writers give them; listed in docs/own-boxes.md."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssdir.errors import InputError
from ssdir.formatting import quote

IMAGE = ("image", "file_name", "filename", "image_path", "path", "image_name", "img_path", "img_name")
CLASS = ("class_name", "category_name", "label_name", "class", "category", "label", "class_id", "category_id")
CLASS_OF_NUMBER = "name"
"""Name of the column of classes where that of `CLASS` holds numbers alone, as in the tables of YOLOv5."""
SCORE = ("score", "confidence", "conf")
XYXY = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
    ("xtl", "ytl", "xbr", "ybr"),
    ("box_x1", "box_y1", "box_x2", "box_y2"),
)
XYWH = (
    ("x", "y", "w", "h"),
    ("x", "y", "width", "height"),
    ("left", "top", "width", "height"),
    ("xmin", "ymin", "width", "height"),
    ("x_min", "y_min", "width", "height"),
    ("bbox_x", "bbox_y", "bbox_w", "bbox_h"),
    ("bbox_x", "bbox_y", "bbox_width", "bbox_height"),
    ("bbox_left", "bbox_top", "bbox_width", "bbox_height"),
    ("bb_left", "bb_top", "bb_width", "bb_height"),
)
CENTRE = tuple(
    (*centre, *sides)
    for centre in (("x_center", "y_center"), ("xcenter", "ycenter"), ("center_x", "center_y"), ("cx", "cy"))
    for sides in (("width", "height"), ("w", "h"))
)
ROBOFLOW = {"x", "y", "width", "height", "confidence", "class_id", "detection_id"}
"""Columns of Roboflow's predictions, whose x and y are the centre of the box."""
SIZE = (("image_height", "image_width"), ("img_height", "img_width"), ("height", "width"))
"""Names of columns, regardless of case; the first that a table has are taken."""

_LARGEST_SIDE = 1 << 31


def normal_name(name: str) -> str:
    """Returns a column's name in lower case, without white space around it."""
    return name.strip().lower()


@dataclass(frozen=True, eq=False)
class BoxColumns:
    """The columns of a table of boxes.

    Attributes:
        table: the table.
        source: its file.
        image: name of the column of image names.
        corners: names of the four columns of the box.
        form: `XYXY`, `XYWH` or `CENTRE`, the list that they are in.
        score: name of the column of scores, if there is one.
        category: name of the column of classes, if there is one.
        size: names of the columns of the image's height and width, if there are such.
    """

    table: pa.Table
    source: Path
    image: str
    corners: tuple[str, ...]
    form: Sequence[tuple[str, ...]]
    score: str | None
    category: str | None
    size: tuple[str, ...] | None

    @classmethod
    def of(cls, table: pa.Table, source: Path, classes: Sequence[str]) -> Self:
        """Recognises the columns of a table.

        Args:
            table: the table.
            source: its file.
            classes: names that the column of classes may have.

        Raises:
            InputError: if those of image or box are missing, or two have one name.
        """
        twice = next((name for name, number in Counter(table.column_names).items() if number > 1), None)
        if twice is not None:
            raise InputError(f"boxes '{source}' has two columns '{twice}': remove one of them")
        # Names as they are win over those with other capitals.
        named = {normal_name(name): name for name in table.column_names}
        named |= {name: name for name in table.column_names}
        image = next((named[name] for name in IMAGE if name in named), None)
        candidates = ((form, names) for form in (XYXY, XYWH, CENTRE) for names in form)
        form, corners = next(((form, names) for form, names in candidates if {*names} <= {*named}), (XYXY, None))
        if form is XYWH and {*named} >= ROBOFLOW:
            form = CENTRE
        if image is None or corners is None:
            wanted = (
                f"the image ({', '.join(IMAGE)})" if image is None else "the box (x1, y1, x2, y2 or x, y, w, h)"
            )
            has = ", ".join(quote(name)[1:-1] for name in table.column_names)
            raise InputError(f"boxes '{source}' has no columns for {wanted}: it has {has}")
        size = next((names for names in SIZE if {*names} <= {*named} and not {*names} & {*corners}), None)
        return cls(
            table=table,
            source=source,
            image=image,
            corners=tuple(named[name] for name in corners),
            form=form,
            score=next((named[name] for name in SCORE if name in named), None),
            category=_class_column(table, {name: named[name] for name in classes if name in named}),
            size=None if size is None else tuple(named[name] for name in size),
        )

    def used(self, own: Collection[str]) -> set[str]:
        """Returns the columns that need not be kept as they are: image and box, and of others those in `own`."""
        others = {self.score, self.category, *(self.size or ())}
        return {self.image, *self.corners, *(name for name in others if name is not None and name in own)}

    def texts(self, name: str) -> list[str | None]:
        """Returns a column as text; None where it is missing.

        Whole numbers have no fraction, though pandas makes them float where one is missing.
        """
        values = (None if value != value else value for value in self.table[name].to_pylist())
        whole = (int(value) if isinstance(value, float) and value.is_integer() else value for value in values)
        return [None if value is None else str(value) for value in whole]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Returns a column as numbers; NaN where it is missing.

        Raises:
            InputError: if it holds something else.
        """
        try:
            return np.array(self.table[name].cast(pa.float64()).to_numpy(), dtype=np.float64)
        except pa.ArrowException:
            raise InputError(f"column '{name}' of '{self.source}' holds something other than numbers") from None

    def boxes(self) -> NDArray[np.float64]:
        """Returns the boxes as xyxy (n, 4)."""
        boxes = np.stack([self.numbers(name) for name in self.corners], axis=1)
        if self.form is CENTRE:
            boxes[:, :2] -= boxes[:, 2:] / 2
        if self.form is not XYXY:
            boxes[:, 2:] += boxes[:, :2]
        return boxes

    def sizes(self) -> NDArray[np.int64]:
        """Returns the (height, width) of each box's image; 0 where the table does not say.

        Columns `height` and `width` beside corners may also be those of the box: they are the image's where they
        aren't all the box's own, and no box reaches over them.

        Raises:
            InputError: if columns that are the image's by their name hold something other than sizes.
        """
        unknown = np.zeros((len(self.table), 2), dtype=np.int64)
        if self.size is None:
            return unknown
        if normal_name(self.size[0]) == SIZE[-1][0]:
            if any(pa.types.is_string(self.table[name].type) for name in self.size):
                return unknown
            sizes, boxes = np.stack([self.numbers(name) for name in self.size], axis=1), self.boxes()
            rows = np.isfinite(boxes).all(axis=1) & np.isfinite(sizes).all(axis=1)
            sides = boxes[rows][:, [3, 2]] - boxes[rows][:, [1, 0]]
            if np.allclose(sides, sizes[rows]) or (boxes[rows][:, [3, 2]] > sizes[rows] + 1).any():
                return unknown
        else:
            sizes = np.stack([self.numbers(name) for name in self.size], axis=1)
        given = np.isfinite(sizes).all(axis=1)
        wrong = np.flatnonzero(
            given & ~((sizes >= 1) & (sizes < _LARGEST_SIDE) & (sizes == sizes // 1)).all(axis=1)
        )
        if len(wrong):
            height, width = sizes[wrong[0]]
            raise InputError(
                f"row {wrong[0]} of '{self.source}' says that its image has {width:g} x {height:g} pixels"
            )
        unknown[given] = sizes[given].astype(np.int64)
        return unknown


def _class_column(table: pa.Table, named: Mapping[str, str]) -> str | None:
    """Returns the column of classes, given those that may be it by their usual names; None if there is none."""
    category = next((column for name, column in named.items() if name != CLASS_OF_NUMBER), None)
    if category is None or CLASS_OF_NUMBER not in named:
        return category
    values = (str(value) for value in table[category].drop_null().to_pylist())
    return named[CLASS_OF_NUMBER] if all(value.removesuffix(".0").isdecimal() for value in values) else category
