"""Names of files as the files of a data set give them."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field

from ssdir.data.readers.path_ends import is_whole_path

_LONGEST_PART = 255
"""Most bytes of the name of a file or folder, on all common file systems."""


def is_inside(name: str) -> bool:
    """Whether a name leads to a file below the folder that it is relative to, without leaving it on the way."""
    parts = re.split(r"[/\\]", name)
    short = all(len(part.encode("utf-8", "surrogateescape")) <= _LONGEST_PART for part in parts)
    return bool(name) and "\0" not in name and ".." not in parts and not is_whole_path(name) and short


def _check_inside(name: str) -> str:
    if not is_inside(name):
        raise ValueError("must be a file in the folder of the data set")
    return name


InsideName: TypeAlias = Annotated[str, Field(max_length=1000), AfterValidator(_check_inside)]
"""The name of a file below a folder of the data set; files elsewhere are not read."""
