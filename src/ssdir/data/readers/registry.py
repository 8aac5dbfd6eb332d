"""Which layout a folder of images with objects has, and what reads it."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ssdir.data.annotations import AnnotationTable, keep_readable
from ssdir.data.dataset import ObjectDataset, Transform
from ssdir.data.folders import find_folder, listing
from ssdir.data.readers.clevr.reader import EXTENTS, VOCABULARIES, clevr_splits, is_clevr, read_clevr
from ssdir.data.readers.clevrtex import clevrtex_splits, is_clevrtex, read_clevrtex
from ssdir.data.readers.coco.reader import OUTSIDE, coco_splits, is_coco, is_loose_coco, read_coco
from ssdir.data.readers.mask_folder import is_mask_folder, mask_folder_splits, read_mask_folder
from ssdir.data.readers.table_builder import SPLITS, find_name, hold_out, stand_for
from ssdir.data.readers.tfrecord.multi_object import is_record_file
from ssdir.data.readers.voc.reader import is_voc, is_voc_beside, read_voc, voc_splits
from ssdir.data.readers.widerface import is_widerface, read_widerface, widerface_splits
from ssdir.data.readers.yolo.reader import is_darknet, is_yolo, is_yolo_beside, read_yolo, yolo_splits
from ssdir.errors import InputError, InputWarning, MissingSplitError, nearest


@dataclass(frozen=True)
class Layout:
    """A way to keep images with objects in a folder.

    Attributes:
        name: what it is called.
        looks_for: what in the folder it is recognised by.
        recognises: whether a folder has it.
        reader: a folder, a split and maybe some of `options` to what is annotated.
        splits: the splits that a folder has.
        options: what can be read in more than one way: by name, the values to choose from.
    """

    name: str
    looks_for: str
    recognises: Callable[[Path], bool]
    reader: Callable[..., AnnotationTable]
    splits: Callable[[Path], list[str]]
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def read(self, root: Path, split: str, **options: str | None) -> AnnotationTable:
        """Reads what is annotated.

        Args:
            root: folder of the data set.
            split: which part of it; `train`, `val` and `test` also stand for the only one called like them, such
                as train2017, and `train` for the only one there is, whatever it is called.
            options: by name, a value of `options`; one that is None, or not given, is as the reader has it.

        Raises:
            InputError: if the layout has no such option or value, or the annotations are missing or broken.
        """
        given = self._checked(root, options)
        return self.reader(root, self._name(root, split), **given)

    def read_for_training(self, root: Path, split: str, **options: str | None) -> AnnotationTable:
        """Reads as `read`, but `val` is held out of `train` where there is none: see `hold_out`.

        Raises:
            InputError: as `read`.
        """
        source = self.held_out_of(root)
        if source is None or split not in (source, "train", "val"):
            return self.read(root, split, **options)
        train, val = hold_out(self.read(root, source, **options), f"'{root}', split {source},")
        return val if split == "val" else train

    def held_out_of(self, root: Path) -> str | None:
        """The split of which training holds out `val`; None where there is one, or nothing to train on.

        Raises:
            InputError: if what describes the splits is broken.
        """
        named = self.splits(root)
        train = find_name("train", named)
        if train is None or "val" in stand_for(named):
            return None
        # A data.yaml may name a val that is not where it says: that is a mistake to be told, not a split to make.
        try:
            self.reader(root, "val")
        except InputError as error:
            return train if isinstance(error, MissingSplitError) else None
        return None

    def _name(self, root: Path, split: str) -> str:
        """What the folder calls a split."""
        return (find_name(split, self.splits(root)) if split in SPLITS else None) or split

    def _checked(self, root: Path, options: Mapping[str, str | None]) -> dict[str, str]:
        """The options that are given, with values that the layout has."""
        given = {name: value for name, value in options.items() if value is not None}
        for name, value in given.items():
            if name not in self.options:
                others = ", ".join(layout.name for layout in LAYOUTS if name in layout.options)
                known = f", only {others} has" if others else ""
                raise InputError(f"'{root}' is {self.name}, which has no option '{name}'{known}: leave it out")
            if value not in self.options[name]:
                choices = self.options[name]
                hint = nearest(str(value), choices) or f"; {self.name} has {', '.join(choices)}"
                raise InputError(f"'{root}': unknown value '{value}' of option '{name}'{hint}")
        return given

    def known(self, options: Mapping[str, str | None]) -> dict[str, str]:
        """Those of some options that the layout has."""
        given = {name: value for name, value in options.items() if value is not None}
        return {name: value for name, value in given.items() if value in self.options.get(name, ())}


LAYOUTS = (
    Layout(
        "CLEVR",
        "scenes/CLEVR_*_scenes.json",
        is_clevr,
        read_clevr,
        clevr_splits,
        {"boxes": EXTENTS, "vocabulary": tuple(VOCABULARIES)},
    ),
    Layout(
        "COCO",
        "annotations/instances_*.json, or */_annotations.coco.json",
        is_coco,
        read_coco,
        coco_splits,
        {"outside": OUTSIDE},
    ),
    Layout(
        "WIDER FACE",
        "wider_face_split/*_bbx_gt.txt",
        is_widerface,
        read_widerface,
        widerface_splits,
    ),
    Layout("Pascal VOC", "Annotations/*.xml", is_voc, read_voc, voc_splits),
    Layout("YOLO", "data.yaml, or labels/*.txt", is_yolo, read_yolo, yolo_splits),
    Layout("Darknet", "obj.data", is_darknet, read_yolo, yolo_splits),
    Layout("CLEVRTEX", "CLEVRTEX_*_flat.png", is_clevrtex, read_clevrtex, clevrtex_splits),
    Layout("index masks", "images/ and masks/", is_mask_folder, read_mask_folder, mask_folder_splits),
    Layout("VOC beside images", "*.xml", is_voc_beside, read_voc, voc_splits),
    Layout("YOLO beside images", "*.txt", is_yolo_beside, read_yolo, yolo_splits),
    # Last: a JSON may also lie beside the files of another layout.
    Layout(
        "COCO",
        "any .json with images and annotations",
        is_loose_coco,
        read_coco,
        coco_splits,
        {"outside": OUTSIDE},
    ),
)
"""In the order in which they are tried."""


def find_layout(root: str | Path) -> Layout:
    """The layout of a folder.

    Raises:
        InputError: if there is no such folder, or it has none of `LAYOUTS`.
    """
    path = Path(root)
    if is_record_file(path):
        raise InputError(
            f"'{root}' must be unpacked first: ssdir data unpack {shlex.quote(str(root))} --out FOLDER"
        )
    folder = find_folder(root)
    for layout in LAYOUTS:
        if layout.recognises(folder):
            return layout
    records = next((path for path in sorted(folder.iterdir()) if is_record_file(path)), None)
    if records is not None:
        return find_layout(records)
    near = next((f"; '{path}' looks like one" for path in _around(folder) if _is_known(path)), "")
    looked = "; ".join(f"{layout.name}: {layout.looks_for}" for layout in LAYOUTS)
    raise InputError(
        f"'{root}' has no layout that ssdir knows (looked for {looked}; {listing(folder, folder)}){near}"
    )


def _is_known(folder: Path) -> bool:
    return any(layout.recognises(folder) for layout in LAYOUTS)


def _around(folder: Path) -> Iterator[Path]:
    """The folders in a folder, and the one that it is in, unless that is one of several data sets."""
    yield from sorted(path for path in folder.iterdir() if path.is_dir())
    parent = folder.resolve().parent
    with suppress(OSError):  # It may not be ours to list.
        if not any(_is_known(path) for path in parent.iterdir() if path.is_dir()):
            yield parent


def read_table(root: str | Path, split: str, **options: str | None) -> AnnotationTable:
    """Reads what is annotated, whatever the layout: see `Layout.read`.

    Raises:
        InputError: as `find_layout` and `Layout.read`.
    """
    return find_layout(root).read(Path(root), split, **options)


def open_dataset(
    root: str | Path,
    split: str,
    classes: Literal["all", "object"] | Sequence[str] = "all",
    image_size: int | None = None,
    transform: Transform | None = None,
    preload: bool = False,
    min_side: float = 0.0,
    drop_empty: bool = False,
    for_training: bool = False,
    **options: str | None,
) -> ObjectDataset:
    """Opens a split of a folder in any known layout.

    For the arguments see `ObjectDataset` and `keep_readable`; with `for_training` it is read by
    `Layout.read_for_training`. `options` are the layout's, such as CLEVR's `boxes` and `vocabulary`. What the
    reader mended or passed over is an `InputWarning`.

    Raises:
        InputError: as `read_table`, and as `ObjectDataset`; if no image is left.
    """
    layout = find_layout(root)
    read = layout.read_for_training if for_training else layout.read
    table = read(Path(root), split, **options)
    for note in table.notes:
        warnings.warn(f"'{root}': {note}", InputWarning, stacklevel=2)
    if min_side or drop_empty:
        table = keep_readable(table, min_side, drop_empty)
        if not table.image_names:
            raise InputError(f"'{root}', split {split}: no image has an object of min_side {min_side:g} or more")
    return ObjectDataset(table, classes, image_size, transform, preload)
