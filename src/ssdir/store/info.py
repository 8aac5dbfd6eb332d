"""Metadata of a Parquet file of objects: the model that encoded it, and the images."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from ssdir.config import Record, parse
from ssdir.documents import json_text, parse_json
from ssdir.errors import InputError
from ssdir.formatting import first_line, quote
from ssdir.identity import Identity, check_comparable
from ssdir.object_table import COLUMNS
from ssdir.store.columns import check_columns

FORMAT = 2
METADATA_KEY, IMAGES_KEY, PANDAS_KEY = b"ssdir", b"ssdir.images", b"PANDAS_ATTRS"
_CHECKSUM_KEY = b"ssdir.images.crc32"

FILE_METADATA = {
    METADATA_KEY: "JSON: format, ssdir_version, and model, class_names, latent_dim and fingerprint of the model; "
    "Arrow keeps it when rows are selected",
    IMAGES_KEY: "JSON: objects and images_seen, the numbers of both, and images_without_objects, the path of each "
    "by its image_index; Arrow drops it with rows, as it is of all rows",
    _CHECKSUM_KEY: "CRC-32 of the bytes under ssdir.images, which no page's checksum covers",
    PANDAS_KEY: "the content of ssdir as pandas' DataFrame.attrs, because pandas drops other metadata",
}
"""The metadata of a file of objects: the meaning of each key."""

_FOOTER_LIMIT = 2**31 - 1
"""Most bytes of the metadata, where the images without objects are named: Arrow's own limit is 100 MB."""


@dataclass(frozen=True, eq=False)
class StoreInfo:
    """Metadata of a file of objects.

    Attributes:
        path: the file.
        footer: Parquet's metadata.
        model: the model, as `ssdir.load` takes it: a shipped one's name, or a folder or file.
        class_names: the classes that the column `label` indexes.
        latent_dim: size D of `z_what`.
        fingerprint: digest of the model's weights.
        images_seen: number of images, with those in which nothing was detected; None where rows were left out or
            added since the images were encoded, so that it is not known.
        images_without_objects: path of each of the latter, by its image_index; empty where it is not known.
    """

    path: Path
    footer: pq.FileMetaData = field(repr=False)
    model: str
    class_names: list[str]
    latent_dim: int
    fingerprint: str
    images_seen: int | None
    images_without_objects: dict[int, str]

    @property
    def objects(self) -> int:
        """The number of rows."""
        return int(self.footer.num_rows)

    @property
    def names_model(self) -> bool:
        """Whether the file says which model encoded it, so that another one is refused."""
        return _header(self.footer.metadata or {}, self.path) is not None

    def metadata(self) -> dict[bytes, bytes]:
        """Returns the metadata of a schema for a file with the same rows."""
        about = identity_metadata(Identity(**{name: getattr(self, name) for name in Identity.model_fields}))
        if self.images_seen is not None:
            about |= images_metadata(self.objects, self.images_seen, self.images_without_objects)
        return about


class _Header(Identity):
    """The content of `METADATA_KEY`."""

    format: int


class _Images(Record):
    """The content of `IMAGES_KEY`: the images, and how many objects they have."""

    objects: Annotated[int, Field(ge=0)]
    images_seen: Annotated[int, Field(ge=0)]
    images_without_objects: dict[Annotated[str, Field(pattern=r"^[0-9]{1,18}$")], str]


def identity_metadata(identity: Identity) -> dict[bytes, bytes]:
    """Returns the metadata of a schema that names the model."""
    header = {"format": FORMAT, "ssdir_version": metadata.version("ssdir"), **identity.model_dump()}
    return {
        METADATA_KEY: json_text(header, None).encode(),
        PANDAS_KEY: json_text({METADATA_KEY.decode(): header}, None).encode(),
    }


def images_metadata(objects: int, seen: int, without: Mapping[int, str]) -> dict[bytes, bytes]:
    """Returns the metadata of a file that names its images without objects."""
    about = {"objects": objects, "images_seen": seen, "images_without_objects": without}
    text = json_text(about, None).encode()
    return {IMAGES_KEY: text, _CHECKSUM_KEY: str(zlib.crc32(text)).encode()}


def open_parquet(path: str | Path, footer: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """Opens a file whose pages are checked when they are read, and whose metadata may be as long as ours.

    Args:
        path: the file.
        footer: its metadata, where it was read before.
    """
    # Not pyarrow's read_table: it would add columns for folders named like partitions (`year=2024`).
    return pq.ParquetFile(
        path, metadata=footer, page_checksum_verification=True, thrift_string_size_limit=_FOOTER_LIMIT
    )


def read_info(path: str | Path, identity: Identity | None = None) -> StoreInfo:
    """Reads the metadata of a file of objects, without reading the objects.

    Args:
        path: the file.
        identity: identity of the model that must have encoded the objects. It replaces the file's own, if another
            tool wrote the file without it.

    Raises:
        InputError: if the file is missing, damaged, something else's, or of another model; if it doesn't say which
            and `identity` is None.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"'{path}' is a folder, not a file" if path.is_dir() else f"'{path}' does not exist")
    with damaged(path, "damaged or not a Parquet file"), open_parquet(path) as file:
        footer, schema = file.metadata, file.schema_arrow
    about = footer.metadata or {}
    header = _header(about, path)
    if header is None and not set(schema.names) >= COLUMNS:
        raise InputError(f"'{path}' is a Parquet file that ssdir did not write")
    if header is None and identity is None:
        raise InputError(
            f"'{path}' does not say which model encoded it, for the tool that wrote it dropped that: "
            "name the model with --model, or select rows with pyarrow or pandas, which keep it"
        )
    if header is not None and identity is not None:
        check_comparable(header, f"'{path}' (model {quote(header.model)})", identity, f"'{identity.model}'")
    model = identity or header
    made_by = header or identity
    assert model is not None
    assert made_by is not None
    check_columns(schema, made_by.latent_dim, path)
    images = _images(about, footer.num_rows, path)
    return StoreInfo(
        path=path,
        footer=footer,
        model=model.model,
        class_names=made_by.class_names,  # of the detector that brought the boxes
        latent_dim=made_by.latent_dim,
        fingerprint=made_by.fingerprint,
        images_seen=images.images_seen if images else None,
        images_without_objects={int(index): each for index, each in images.images_without_objects.items()}
        if images
        else {},
    )


def _header(about: Mapping[bytes, bytes], path: Path) -> _Header | None:
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
    header = parse(_Header, said[0], source=source)
    if said[0] != said[-1]:
        raise InputError(f"{source} names two models")
    return header


def _images(about: Mapping[bytes, bytes], rows: int, path: Path) -> _Images | None:
    """Returns the file's images, or None where they are not known or no longer right."""
    if not {IMAGES_KEY, _CHECKSUM_KEY} & set(about):
        return None
    source, text = f"'{path}' is damaged: its metadata", about.get(IMAGES_KEY, b"")
    if str(zlib.crc32(text)).encode() != about.get(_CHECKSUM_KEY):
        raise InputError(f"{source} of the images has changed")
    images = parse(_Images, parse_json(text, source), source=source)
    if images.objects != rows:
        return None
    # This must hold before anything of such a size is made.
    if images.images_seen > rows + len(images.images_without_objects):
        raise InputError(f"{source} counts {images.images_seen:,} images, and names fewer")
    return images


@contextmanager
def damaged(path: str | Path, problem: str = "damaged") -> Iterator[None]:
    """Turns Arrow's errors of reading into one sentence."""
    try:
        yield
    except InputError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' is {problem} ({first_line(error)})") from error
