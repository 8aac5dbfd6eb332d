"""Lists of images: text files and Parquet files of paths and URIs, read piece by piece."""

from __future__ import annotations

import codecs
import os
import warnings
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ssdir.data.frame_names import file_of
from ssdir.documents import parse_json
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted, first_line, quote
from ssdir.storage import Location, is_uri, join, open_file, pure_path, to_location

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

LIST_SUFFIXES = frozenset({".txt", ".parquet"})
"""The suffixes of files that are lists of images."""

LIST_COLUMNS = ("image", "uri", "url", "path", "file_name")
"""The columns of a Parquet file that may hold its images, the first that is there."""

IMAGES_KEY = b"ssdir.images"
"""Key of the metadata of a file of objects in which its images without objects are named."""

MAX_COMPARED = 10_000_000
"""Number of entries of a list up to which repeated images are noticed, in 24 bytes of memory each."""

_LONGEST_LINE = 1 << 16
_BATCH_ROWS = 1 << 16


def is_list(location: Location) -> bool:
    """Returns whether a location is called like a list of images."""
    return pure_path(location).suffix.lower() in LIST_SUFFIXES


def read_image_list(location: Location) -> Iterator[Location]:
    """Reads a list of images, in its order; memory doesn't grow with it, `MAX_COMPARED` hashes apart.

    A text file has an image per line; blank lines and those that begin with `#` are left out. Of a Parquet file,
    one column is read: the first of `LIST_COLUMNS`, or the only one of text. Entries that repeat the one before
    are left out, and the images without objects that a file of objects names come last, so that it is a list of
    its images.

    Relative names are relative to the current folder or, if the first of them isn't there, to the folder of the
    list; to the latter alone where the list is elsewhere. Whether the images exist is not asked.

    Yields:
        The images. At the end, an `InputWarning` counts those that are named more than once.

    Raises:
        InputError: if the list is missing, is no text or Parquet, or has no images, or no column of them; if the
            first relative name is in neither folder.
    """
    read = _texts_of_parquet if pure_path(location).suffix.lower() == ".parquet" else _texts_of_lines
    # Faults in what is first are raised here, and not only when images are asked for.
    texts = read(location)
    first = next(texts, None)
    if first is None:
        raise InputError(f"list '{location}' names no images")
    return _checked(location, chain([first], texts))


def _checked(location: Location, texts: Iterator[str]) -> Iterator[Location]:
    """Converts entries to locations, and warns of those that are named more than once."""
    resolve: Callable[[str], Location] | None = None
    previous, hashes = "", array("q")
    for text in texts:
        if text == previous:
            continue
        previous = text
        if is_uri(text) or os.path.isabs(text):
            image = to_location(text)
        else:
            resolve = resolve or _resolver(location, text)
            image = resolve(text)
        if len(hashes) < MAX_COMPARED:
            hashes.append(hash(str(image)))
        yield image
    _warn_of_repeated(location, hashes)


def _resolver(location: Location, first: str) -> Callable[[str], Location]:
    """Returns what converts the relative names of a list to locations, given the first of them."""
    if isinstance(location, str):
        return partial(join, location.rpartition("/")[0])
    first = str(file_of(Path(first)))
    if os.path.lexists(first):
        return Path
    folder = location.parent
    if not os.path.lexists(folder / first):
        raise InputError(
            f"list '{location}' names {quote(first)}, which is neither in the current folder nor in that of the "
            "list: write whole paths or URIs"
        )
    return folder.joinpath


def _warn_of_repeated(location: Location, hashes: array[int]) -> None:
    values = np.frombuffer(hashes, dtype=np.int64)
    order = np.argsort(values, kind="stable")
    again = np.flatnonzero(values[order[1:]] == values[order[:-1]])
    if len(again):
        one, other = min((int(order[at]), int(order[at + 1])) for at in again)
        times = counted(len(again), "entry names", "entries name")
        message = (
            f"list '{location}': {times} an image that another names too (the first: images {one + 1} and "
            f"{other + 1} of the list); it is used each time"
        )
        warnings.warn(message, InputWarning, stacklevel=2)


# Entries --------------------------------------------------------------------------------------------------


def _texts_of_lines(location: Location) -> Iterator[str]:
    with open_file(location) as file:
        for number, line in enumerate(iter(partial(file.readline, _LONGEST_LINE), b""), 1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            try:
                text = line.decode().strip()
            except UnicodeDecodeError:
                text = "\0"
            if "\0" in text or len(line) == _LONGEST_LINE:
                raise InputError(f"list '{location}' is not UTF-8 text (line {number}): save it as UTF-8")
            if text and not text.startswith("#"):
                yield text


def _texts_of_parquet(location: Location) -> Iterator[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    empty = 0
    with open_file(location) as file:
        try:
            table = pq.ParquetFile(file)
            column = _image_column(location, table.schema_arrow)
            for batch in table.iter_batches(_BATCH_ROWS, columns=[column]):
                values = batch.column(0).to_pylist()
                yield from filter(None, values)
                empty += len(values) - sum(map(bool, values))
            yield from _without_objects(location, table.metadata)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"list '{location}' can't be read as Parquet ({first_line(error)})") from None
    if empty:
        message = f"list '{location}': {counted(empty, 'row')} without an image in column '{column}' left out"
        warnings.warn(message, InputWarning, stacklevel=2)


def _without_objects(location: Location, footer: pq.FileMetaData) -> list[str]:
    """Returns the images without objects that a file of objects names, see `store.metadata.ImageNames`."""
    if (text := (footer.metadata or {}).get(IMAGES_KEY)) is None:
        return []
    about = parse_json(text, f"list '{location}' is damaged: its metadata")
    # A tool that has selected some rows since may have kept the metadata.
    return [*about["images_without_objects"].values()] if about["objects"] == footer.num_rows else []


def _image_column(location: Location, schema: pa.Schema) -> str:
    """Returns the name of the column of images."""
    from pyarrow import types

    def is_text(kind: pa.DataType) -> bool:
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return bool(types.is_string(kind) or types.is_large_string(kind))

    texts: list[str] = [field.name for field in schema if is_text(field.type)]
    known = [name for wanted in LIST_COLUMNS for name in texts if name.lower() == wanted]
    if known or len(texts) == 1:
        return (known or texts)[0]
    raise InputError(
        f"list '{location}' has columns {', '.join(schema.names)}: call the one of paths or URIs "
        f"{', '.join(LIST_COLUMNS[:-1])} or {LIST_COLUMNS[-1]}"
    )
