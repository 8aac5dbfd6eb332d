"""A plan as tables to print."""

from __future__ import annotations

from collections.abc import Callable

from ssdir.benchmark.plan import DevicePlan, EncodingPlan, Figure
from ssdir.benchmark.report import BenchTable
from ssdir.benchmark.timing import Spread
from ssdir.formatting import counted, format_bytes, rounded

_COLUMNS = ("", "", "")

Row = tuple[str, str, str]


def plan_tables(plan: EncodingPlan) -> list[BenchTable]:
    """Makes a table of what was measured, one for cores and one for GPUs, and one of the output."""
    tables = [BenchTable("Measured here", _COLUMNS, _measured(plan)), _devices(plan, plan.cores)]
    if plan.gpus is not None:
        tables.append(_devices(plan, plan.gpus))
    return [*tables, BenchTable("Output", _COLUMNS, _output(plan))]


def format_hours(value: float) -> str:
    """Returns text such as `4.5 s`, `12.0 min`, `7.50 h` or, from four days on, `1,230 days`."""
    for limit, factor, unit in ((1 / 60, 3600, "s"), (1, 60, "min"), (96, 1, "h")):
        if value < limit:
            return f"{rounded(value * factor)} {unit}"
    return f"{rounded(value / 24)} days"


def _measured(plan: EncodingPlan) -> list[Row]:
    cost, one, several = plan.cost, plan.cost.one_core, plan.cost.all_cores
    sample = cost.sample
    images = "samples" if sample.generated else "images"
    return [
        ("images/s of one core", rounded(one.images_per_second.median), _spread(one.images_per_second)),
        (
            f"images/s of {counted(several.workers, 'core')} at once",
            rounded(several.images_per_second.median),
            _spread(several.images_per_second),
        ),
        (
            f"the same / {several.workers} x one core",
            _percent(cost.scaling.median),
            f"{_percent(cost.scaling.min)} to {_percent(cost.scaling.max)}",
        ),
        *(
            (f"images/s of {gpu.device}", rounded(gpu.images_per_second.median), _spread(gpu.images_per_second))
            for gpu in cost.gpus
        ),
        (
            "share of reading images",
            _percent(cost.reading_share.median),
            f"{sample.megapixels:.2f} megapixels, {format_bytes(sample.file_bytes)} each",
        ),
        (
            "objects per image",
            rounded(cost.objects_per_image),
            f"{sample.images} {images}, standard error {sample.objects_error:.2g}",
        ),
        ("Parquet per image", format_bytes(cost.bytes_per_image), f"part of {format_bytes(cost.part_bytes)}"),
        ("peak memory of a worker", format_bytes(several.peak_mb * 2**20), "the largest"),
        *((("load before", f"{cost.load:.1f}", "other running processes"),) if cost.load is not None else ()),
        ("start of a worker", format_hours(several.start_seconds / 3600), "the slowest"),
    ]


def _devices(plan: EncodingPlan, devices: DevicePlan) -> BenchTable:
    kind, hours = devices.kind, f"{plan.deadline_hours:g} h"
    machines = devices.machines
    rate, rows = devices.images_per_second, list[Row]()
    if rate.origin != "measured":  # Then it is in the other table.
        rows.append((f"images/s of {counted(devices.per_machine, kind)}", *_cells(rate, rounded)))
    rows += [
        (f"{kind}-hours", *_cells(devices.device_hours, rounded)),
        ("time on this machine", *_cells(devices.hours, format_hours)),
        ("time of a part", *_cells(devices.part_hours, format_hours)),
    ]
    if machines is None or devices.read_per_second is None:
        rows.append((f"machines like this for {hours}", "none", "a part takes longer"))
    else:
        rows.append((f"machines like this for {hours}", *_cells(machines, lambda value: f"{value:,.0f}")))
        rows.append(("read from the storage", *_cells(devices.read_per_second, _rate)))
    if devices.cost is not None:
        rows.append(("cost, at your price", *_cells(devices.cost, rounded)))
    return BenchTable(f"{counted(plan.images, 'image')} by {kind}s", _COLUMNS, rows)


def _output(plan: EncodingPlan) -> list[Row]:
    rows: list[Row] = [
        ("objects", *_cells(plan.objects, rounded)),
        ("Parquet", *_cells(plan.output, format_bytes)),
        ("parts", f"{plan.parts:,}", f"computed: {counted(plan.images_per_part, 'image')} each"),
    ]
    if plan.index is not None:
        partitions = f"{plan.index.partitions:,} partitions" if plan.index.partitions else "all are compared"
        rows += [
            ("index", plan.index.kind, f"computed: {partitions}"),
            ("size of the index", *_cells(plan.index.size, format_bytes)),
            ("time to make it, at least", *_cells(plan.index.least_hours, format_hours)),
            ("time to make it, at most", *_cells(plan.index.most_hours, format_hours)),
        ]
        rows.append(("memory to make it, at least", *_cells(plan.index.memory, format_bytes)))
    return rows


def _cells(figure: Figure, show: Callable[[float], str]) -> tuple[str, str]:
    return show(figure.value), f"{figure.origin}: {figure.basis}"


def _rate(value: float) -> str:
    return f"{format_bytes(value)}/s"


def _spread(values: Spread) -> str:
    return f"{rounded(values.min)} to {rounded(values.max)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
