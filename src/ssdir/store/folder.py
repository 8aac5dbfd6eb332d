"""A folder of encoded objects: parts that workers write one by one, and the manifest that says which there are.

```
_encoding.json            the manifest
_images/00000.parquet     the list of the images, in their order
part-0000000.parquet      the objects of the first images
_skipped/part-0000000.parquet  the images of that part which could not be read, if there are any
```

Names that begin with `_` are ignored by pandas, Arrow, Spark and Ray, which read the parts alone.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated

from pydantic import Field

from ssdir.config import Record, parse
from ssdir.documents import json_text, parse_json
from ssdir.errors import InputError
from ssdir.formatting import quote
from ssdir.identity import Identity
from ssdir.storage import Location, is_file, join, list_files, pure_path, read_bytes, write_bytes

FORMAT = 1
MANIFEST, IMAGES, SKIPPED = "_encoding.json", "_images", "_skipped"

_UNFINISHED = re.compile(r"\.[0-9a-f]{8}-(part-[0-9]{7,}\.parquet|_encoding\.json)")
"""Names that parts and the manifest have while they are written, see `atomic_file`."""
_PART = re.compile(r"part-([0-9]{7,})\.parquet")


class EncodingOptions(Record):
    """The options of an encoding that its rows depend on.

    Attributes:
        score_threshold: least score of an object; None is the model's.
        precision: of the products; None is single.
        batch_size: images at once, on which rounding depends.
        boxes: digest of the boxes that were encoded instead of detecting any; None where objects were detected.
        exported: checksum of the exported model that encoded; None where the model itself did.
        config: digest of the config of the model itself, which says what is detected; None for an exported one.
    """

    score_threshold: float | None = None
    precision: str | None = None
    batch_size: Annotated[int, Field(ge=1)]
    boxes: str | None = None
    exported: str | None = None
    config: str | None = None


class EncodingManifest(Identity):
    """The content of `MANIFEST`; `Identity` gives the fields of the model.

    Attributes:
        format: version of the layout.
        images: number of images, those that can't be read included.
        images_digest: digest of their list.
        images_per_part: number of images of each part; the last one may have fewer.
        options: what else the rows depend on.
    """

    format: int
    images: Annotated[int, Field(ge=1)]
    images_digest: str
    images_per_part: Annotated[int, Field(ge=1)]
    options: EncodingOptions

    @property
    def parts(self) -> int:
        """The number of parts."""
        return -(-self.images // self.images_per_part)

    @property
    def digest(self) -> str:
        """Digest of all that parts depend on, which they keep; where the model lies is not among it."""
        values = json_text(self.model_dump(exclude={"model"}), None)
        return hashlib.blake2b(values.encode(), digest_size=16).hexdigest()

    def images_of(self, number: int) -> range:
        """Returns the numbers of the images of a part."""
        first = number * self.images_per_part
        return range(first, min(first + self.images_per_part, self.images))


def part_name(number: int) -> str:
    """Returns the name of a part, and of the table of its skipped images, which is in `SKIPPED`."""
    return f"part-{number:07d}.parquet"


def read_manifest(folder: Location) -> EncodingManifest | None:
    """Reads the manifest of a folder; returns None if it has none.

    Raises:
        InputError: if it is damaged, or of another version; as `storage.read_bytes`.
    """
    path = join(folder, MANIFEST)
    if not is_file(path):
        return None
    source = f"'{path}'"
    values = parse_json(read_bytes(path), source)
    if isinstance(values, dict) and values.get("format", FORMAT) != FORMAT:
        raise InputError(
            f"'{path}' has format {quote(values['format'])}, this ssdir reads {FORMAT}: encode the images again"
        )
    return parse(EncodingManifest, values, source=source)


def write_manifest(folder: Location, manifest: EncodingManifest) -> None:
    """Writes the manifest of a folder, after which the folder is an encoding that can be continued."""
    write_bytes(join(folder, MANIFEST), json_text(manifest.model_dump()).encode())


def numbered_files(folder: Location) -> dict[int, Location]:
    """Lists the files of a folder that are called like parts, by their numbers, in their order."""
    named = {_PART.fullmatch(pure_path(file).name): file for file in list_files(folder)}
    return {int(match[1]): file for match, file in named.items() if match}


def missing_parts(folder: Location, manifest: EncodingManifest) -> list[int]:
    """Returns the numbers of the parts that are not written yet."""
    written = numbered_files(folder).keys()
    return [number for number in range(manifest.parts) if number not in written]


def unfinished_files(folder: Location) -> list[Location]:
    """Lists the files of a folder that are being written, and those that killed processes have left."""
    return [file for file in list_files(folder) if _UNFINISHED.fullmatch(pure_path(file).name)]
