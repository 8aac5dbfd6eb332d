"""Converts all splits of a data set to another layout: COCO, YOLO, Pascal VOC or MOTChallenge."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ssdir.data.annotations import AnnotationTable, clip_boxes, same_shape
from ssdir.data.clips import frame_rate, frame_rates_info
from ssdir.data.images import image_size
from ssdir.data.readers.layout import Layout
from ssdir.data.readers.registry import find_layout
from ssdir.data.readers.splits import SPLITS, standard_splits
from ssdir.data.writers.copy_names import class_names, clip_folders, copy_names, copy_suffix
from ssdir.data.writers.layouts import voc_boxes, write_coco, write_data_yaml, write_voc, write_yolo, yolo_lines
from ssdir.data.writers.mot import frame_name, write_mot
from ssdir.errors import EmptySplitError, InputError
from ssdir.outputs import atomic_dir

Target: TypeAlias = Literal["coco", "yolo", "voc", "mot"]


@dataclass
class Conversion:
    """The result of a conversion.

    Attributes:
        layout: the name of the layout that was read.
        images: number of images in each split.
        objects: number of objects in each split.
        notes: what was left out or changed, as sentences.
    """

    layout: str
    images: dict[str, int] = field(default_factory=dict)
    objects: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def convert(
    root: str | Path,
    target: Target,
    out: str | Path,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
    **options: str | None,
) -> Conversion:
    """Writes all splits of a data set in another layout, whole or not at all. Images are copied byte for byte.

    COCO gets all objects as annotated: ignored ones as crowds, and further columns of the table as keys.
    YOLO and VOC get boxes clipped to their image, without those that then have no area, and without ignored
    objects, for which they have no flag; VOC's are whole pixels. YOLO has no flag for difficult objects either.
    MOTChallenge gets clips: tracks, classes, boxes as annotated, visible shares, and a flag for ignored objects.
    COCO gets tracks too. What is left out is counted in the notes, also columns that the layout has no place for,
    as are images, clips and classes whose names could not be read again and are changed. A split such as
    `train2017` is written as `train`.

    Args:
        root: a folder in any layout of `LAYOUTS`.
        target: the layout to write.
        out: the folder to make.
        force: replace an earlier data set at `out`.
        progress: called with the number of images written, and of all, every now and then.
        options: of the layout that is read, see `Layout.read`.

    Raises:
        InputError: as the layout's reader; if an image is missing, or of another shape than annotated; if `out`
            exists and must not be replaced, or holds `root`; if YOLO has no place for a split; if there are no
            clips for MOTChallenge.
    """
    folder = Path(root)
    if folder.resolve().is_relative_to(Path(out).resolve()):
        raise InputError(f"output '{out}' would replace the data set that is read, '{root}': choose another")
    with atomic_dir(out, force) as made:
        layout = find_layout(folder)
        done = Conversion(layout.name)
        tables = _read_splits(layout, folder, target, done, options)
        names = list(dict.fromkeys(name for table in tables.values() for name in table.category_names))
        if target == "mot":
            tables, renamed = _with_clip_folders(tables, root)
            file_names = {split: _frame_names(table) for split, table in tables.items()}
        else:
            file_names, renamed = copy_names(tables, one_folder=target == "voc", any_suffix=target == "coco")
        written_names, renamed_classes = (names, []) if target == "coco" else class_names(names)
        for what, changes in (("clips" if target == "mot" else "images", renamed), ("classes", renamed_classes)):
            if changes:
                why = "as two would share a name or a name can't be kept"
                done.notes.append(f"{what} renamed, {why}: {len(changes)} ({changes[0]})")
        total = sum(len(table.image_names) for table in tables.values())
        written = 0
        for split, table in tables.items():
            fitted = replace(_fit_to_images(_renumber(table, names)), category_names=written_names)
            kept = _expressible(fitted, split, target, done)
            for path, copy in zip(kept.image_paths, file_names[split], strict=True):
                _copy(path, made / _image_folder(target, split) / copy)
                written += 1
                if progress is not None:
                    progress(written, total)
            _WRITERS[target](made, split, kept, file_names[split])
            done.images[split], done.objects[split] = len(kept.image_names), len(kept.image)
        if target == "yolo":
            write_data_yaml(made, list(tables), written_names)
        elif target == "voc":
            (made / "classes.txt").write_text("".join(f"{name}\n" for name in written_names), "utf-8")
    return done


# What is read ---------------------------------------------------------------------------------------------


def _read_splits(
    layout: Layout, root: Path, target: Target, done: Conversion, options: Mapping[str, str | None]
) -> dict[str, AnnotationTable]:
    """Reads the tables, by the splits' names in the new data set."""
    splits = layout.splits(root)
    stands_for = standard_splits(splits)
    tables = {}
    for name, split in zip(splits, stands_for, strict=True):
        new = split if stands_for.count(split) == 1 else name
        try:
            table = layout.read(root, name, **options)
        except EmptySplitError as error:
            done.notes.append(str(error))
            continue
        if target == "yolo" and new not in SPLITS:
            raise InputError(f"'{root}' has a split '{name}', but a data.yaml only {', '.join(SPLITS)}: rename it")
        tables[new] = table
        done.notes += [f"{name}: {note}" for note in table.notes]
    if not tables:
        raise InputError(f"'{root}' ({layout.name}) has no split with images")
    return tables


def _with_clip_folders(
    tables: Mapping[str, AnnotationTable], root: str | Path
) -> tuple[dict[str, AnnotationTable], list[str]]:
    """Returns the tables with names of clips that are names of folders, and all changes of a name, in words.

    Raises:
        InputError: if images are not frames of clips, or objects have no tracks.
    """
    named, changes = {}, list[str]()
    for split, table in tables.items():
        if table.clip_names is None or table.track_id is None:
            what = "clips" if table.clip_names is None else "tracks"
            raise InputError(
                f"'{root}', split {split}, has no {what}, so it can't be written as mot: choose another"
            )
        folders, renamed = clip_folders(table.clip_names)
        rates = {folder: frame_rate(table, name) for folder, name in zip(folders, table.clip_names, strict=True)}
        named[split] = replace(table, clip_names=folders, info={**table.info, **frame_rates_info(rates)})
        changes += renamed
    return named, changes


def _frame_names(table: AnnotationTable) -> list[str]:
    """Returns the name of each frame relative to its split."""
    assert table.clip is not None
    assert table.clip_names is not None
    starts = np.searchsorted(table.clip, table.clip)
    return [
        frame_name(table.clip_names[clip], image - start, copy_suffix(path))
        for image, (path, clip, start) in enumerate(
            zip(table.image_paths, table.clip.tolist(), starts.tolist(), strict=True)
        )
    ]


def _renumber(table: AnnotationTable, names: Sequence[str]) -> AnnotationTable:
    """Returns the same objects with the categories of all splits."""
    position = np.array([names.index(name) for name in table.category_names] or [0], dtype=np.int64)
    return replace(table, category=position[table.category], category_names=list(names))


def _fit_to_images(table: AnnotationTable) -> AnnotationTable:
    """Returns sizes and boxes for the images as shown; annotations may be of a reduced copy."""
    sizes = np.array([image_size(path) for path in table.image_paths], dtype=np.int64)
    for path, size, annotated in zip(table.image_paths, sizes.tolist(), table.image_sizes.tolist(), strict=True):
        if not same_shape(size, annotated):
            raise InputError(
                f"{path}: {size[1]} x {size[0]} pixels, but annotated as {annotated[1]} x {annotated[0]}: "
                "use the image annotated"
            )
    scale = (sizes / table.image_sizes)[table.image][:, [1, 0, 1, 0]]
    return replace(table, image_sizes=sizes, boxes_px=table.boxes_px * scale)


def _expressible(table: AnnotationTable, split: str, target: Target, done: Conversion) -> AnnotationTable:
    """Clips boxes, and leaves out and counts what the target layout can't express."""
    images = np.arange(len(table.image_names))
    unwritten = [key for key in _KEYS if key not in _WRITTEN[target] and getattr(table, key) is not None]
    names = ", ".join("masks" if key == "mask_names" else key for key in unwritten)
    lost = {f"keys that {target} has no place for, left out ({names})": len(unwritten)}
    if target in {"coco", "mot"}:
        finite = np.asarray(np.isfinite(table.boxes_px).all(axis=1))
        lost["boxes that are not finite, left out"] = int((~finite).sum())
        _count(done, split, lost | _difficult(table, target, finite))
        return table.subset(np.flatnonzero(finite), images)
    sizes = table.image_sizes[table.image]
    relative, has_area = clip_boxes(table.boxes_px, sizes)
    kept = has_area & ~table.ignored
    lost |= {
        f"ignored objects, for which {target} has no flag, left out": int(table.ignored.sum()),
        "boxes without area in their image, left out": int((~has_area & ~table.ignored).sum()),
        **_difficult(table, target, kept),
    }
    clipped = replace(table, boxes_px=relative * sizes[:, [1, 0, 1, 0]]).subset(np.flatnonzero(kept), images)
    first = _first_of_each(clipped, target)
    lost["objects whose class and box, as written, another of their image has, left out"] = len(
        clipped.image
    ) - len(first)
    _count(done, split, lost)
    return clipped.subset(first, images)


def _difficult(table: AnnotationTable, target: Target, kept: NDArray[np.bool_]) -> dict[str, int]:
    if table.difficult is None or "difficult" in _WRITTEN[target]:
        return {}
    return {"difficult objects, written as any other": int((table.difficult & kept).sum())}


def _first_of_each(table: AnnotationTable, target: Target) -> NDArray[np.int64]:
    """Returns the rows without those that would be written like an earlier one, because readers drop these."""
    written: list[Any] = (
        yolo_lines(table) if target == "yolo" else [tuple(box) for box in voc_boxes(table).tolist()]
    )
    difficult = (
        itertools.repeat(False) if table.difficult is None or target == "yolo" else table.difficult.tolist()
    )
    rows: dict[tuple[Any, ...], int] = {}
    for row, key in enumerate(
        zip(table.image.tolist(), table.category.tolist(), written, difficult, strict=False)
    ):
        rows.setdefault(key, row)
    return np.array([*rows.values()], dtype=np.int64)


def _count(done: Conversion, split: str, lost: Mapping[str, int]) -> None:
    done.notes += [f"{split}: {what}: {number}" for what, number in lost.items() if number]


def _image_folder(target: Target, split: str) -> str:
    return {"coco": split, "yolo": f"images/{split}", "voc": "JPEGImages", "mot": split}[target]


def _copy(path: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, copy)


_KEYS = ("clip", "track_id", "visible", "draw_order", "source_index", "depth", "attributes", "mask_names")
"""The columns of a table, beside boxes and classes, whose loss is noted."""

_WRITTEN: dict[Target, frozenset[str]] = {
    "coco": frozenset({"difficult", *_KEYS} - {"mask_names"}),
    "yolo": frozenset(),
    "voc": frozenset({"difficult"}),
    "mot": frozenset({"clip", "track_id", "visible"}),
}
"""The columns that each layout has a place for."""

_WRITERS: dict[Target, Callable[[Path, str, AnnotationTable, Sequence[str]], None]] = {
    "coco": write_coco,
    "yolo": write_yolo,
    "voc": write_voc,
    "mot": write_mot,
}
