"""Reads COCO's JSON files, data sets and results: their images, categories and boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from msgspec import UNSET, Raw, Struct, UnsetType
from numpy.typing import NDArray

from ssdir.data.readers.coco.outlines import Corners, outline_box
from ssdir.data.readers.coco.tracks import CocoClips, Video, clips_of_videos, read_attributes
from ssdir.data.readers.faults import Faults
from ssdir.data.readers.json_entries import (
    Id,
    as_other_type,
    decode_document,
    decode_entries,
    decode_value,
    entry_name,
    read_raw_json,
)
from ssdir.data.readers.rotation import ROTATED, parse_rotation, rotated_box
from ssdir.errors import InputError
from ssdir.formatting import quote

Name: TypeAlias = Callable[[], str]

OPTIONAL = ("difficult", "draw_order", "source_index", "track_id", "instance_id", "visible")
"""The keys of annotations that are not COCO's own: `visible` has shares in 0 ... 1, the others whole numbers."""

_KIND = "COCO annotations"
_LARGEST_SIDE = 1 << 31
_NO_BOX = (np.nan,) * 4


@dataclass(frozen=True, eq=False)
class CocoBoxes:
    """The N boxes of a COCO file.

    Attributes:
        image: int64 (N,), position of the image among the file's.
        category: int64 (N,), position of the category; -1 where an entry names none.
        boxes_px: float64 (N, 4), xyxy in pixels of the image's size in the file; NaN where a number is missing, or
            larger than any image.
        ignored: bool (N,), crowds by `iscrowd`, and others by `ignore`.
        scores: float64 (N,), NaN where it is missing; None where no entry has the key.
        optional: int64 or float64 (N,) by name, those of `OPTIONAL` that every entry has.
        others: each entry's values but lists and objects; only for boxes that are to be encoded.
    """

    image: NDArray[np.int64]
    category: NDArray[np.int64]
    boxes_px: NDArray[np.float64]
    ignored: NDArray[np.bool_]
    scores: NDArray[np.float64] | None
    optional: Mapping[str, NDArray[Any]]
    others: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, eq=False)
class CocoFile:
    """A COCO file with n images.

    Attributes:
        path: the file.
        image_ids: one per image.
        file_names: one per image, as written.
        image_sizes: int64 (n, 2), height and width; 0 where the file gives none.
        category_ids: in ascending order, numbers before text.
        category_names: one per category.
        boxes: the annotations; None if the file has none, as for a test split.
        clips: the clips that images are frames of; None unless every image is one.
        info: metadata of the file.
        notes: what was corrected, as sentences.
    """

    path: Path
    image_ids: list[Id]
    file_names: list[str]
    image_sizes: NDArray[np.int64]
    category_ids: list[Id]
    category_names: list[str]
    boxes: CocoBoxes | None
    clips: CocoClips | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class _Document(Struct):
    images: list[Raw]
    categories: list[Raw] | UnsetType = UNSET
    annotations: list[Raw] | UnsetType = UNSET
    videos: list[Raw] | UnsetType = UNSET
    info: Raw | UnsetType = UNSET


class _Image(Struct):
    id: Id
    file_name: str
    height: int | float | None = None
    width: int | float | None = None
    video_id: Id | None = None
    frame_id: Any = None
    frame_index: Any = None


class _Category(Struct):
    id: Id
    name: str


class _Box(Struct):
    image_id: Id
    id: Id | None = None
    category_id: Id | None = None
    bbox: list[float | None] | None = None
    segmentation: Raw | UnsetType = UNSET
    iscrowd: int | float | bool | None = None
    ignore: int | float | bool | None = None
    score: float | UnsetType | None = UNSET
    difficult: Any = None
    draw_order: Any = None
    source_index: Any = None
    track_id: Any = None
    instance_id: Any = None
    attributes: Raw | UnsetType = UNSET
    visible: Any = None


def read_coco_file(path: str | Path) -> CocoFile:
    """Reads a COCO file with images, and maybe categories and annotations.

    Raises:
        InputError: if it can't be read, or is not COCO; names up to ten entries with faults, and counts them.
    """
    path = Path(path)
    return _read_document(read_raw_json(path), path, for_encoding=False)


def read_coco_boxes(path: str | Path, annotations: str | Path | None = None) -> CocoFile:
    """Reads boxes that are to be encoded: their categories may be missing, and their other keys are kept.

    Args:
        path: a COCO file with annotations; or COCO's results, a list of boxes.
        annotations: for results, the COCO file that has their images and categories.

    Returns:
        The file with images and categories, whose `boxes` are those of `path`.

    Raises:
        InputError: as `read_coco_file`; if results come without `annotations`, or other files with them.
    """
    path = Path(path)
    raw = read_raw_json(path)
    if raw.lstrip()[:1] != b"[":
        if annotations is not None:
            raise InputError(f"boxes '{path}' name their images themselves: leave out the annotations")
        named = _read_document(raw, path, for_encoding=True)
        if named.boxes is None:
            raise InputError(f"{path}: not {_KIND} (annotations are missing)")
        return named
    if annotations is None:
        raise InputError(
            f"boxes '{path}' are COCO's results, which don't name their images: "
            "give the COCO file that does by --annotations"
        )
    named = read_coco_file(annotations)
    rows = _Rows(named.image_ids, named.category_ids, "result", for_encoding=True, faults=_faults(path))
    boxes = rows.read(decode_document(raw, list[Raw], path, _KIND))
    return _with_new_categories(replace(named, boxes=boxes), rows.categories)


def _read_document(raw: bytes, path: Path, for_encoding: bool) -> CocoFile:
    document, faults = decode_document(raw, _Document, path, _KIND), _faults(path)
    images = [image for _, image in decode_entries(document.images, _Image, "image", faults)]
    listed = [] if document.categories is UNSET else document.categories
    categories = [category for _, category in decode_entries(listed, _Category, "category", faults)]
    categories.sort(key=lambda category: (isinstance(category.id, str), category.id))
    sizes = [_size(image, faults) for image in images]
    _check_ids([image.id for image in images], "images", faults)
    _check_ids([category.id for category in categories], "categories", faults)
    clips = _clips(document, images, faults)
    faults.stop_at_any()
    info = {} if document.info is UNSET else decode_value(document.info)
    read = CocoFile(
        path,
        [image.id for image in images],
        [image.file_name for image in images],
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
        [category.id for category in categories],
        [category.name for category in categories],
        None,
        clips,
        info if isinstance(info, dict) else {},
    )
    if document.annotations is UNSET:
        return read
    rows = _Rows(read.image_ids, read.category_ids, "annotation", for_encoding, faults)
    return _with_new_categories(
        replace(read, boxes=rows.read(document.annotations), notes=rows.notes()), rows.categories
    )


def _clips(document: _Document, images: Sequence[_Image], faults: Faults) -> CocoClips | None:
    listed = [] if document.videos is UNSET else document.videos
    videos = [video for _, video in decode_entries(listed, Video, "video", faults)]
    _check_ids([video.id for video in videos], "videos", faults)
    frames = [image.frame_index if image.frame_id is None else image.frame_id for image in images]
    return clips_of_videos(videos, [image.video_id for image in images], frames, faults)


def _faults(path: Path) -> Faults:
    return Faults(f"{path}: not {_KIND}", of_one_file=True)


def _size(image: _Image, faults: Faults) -> tuple[int, int]:
    """Returns the (height, width), or (0, 0) where the file has none."""
    height, width = image.height, image.width
    if (height, width) in ((None, None), (0, 0)):
        return 0, 0
    if height is None or width is None:
        faults.add(f"image {quote(image.id)} has no {'height' if height is None else 'width'}")
    elif not (_is_side(height) and _is_side(width)):
        faults.add(f"image {quote(image.id)} has no size in pixels (width {width}, height {height})")
    else:
        return int(height), int(width)
    return 0, 0


def _is_side(value: float) -> bool:
    return 1 <= value < _LARGEST_SIDE and value == int(value)


def _check_ids(ids: Sequence[Id], what: str, faults: Faults) -> None:
    seen = set[Id]()
    for each in ids:
        if each in seen:
            faults.add(f"two {what} share the id {quote(each)}")
        seen.add(each)


def _with_new_categories(file: CocoFile, positions: Mapping[Id, int]) -> CocoFile:
    """Adds categories that only boxes name, where the file lists none, with their ids for names."""
    names = file.category_names or [str(each) for each in positions]
    return replace(file, category_ids=list(positions), category_names=names)


class _Rows:
    """Decodes the entries of boxes into columns.

    Attributes:
        categories: positions by id; of a file that lists none, those that its boxes name.
    """

    def __init__(
        self, images: Sequence[Id], categories: Sequence[Id], what: str, for_encoding: bool, faults: Faults
    ) -> None:
        self.images = {each: position for position, each in enumerate(images)}
        self.categories = {each: position for position, each in enumerate(categories)}
        self.what, self.for_encoding, self.faults = what, for_encoding, faults
        self._takes_any_category = for_encoding and not categories
        self._counts, self._first = Counter[str](), dict[str, str]()
        self._incomplete: list[str] = []
        self._ids = set[Id]()

    def read(self, raws: Sequence[Raw]) -> CocoBoxes:
        """Returns the columns of all entries.

        Raises:
            InputError: if some are not as they should be.
        """
        count, has_scores = len(raws), False
        image, category = np.full((2, count), -1, dtype=np.int64)
        boxes, scores = np.full((count, 4), np.nan), np.full(count, np.nan)
        ignored = np.zeros(count, dtype=np.bool_)
        optional: dict[str, list[Any]] = {name: [] for name in OPTIONAL}
        for row, box in decode_entries(raws, _Box, self.what, self.faults):
            name = partial(entry_name, self.what, box.id, row)  # Most entries need no name.
            image[row], category[row] = self._image(box, name), self._category(box, name)
            attributes = read_attributes(box.attributes)
            boxes[row] = self._corners(box, parse_rotation(attributes.rotation), name)
            ignored[row] = self._is_ignored(box, name)
            if box.score is not UNSET:
                has_scores, scores[row] = True, np.nan if box.score is None else box.score
            for key, values in optional.items():
                values.append(getattr(box, key))
            if box.track_id is None:
                optional["track_id"][-1] = attributes.track_id
            self._note_id(box.id, name)
        self.faults.stop_at_any()
        columns = {
            key: (_shares if key == "visible" else _whole_numbers)(values) for key, values in optional.items()
        }
        others = [_scalars(raw) for raw in raws] if self.for_encoding else []
        known = {key: column for key, column in columns.items() if column is not None}
        given = [key for key, values in optional.items() if any(value is not None for value in values)]
        self._incomplete = [key for key in given if key not in known]
        return CocoBoxes(image, category, boxes, ignored, scores if has_scores else None, known, others)

    def notes(self) -> tuple[str, ...]:
        """Returns notes on what was corrected, or is unusual."""
        notes = [f"{what}: {number} ({self._first[what]})" for what, number in self._counts.items()]
        if self._incomplete:
            keys = ", ".join(self._incomplete)
            notes.append(f"keys left out, as some annotations have no usable number there: {keys}")
        return tuple(notes)

    def _image(self, box: _Box, name: Name) -> int:
        position = self._position(box.image_id, self.images, name)
        if position < 0:
            self.faults.add(f"{name()} is for unknown image {quote(box.image_id)}")
        return position

    def _category(self, box: _Box, name: Name) -> int:
        if box.category_id is None and self.for_encoding:
            return -1
        if box.category_id is not None and self._takes_any_category:
            return self.categories.setdefault(box.category_id, len(self.categories))
        position = -1 if box.category_id is None else self._position(box.category_id, self.categories, name)
        if position < 0:
            self.faults.add(f"{name()} is for unknown category {quote(box.category_id)}")
        return position

    def _position(self, identity: Id, positions: Mapping[Id, int], name: Name) -> int:
        """Returns the position of an id, whose type tools may change between its places; -1 if it is unknown."""
        if identity in positions:
            return positions[identity]
        position = positions.get(as_other_type(identity), -1)
        if position >= 0:
            self._count("ids of images and categories that are numbers in one place and text in another", name)
        return position

    def _is_ignored(self, box: _Box, name: Name) -> bool:
        for key in ("iscrowd", "ignore"):
            if (value := getattr(box, key)) not in (None, 0, 1):
                self.faults.add(f"{name()} has {key} {value}, expected 0 or 1")
        if box.ignore and not box.iscrowd:
            self._count(
                "annotations that only ignore marks (COCO's own evaluation goes by iscrowd), ignored", name
            )
        return bool(box.iscrowd or box.ignore)

    def _corners(self, box: _Box, rotation: float, name: Name) -> Corners:
        """Returns the box as xyxy: tight if it is rotated; that of the outline where there is no bbox."""
        outlined = box.segmentation is not UNSET and bytes(box.segmentation) not in (b"null", b"[]")
        if box.bbox:
            if len(box.bbox) != 4:
                self.faults.add(f"{name()} has no bbox of four numbers (got {quote(box.bbox)})")
                return _NO_BOX
            x, y, width, height = (
                np.nan if side is None or abs(side) >= _LARGEST_SIDE else side or 0.0 for side in box.bbox
            )
            corners = x, y, x + width, y + height
            if outlined or not rotation:
                return corners
            self._count(ROTATED, name)
            return rotated_box(corners, rotation)
        if not outlined:
            self.faults.add(f"{name()} has no bbox of four numbers, and no outline to take it from")
            return _NO_BOX
        self._count("annotations without a bbox, for which the tight box of their outline is taken", name)
        try:
            return outline_box(box.segmentation)
        except ValueError as error:  # msgspec's errors are ValueErrors, too.
            reason = "it is neither polygons nor run lengths" if "xpected" in str(error) else error
            self.faults.add(f"{name()} has no bbox, and no outline to take it from ({reason})")
            return _NO_BOX

    def _note_id(self, identity: Id | None, name: Name) -> None:
        if identity in self._ids:
            self._count("annotations with an id that an earlier one has", name)
        elif identity is not None:
            self._ids.add(identity)

    def _count(self, what: str, name: Name) -> None:
        """Counts an entry for the notes."""
        if what not in self._first:
            self._first[what] = name()
        self._counts[what] += 1


def _whole_numbers(values: list[Any]) -> NDArray[np.int64] | None:
    """Returns a column that every entry has, else None."""
    if not values or not all(isinstance(value, int) and abs(value) < 1 << 63 for value in values):
        return None
    return np.array(values, dtype=np.int64)


def _shares(values: list[Any]) -> NDArray[np.float64] | None:
    """Returns a column that every entry has, with numbers within 0 ... 1, else None."""
    if not values or not all(isinstance(value, (int, float)) and 0 <= value <= 1 for value in values):
        return None
    return np.array(values, dtype=np.float64)


def _scalars(raw: Raw) -> dict[str, Any]:
    """Returns an entry's values without lists and objects, such as outlines."""
    entry = decode_value(raw) or {}
    return {key: value for key, value in entry.items() if not isinstance(value, (list, dict))}
