"""Measures encoding of image files to a written part on this machine: time, memory and size of the output."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pyarrow.parquet as pq
import torch
from pydantic import Field

from ssdir.benchmark.encoding_workers import EncodedPart, EncodingWorkers, WorkerKind, encoding_workers
from ssdir.benchmark.timing import Spread, ratio
from ssdir.config import Record
from ssdir.console import Advance, no_progress
from ssdir.data.image_files import stream_locations
from ssdir.data.images import image_size
from ssdir.data.samples import sample_images, sample_photographs
from ssdir.device import device_name
from ssdir.encoding.job import EncodingJob, EncodingRequest, open_job
from ssdir.encoding.options import EncodeOptions
from ssdir.errors import InputError, InputWarning
from ssdir.evaluation.provenance import provenance
from ssdir.formatting import counted
from ssdir.identity import Identity
from ssdir.inference.domain import spread
from ssdir.inference.engines import ONNX_SUFFIX, load_encoder
from ssdir.inference.files import Encoder, none_readable
from ssdir.models.backbones.timm_net import knows_photographs
from ssdir.models.shipped import model_source
from ssdir.storage import Location, read_bytes
from ssdir.store.info import read_info
from ssdir.store.skipped import read_skipped

SECONDS, REPEATS = 3.0, 3
"""Approximate time of one measurement, and how often it is repeated."""
MOST_WORKERS = 16
"""Most processes that encode at the same time: each has the model in memory."""

BUSY = 0.5
"""Running processes for each core from which on a warning says that the machine is busy."""
MOST_LISTED = 1_000_000
"""Number of given images, the first ones, of which some are taken."""

_SAMPLES = 48
_FIRST_IMAGES = 16
"""Number of images whose time says how many a measurement takes."""
_STEP, _MOST_STEPS = 8, 512
"""Measurements take a multiple of so many images, at most so many times."""


class WorkersCost(Record):
    """Throughput and memory of one worker, or of several at the same time.

    Attributes:
        device: what each runs on, such as `cpu` or `cuda:0`.
        device_name: its name.
        workers: number of workers: processes that each have the model; on the CPU, with one thread.
        images: number of images that each encodes in a measurement.
        images_per_second: of all workers together, from files to written parts, with the model loaded.
        start_seconds: longest time from the order to start a worker until its model was loaded.
        peak_mb: largest peak memory of a worker, in MiB.
    """

    device: str
    device_name: str
    workers: int = Field(ge=1)
    images: int = Field(ge=1)
    images_per_second: Spread
    start_seconds: float
    peak_mb: float


class SampleImages(Record):
    """The images that were encoded, on which all figures depend.

    Attributes:
        generated: whether they are samples, because none were given.
        images: number of different images.
        unreadable: number of those that couldn't be read.
        megapixels: mean size.
        file_bytes: mean size of a file.
        objects: mean number of objects.
        objects_error: its standard error, from how much the images differ.
    """

    generated: bool
    images: int = Field(ge=1)
    unreadable: int = Field(ge=0)
    megapixels: float
    file_bytes: float
    objects: float
    objects_error: float


class EncodingCost(Record):
    """Time, memory and output of encoding images by a model, measured on one machine.

    Attributes:
        model: the model's name.
        latent_dim: size of its embeddings.
        cores: number of cores that the processes may use.
        load: mean number of other running processes in the minute before; None where the system doesn't say.
        sample: the images.
        one_core: one worker of one thread, while the others wait.
        all_cores: a worker of one thread for each core, up to `MOST_WORKERS`, all at the same time.
        scaling: images/s of these over those of as many times one worker, in the same rounds.
        gpus: one worker on each GPU, the others idle; it reads with the threads of `ssdir encode`.
        reading_share: share of one core's time in which images are read, decoded and resized.
        part_images: number of images of the part that the sizes are of; images that were given or generated are
            repeated where there are fewer.
        part_objects: number of its objects.
        part_bytes: size of its file.
        provenance: see `provenance`.
    """

    model: str
    latent_dim: int
    cores: int = Field(ge=1)
    load: float | None
    sample: SampleImages
    one_core: WorkersCost
    all_cores: WorkersCost
    scaling: Spread
    gpus: list[WorkersCost]
    reading_share: Spread
    part_images: int = Field(ge=1)
    part_objects: int = Field(ge=0)
    part_bytes: int = Field(ge=1)
    provenance: dict[str, Any]

    @property
    def objects_per_image(self) -> float:
        """Mean number of objects of an image."""
        return self.part_objects / self.part_images

    @property
    def bytes_per_image(self) -> float:
        """Size of the output for each image, in bytes."""
        return self.part_bytes / self.part_images


def measure_encoding(
    model: str,
    images: Sequence[str | Path] | None = None,
    seconds: float = SECONDS,
    repeats: int = REPEATS,
    on_progress: Advance = no_progress,
) -> EncodingCost:
    """Measures encoding by one core, by all cores, and by each GPU, as the workers of `ssdir encode` do it.

    Args:
        model: a shipped model's name, a model's or run's folder, or a `.onnx` file.
        images: images, folders, patterns and lists like those to encode, of which some, evenly spread, are
            taken; None takes scattered digits, or photographs for models of photographs.
        seconds: approximate time of a measurement.
        repeats: number of measurements, after one that doesn't count.
        on_progress: called with (steps done, all steps, what is being measured).

    An `InputWarning` says where images are samples or couldn't be read, and where the machine is busy.

    Raises:
        InputError: as `load_encoder` and `stream_locations`; if no image can be read; if a worker dies.
    """
    started, cores, load = time.perf_counter(), _usable_cores(), _load()
    if load is not None and load > BUSY * cores:
        _warn(f"{load:.1f} other processes run on {counted(cores, 'core')}: what is measured is what they leave")
    encoder, devices = load_encoder(model, device="cpu"), _gpus(model)
    steps = repeats + 1 + len(devices)
    with TemporaryDirectory() as name:
        files = (
            _sample(model, encoder, Path(name))
            if images is None
            else [*islice(stream_locations(images), MOST_LISTED)]
        )
        jobs = _Jobs(Path(name), Identity.of(model_source(model), encoder), files, seconds)
        on_progress(0, steps, f"measuring {model}")
        with encoding_workers(WorkerKind(model, "cpu", 1), min(cores, MOST_WORKERS)) as workers:
            job = jobs.sized(workers)
            workers.together(job)
            alone, together = list[EncodedPart](), list[list[EncodedPart]]()
            for done in range(1, repeats + 1):
                on_progress(done, steps, "measuring cores")
                alone.append(workers.alone(job))
                together.append(workers.together(job))
        gpus = list[WorkersCost]()
        for device in devices:
            on_progress(repeats + 1 + len(gpus), steps, f"measuring {device}")
            gpus.append(_measure_gpu(model, device, jobs, repeats))
        part, sample = Path(job.part(0)), jobs.describe(job, generated=images is None)
        _warn_of(sample)
        one, all_cores = (_cost("cpu", job, rounds) for rounds in ([[each] for each in alone], together))
        record = provenance(
            {"seconds": seconds, "repeats": repeats}, None, None, "cpu", time.perf_counter() - started
        )
        return EncodingCost(
            model=model,
            latent_dim=encoder.latent_dim,
            cores=cores,
            load=load,
            sample=sample,
            one_core=one,
            all_cores=all_cores,
            scaling=ratio([each.seconds for each in alone], map(_longest, together)),
            gpus=gpus,
            reading_share=Spread.of(each.reading_seconds / each.seconds for each in alone),
            part_images=job.manifest.images_per_part,
            part_objects=read_info(part).objects,
            part_bytes=part.stat().st_size,
            provenance=record,
        )


@dataclass
class _Jobs:
    """Makes jobs of the same images, in parts that take a while.

    Attributes:
        folder: an empty folder.
        identity: the model.
        files: the images to choose from.
        seconds: approximate time of a part.
    """

    folder: Path
    identity: Identity
    files: Sequence[Location]
    seconds: float
    _made: int = 0

    def sized(self, workers: EncodingWorkers) -> EncodingJob:
        """Returns a job with a part for each worker, of as many images as one of them encodes in the time."""
        first = self._job(_FIRST_IMAGES, 1)
        workers.alone(first)
        each = workers.alone(first).seconds / _FIRST_IMAGES
        return self._job(_STEP * min(max(1, round(self.seconds / each / _STEP)), _MOST_STEPS), workers.number)

    def _job(self, images: int, parts: int) -> EncodingJob:
        chosen = [self.files[row] for row in spread(len(self.files), images)]
        listed = [*islice(cycle(chosen), images)] * parts
        self._made += 1
        folder = self.folder / f"job-{self._made}"
        return open_job(
            folder, EncodingRequest(self.identity, lambda: listed), EncodeOptions(images_per_part=images)
        )

    def describe(self, job: EncodingJob, *, generated: bool) -> SampleImages:
        """Describes the images of a job by its first part, which must be written."""
        images = job.manifest.images_per_part
        files = [self.files[row] for row in spread(len(self.files), images)]
        skipped = read_skipped(job.folder).to_pylist()
        unreadable = {row["image_index"] for row in skipped if row["image_index"] < len(files)}
        if len(unreadable) == len(files):
            raise InputError(none_readable(len(files), skipped[0]["reason"]))
        contents = [read_bytes(file) for number, file in enumerate(files) if number not in unreadable]
        index = pq.read_table(job.part(0), columns=["image_index"])["image_index"].to_numpy()
        objects = np.bincount(index, minlength=images)[: len(files)]
        return SampleImages(
            generated=generated,
            images=len(files),
            unreadable=len(unreadable),
            megapixels=float(np.mean([np.prod(image_size(content)) for content in contents])) / 1e6,
            file_bytes=float(np.mean([len(content) for content in contents])),
            objects=float(objects.mean()),
            objects_error=float(objects.std() / np.sqrt(max(1, len(files) - 1))),
        )


def _warn_of(sample: SampleImages) -> None:
    if sample.generated:
        _warn("samples were measured: give images of your own by --images, which decide size, objects and time")
    if sample.unreadable:
        _warn(f"{sample.unreadable} of {counted(sample.images, 'image')} that were measured couldn't be read")


def _warn(text: str) -> None:
    warnings.warn(InputWarning(text), stacklevel=3)


def _measure_gpu(model: str, device: str, jobs: _Jobs, repeats: int) -> WorkersCost:
    with encoding_workers(WorkerKind(model, device, None), 1) as workers:
        job = jobs.sized(workers)
        workers.alone(job)
        return _cost(device, job, [[workers.alone(job)] for _ in range(repeats)])


def _cost(device: str, job: EncodingJob, rounds: Sequence[Sequence[EncodedPart]]) -> WorkersCost:
    images, parts = job.manifest.images_per_part, [part for each in rounds for part in each]
    return WorkersCost(
        device=device,
        device_name=device_name(torch.device(device)),
        workers=len(rounds[0]),
        images=images,
        images_per_second=Spread.of(len(each) * images / _longest(each) for each in rounds),
        start_seconds=max(part.start_seconds for part in parts),
        peak_mb=max(part.peak_mb for part in parts),
    )


def _longest(parts: Sequence[EncodedPart]) -> float:
    """Returns the time until the last of several parts that were begun together is written."""
    return max(part.seconds for part in parts)


def _usable_cores() -> int:
    """Returns the number of cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _load() -> float | None:
    """Returns the mean number of running processes in the last minute; None where the system doesn't say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _gpus(model: str) -> list[str]:
    if model.lower().endswith(ONNX_SUFFIX):
        return []
    if torch.backends.mps.is_available():
        return ["mps"]
    return [f"cuda:{number}" for number in range(torch.cuda.device_count())]


def _sample(model: str, encoder: Encoder[Any], folder: Path) -> list[Location]:
    """Writes images that a model may know into a folder: photographs as JPEG, or digits as PNG."""
    if model.lower().endswith(ONNX_SUFFIX):
        raise InputError(f"'{model}' doesn't say which images it was trained on: give some by --images")
    photographs = knows_photographs(getattr(encoder, "model").config)  # noqa: B009
    samples = sample_photographs(_SAMPLES) if photographs else sample_images(_SAMPLES, encoder.image_size)
    files = list[Location]()
    for number, sample in enumerate(samples):
        file = folder / f"{number:04d}{'.jpg' if photographs else '.png'}"
        files.append(file)
        cv2.imwrite(str(file), sample.image[..., ::-1] if photographs else sample.image[..., 0])
    return files
