"""Plans the encoding of many images from a measurement of a few: time, machines, output, index and price."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
from pydantic import Field

from ssdir.analysis.search.plan import SearchPlan
from ssdir.analysis.search.rows import index_schema
from ssdir.benchmark.encoding_cost import EncodingCost
from ssdir.benchmark.timing import Spread
from ssdir.config import Record
from ssdir.encoding.options import EncodeOptions
from ssdir.errors import InputError
from ssdir.formatting import format_bytes, quote

Origin = Literal["measured", "computed", "extrapolated"]

MOST_IMAGES = 10**15
_IMAGES = "the images to plan for must be a whole number from 1 to 1e15"
_WHOLE = re.compile(r"[0-9]+(_[0-9]+)*")
_BYTES_PER_ROW_ID = 8


@dataclass(frozen=True)
class MeasuredIndex:
    """The making of an index, as it was measured.

    Attributes:
        objects: number of its objects.
        latent_dim: size of their embeddings.
        seconds: time to make it on two cores.
        peak_mb: peak memory of the process, in MiB.
    """

    objects: int
    latent_dim: int
    seconds: float
    peak_mb: float


MEASURED_INDEX = MeasuredIndex(10_000_000, 64, 641.9, 1223.8)
"""From `results/bench/search.json`, which `benchmarks/search.py` wrote; a test compares them."""


class Figure(Record):
    """A figure of a plan.

    Attributes:
        value: the figure.
        unit: its unit, in the plural.
        origin: `measured` here; `computed` from the given numbers alone; `extrapolated` from a measurement.
        basis: how it was obtained, as a phrase.
    """

    value: float
    unit: str
    origin: Origin
    basis: str


@dataclass(frozen=True)
class PlanOptions:
    """What is to be planned.

    Attributes:
        images: number of images.
        deadline_hours: hours in which they are to be encoded.
        core_hour_price: what is paid for a core for an hour, in any currency; None where no cost is asked for.
        gpu_hour_price: what is paid for a GPU.
    """

    images: int
    deadline_hours: float = 24.0
    core_hour_price: float | None = None
    gpu_hour_price: float | None = None

    def check(self) -> None:
        """Raises InputError for a number out of range."""
        if not 1 <= self.images <= MOST_IMAGES:
            raise InputError(f"{_IMAGES}, got {self.images}")
        if not 0 < self.deadline_hours < math.inf:
            raise InputError(f"the hours in which to encode must be more than 0, got {self.deadline_hours:g}")
        for name, price in (("core", self.core_hour_price), ("GPU", self.gpu_hour_price)):
            if price is not None and not 0 <= price < math.inf:
                raise InputError(f"the price of a {name}-hour must be 0 or more, got {price:g}")


class DevicePlan(Record):
    """Encoding by all cores, or all GPUs, of machines like the one that was measured.

    Attributes:
        kind: what encodes.
        per_machine: cores or GPUs of a machine, each with a worker.
        images_per_second: of one machine.
        part_hours: time of a part: what is lost at most when a worker dies.
        device_hours: hours of all cores or GPUs together.
        hours: on one machine.
        machines: fewest machines that meet the deadline; None if a part takes longer.
        read_per_second: what the storage must deliver to so many machines.
        cost: at the user's price; None without one.
    """

    kind: Literal["core", "GPU"]
    per_machine: int = Field(ge=1)
    images_per_second: Figure
    part_hours: Figure
    device_hours: Figure
    hours: Figure
    machines: Figure | None
    read_per_second: Figure | None
    cost: Figure | None


class IndexPlan(Record):
    """The index of all objects.

    Attributes:
        kind: how it is searched: `exact`, `IVF` (partitions) or `IVF-PQ` (of quantised embeddings).
        partitions: number of partitions; 0 for none.
        size: bytes on disk.
        least_hours: to make it on two cores, if its time grows as the objects and their embeddings do.
        most_hours: if it grows as the number of partitions too, with each of which k-means compares an object.
        memory: least peak memory to make it, in bytes.
    """

    kind: Literal["exact", "IVF", "IVF-PQ"]
    partitions: int
    size: Figure
    least_hours: Figure
    most_hours: Figure
    memory: Figure


class EncodingPlan(Record):
    """The encoding of a number of images.

    Attributes:
        images: their number.
        deadline_hours: hours in which they are to be encoded.
        images_per_part: as `ssdir encode` divides them.
        parts: number of parts.
        scaling: what the workers of one machine keep of the throughput of one worker, as a share.
        cores: encoding by cores.
        gpus: encoding by GPUs; None where there are none.
        objects: number of objects.
        output: size of all parts, in bytes.
        index: the index; None without objects.
        cost: the measurement.
    """

    images: int = Field(ge=1)
    deadline_hours: float
    images_per_part: int
    parts: int
    scaling: Figure
    cores: DevicePlan
    gpus: DevicePlan | None
    objects: Figure
    output: Figure
    index: IndexPlan | None
    cost: EncodingCost


def read_count(text: str) -> int:
    """Reads a whole number of images, such as `1000`, `1_000_000`, `1e9` or `2.5e6`.

    Raises:
        InputError: if it isn't a whole number from 1 to 1e15.
    """
    try:
        number = int(text) if _WHOLE.fullmatch(text) else float(text)
    except ValueError:
        number = math.nan
    if not 1 <= number <= MOST_IMAGES or number != int(number):
        raise InputError(f"{_IMAGES}, got {quote(text)}")
    return int(number)


def plan(cost: EncodingCost, options: PlanOptions) -> EncodingPlan:
    """Plans the encoding of images like those that were measured, on machines like this one.

    Machines share nothing but the storage, so they are counted as if none slowed another.

    Args:
        cost: what `measure_encoding` returned.
        options: what to plan.

    Raises:
        InputError: for an option out of range.
    """
    options.check()
    images, sample = options.images, cost.sample
    per_part = min(images, EncodeOptions().part_size(images))
    work = _Work(images, per_part, options.deadline_hours, sample.file_bytes)
    objects = round(images * cost.objects_per_image)
    error = sample.objects_error / sample.objects if sample.objects else 0.0
    return EncodingPlan(
        images=images,
        deadline_hours=options.deadline_hours,
        images_per_part=per_part,
        parts=work.parts,
        scaling=Figure(
            value=cost.scaling.median,
            unit="of one worker's throughput",
            origin="measured",
            basis=_range(cost.scaling),
        ),
        cores=_by_cores(cost, work, options.core_hour_price),
        gpus=_by_gpus(cost, work, options.gpu_hour_price) if cost.gpus else None,
        objects=Figure(
            value=objects,
            unit="objects",
            origin="extrapolated",
            basis=f"{cost.objects_per_image:.3g} each ± {100 * error:.0f} %",
        ),
        output=Figure(
            value=images * cost.bytes_per_image,
            unit="bytes",
            origin="extrapolated",
            basis=f"{format_bytes(cost.bytes_per_image)} per image",
        ),
        index=_index(objects, cost.latent_dim) if objects else None,
        cost=cost,
    )


@dataclass(frozen=True)
class _Work:
    """What is to be encoded until when."""

    images: int
    per_part: int
    deadline_hours: float
    file_bytes: float

    @property
    def parts(self) -> int:
        return -(-self.images // self.per_part)

    def plan(
        self, kind: Literal["core", "GPU"], per_machine: int, rate: Figure, price: float | None
    ) -> DevicePlan:
        """Plans encoding by workers of which a machine has `per_machine`, at `rate` images/s together."""
        each = rate.value / per_machine
        part_hours = self.per_part / each / 3600
        device_hours = self.images / each / 3600
        machines = self._machines(part_hours, per_machine)
        return DevicePlan(
            kind=kind,
            per_machine=per_machine,
            images_per_second=rate,
            part_hours=_figure(part_hours, "hours", f"{self.per_part:,} images"),
            device_hours=_figure(device_hours, f"{kind}-hours", "images / images/s"),
            hours=_figure(
                math.ceil(self.parts / per_machine) * part_hours, "hours", f"parts by {per_machine} workers"
            ),
            machines=machines,
            read_per_second=machines
            and _figure(
                machines.value * rate.value * self.file_bytes,
                "bytes/s",
                f"{format_bytes(self.file_bytes)} per image",
            ),
            cost=None
            if price is None
            else _figure(device_hours * price, "of the price's currency", f"{price:g} per {kind}-hour"),
        )

    def _machines(self, part_hours: float, per_machine: int) -> Figure | None:
        each = math.floor(self.deadline_hours / part_hours)
        if not each:
            return None
        machines = math.ceil(self.parts / (per_machine * each))
        return _figure(machines, "machines", f"{each:,} parts a worker")


def _by_cores(cost: EncodingCost, work: _Work, price: float | None) -> DevicePlan:
    measured, cores = cost.all_cores, cost.cores
    rate = measured.images_per_second.median * cores / measured.workers
    basis = f"{_range(measured.images_per_second)}"
    if cores > measured.workers:
        basis = f"{measured.workers} cores, {basis}"
    origin: Origin = "measured" if cores == measured.workers else "extrapolated"
    figure = Figure(value=rate, unit="images/s", origin=origin, basis=basis)
    return work.plan("core", cores, figure, price)


def _by_gpus(cost: EncodingCost, work: _Work, price: float | None) -> DevicePlan:
    rate = sum(gpu.images_per_second.median for gpu in cost.gpus)
    basis = "sum of those of each" if len(cost.gpus) > 1 else _range(cost.gpus[0].images_per_second)
    origin: Origin = "measured" if len(cost.gpus) == 1 else "extrapolated"
    figure = Figure(value=rate, unit="images/s", origin=origin, basis=basis)
    return work.plan("GPU", len(cost.gpus), figure, price)


def _index(objects: int, latent_dim: int) -> IndexPlan:
    """Plans the index of so many objects, without the paths of images, which differ."""
    search, known = SearchPlan.of(objects, latent_dim), MEASURED_INDEX
    row = sum(_width(kind) for kind in index_schema(latent_dim).types)
    partitioned = (search.sub_vectors or 4 * latent_dim) + _BYTES_PER_ROW_ID if search.partitions else 0
    least = known.seconds / 3600 * objects * latent_dim / (known.objects * known.latent_dim)
    more = max(1.0, search.partitions / SearchPlan.of(known.objects, known.latent_dim).partitions)
    basis = f"{known.objects / 1e6:g} M of {known.latent_dim} numbers"
    return IndexPlan(
        kind="IVF-PQ" if search.sub_vectors else "IVF" if search.partitions else "exact",
        partitions=search.partitions,
        size=Figure(
            value=objects * (row + partitioned),
            unit="bytes",
            origin="computed",
            basis=f"{row + partitioned:,} B each, no paths",
        ),
        least_hours=_figure(least, "hours", basis),
        most_hours=_figure(least * more, "hours", f"x {more:.3g} for partitions"),
        memory=_figure(known.peak_mb * 2**20, "bytes", basis),
    )


def _width(kind: pa.DataType) -> int:
    """Returns the bytes of a value in an index; 0 for text."""
    if pa.types.is_fixed_size_list(kind):
        return int(kind.list_size) * _width(kind.value_type)
    return 0 if pa.types.is_string(kind) else kind.bit_width // 8


def _figure(value: float, unit: str, basis: str) -> Figure:
    return Figure(value=value, unit=unit, origin="extrapolated", basis=basis)


def _range(values: Spread) -> str:
    return f"{values.min:.3g} to {values.max:.3g}"
