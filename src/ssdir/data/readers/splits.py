"""The splits of a data set: their files, their names, and the division of data sets that have none."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar, get_args

import numpy as np

from ssdir.data.annotations import AnnotationTable
from ssdir.data.folders import find_folder, listing, visible
from ssdir.errors import EmptySplitError, InputError, MissingSplitError

Key = TypeVar("Key", bound=str | Path)

SplitName: TypeAlias = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
"""The standard names of splits, and those that `divide` makes."""

# A division leaves at least one image for each of train, val and test.
_FEWEST_TO_DIVIDE = 3
_FEWEST_TO_HOLD_OUT = 2


def list_splits(root: Path, pattern: str) -> list[str]:
    """Lists the splits that have a file: the names that match the `*` of, say, `annotations/instances_*.json`."""
    prefix, suffix = Path(pattern).name.split("*")
    files = visible((root / pattern).parent.glob(Path(pattern).name))
    return sorted(path.name.removeprefix(prefix).removesuffix(suffix) for path in files)


def find_split_file(
    root: Path, pattern: str, split: str, existing: Sequence[str] | None = None, remark: str = ""
) -> Path:
    """Finds the file of a split.

    Args:
        root: folder of the data set.
        pattern: path of the file, with `*` for the split.
        split: name of the split.
        existing: the splits that exist, for the error message; by default all that have a file.
        remark: text that the error message adds if the file is missing.

    Raises:
        MissingSplitError: if the file is missing.
        InputError: if the folder is missing.
    """
    folder, name = find_folder(root), pattern.replace("*", split)
    path = folder / name
    if not path.is_file():
        existing = list_splits(folder, pattern) if existing is None else existing
        why = f"{name} is missing" + (f" ({remark})" if remark else "")
        raise missing_split(root, split, existing or [f"none: {listing(path.parent, folder)}"], why)
    return path


def missing_split(root: Path, split: str, existing: Sequence[str], why: str) -> MissingSplitError:
    """Makes the error for a split that a data set lacks; the message names the existing ones."""
    return MissingSplitError(f"'{root}' has no split '{split}' (there is {', '.join(existing) or 'none'}): {why}")


def standard_split(name: str) -> str:
    """Returns the split that a name stands for: `train` for train2017, `val` for valid; else the name itself."""
    return next((split for split in SPLITS if name.lower().startswith(split)), name)


def standard_splits(names: Sequence[str]) -> list[str]:
    """Returns the `standard_split` of each split; if there is one split with another name, it is `train`."""
    splits = [standard_split(name) for name in names]
    return ["train"] if len(splits) == 1 and splits[0] not in SPLITS else splits


def find_split(split: str, names: Sequence[str]) -> str | None:
    """Returns the name of a split in a data set: the name itself, or the only name that stands for it."""
    called = [name for name, stands_for in zip(names, standard_splits(names), strict=True) if stands_for == split]
    return split if split in names else called[0] if len(called) == 1 else None


def divide(keys: Sequence[Key], split: str, where: str) -> list[Key]:
    """Selects the images of a split in a data set that has no splits.

    `all` is everything. `val` and `test` are a tenth each, at least one image, and `train` is the rest; of too few
    images to divide, `train` has all. Only the images' names decide, by their hash, so neither their order nor the
    place of the folder matters.

    Raises:
        EmptySplitError: if there are too few images for `val` and `test`; it names `where`.
        InputError: if `split` is none of these.
    """
    if split == "all" or (split == "train" and 0 < len(keys) < _FEWEST_TO_DIVIDE):
        return sorted(keys)
    if split not in SPLITS:
        raise InputError(
            f"{where} is not divided into splits: ask for train, val or test (80, 10 and 10 % of the "
            f"images), or all, not '{split}'"
        )
    if len(keys) < _FEWEST_TO_DIVIDE:
        why = f"too few images to divide into train, val and test ({len(keys)})"
        raise EmptySplitError(f"{where}: {why}: train has all of them")
    ranked, tenth = _by_hash(keys), _tenth(keys)
    parts = {"val": ranked[:tenth], "test": ranked[tenth : 2 * tenth], "train": ranked[2 * tenth :]}
    return sorted(parts[split])


def hold_out(table: AnnotationTable, where: str) -> tuple[AnnotationTable, AnnotationTable]:
    """Divides a split into `train` and a `val` of a tenth of it, for data sets without a validation split.

    `val` has at least one image, and the ones that `divide` would select. Of clips, it has whole ones, at least
    one, because the frames of a clip resemble each other. A note of it says where it is from.

    Raises:
        InputError: if there is only one image, or only one clip; it names `where`.
    """
    names, what = table.image_names, "image"
    of_image = np.arange(len(names))
    if table.clip is not None and table.clip_names is not None:
        names, what, of_image = table.clip_names, "clip", table.clip
    if len(names) < _FEWEST_TO_HOLD_OUT:
        raise InputError(
            f"{where} has one {what}, so none can be held out to validate on: add {what}s, or a split val"
        )
    held = {*_by_hash(names)[: _tenth(names)]}
    objects, is_held = np.arange(len(table.image)), np.array([name in held for name in names])[of_image]
    train, val = (table.subset(objects, np.flatnonzero(part)) for part in (~is_held, is_held))
    part = f"{len(held)} of the {len(names)} {what}s of {where.rstrip(',')}"
    note = f"{part}: there is no other val, so training leaves them out"
    return train, replace(val, notes=(*val.notes, note))


def hash_name(name: str) -> bytes:
    """Returns the hash of a name, the same for all of its Unicode forms: systems store accents differently."""
    return hashlib.sha256(os.fsencode(unicodedata.normalize("NFC", name))).digest()


def _by_hash(keys: Sequence[Key]) -> list[Key]:
    """Sorts names by their hash, an order that nothing else influences."""
    return sorted(keys, key=lambda key: hash_name(str(key)))


def _tenth(keys: Sequence[Key]) -> int:
    return max(1, len(keys) // 10)
