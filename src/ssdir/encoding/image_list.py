"""The list of the images of an encoding, in Parquet files, so that no process holds more of it than its part."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssdir.inference.files import chunks
from ssdir.storage import Location, absolute, is_uri, join, new_file, open_file
from ssdir.store.metadata import damaged

IMAGES_PER_FILE, IMAGES_PER_GROUP = 1_000_000, 10_000
"""Number of images of a file of the list, and of its groups of rows, which are read whole."""

_SCHEMA = pa.schema([pa.field("image", pa.binary(), nullable=False)])  # Names of files may be any bytes.


class ListDigest:
    """Counts the images of a list while they are read, and digests their order and absolute locations.

    Args:
        locations: the images.
    """

    def __init__(self, locations: Iterable[Location]) -> None:
        self.count = 0
        self._locations, self._hash = locations, hashlib.blake2b(digest_size=16)

    def groups(self) -> Iterator[list[bytes]]:
        """Yields the images' absolute locations in groups."""
        for group in chunks(self._locations, IMAGES_PER_GROUP):
            names = [os.fsencode(absolute(location)) for location in group]
            self._hash.update(b"\0".join(names) + b"\0")
            self.count += len(names)
            yield names

    @property
    def digest(self) -> str:
        """The digest of the images so far, in hexadecimal digits."""
        return self._hash.hexdigest()


def write_image_list(folder: Location, images: ListDigest) -> None:
    """Writes the list of the images into a folder."""
    groups, number = images.groups(), 0
    while (first := next(groups, None)) is not None:
        with (
            new_file(_file(folder, number)) as temporary,
            pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer,
        ):
            for names in (first, *islice(groups, IMAGES_PER_FILE // IMAGES_PER_GROUP - 1)):
                writer.write_table(pa.table({"image": pa.array(names, pa.binary())}, _SCHEMA))
        number += 1


class ImageList:
    """The list of the images of an encoding, of which one group of rows is held.

    Args:
        folder: the folder of the list.
    """

    def __init__(self, folder: Location) -> None:
        self.folder = folder
        self._number, self._group = -1, list[Location]()

    def read(self, numbers: range) -> list[Location]:
        """Reads some consecutive images by their numbers, from 0.

        Raises:
            InputError: if the list is damaged.
        """
        images: list[Location] = []
        for number in range(numbers.start // IMAGES_PER_GROUP, -(-numbers.stop // IMAGES_PER_GROUP)):
            first = number * IMAGES_PER_GROUP
            images += self._read_group(number)[max(0, numbers.start - first) : numbers.stop - first]
        return images

    def _read_group(self, number: int) -> list[Location]:
        if number != self._number:
            file, group = divmod(number, IMAGES_PER_FILE // IMAGES_PER_GROUP)
            path = _file(self.folder, file)
            with damaged(path), open_file(path) as opened, pq.ParquetFile(opened) as parquet:
                names = map(os.fsdecode, parquet.read_row_group(group)["image"].to_pylist())
            self._number, self._group = number, [name if is_uri(name) else Path(name) for name in names]
        return self._group


def _file(folder: Location, number: int) -> Location:
    return join(folder, f"{number:05d}.parquet")
