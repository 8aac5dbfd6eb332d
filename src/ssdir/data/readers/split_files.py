"""Looking for the file of a split, and saying what is there instead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssdir.data.folders import find_folder, listing, visible
from ssdir.errors import MissingSplitError


def list_splits(root: str | Path, pattern: str) -> list[str]:
    """The splits that have a file: what stands for the `*` of, say, `annotations/instances_*.json`."""
    prefix, suffix = Path(pattern).name.split("*")
    found = visible((Path(root) / pattern).parent.glob(Path(pattern).name))
    return sorted(path.name.removeprefix(prefix).removesuffix(suffix) for path in found)


def find_split(
    root: str | Path, pattern: str, split: str, found: Sequence[str] | None = None, remark: str = ""
) -> Path:
    """The file of a split.

    Args:
        root: folder of the data set.
        pattern: where the file is, with `*` for the split.
        split: its name.
        found: the splits that there are, for the message; by default all that have a file.
        remark: what else to say if the file is not there.

    Raises:
        MissingSplitError: if the file is missing.
        InputError: if the folder is.
    """
    folder, name = find_folder(root), pattern.replace("*", split)
    path = folder / name
    if not path.is_file():
        found = list_splits(folder, pattern) if found is None else found
        why = f"{name} is missing" + (f" ({remark})" if remark else "")
        raise missing_split(root, split, found or [f"none: {listing(path.parent, folder)}"], why)
    return path


def missing_split(root: str | Path, split: str, found: Sequence[str], why: str) -> MissingSplitError:
    """The error that a data set has no such split, but others."""
    return MissingSplitError(f"'{root}' has no split '{split}' (there is {', '.join(found) or 'none'}): {why}")
