"""Metadata of a file of objects, or of a folder of parts: the model that encoded them, and the images."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ssdir.errors import InputError
from ssdir.formatting import quote
from ssdir.identity import Identity, check_comparable
from ssdir.object_table import COLUMNS
from ssdir.storage import Location, to_location
from ssdir.store.columns import check_columns
from ssdir.store.folder import EncodingManifest
from ssdir.store.metadata import (
    SKIPPED_KEY,
    images_metadata,
    open_parquet,
    read_header,
    read_image_names,
    read_json_metadata,
)
from ssdir.store.parts import Part, number_images, part_files

_READERS = 16
"""Number of threads that read metadata of parts: opening a file is mostly waiting."""


@dataclass(frozen=True, eq=False)
class StoreInfo:
    """Metadata of a file of objects, or of a folder of parts.

    Attributes:
        path: the file or folder.
        parts: the file alone, or the files of the folder.
        model: the model, as `ssdir.load` takes it: a shipped one's name, or a folder or file.
        class_names: the classes that the column `label` indexes.
        latent_dim: size D of `z_what`.
        fingerprint: digest of the model's weights.
        names_model: whether each file says which model encoded it, so that another one is refused.
        further: the columns beside those of `ObjectWriter`.
    """

    path: Location
    parts: Sequence[Part] = field(repr=False)
    model: str
    class_names: list[str]
    latent_dim: int
    fingerprint: str
    names_model: bool
    further: pa.Schema = field(repr=False)

    @property
    def around(self) -> Path:
        """See `folder_around`."""
        return folder_around(self.path)

    @cached_property
    def objects(self) -> int:
        """The number of rows."""
        return sum(part.objects for part in self.parts)

    @cached_property
    def images_seen(self) -> int | None:
        """The number of images that were encoded, with those in which nothing was detected.

        None where another tool wrote a file again, which leaves out the list of images.
        """
        known = [part.images for part in self.parts if part.images is not None]
        return sum(known) if len(known) == len(self.parts) else None

    @cached_property
    def images_without_objects(self) -> dict[int, str]:
        """The path of each image in which nothing was detected, by its `image_index`; empty where it is not known.

        It is read when it is asked for: the images of many parts may be more than fit into memory.

        Raises:
            InputError: if a file was damaged since.
        """
        if self.images_seen is None:
            return {}
        without = dict[int, str]()
        for part in self.parts:
            with open_parquet(part.path) as file:
                images = read_image_names(file.metadata.metadata or {}, part.objects, part.path)
            named = images.images_without_objects if images is not None else {}
            without |= {int(number) + part.shift: image for number, image in named.items()}
        return without

    @property
    def identity(self) -> Identity:
        """The model."""
        return Identity(**{name: getattr(self, name) for name in Identity.model_fields})

    def images_metadata(self) -> dict[bytes, bytes]:
        """Returns metadata that name the images, for a file of the same rows; empty where they are not known."""
        if self.images_seen is None:
            return {}
        return images_metadata(self.objects, self.images_seen, self.images_without_objects)


def folder_around(location: Location) -> Path:
    """Returns the folder that holds a file or folder, where its images may be too; of a URI, the current one."""
    return location.parent if isinstance(location, Path) else Path()


def read_info(path: str | Path, identity: Identity | None = None) -> StoreInfo:
    """Reads the metadata of a file of objects, or of a folder of parts, without reading the objects.

    Args:
        path: the file or folder, local or as a URI, see `part_files`.
        identity: identity of the model that must have encoded the objects. It replaces that of a file, if another
            tool wrote the file without it.

    Raises:
        InputError: if a file is missing, damaged, something else's, of another model or unlike the others; if it
            doesn't say which model and `identity` is None.
    """
    location = to_location(path)
    files, manifest = part_files(location)
    first = _read_file(files[0], identity)
    if manifest is not None:
        about = f"'{first.part.path}' (model {quote(first.maker.model)})"
        check_comparable(first.maker, about, manifest, f"'{location}' (model {quote(manifest.model)})")

        _check_encoding(first, manifest)

    def read_another(file: Location) -> tuple[Part, bool]:
        other = _read_file(file, identity)
        if manifest is not None:
            _check_encoding(other, manifest)
        _check_alike(first, other)
        return other.part, other.names_model

    with ThreadPoolExecutor(_READERS) as pool:
        others = list(pool.map(read_another, files[1:]))
    model = identity or first.maker
    return StoreInfo(
        path=location,
        parts=number_images([first.part, *(part for part, _ in others)], manifest),
        model=model.model,
        class_names=first.maker.class_names,  # of the detector that brought the boxes
        latent_dim=first.maker.latent_dim,
        fingerprint=first.maker.fingerprint,
        names_model=first.names_model and all(names_model for _, names_model in others),
        further=first.further,
    )


@dataclass(frozen=True)
class _File:
    """The metadata of one file.

    Attributes:
        part: its name and numbers.
        maker: the model that encoded it, by its own words or, if it names none, by those of the caller.
        names_model: whether it says which.
        further: its columns beside those of `ObjectWriter`.
        encoding: digest of the manifest of the encoding that it is a part of; None where that is not known.
    """

    part: Part
    maker: Identity
    names_model: bool
    further: pa.Schema
    encoding: str | None


def _read_file(path: Location, identity: Identity | None) -> _File:
    with open_parquet(path) as file:
        footer, schema = file.metadata, file.schema_arrow
    about = footer.metadata or {}
    header = read_header(about, path)
    if header is None and not set(schema.names) >= COLUMNS:
        raise InputError(f"'{path}' is a Parquet file that ssdir did not write")
    if header is None and identity is None:
        raise InputError(
            f"'{path}' does not say which model encoded it, for the tool that wrote it dropped that: "
            "name the model with --model, or select rows with pyarrow or pandas, which keep it"
        )
    if header is not None and identity is not None:
        check_comparable(header, f"'{path}' (model {quote(header.model)})", identity, f"'{identity.model}'")
    maker = header or identity
    assert maker is not None
    check_columns(schema, maker.latent_dim, path)
    images, used = read_image_names(about, footer.num_rows, path), _numbers_used(footer)
    if images is not None and used is not None:
        used += [int(number) for number in images.images_without_objects]
        used += [row["image_index"] for row in read_json_metadata(about, SKIPPED_KEY, path) or []]
    else:
        images, used = None, []
    numbers = range(min(used), max(used) + 1) if used else range(0)
    part = Part(path, footer.num_rows, None if images is None else images.images_seen, numbers)
    # pandas keeps the numbers of rows that it has selected in a column of its own.
    own = [each for each in schema if each.name not in COLUMNS and "__index_level_" not in each.name]
    encoding = None if images is None else images.encoding
    return _File(part, maker, header is not None, pa.schema(own), encoding)


def _numbers_used(footer: pq.FileMetaData) -> list[int] | None:
    """Returns the least and largest `image_index` of each row group; None if its writer did not note them."""
    used = list[int]()
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        columns = (group.column(index) for index in range(group.num_columns))
        noted = next((each.statistics for each in columns if each.path_in_schema == "image_index"), None)
        limits = [noted.min, noted.max] if noted is not None and noted.has_min_max else []
        if group.num_rows and not (limits and all(isinstance(limit, int) for limit in limits)):
            return None
        used += limits
    return used


def _check_encoding(file: _File, manifest: EncodingManifest) -> None:
    """Raises an error if a part was written by an encoding that went on while its folder was begun anew."""
    if file.encoding not in (None, manifest.digest):
        raise InputError(
            f"'{file.part.path}' is a part of another encoding than that of its folder: delete it, and repeat the "
            "ssdir encode command"
        )


def _check_alike(one: _File, other: _File) -> None:
    """Raises an error that names two files of a folder if they are of two models, or have unlike columns."""
    names = f"'{one.part.path}'", f"'{other.part.path}'"
    models = [f"{name} (model {quote(each.maker.model)})" for name, each in zip(names, (one, other), strict=True)]
    check_comparable(other.maker, models[1], one.maker, models[0])
    if other.maker.class_names != one.maker.class_names:
        raise InputError(f"{names[0]} and {names[1]} don't go together: they have different classes")
    if other.maker.latent_dim != one.maker.latent_dim:
        sizes = f"{one.maker.latent_dim} and {other.maker.latent_dim} numbers"
        raise InputError(f"{names[0]} and {names[1]} don't go together: their embeddings have {sizes}")
    for column in sorted({*one.further.names, *other.further.names}):
        has = []
        for name, schema in zip(names, (one.further, other.further), strict=True):
            has.append(
                f"{name} holds {schema.field(column).type}" if column in schema.names else f"{name} has none"
            )
        if has[0].removeprefix(names[0]) != has[1].removeprefix(names[1]):
            raise InputError(f"the columns '{column}' don't go together: {has[0]}, {has[1]}")
