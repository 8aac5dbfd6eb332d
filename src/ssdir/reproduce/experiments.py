"""The kinds of experiments: the records that each measures, and the section of the report that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ssdir.formatting import counted
from ssdir.reports.glossary import METRICS, MISSING
from ssdir.reports.paper import CRITERIA, DIFFERENCES, PROBE, quoted
from ssdir.reports.report import Row, RowGroup, Section, Table
from ssdir.reproduce.jobs import Job
from ssdir.reproduce.records import Record, Trainings, by_group, make_record
from ssdir.reproduce.runner import Runner

_DEVIATION = (
    "“±” is the standard deviation over trainings with different seeds; “(2 of 3)” says how many trainings have a "
    "value, where others have none."
)


@dataclass(frozen=True)
class Results:
    """The results of an experiment.

    Attributes:
        records: one for each training.
        left_out: sentences that say what was not measured, and why.
        figures: folder of its pictures.
    """

    records: Sequence[Record]
    left_out: Sequence[str]
    figures: Path


@dataclass(frozen=True)
class Experiment:
    """An experiment of the plan.

    Attributes:
        title: title of its section in the report.
        text: the question, and how to read the answer.
    """

    title: str
    text: str

    prefixes: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the metrics that are kept."""
    trains: ClassVar[bool] = True
    """True if it needs trained models."""
    every_seed: ClassVar[bool] = True
    """True if it needs every seed; otherwise the first is enough."""

    def measure(self, runner: Runner, jobs: Sequence[Job], figures: Path) -> list[Record]:
        """Measures trained jobs; pictures go to `figures`."""
        return [make_record(job, runner.ensure_measured(job), self.prefixes) for job in jobs]

    def section(self, results: Results) -> Section:
        """Builds the section of the report."""
        raise NotImplementedError

    def paragraphs(self, results: Results) -> list[str]:
        """Returns the text, what probes learned from, and what was left out."""
        sentences = [f"{sentence[:1].upper()}{sentence[1:]}." for sentence in results.left_out]
        return [f"{self.text}{_probed(results.records)}", *([" ".join(sentences)] if sentences else [])]


def _probed(records: Sequence[Record]) -> str:
    """Says how many images probes learned from, on which experiments need not agree; empty without probes."""
    probed = [record for record in records if record["metrics"].get("probe/accuracy") is not None]
    settings = [record["provenance"]["config"].get("measure", {}) for record in probed]
    counts = sorted({each["train_images"] for each in settings if "train_images" in each})
    if not counts:
        return ""
    images = " or ".join(f"{count:,}" for count in counts)
    return f" Probes learn from the objects of at most {images} training images."


@dataclass(frozen=True)
class Comparison(Experiment):
    """A table of methods by metrics.

    Attributes:
        metrics: keys of `METRICS`.
    """

    metrics: tuple[str, ...]

    def measure(self, runner: Runner, jobs: Sequence[Job], figures: Path) -> list[Record]:
        """Measures the metrics of the table."""
        return [make_record(job, runner.ensure_measured(job), self.metrics) for job in jobs]

    def section(self, results: Results) -> Section:
        """Builds a table with the longer of the two, methods or metrics, as rows."""
        methods = by_group(results.records)
        shown = [METRICS[name] for name in self.metrics if any(method.values(name) for method in methods)]
        if not shown:
            return Section(self.title, [*self.paragraphs(results), "None of its metrics could be measured."])
        several = len({method.first["data"] for method in methods}) > 1
        names = [f"{method.name} ({method.first['data']})" if several else method.name for method in methods]
        cells = [[method.text(metric.name, metric.spec) for metric in shown] for method in methods]
        if len(methods) > len(shown):
            rows = [Row(name, "", values) for name, values in zip(names, cells, strict=True)]
            table = Table(["method", *(metric.label for metric in shown)], [RowGroup("", rows)], _DEVIATION)
        else:
            columns = zip(*cells, strict=True)
            rows = [
                Row(metric.label, metric.meaning, list(values))
                for metric, values in zip(shown, columns, strict=True)
            ]
            table = Table(["metric", *names], [RowGroup("", rows)], _DEVIATION)
        return Section(self.title, self.paragraphs(results), table=table)


class Table1(Experiment):
    """The paper's Table 1, and below it average precision, time and memory."""

    prefixes: ClassVar[tuple[str, ...]] = ("detection/",)

    def measure(self, runner: Runner, jobs: Sequence[Job], figures: Path) -> list[Record]:
        """Measures each model, its time and its memory."""
        costs = runner.ensure_costs(jobs)
        return [{**record, "cost": costs[record["group"]]} for record in super().measure(runner, jobs, figures)]

    def section(self, results: Results) -> Section:
        """Builds a table with a column for each method."""
        methods = by_group(results.records)
        kinds = [DIFFERENCES.get(method.first["model"], (MISSING,) * len(CRITERIA)) for method in methods]
        criteria = [
            Row(name, "", list(values)) for name, values in zip(CRITERIA, zip(*kinds, strict=True), strict=True)
        ]
        detection = [
            Row(
                METRICS[name].label if name in METRICS else label,
                note,
                [method.text(name, ".3f") for method in methods],
            )
            for name, label, note in (
                ("detection/ap", "AP", ""),
                ("detection/ap_small", "AP of small objects", "Below 32 × 32 pixels."),
                ("detection/ap_medium", "AP of medium objects", "Up to 96 × 96 pixels."),
                ("detection/ap_large", "AP of large objects", "Above."),
            )
        ]
        groups = [RowGroup("The paper's criteria", criteria), RowGroup("Detection", detection)]
        table = Table(["", *(method.name for method in methods)], [*groups, _cost_rows(methods)], _DEVIATION)
        return Section(self.title, self.paragraphs(results), table=table)


class CostTable(Table1):
    """Time and memory of untrained models."""

    trains: ClassVar[bool] = False

    def measure(self, runner: Runner, jobs: Sequence[Job], figures: Path) -> list[Record]:
        """Measures time and memory of each model; none is trained."""
        costs = runner.ensure_costs(jobs)
        first = {job.group: job for job in reversed(jobs)}
        return [
            {
                **make_record(job, {"metrics": {}, "provenance": costs[group]["provenance"]}, ()),
                "cost": costs[group],
            }
            for group, job in reversed(first.items())
        ]

    def section(self, results: Results) -> Section:
        """Builds a table with a column for each method."""
        methods = by_group(results.records)
        table = Table(["", *(method.name for method in methods)], [_cost_rows(methods)])
        return Section(self.title, self.paragraphs(results), table=table)


def _cost_rows(methods: Sequence[Trainings]) -> RowGroup:
    """Rows of parameters, and of time and memory with few and with many objects."""
    costs = [method.first["cost"]["costs"] if method.first.get("cost") else [] for method in methods]
    rows = [Row("parameters", "", [f"{each[0]['parameters']:,}" if each else MISSING for each in costs])]
    counts = sorted({cost["objects"] for each in costs for cost in each if cost["objects"] is not None})
    for stage, label, show in (
        ("encode", "ms per image, encoding", _milliseconds),
        ("train", "ms per image, training", _milliseconds),
        ("train", "MiB for a training step", _mebibytes),
    ):
        for count in counts or [None]:
            shown = [
                [show(c) for c in each if c["stage"] == stage and c["objects"] in (count, None)] for each in costs
            ]
            values = [values[0] if values else MISSING for values in shown]
            rows.append(Row(label if count is None else f"{label}, {count} objects", "", values))
    return RowGroup("Time and memory on the CPU, in batches of eight", rows)


def _mebibytes(cost: dict[str, Any]) -> str:
    return MISSING if cost["memory_mb"] is None else f"{cost['memory_mb']:.0f}"


def _milliseconds(cost: dict[str, Any]) -> str:
    return f"{1000 * cost['seconds']['median']:.1f}"


class Table2(Experiment):
    """The paper's Table 2, with end-to-end accuracy, ceilings and floors."""

    prefixes: ClassVar = ("probe/", "detection/ap50", "detection/recall", "reconstruction/mse")
    scores: ClassVar = ("accuracy", "precision", "recall", "f1", "accuracy_end_to_end")

    def section(self, results: Results) -> Section:
        """Builds a table with each method's row above the paper's, then ceilings and floors."""
        methods = by_group(results.records)
        groups = []
        for kind in dict.fromkeys(method.first["model"] for method in methods):
            own = [method for method in methods if method.first["model"] == kind]
            rows = [
                Row(_within(kind, each), counted(len(each.records), "training"), self._cells(each, "probe"))
                for each in own
            ]
            if kind in PROBE:
                theirs = [quoted(PROBE[kind][name]) for name in self.scores[:-1]]
                rows.append(Row("the paper", "", [*theirs, MISSING, MISSING]))
            groups.append(RowGroup(kind, rows))
        for title, part in (
            ("The paper's labels: the object of largest overlap, however little", "largest_overlap"),
            ("Ceiling: embeddings of the true boxes", "true_boxes"),
            ("Floor: the detector's pooled features", "pooled_features"),
            ("Floor: the class that the detector predicts", "labels"),
            ("Floor: an untrained encoder", "random_encoder"),
            ("Floor: pixels in the box", "raw_pixels"),
        ):
            measured = [method for method in methods if method.values(f"probe/{part}/accuracy")]
            groups.append(
                RowGroup(title, [Row(each.name, "", self._cells(each, f"probe/{part}")) for each in measured])
            )
        header = ["", "accuracy", "precision", "recall", "F1", "end to end", "detected"]
        table = Table(header, [group for group in groups if group.rows], _DEVIATION)
        return Section(self.title, self.paragraphs(results), table=table)

    def _cells(self, method: Trainings, prefix: str) -> list[str]:
        share = method.mean("detection/recall") if prefix == "probe" else None
        detected = "" if share is None else f"{share:.3f}"
        return [*(method.text(f"{prefix}/{name}") for name in self.scores), detected]


def _within(kind: str, method: Trainings) -> str:
    """Returns the name of a method below that of its model."""
    rest = method.name.removeprefix(kind).lstrip(", ")
    return f"{rest} detector" if rest.startswith("class-") else rest or kind
