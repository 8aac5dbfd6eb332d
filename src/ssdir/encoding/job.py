"""An encoding of images in parts: what is to be written where, and how it is begun or continued."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from ssdir.encoding.image_list import ImageList, ListDigest, write_image_list
from ssdir.encoding.options import EncodeOptions
from ssdir.errors import InputError
from ssdir.formatting import counted, quote
from ssdir.identity import Identity, comparable
from ssdir.outputs import claim
from ssdir.storage import Location, exists, is_folder, join, list_files, pure_path, remove
from ssdir.store.folder import (
    FORMAT,
    IMAGES,
    MANIFEST,
    SKIPPED,
    EncodingManifest,
    EncodingOptions,
    missing_parts,
    numbered_files,
    part_name,
    read_manifest,
    unfinished_files,
    write_manifest,
)

if TYPE_CHECKING:
    from ssdir.encoding.placed_boxes import PlacedBoxes

LOCK = ".lock"


@dataclass(frozen=True)
class EncodingJob:
    """An encoding of images in parts: all that a worker needs to encode any of them.

    Attributes:
        folder: the folder of the parts.
        manifest: model, images and options.
        options: how to encode.
        placed: boxes to encode instead of detecting any.
    """

    folder: Location
    manifest: EncodingManifest
    options: EncodeOptions
    placed: PlacedBoxes | None = field(default=None, repr=False)

    def part(self, number: int) -> Location:
        """Returns the file of a part."""
        return join(self.folder, part_name(number))

    def image_list(self) -> ImageList:
        """Opens the list of the images."""
        return ImageList(join(self.folder, IMAGES))

    def parts(self) -> range:
        """Returns the numbers of the parts of this job's share."""
        share, shares = self.options.share
        return range(share - 1, self.manifest.parts, shares)

    def missing(self) -> list[int]:
        """Returns those of its parts that are not written yet."""
        parts = self.parts()
        return [number for number in missing_parts(self.folder, self.manifest) if number in parts]


@dataclass(frozen=True)
class EncodingRequest:
    """What the parts of a folder are to hold.

    Attributes:
        identity: the model, and the classes of the objects.
        images: returns the images, in their order.
        boxes: digest of boxes to encode instead of detecting any.
        exported: checksum of the exported model that encodes, if it is one.
        config: digest of the config of the model, if it is not exported.
    """

    identity: Identity
    images: Callable[[], Iterable[Location]]
    boxes: str | None = None
    exported: str | None = None
    config: str | None = None


def open_job(
    folder: Location,
    request: EncodingRequest,
    options: EncodeOptions,
    placed: PlacedBoxes | None = None,
    force: bool = False,
) -> EncodingJob:
    """Begins an encoding in a folder, or continues the same one that was begun there.

    Args:
        folder: the folder; one that is not there is made.
        request: model, images and boxes.
        options: how to encode.
        placed: the request's boxes by image file.
        force: begin anew, in place of any encoding that is there.

    Raises:
        InputError: if the folder holds something else, or (without `force`) the encoding of another model, of
            other images, or with other options.
    """
    existing = None if force else read_manifest(folder)
    if existing is None:
        return EncodingJob(folder, _begin(folder, request, options), options, placed)
    difference = _difference(existing, _manifest(request, options, _digest_images(request)))
    if difference is not None:
        raise InputError(
            f"'{folder}' holds an encoding {difference}: repeat that command to continue it, choose another "
            "output, or start anew with --force"
        )
    # The model may have moved since, and workers load it.
    moved = existing.model_copy(update={"model": request.identity.model})
    return EncodingJob(folder, moved, options, placed)


def _digest_images(request: EncodingRequest) -> ListDigest:
    """Reads the list of the images to its end."""
    images = ListDigest(request.images())
    for _ in images.groups():
        pass
    return images


def _begin(folder: Location, request: EncodingRequest, options: EncodeOptions) -> EncodingManifest:
    """Writes the list of images and the manifest into a folder, in place of an encoding that is there."""
    if exists(join(folder, MANIFEST)):
        _digest_images(request)  # A fault in the list must not remove a finished encoding.
        _clear(folder)
    images = ListDigest(request.images())
    write_image_list(join(folder, IMAGES), images)
    manifest = _manifest(request, options, images)
    write_manifest(folder, manifest)
    return manifest


def _manifest(request: EncodingRequest, options: EncodeOptions, images: ListDigest) -> EncodingManifest:
    asked = EncodingOptions(
        score_threshold=options.score_threshold,
        precision=options.precision,
        batch_size=options.batch_size,
        boxes=request.boxes,
        exported=request.exported,
        config=request.config,
    )
    return EncodingManifest(
        **request.identity.model_dump(),
        format=FORMAT,
        images=images.count,
        images_digest=images.digest,
        images_per_part=options.part_size(images.count),
        options=asked,
    )


def remove_encoding(folder: Location) -> None:
    """Removes an encoding, and its folder unless there is anything else in it."""
    _clear(folder)
    if isinstance(folder, Path):
        remove([folder / LOCK])
        with suppress(OSError):
            folder.rmdir()


def _clear(folder: Location) -> None:
    """Removes what encoding writes into a folder, except for its lock."""
    remove([*numbered_files(folder).values(), *unfinished_files(folder), join(folder, SKIPPED)])
    remove([join(folder, MANIFEST)])  # after the parts, which belong to nothing without it
    remove([join(folder, IMAGES)])


@contextmanager
def alone_in(folder: Location, waits: bool) -> Iterator[None]:
    """Makes the folder of an encoding, and keeps other processes from beginning one there during the block.

    Args:
        folder: the folder.
        waits: whether to wait for another process that is in such a block; False raises.

    Raises:
        InputError: if there is no such folder and it can't be made; if another process is in such a block.
    """
    if exists(folder):
        if not is_folder(folder):
            raise InputError(f"output '{folder}' is a file: choose a folder, or a name that ends in .parquet")
        _check_unused(folder)
    if not isinstance(folder, Path):  # Other storages have no locks; parts that are written twice are the same.
        yield
        return
    claim(folder, force=True)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=-1 if waits else 0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(f"'{folder}' is being written by another process: wait for its end") from None
    except OSError:  # Not every network file system has locks.
        pass
    try:
        yield
    finally:
        lock.release()


def _check_unused(folder: Location) -> None:
    """Refuses a folder that holds something, but neither an encoding nor the beginning of one."""
    files = [*folder.iterdir()] if isinstance(folder, Path) else list_files(folder)
    ours = {IMAGES, LOCK, *(pure_path(file).name for file in unfinished_files(folder))}
    others = sorted({pure_path(file).name for file in files} - ours)
    # Another process may have begun an encoding here since the files were listed.
    if others and not exists(join(folder, MANIFEST)):
        raise InputError(
            f"output '{folder}' holds files that are no encoding, such as {quote(others[0])}: choose another"
        )


def _difference(old: EncodingManifest, new: EncodingManifest) -> str | None:
    """Says in which way an encoding differs from the one that is asked for; None where it doesn't."""
    if not comparable(old, new):
        return f"by another model ({quote(old.model)})"
    if old.images_digest != new.images_digest:
        now = "now others or in another order" if old.images == new.images else f"now {new.images}"
        return f"of other images ({counted(old.images, 'image')}, {now})"
    if old.images_per_part != new.images_per_part:
        return f"in parts of {old.images_per_part} images"
    if old.options.exported != new.options.exported:
        return "by another form of the model (exported or not)"
    if old.options.config != new.options.config:
        return "by the same model with another config, such as another threshold"
    if old.options.boxes != new.options.boxes:
        return "of other boxes"
    if old.class_names != new.class_names:
        return "with other classes"
    for name in ("score_threshold", "precision", "batch_size"):
        if getattr(old.options, name) != getattr(new.options, name):
            return f"with another {name.replace('_', ' ')}"
    return None
