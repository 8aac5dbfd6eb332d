"""Images to stored objects, a file or a folder of parts, by this process or by workers on many machines."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ssdir.console import Advance, no_progress
from ssdir.data.image_files import find_images, stream_locations
from ssdir.encoding.job import EncodingJob, EncodingRequest, alone_in, open_job, remove_encoding
from ssdir.encoding.local import JobProgress, encode_parts
from ssdir.encoding.options import BoxFile, EncodeOptions
from ssdir.encoding.part import config_digest
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted, quote
from ssdir.identity import Identity
from ssdir.inference.engines import ONNX_SUFFIX, load_encoder
from ssdir.inference.files import Encoder, none_readable
from ssdir.models.shipped import model_source
from ssdir.outputs import checksum, claim
from ssdir.storage import Location, absolute, exists, join, pure_path, remove, to_location
from ssdir.store.folder import MANIFEST, missing_parts, numbered_files, unfinished_files
from ssdir.store.info import read_info
from ssdir.store.join import join_parts
from ssdir.store.skipped import stream_skipped

if TYPE_CHECKING:
    from ssdir.encoding.placed_boxes import PlacedBoxes
    from ssdir.encoding.ray_engine import RayWorkers
    from ssdir.inference.predictor import Predictor

FILE_SUFFIXES = frozenset([".arrow", ".csv", ".feather", ".json", ".jsonl", ".npz", ".pq", ".tsv", ".txt", ".zip"])
"""Suffixes of files that are not written: they are no names of folders."""
MANY_OBJECTS = 100
"""Mean number of objects per image from which on a warning asks whether the detector has learned."""
BY_RAY = "Ray's workers"
MOST_REASONS = 1000
"""Most reasons for skipped images and boxes that are returned; a folder of parts keeps all of them."""


@dataclass(frozen=True)
class Encoded:
    """The outcome of encoding images.

    Attributes:
        images: number of images that could be read.
        objects: number of their objects.
        skipped_images: number of those that couldn't be read.
        skipped_boxes: number of given boxes that weren't encoded.
        reasons: why they were skipped, a sentence each, of the first 1,000.
        missing_parts: number of parts that other shares have yet to write.
        device: what the model ran on.
    """

    images: int
    objects: int
    skipped_images: int
    skipped_boxes: int
    reasons: list[str]
    missing_parts: int
    device: str

    def summary(self) -> str:
        """Returns the numbers, as part of a sentence."""
        parts = [counted(self.images, "image"), counted(self.objects, "object")]
        parts.append(f"{self.skipped_images} skipped")
        if self.skipped_boxes:
            parts.append(f"{counted(self.skipped_boxes, 'box', 'boxes')} skipped")
        return f"{', '.join(parts)}, on {self.device}"


def encode_images(
    model: str,
    paths: Sequence[str | Path],
    out: str | Path,
    options: EncodeOptions | None = None,
    boxes: BoxFile | None = None,
    force: bool = False,
    on_progress: Advance = no_progress,
    workers: RayWorkers | None = None,
) -> Encoded:
    """Encodes images into stored objects, see `ObjectWriter`; memory doesn't grow with their number.

    The images are divided into parts, each of which is written whole or not at all. If the process ends before the
    last one, the same call goes on with the parts that are missing; the result is that of an undisturbed one.

    An `InputWarning` says where boxes and images don't meet, where very many objects are detected, and where the
    images are unlike the model's training data, see `check_files`.

    Args:
        model: a shipped model's name, a model's or run's folder, or a `.onnx` file.
        paths: images, folders, patterns and lists, see `stream_locations`.
        out: a file that ends in `.parquet`; or a folder, which keeps the parts as files.
        options: how to encode.
        boxes: boxes to encode instead of detecting any.
        force: begin anew: replace an existing file or folder of objects, and parts of an interrupted call.
        on_progress: called with (images done, all images).
        workers: encode by Ray's workers instead of this process.

    Raises:
        InputError: if the output can't be written, or holds another encoding; if options don't fit the model; if
            no image can be read.
    """
    options = options or EncodeOptions()
    options.check()
    out = to_location(out)
    is_file = pure_path(out).suffix.lower() == ".parquet"
    folder = _work_folder(out, force) if is_file else out
    _check_folder(out, is_file, options, force)
    if boxes is not None:
        _check_takes_boxes(model, options)
    placed = None if boxes is None else _place(boxes, [absolute(image) for image in find_images(paths)])
    device = options.device if workers is None else "cpu"  # Workers need the GPUs.
    encoder = load_encoder(model, options.engine, device, options.precision)
    identity = Identity.of(model_source(model), encoder)
    if placed is not None:
        identity = identity.model_copy(update={"class_names": placed.table.class_names})
    request = EncodingRequest(
        identity,
        partial(stream_locations, paths),
        boxes=None if boxes is None else _digest(boxes),
        exported=f"{checksum(Path(model)):08x}" if _is_exported(model) else None,
        config=config_digest(encoder),
    )
    new = _new_folders(folder)
    with ExitStack() as stack:
        stack.enter_context(alone_in(folder, waits=not is_file))
        stack.enter_context(_removed_if_empty(new, is_file, options))
        job = open_job(folder, request, options, placed, force)
        if not is_file:  # Other processes may encode other shares, or the same parts.
            stack.close()
        if options.strict:
            _check_none_skipped(job)
        stack.enter_context(_saying_what_is_kept(job, out if force else None))
        _run(job, model, encoder, on_progress, workers)
        encoded = _outcome(job, encoder.device_name if workers is None else BY_RAY)
        if is_file:
            join_parts(folder, str(out), force)
    if is_file:
        remove_encoding(folder)
    if boxes is None and encoded.objects >= MANY_OBJECTS * max(1, encoded.images):
        _warn(
            f"{encoded.objects / encoded.images:.0f} objects per image on average: if there are not as many, the "
            "detector has learned too little (raise detector.epochs) or accepts too much (raise --score-threshold)"
        )
    return encoded


def _work_folder(file: Location, force: bool) -> Path:
    """Returns the folder in which the parts of a file are kept until all of them are there.

    Raises:
        InputError: if the file can't be written.
    """
    if not isinstance(file, Path):
        raise InputError(f"'{file}' is elsewhere, where a folder of parts can be written: leave out .parquet")
    claim(file, force)
    return file.with_name(f".{file.name}.parts")


def _check_folder(out: Location, is_file: bool, options: EncodeOptions, force: bool) -> None:
    """Checks that an output that is a folder, and shares, were meant."""
    if pure_path(out).suffix.lower() in FILE_SUFFIXES:
        raise InputError(f"output '{out}' must end in .parquet, or be a folder")
    if options.share == (1, 1):
        return
    if is_file:
        raise InputError(f"shares are written to a folder, and '{out}' is a file: leave out .parquet")
    if force:
        raise InputError(f"--force would delete what other shares have written: remove '{out}' before the first")


def _run(
    job: EncodingJob, model: str, encoder: Encoder[Any], on_progress: Advance, workers: RayWorkers | None
) -> None:
    """Encodes the parts of the job's share that are missing."""
    missing = job.missing()
    device = encoder.device_name if workers is None else BY_RAY
    progress = JobProgress(job, missing, device, on_progress)
    if len(missing) == job.manifest.parts:
        _check_familiar(model, encoder, job)
    if workers is None:
        encode_parts(job, missing, encoder, progress)
    elif missing:
        from ssdir.encoding.ray_engine import encode_parts_by_ray

        encode_parts_by_ray(job, missing, workers, progress)


def _new_folders(folder: Location) -> list[Location]:
    """Returns a folder and those above it, as far as they are not there yet."""
    if isinstance(folder, Path):
        return [each for each in (folder, *folder.parents) if not each.exists()]
    return [] if exists(folder) else [folder]


@contextmanager
def _removed_if_empty(new: Sequence[Location], is_file: bool, options: EncodeOptions) -> Iterator[None]:
    """Removes new folders when the block raises before anything is written that a command goes on from.

    Args:
        new: the folder of the encoding and those above it, see `_new_folders`.
        is_file: whether the folder is that of a file, which no other command uses: then it is kept for a part.
            Otherwise it is kept for the manifest, because an equal command may be writing the first part.
        options: how to encode.
    """
    try:
        yield
    except BaseException:
        with suppress(InputError, OSError):
            if new and options.share == (1, 1):
                folder, *above = new
                if not (numbered_files(folder) if is_file else exists(join(folder, MANIFEST))):
                    remove([folder])
                    for parent in above:
                        Path(parent).rmdir()
        raise


def _check_none_skipped(job: EncodingJob) -> None:
    """Raises InputError if parts of the job's share that are there already leave out an image or box."""
    written = {*job.parts()} - {*job.missing()}
    for skipped in stream_skipped(job.folder, written):
        reason = skipped["reason"][0].as_py()
        raise InputError(f"{reason} (skipped by an earlier command without --strict: begin anew with --force)")


@contextmanager
def _saying_what_is_kept(job: EncodingJob, replaced: Location | None) -> Iterator[None]:
    """Warns, when the block raises, how many parts the same command need not encode again.

    Args:
        job: the job.
        replaced: the output that `--force` replaces; None without it.
    """
    try:
        yield
    except BaseException:
        with suppress(InputError):
            if written := len(numbered_files(job.folder)):
                parts = counted(job.manifest.parts, "part")
                how = "" if replaced is None else " without --force"
                if replaced is not None and replaced != job.folder and exists(replaced):
                    how += f", once '{replaced}' is moved away,"
                _warn(f"{written} of {parts} are kept in '{job.folder}': the same command{how} goes on from there")
        raise


def _outcome(job: EncodingJob, device: str) -> Encoded:
    """Sums up the parts of the job's share.

    Raises:
        InputError: if no image could be read; then the encoding is removed.
    """
    missing = len(missing_parts(job.folder, job.manifest))
    if missing:
        parts = [read_info(job.part(number)).parts[0] for number in job.parts()]
    else:
        whole = read_info(job.folder)
        parts = [whole.parts[number] for number in job.parts()]
        if not whole.images_seen:
            reason = next(stream_skipped(job.folder))["reason"][0].as_py()
            remove_encoding(job.folder)
            raise InputError(none_readable(job.manifest.images, reason))
        remove(unfinished_files(job.folder))
    given = sum(len(job.manifest.images_of(number)) for number in job.parts())
    seen, objects = sum(part.images or 0 for part in parts), sum(part.objects for part in parts)
    boxes, reasons = 0, list[str]()
    for table in stream_skipped(job.folder, job.parts()):
        boxes += len(table) - table["box_row"].null_count
        reasons += table["reason"].slice(0, MOST_REASONS - len(reasons)).to_pylist()
    return Encoded(seen, objects, given - seen, boxes, reasons, missing, device)


def _is_exported(model: str) -> bool:
    return model.lower().endswith(ONNX_SUFFIX)


def _check_familiar(model: str, encoder: Encoder[Any], job: EncodingJob) -> None:
    """Warns where images are unlike the training data; an exported model has no decoder to ask."""
    if _is_exported(model):
        return
    from ssdir.inference.domain import CHECKED_FILES, check_files, spread

    numbers = spread(job.manifest.images, CHECKED_FILES)
    listed = job.image_list()
    images = [image for number in numbers for image in listed.read(range(number, number + 1))]
    check = check_files(cast("Predictor", encoder), images)
    if check is not None and (sentence := check.sentence(model)) is not None:
        _warn(sentence)


def _check_takes_boxes(model: str, options: EncodeOptions) -> None:
    if options.score_threshold is not None:
        raise InputError("--score-threshold chooses among detected objects: leave it out where --boxes are given")
    if options.engine == "onnx" or _is_exported(model):
        raise InputError(
            "exported models only detect objects: give the model itself, by name or folder, for --boxes"
        )


def _place(boxes: BoxFile, files: list[Location]) -> PlacedBoxes:
    """Reads the boxes, and warns where they and the images given don't meet."""
    from ssdir.encoding.placed_boxes import place
    from ssdir.store.box_files import read_boxes

    placed = place(read_boxes(boxes.path, boxes.annotations, boxes.unit), files)
    if placed.unknown:
        images = counted(len(placed.unknown), "image")
        _warn(f"'{boxes.path}' has boxes of {images} not given here, left out: {quote(placed.unknown[0])} ...")
    if placed.imageless:
        rows = placed.imageless
        _warn(f"'{boxes.path}' has {counted(len(rows), 'row')} without an image, left out: row {rows[0]} ...")
    if placed.without:
        images = counted(len(placed.without), "image")
        _warn(f"'{boxes.path}' has no boxes for {images}: '{placed.without[0]}' ...")
    return placed


def _warn(text: str) -> None:
    warnings.warn(InputWarning(text), stacklevel=3)


def _digest(boxes: BoxFile) -> str:
    """Returns a digest of the boxes of a file, and of how it is read."""
    files = [file for file in (boxes.path, boxes.annotations) if file is not None]
    return " ".join([*(f"{checksum(file):08x}" for file in files if file.is_file()), boxes.unit])
