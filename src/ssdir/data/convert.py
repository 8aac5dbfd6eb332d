"""Writing a data set, all of its splits, in another layout: COCO, YOLO or Pascal VOC."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal, TypeAlias
from xml.etree import ElementTree

import numpy as np
import yaml
from numpy.typing import NDArray

from ssdir.data.annotations import AnnotationTable, clip_boxes, same_shape
from ssdir.data.images import image_size
from ssdir.data.layouts import Layout, find_layout
from ssdir.data.table_builder import SPLITS, stand_for
from ssdir.errors import EmptySplitError, InputError
from ssdir.outputs import atomic_dir

Target: TypeAlias = Literal["coco", "yolo", "voc"]


@dataclass
class Conversion:
    """What was written.

    Attributes:
        layout: the name of the layout that was read.
        images: their number in each split.
        objects: their number in each split.
        notes: what was left out or passed over, as sentences.
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

    COCO gets all objects as annotated: ignored ones as crowds, and what the table knows besides as further keys.
    YOLO and VOC get boxes clipped to their image, without those that then have no area, and without ignored
    objects, for which they have no flag; VOC's are whole pixels. YOLO has no flag for difficult objects either.
    What is left out is counted in the notes. A split such as `train2017` is written as `train`.

    Args:
        root: a folder in any layout of `LAYOUTS`.
        target: the layout to write.
        out: the folder to make.
        force: replace an earlier data set at `out`.
        progress: called with the number of images written, and of all, every now and then.
        options: of the layout that is read, see `Layout.read`.

    Raises:
        InputError: as the layout's reader; if an image is missing, or of another shape than annotated; if `out`
            exists and must not be replaced, or holds `root`; if YOLO has no place for a split.
    """
    folder = Path(root)
    if folder.resolve().is_relative_to(Path(out).resolve()):
        raise InputError(f"output '{out}' would replace the data set that is read, '{root}': choose another")
    with atomic_dir(out, force) as made:
        layout = find_layout(folder)
        done = Conversion(layout.name)
        tables = _read_splits(layout, folder, target, done, options)
        names = list(dict.fromkeys(name for table in tables.values() for name in table.category_names))
        file_names = _file_names(tables, one_folder=target == "voc")
        total = sum(len(table.image_names) for table in tables.values())
        written = 0
        for split, table in tables.items():
            fitted = _fit_to_images(_renumber(table, names))
            kept = fitted if target == "coco" else _without_unflagged(fitted, split, target, done)
            for path, copy in zip(kept.image_paths, file_names[split], strict=True):
                _copy(path, made / _image_folder(target, split) / copy)
                written += 1
                if progress is not None:
                    progress(written, total)
            _WRITERS[target](made, split, kept, file_names[split])
            done.images[split], done.objects[split] = len(kept.image_names), len(kept.image)
        if target == "yolo":
            _write_data_yaml(made, list(tables), names)
        elif target == "voc":
            (made / "classes.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
    return done


# What is read ---------------------------------------------------------------------------------------------


def _read_splits(
    layout: Layout, root: Path, target: Target, done: Conversion, options: Mapping[str, str | None]
) -> dict[str, AnnotationTable]:
    """The tables by the splits' names in the new data set."""
    found = layout.splits(root)
    stands_for = stand_for(found)
    tables = {}
    for name, split in zip(found, stands_for, strict=True):
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


def _renumber(table: AnnotationTable, names: Sequence[str]) -> AnnotationTable:
    """The same objects, with the categories of all splits."""
    position = np.array([names.index(name) for name in table.category_names] or [0], dtype=np.int64)
    return replace(table, category=position[table.category], category_names=list(names))


def _fit_to_images(table: AnnotationTable) -> AnnotationTable:
    """Sizes and boxes of the images as they are, upright; annotations may be of a reduced copy."""
    sizes = np.array([image_size(path) for path in table.image_paths], dtype=np.int64)
    for path, size, told in zip(table.image_paths, sizes.tolist(), table.image_sizes.tolist(), strict=True):
        if not same_shape(size, told):
            raise InputError(
                f"{path}: {size[1]} x {size[0]} pixels, but annotated as {told[1]} x {told[0]}: "
                "use the image annotated"
            )
    scale = (sizes / table.image_sizes)[table.image][:, [1, 0, 1, 0]]
    return replace(table, image_sizes=sizes, boxes_px=table.boxes_px * scale)


def _without_unflagged(table: AnnotationTable, split: str, target: Target, done: Conversion) -> AnnotationTable:
    """Boxes clipped; what the target can't express is left out, and counted."""
    sizes = table.image_sizes[table.image]
    relative, has_area = clip_boxes(table.boxes_px, sizes)
    kept = has_area & ~table.ignored
    lost = {
        f"ignored objects, for which {target} has no flag, left out": int(table.ignored.sum()),
        "boxes without area in their image, left out": int((~has_area & ~table.ignored).sum()),
    }
    if target == "yolo" and table.difficult is not None:
        lost["difficult objects, written as any other"] = int((table.difficult & kept).sum())
    done.notes += [f"{split}: {what}: {number}" for what, number in lost.items() if number]
    clipped = replace(table, boxes_px=relative * sizes[:, [1, 0, 1, 0]])
    return clipped.subset(np.flatnonzero(kept), np.arange(len(table.image_names)))


def _file_names(tables: Mapping[str, AnnotationTable], one_folder: bool) -> dict[str, list[str]]:
    """What the copies are called: as the images, or if two would share a name, with what tells them apart."""

    def key(split: str, name: str) -> tuple[str, str]:
        return "" if one_folder else split, Path(name).stem.casefold()

    shared = Counter(key(split, name) for split, table in tables.items() for name in table.image_names)
    used = {which for which, number in shared.items() if number == 1}

    def free_name(split: str, name: str) -> str:
        path = Path(name)
        if shared[key(split, name)] == 1:
            return path.name
        parts = [part for part in path.parts if part != path.anchor]
        stems = (f"{split}_{path.stem}", f"{split}_{'_'.join(parts).removesuffix(path.suffix)}")
        candidates = chain(stems, (f"{stems[0]}_{n}" for n in count(2)))
        free = next(stem for stem in candidates if key(split, f"{stem}.x") not in used)
        used.add(key(split, f"{free}.x"))
        return free + path.suffix

    return {split: [free_name(split, name) for name in table.image_names] for split, table in tables.items()}


def _image_folder(target: Target, split: str) -> str:
    return {"coco": split, "yolo": f"images/{split}", "voc": "JPEGImages"}[target]


def _copy(path: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, copy)


# What is written ------------------------------------------------------------------------------------------


def _rows_of_images(table: AnnotationTable) -> Iterator[NDArray[np.int64]]:
    """The objects of each image, in their order."""
    order = np.argsort(table.image, kind="stable")
    counts = np.bincount(table.image, minlength=len(table.image_names))
    return iter(np.split(order, np.cumsum(counts)[:-1]))


def _write_coco(folder: Path, split: str, table: AnnotationTable, file_names: Sequence[str]) -> None:
    sizes = zip(file_names, table.image_sizes.tolist(), strict=True)
    content = {
        "info": dict(table.info),
        "licenses": [],
        "categories": [
            {"id": i, "name": name, "supercategory": ""} for i, name in enumerate(table.category_names, start=1)
        ],
        "images": [
            {"id": i, "file_name": name, "width": width, "height": height}
            for i, (name, (height, width)) in enumerate(sizes, start=1)
        ],
        "annotations": list(_coco_annotations(table)),
    }
    path = folder / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), "utf-8")


def _coco_annotations(table: AnnotationTable) -> Iterator[dict[str, Any]]:
    columns = {
        "draw_order": table.draw_order,
        "source_index": table.source_index,
        "difficult": None if table.difficult is None else table.difficult.astype(np.int64),
        "depth": table.depth,
        "visible": table.visible,
    }
    known = {name: column.tolist() for name, column in columns.items() if column is not None}
    ids = count(1)
    for image, rows in enumerate(_rows_of_images(table), start=1):
        for row in rows.tolist():
            x1, y1, x2, y2 = table.boxes_px[row].tolist()
            yield {
                "id": next(ids),
                "image_id": image,
                "category_id": int(table.category[row]) + 1,
                "bbox": [round(value, 6) for value in (x1, y1, x2 - x1, y2 - y1)],
                "area": round((x2 - x1) * (y2 - y1), 6),
                "iscrowd": int(table.ignored[row]),
                **{name: column[row] for name, column in known.items()},
                **_attributes(table, row),
            }


def _attributes(table: AnnotationTable, row: int) -> dict[str, dict[str, str]]:
    if table.attributes is None or table.attribute_names is None:
        return {}
    names = table.attribute_names
    return {"attributes": {name: names[name][int(column[row])] for name, column in table.attributes.items()}}


def _write_yolo(folder: Path, split: str, table: AnnotationTable, file_names: Sequence[str]) -> None:
    labels = folder / "labels" / split
    labels.mkdir(parents=True)
    height_width = table.image_sizes[table.image]
    x1, y1, x2, y2 = (table.boxes_px / height_width[:, [1, 0, 1, 0]]).T
    boxes = np.stack([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1], axis=1)
    for name, rows in zip(file_names, _rows_of_images(table), strict=True):
        lines = [f"{table.category[row]} {' '.join(f'{v:.8g}' for v in boxes[row])}\n" for row in rows]
        (labels / f"{Path(name).stem}.txt").write_text("".join(lines), "utf-8")


def _write_data_yaml(folder: Path, splits: Sequence[str], names: Sequence[str]) -> None:
    # No `path`: then the tools that read it take the folder of the file itself.
    content = {**{split: f"images/{split}" for split in splits}, "names": dict(enumerate(names))}
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, "utf-8")


def _write_voc(folder: Path, split: str, table: AnnotationTable, file_names: Sequence[str]) -> None:
    annotations, lists = folder / "Annotations", folder / "ImageSets" / "Main"
    for made in (annotations, lists):
        made.mkdir(parents=True, exist_ok=True)
    for image, (name, rows) in enumerate(zip(file_names, _rows_of_images(table), strict=True)):
        path = annotations / f"{Path(name).stem}.xml"
        tree = ElementTree.ElementTree(_voc_annotation(table, image, name, rows.tolist()))
        ElementTree.indent(tree)
        tree.write(path, encoding="utf-8")
    (lists / f"{split}.txt").write_text("".join(f"{Path(name).stem}\n" for name in file_names), "utf-8")


def _voc_annotation(table: AnnotationTable, image: int, name: str, rows: list[int]) -> ElementTree.Element:
    height, width = table.image_sizes[image].tolist()
    root = ElementTree.Element("annotation")
    _add(root, {"folder": "JPEGImages", "filename": name})
    _add(ElementTree.SubElement(root, "size"), {"width": width, "height": height, "depth": 3})
    _add(root, {"segmented": 0})
    for row in rows:
        x1, y1, x2, y2 = (round(value) for value in table.boxes_px[row].tolist())
        x1, y1 = min(x1, width - 1), min(y1, height - 1)
        item = ElementTree.SubElement(root, "object")
        difficult = 0 if table.difficult is None else int(table.difficult[row])
        _add(item, {"name": table.category_names[int(table.category[row])], "difficult": difficult})
        # From pixel 1, and with the last pixel, of which there is at least one.
        box = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": max(x2, x1 + 1), "ymax": max(y2, y1 + 1)}
        _add(ElementTree.SubElement(item, "bndbox"), box)
    return root


def _add(element: ElementTree.Element, texts: Mapping[str, object]) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(element, tag).text = str(text)


_WRITERS: dict[Target, Callable[[Path, str, AnnotationTable, Sequence[str]], None]] = {
    "coco": _write_coco,
    "yolo": _write_yolo,
    "voc": _write_voc,
}
