"""Encoding of one part of a job by a model that is loaded once, the same in every engine."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from ssdir.console import Advance, no_progress
from ssdir.documents import json_text
from ssdir.encoding.job import EncodingJob
from ssdir.errors import InputError
from ssdir.identity import comparable
from ssdir.inference.engines import load_encoder
from ssdir.inference.files import READERS, EncodedBatch, Encoder, encode_files
from ssdir.object_table import utf8
from ssdir.storage import Location, is_file, new_file
from ssdir.store.skipped import write_skipped
from ssdir.store.writer import ObjectWriter

if TYPE_CHECKING:
    from ssdir.inference.predictor import Predictor


class PartEncoder:
    """Encodes parts of a job, one at a time, and writes each whole or not at all.

    Args:
        job: the job.
        encoder: its model, loaded; None loads it.
        readers: number of threads that read images while others are encoded; 0 reads, encodes and writes in turns,
            for a worker that has one core.

    Raises:
        InputError: as `load_encoder`; if the model is not the job's.
    """

    def __init__(self, job: EncodingJob, encoder: Encoder[Any] | None = None, readers: int = READERS) -> None:
        options, model = job.options, job.manifest.model
        self.job, self.readers, self.images = job, readers, job.image_list()
        self.encoder = encoder or load_encoder(model, options.engine, options.device, options.precision)
        if not comparable(self.encoder, job.manifest):
            raise InputError(f"'{model}' is not the model of '{job.folder}' any more: it has other weights")
        if job.manifest.options.config not in (None, config_digest(self.encoder)):
            raise InputError(f"'{model}' is not the model of '{job.folder}' any more: it has another config")

    def __call__(self, number: int, on_progress: Advance = no_progress) -> None:
        """Encodes a part, unless it is there already.

        Args:
            number: the part's.
            on_progress: called with (images done, all images of the part) after each batch.

        Raises:
            InputError: if the part can't be written; as `encode_files`.
        """
        path = self.job.part(number)
        if is_file(path):
            return
        try:
            self._encode(number, path, on_progress)
        except FileNotFoundError:  # An equal command has written the last part, and removed those unfinished.
            if not is_file(path):
                raise InputError(f"'{path}' was removed by another command while it was written") from None

    def _encode(self, number: int, path: Location, on_progress: Advance) -> None:
        job, first = self.job, self.job.manifest.images_of(number).start
        manifest, skipped = job.manifest, list[dict[str, Any]]()
        further = None if job.placed is None else job.placed.table.given.schema
        about = (manifest.model, manifest.class_names, manifest.latent_dim, manifest.fingerprint)
        with new_file(path) as temporary:
            with (
                ObjectWriter(temporary, *about, further, manifest.digest) as writer,
                _one_behind(self.readers > 0) as later,
            ):
                for batch in self._batches(self.images.read(manifest.images_of(number)), on_progress):
                    numbers = [first + index for index in batch.indices]
                    later(writer.write, batch.objects, batch.paths, batch.sizes, batch.given, numbers)
                    skipped += _left_out(batch, first)
            write_skipped(job.folder, number, skipped)  # Before the part appears, which says that all is done.

    def _batches(self, images: list[Location], on_progress: Advance) -> Iterator[EncodedBatch[Any]]:
        job, options = self.job, self.job.options
        if job.placed is None:
            return encode_files(
                self.encoder,
                images,
                options.batch_size,
                options.strict,
                on_progress,
                score_threshold=options.score_threshold,
                readers=self.readers,
            )
        from ssdir.encoding.placed_boxes import encode_placed_boxes

        predictor = cast("Predictor", self.encoder)
        common = (options.batch_size, options.strict, on_progress, self.readers)
        return encode_placed_boxes(predictor, job.placed, images, *common)


def config_digest(encoder: Encoder[Any]) -> str | None:
    """Returns a digest of a model's config, such as its thresholds; None for an exported model, which has none."""
    model = getattr(encoder, "model", None)
    if model is None:
        return None
    # Options that later versions add have defaults, which change nothing.
    values = json_text(model.config.model_dump(mode="json", exclude_defaults=True), None)
    return hashlib.blake2b(values.encode(), digest_size=16).hexdigest()


def _left_out(batch: EncodedBatch[Any], first: int) -> Iterator[dict[str, Any]]:
    """Yields rows of `SKIPPED_SCHEMA` for a batch, of a part whose first image has the number `first`."""
    for image in batch.skipped:
        yield {"image_index": first + image.index, "image": utf8(image.location), "reason": image.reason}
    for box in batch.refused:
        yield {
            "image_index": first + box.index,
            "image": utf8(box.location),
            "box_row": box.row,
            "reason": box.reason,
        }


@contextmanager
def _one_behind(in_thread: bool) -> Iterator[Callable[..., None]]:
    """Yields a function that calls another in a thread, while the caller goes on until its next call.

    Args:
        in_thread: False calls at once.
    """
    if not in_thread:
        yield lambda call, *arguments: call(*arguments)
        return
    pending: list[Future[None]] = []
    with ThreadPoolExecutor(1) as pool:

        def later(call: Callable[..., None], *arguments: Any) -> None:
            while pending:
                pending.pop().result()
            pending.append(pool.submit(call, *arguments))

        yield later
        while pending:
            pending.pop().result()
