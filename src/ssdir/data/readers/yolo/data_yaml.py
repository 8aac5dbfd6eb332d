"""The `data.yaml` of a YOLO data set."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ssdir.config import parse
from ssdir.data.folders import is_there
from ssdir.data.readers.splits import SPLITS, standard_split
from ssdir.data.readers.table_builder import check_names
from ssdir.documents import read_yaml
from ssdir.errors import InputError
from ssdir.formatting import quote

MAX_UNNAMED = 100_000
"""The most classes that may have numbers for names; more are a mistake in the labels."""

_YAML_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NOTHING = ("", "~", "null", "Null", "NULL")
SPLIT_KEYS = ("train", "val", "valid", "validation", "test")
"""The keys that always name splits; others that begin so, such as train2017, do if their path exists."""


def _none_for_nothing(value: Any) -> Any:
    """Returns None for YAML's empty values, because all plain values are read as text."""
    return None if isinstance(value, str) and value in _NOTHING else value


class _Content(BaseModel):
    """The content of a `data.yaml` besides its splits, read as text and converted where numbers are meant.

    Attributes:
        path: the folder that paths start from.
        nc: number of classes.
        names: names of the classes, in order or by number.
        kpt_shape: number of keypoints, and of numbers for each.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    path: Annotated[str | None, BeforeValidator(_none_for_nothing)] = None
    nc: Annotated[Annotated[int, Field(ge=1, le=MAX_UNNAMED)] | None, BeforeValidator(_none_for_nothing)] = None
    names: Annotated[Any, BeforeValidator(_none_for_nothing)] = None
    kpt_shape: Annotated[list[int] | None, BeforeValidator(_none_for_nothing)] = None


class DataYaml(BaseModel):
    """The content of a `data.yaml`.

    Attributes:
        file: the file.
        base: the folder that paths start from.
        names: names of the classes, or None if they only have numbers.
        entries: the folders or lists of a split, by key.
        keypoints: how many numbers follow the box in a label; None if unknown.
    """

    model_config = ConfigDict(frozen=True)

    file: Path
    base: Path
    names: list[str] | None
    entries: dict[str, list[str]]
    keypoints: int | None


def find_yamls(root: Path) -> list[Path]:
    """Finds the files of the usual names; if there are none, those that name classes and a split."""
    usual = [root / name for name in _YAML_NAMES if is_there(root / name)]
    if usual:
        return usual
    candidates = []
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        try:
            content = read_yaml(path, as_text=True)
        except InputError:  # A YAML file about something else need not be readable.
            continue
        if isinstance(content, dict) and {"names", "nc"} & content.keys() and {*SPLITS} & content.keys():
            candidates.append(path)
    return candidates


def read_data_yaml(path: Path) -> DataYaml:
    """Reads a `data.yaml`, without a check that the paths in it exist.

    Raises:
        InputError: if it can't be read, a value is not what it should be, or it names neither splits nor classes.
    """
    values = read_yaml(path, as_text=True)
    if not isinstance(values, dict):
        raise InputError(f"{path} must be a mapping with train, val and names")
    content = parse(_Content, values, source=str(path))
    base = path.parent / (content.path or "")
    entries = {str(key): several for key, value in values.items() if (several := _entries(key, value, path))}
    names = _names(content, "names" in values, path)
    if names is None and not entries.keys() & {*SPLIT_KEYS}:
        raise InputError(
            f"{path} says neither where train, val or test is, nor names classes: give it one of them"
        )
    return DataYaml(
        file=path,
        # Published files name a folder of the machine they were made on, or of the tool that downloads them.
        base=base if os.path.isdir(base) else path.parent,
        names=names,
        entries=entries,
        keypoints=_keypoints(content, "kpt_shape" in values, path),
    )


def _entries(key: Any, value: Any, path: Path) -> list[str]:
    """Returns the folders or lists that a key names; none if it is not a split's."""
    if not isinstance(key, str) or standard_split(key) not in SPLITS or value in _NOTHING or value == []:
        return []
    several = value if isinstance(value, list) else [value]
    wrong = next((entry for entry in several if not isinstance(entry, str) or "\0" in entry), None)
    if wrong is None:
        return several
    if key not in SPLIT_KEYS:  # Such a key is a remark of some tool.
        return []
    what = f"must be a folder, a list of folders or a text file, got {quote(wrong)}"
    raise InputError(f"{path}: {key} {what}")


def _names(content: _Content, is_given: bool, path: Path) -> list[str] | None:
    names, count = content.names, content.nc
    if names is None and is_given and count is not None:
        raise InputError(f"{path}: names is empty, though nc is {count}: list the classes, or remove the key")
    if names is None:
        return None if count is None else [str(i) for i in range(count)]
    if isinstance(names, Mapping):
        names = _in_order(names, path)
    if not isinstance(names, list):
        raise InputError(f"{path}: names must be a list, or a mapping from number to name, got {quote(names)}")
    wrong = next((i for i, name in enumerate(names) if not isinstance(name, str) or not name), None)
    if wrong is not None:
        raise InputError(f"{path}: the name of class {wrong} must be text, got {quote(names[wrong])}")
    check_names(names, str(path))
    if count is not None and count != len(names):
        listed = f"{len(names)} ({quote(names[0])} ... {quote(names[-1])})"
        raise InputError(f"{path}: nc is {count}, but names has {listed}: correct one of them")
    return list(names)


def _in_order(names: Mapping[Any, Any], path: Path) -> list[Any]:
    """Converts names by number to a list."""
    try:
        by_number = {int(key): name for key, name in names.items()}
    except (TypeError, ValueError):
        raise InputError(f"{path}: the keys of names must be the classes' numbers") from None
    if len(by_number) < len(names) or sorted(by_number) != list(range(len(names))):
        raise InputError(f"{path}: the keys of names must be 0 ... {len(names) - 1}, each once")
    return [by_number[i] for i in range(len(by_number))]


def _keypoints(content: _Content, is_given: bool, path: Path) -> int | None:
    shape = content.kpt_shape
    if shape is None:
        return 0 if is_given else None
    if len(shape) != 2 or shape[0] < 0 or shape[1] not in (2, 3):
        raise InputError(f"{path}: kpt_shape must be [number of keypoints, 2 or 3], got {quote(shape)}")
    return shape[0] * shape[1]
