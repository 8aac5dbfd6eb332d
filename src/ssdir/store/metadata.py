"""Metadata of one Parquet file of objects: the model that encoded it, its images, and what was skipped."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from ssdir.config import Record, parse
from ssdir.data.image_lists import IMAGES_KEY
from ssdir.documents import json_text, parse_json
from ssdir.errors import InputError
from ssdir.formatting import first_line, quote
from ssdir.identity import Identity
from ssdir.storage import Location, open_file

FORMAT = 2
METADATA_KEY, PANDAS_KEY = b"ssdir", b"PANDAS_ATTRS"
SKIPPED_KEY = b"ssdir.skipped"
_CHECKSUM = b".crc32"

FILE_METADATA = {
    METADATA_KEY: "JSON: format, ssdir_version, and model, class_names, latent_dim and fingerprint of the model; "
    "Arrow keeps it when rows are selected",
    IMAGES_KEY: "JSON: objects and images_seen, the numbers of both; images_without_objects, the path of each by "
    "its image_index; and, in parts of a folder, encoding, a digest of the folder's manifest; Arrow drops it with "
    "rows, as it is of all rows",
    IMAGES_KEY + _CHECKSUM: "CRC-32 of the bytes under ssdir.images, which no page's checksum covers",
    SKIPPED_KEY: "JSON, only where something was skipped: the rows that `read_skipped` returns",
    SKIPPED_KEY + _CHECKSUM: "CRC-32 of them",
    PANDAS_KEY: "the content of ssdir as pandas' DataFrame.attrs, because pandas drops other metadata",
}
"""The metadata of a file of objects: the meaning of each key."""

_FOOTER_LIMIT = 2**31 - 1
"""Most bytes of the metadata, where the images without objects are named: Arrow's own limit is 100 MB."""


class Header(Identity):
    """The content of `METADATA_KEY`."""

    format: int


class ImageNames(Record):
    """The content of `IMAGES_KEY`: the images, how many objects they have, and of which encoding a part is."""

    objects: Annotated[int, Field(ge=0)]
    images_seen: Annotated[int, Field(ge=0)]
    images_without_objects: dict[Annotated[str, Field(pattern=r"^[0-9]{1,18}$")], str]
    encoding: str | None = None


def identity_metadata(identity: Identity) -> dict[bytes, bytes]:
    """Returns the metadata of a schema that names the model."""
    header = {"format": FORMAT, "ssdir_version": metadata.version("ssdir"), **identity.model_dump()}
    return {
        METADATA_KEY: json_text(header, None).encode(),
        PANDAS_KEY: json_text({METADATA_KEY.decode(): header}, None).encode(),
    }


def images_metadata(
    objects: int, seen: int, without: Mapping[int, str], encoding: str | None = None
) -> dict[bytes, bytes]:
    """Returns the metadata of a file that names its images without objects and, for a part, its encoding."""
    about = {"objects": objects, "images_seen": seen, "images_without_objects": without}
    return json_metadata(IMAGES_KEY, about if encoding is None else {**about, "encoding": encoding})


def json_metadata(key: bytes, content: object) -> dict[bytes, bytes]:
    """Returns metadata that hold a JSON document and its checksum."""
    text = json_text(content, None).encode()
    return {key: text, key + _CHECKSUM: str(zlib.crc32(text)).encode()}


def read_json_metadata(about: Mapping[bytes, bytes], key: bytes, path: Location) -> Any:
    """Returns a JSON document in the metadata of a file, or None if there is none.

    Raises:
        InputError: if it has changed since it was written.
    """
    if not {key, key + _CHECKSUM} & set(about):
        return None
    source, text = f"'{path}' is damaged: its metadata", about.get(key, b"")
    if str(zlib.crc32(text)).encode() != about.get(key + _CHECKSUM):
        raise InputError(f"{source} under {key.decode()} has changed")
    return parse_json(text, source)


@contextmanager
def open_parquet(path: Location) -> Iterator[pq.ParquetFile]:
    """Opens a file whose pages are checked when they are read, and whose metadata may be as long as ours.

    Raises:
        InputError: if it is damaged, also while it is read in the `with` block; as `storage.open_file`.
    """
    opened = nullcontext(path) if isinstance(path, Path) else open_file(path)
    options = {"page_checksum_verification": True, "thrift_string_size_limit": _FOOTER_LIMIT}
    # pre_buffer would keep all bytes of the file in memory. Not pyarrow's read_table: it would add columns for
    # folders named like partitions (`year=2024`).
    with (
        damaged(path, "damaged or not a Parquet file"),
        opened as source,
        pq.ParquetFile(source, pre_buffer=False, **options) as file,
    ):
        yield file


@contextmanager
def damaged(path: Location, problem: str = "damaged") -> Iterator[None]:
    """Turns Arrow's errors of reading into one sentence."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' is {problem} ({first_line(error)})") from error


def read_header(about: Mapping[bytes, bytes], path: Location) -> Header | None:
    """Returns the file's model, or None where it is not known; pandas keeps it in its own metadata only."""
    source = f"'{path}' is damaged: its metadata"
    said = []
    if METADATA_KEY in about:
        said.append(parse_json(about[METADATA_KEY], source))
    if PANDAS_KEY in about:
        attributes = parse_json(about[PANDAS_KEY], source)
        if isinstance(attributes, Mapping) and METADATA_KEY.decode() in attributes:
            said.append(attributes[METADATA_KEY.decode()])
    if not said:
        return None
    if isinstance(said[0], Mapping) and said[0].get("format", FORMAT) != FORMAT:
        raise InputError(
            f"'{path}' has format {quote(said[0]['format'])}, this ssdir reads {FORMAT}: encode the images again"
        )
    header = parse(Header, said[0], source=source)
    if said[0] != said[-1]:
        raise InputError(f"{source} names two models")
    return header


def read_image_names(about: Mapping[bytes, bytes], rows: int, path: Location) -> ImageNames | None:
    """Returns the file's images, or None where they are not known or no longer right."""
    content = read_json_metadata(about, IMAGES_KEY, path)
    if content is None:
        return None
    source = f"'{path}' is damaged: its metadata"
    images = parse(ImageNames, content, source=source)
    if images.objects != rows:
        return None
    # This must hold before anything of such a size is made.
    if images.images_seen > rows + len(images.images_without_objects):
        raise InputError(f"{source} counts {images.images_seen:,} images, and names fewer")
    return images
