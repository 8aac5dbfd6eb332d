"""The `Layout` of a data set: functions that recognise it, list the splits of a folder, and read a split."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ssdir.data.annotations import AnnotationTable
from ssdir.data.folders import visible
from ssdir.data.image_files import is_image_name
from ssdir.data.readers.slices import sliced, split_bounds
from ssdir.data.readers.splits import SPLITS, find_split, hold_out, standard_splits
from ssdir.errors import EmptySplitError, InputError, MissingSplitError, nearest

# Recognising a layout must not take long, whatever folder it is.
_MAX_FOLDERS = 200
_MAX_DEPTH = 2

_LAYOUTS_BY_OPTION: dict[str, list[str]] = {}
"""The names of the layouts that have an option, for messages."""


@dataclass(frozen=True)
class Layout:
    """A file format for images with annotated objects in a folder.

    Attributes:
        name: the layout's name.
        recognises: returns whether a folder has the layout.
        splits: lists the splits that a folder has.
        reader: reads the annotations of a folder and a split, with some of `options`.
        options: names of options, and the values of each.
    """

    name: str
    recognises: Callable[[Path], bool]
    splits: Callable[[Path], list[str]]
    reader: Callable[..., AnnotationTable]
    options: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option in self.options:
            layouts = _LAYOUTS_BY_OPTION.setdefault(option, [])
            layouts += [self.name] if self.name not in layouts else []

    def read(self, root: Path, split: str, **options: str | None) -> AnnotationTable:
        """Reads the annotations of a split.

        Args:
            root: folder of the data set.
            split: name of the split; `train`, `val` and `test` also stand for the only one with such a name, such
                as train2017, and `train` for the only one there is, whatever its name. `train[:260]` is the first
                260 images of train and `train[260:]` are the others, see `sliced`.
            options: values of some of `options`; None stands for the reader's default.

        Raises:
            InputError: if the layout has no such option or value, the annotations are missing or broken, or the
                split has no such images.
        """
        given = self._checked(root, options)
        name, bounds = split_bounds(split)
        existing = find_split(name, self.splits(root)) if name in SPLITS else None
        table = self.reader(root, existing or name, **given)
        return table if bounds is None else sliced(table, bounds, f"'{root}', split {split}")

    def read_for_training(self, root: Path, split: str, **options: str | None) -> AnnotationTable:
        """Reads as `read`, but holds `val` out of `train` where there is none, or an empty one: see `hold_out`.

        Raises:
            InputError: as `read`.
        """
        if split == "val":
            with suppress(MissingSplitError, EmptySplitError):
                return self.read(root, split, **options)
        source = self.held_out_of(root)
        if source is None or split not in (source, "train", "val"):
            return self.read(root, split, **options)
        train, val = hold_out(self.read(root, source, **options), f"'{root}', split {source},")
        return val if split == "val" else train

    def held_out_of(self, root: Path) -> str | None:
        """Returns the split that training holds out `val` of; None where `val` has images, or train is missing.

        Raises:
            InputError: if the file that lists the splits is broken.
        """
        names = self.splits(root)
        train = find_split("train", names)
        if train is None or standard_splits(names).count("val") > 1:
            return None
        try:
            self.reader(root, find_split("val", names) or "val")
        except (MissingSplitError, EmptySplitError):
            return train
        except InputError:  # A val that can't be read is a mistake to report, so no split is made for it.
            return None
        return None

    def known(self, options: Mapping[str, str | None]) -> dict[str, str]:
        """Selects the options and values that the layout has."""
        given = {name: value for name, value in options.items() if value is not None}
        return {name: value for name, value in given.items() if value in self.options.get(name, ())}

    def _checked(self, root: Path, options: Mapping[str, str | None]) -> dict[str, str]:
        """Returns the options that are not None, with values that the layout has."""
        given = {name: value for name, value in options.items() if value is not None}
        for name, value in given.items():
            if name not in self.options:
                others = ", ".join(_LAYOUTS_BY_OPTION.get(name, ()))
                known = f", only {others} has" if others else ""
                raise InputError(f"'{root}' is {self.name}, which has no option '{name}'{known}: leave it out")
            if value not in (choices := self.options[name]):
                hint = nearest(str(value), choices) or f"; {self.name} has {', '.join(choices)}"
                raise InputError(f"'{root}': unknown value '{value}' of option '{name}'{hint}")
        return given


def labels_beside_images(root: Path, suffix: str) -> Iterator[Path]:
    """Yields the files with a suffix that have the same name as an image beside them, as desktop tools save them.

    Searches the folder and its subfolders two levels deep, but at most 200 folders.
    """
    folders = [(root, 0)] if root.is_dir() else []
    searched = 0
    while folders and searched < _MAX_FOLDERS:
        folder, depth = folders.pop(0)
        searched += 1
        if not os.access(folder, os.R_OK | os.X_OK):
            continue
        paths = sorted(visible(folder.iterdir()))
        stems = {path.stem for path in paths if is_image_name(path)}
        yield from (path for path in paths if path.suffix.lower() == suffix and path.stem in stems)
        if depth < _MAX_DEPTH:
            folders += [(path, depth + 1) for path in paths if path.is_dir()]
