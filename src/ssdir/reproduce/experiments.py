"""The experiments: what each keeps of its runs, and the chapter that it becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ssdir.reports.glossary import METRICS, MISSING
from ssdir.reports.paper import CRITERIA, DIFFERENCES, PROBE, quoted
from ssdir.reports.report import Row, RowGroup, Section, Table
from ssdir.reproduce.plan import Job
from ssdir.reproduce.records import Record, Trainings, by_run, make_record
from ssdir.reproduce.runner import Runner

_DEVIATION = "“±” is the standard deviation over trainings with different seeds."


@dataclass(frozen=True)
class Results:
    """What was measured for an experiment.

    Attributes:
        records: one per run.
        left_out: what was not, and why, in sentences.
        figures: folder of its pictures.
    """

    records: Sequence[Record]
    left_out: Sequence[str]
    figures: Path


@dataclass(frozen=True)
class Experiment:
    """An experiment of the plan.

    Attributes:
        title: of its chapter.
        text: what is asked, and how to read the answer.
    """

    title: str
    text: str

    prefixes: ClassVar[tuple[str, ...]] = ()
    """Of the metrics that are kept."""
    trains: ClassVar[bool] = True
    """Whether it needs trained models."""
    every_seed: ClassVar[bool] = True
    """Whether it needs all trainings of a run; else one is enough."""

    def measure(self, runner: Runner, jobs: Sequence[Job], figures: Path) -> list[Record]:
        """Records of its trained runs; pictures go to `figures`."""
        return [make_record(job, runner.ensure_measured(job), self.prefixes) for job in jobs]

    def chapter(self, results: Results) -> Section:
        """What a reader sees."""
        raise NotImplementedError

    def paragraphs(self, results: Results) -> list[str]:
        """The text, what probes learned from, and what was left out."""
        sentences = [f"{sentence[:1].upper()}{sentence[1:]}." for sentence in results.left_out]
        return [f"{self.text}{_probed(results.records)}", *([" ".join(sentences)] if sentences else [])]


def _probed(records: Sequence[Record]) -> str:
    """How many images probes learned from, as experiments need not agree on it; nothing where there were none."""
    probed = [record for record in records if record["metrics"].get("probe/accuracy") is not None]
    settings = [record["provenance"]["config"].get("measure", {}) for record in probed]
    counts = sorted({each["train_images"] for each in settings if "train_images" in each})
    if not counts:
        return ""
    return f" Probes learn from the objects of {' or '.join(f'{count:,}' for count in counts)} training images."


@dataclass(frozen=True)
class Comparison(Experiment):
    """Methods by metrics.

    Attributes:
        metrics: names that the glossary explains.
    """

    metrics: tuple[str, ...]

    def measure(self, runner: Runner, jobs: Sequence[Job], figures: Path) -> list[Record]:
        """Records with the metrics of the table."""
        return [make_record(job, runner.ensure_measured(job), self.metrics) for job in jobs]

    def chapter(self, results: Results) -> Section:
        """A table: the longer of the two, methods or metrics, downwards."""
        methods = by_run(results.records)
        shown = [METRICS[name] for name in self.metrics if any(method.values(name) for method in methods)]
        if not shown:
            return Section(self.title, [*self.paragraphs(results), "Nothing of it could be measured."])
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
    """The paper's Table 1, with what can be measured below it."""

    prefixes: ClassVar[tuple[str, ...]] = ("detection/",)

    def measure(self, runner: Runner, jobs: Sequence[Job], figures: Path) -> list[Record]:
        """Records with each model's cost."""
        costs = runner.ensure_costs(jobs)
        return [{**record, "cost": costs[record["group"]]} for record in super().measure(runner, jobs, figures)]

    def chapter(self, results: Results) -> Section:
        """Methods beside each other."""
        methods = by_run(results.records)
        kinds = [DIFFERENCES.get(method.first["model"], (MISSING,) * len(CRITERIA)) for method in methods]
        criteria = [
            Row(name, "", list(values)) for name, values in zip(CRITERIA, zip(*kinds, strict=True), strict=True)
        ]
        found = [
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
        groups = [RowGroup("The paper's criteria", criteria), RowGroup("Objects found", found)]
        table = Table(["", *(method.name for method in methods)], [*groups, _cost_rows(methods)], _DEVIATION)
        return Section(self.title, self.paragraphs(results), table=table)


class CostTable(Table1):
    """What models cost, alone."""

    trains: ClassVar[bool] = False

    def measure(self, runner: Runner, jobs: Sequence[Job], figures: Path) -> list[Record]:
        """Records of each model's cost; nothing is measured of its trainings."""
        costs = runner.ensure_costs(jobs)
        first = {job.group: job for job in reversed(jobs)}
        return [
            {
                **make_record(job, {"metrics": {}, "provenance": costs[group]["provenance"]}, ()),
                "cost": costs[group],
            }
            for group, job in reversed(first.items())
        ]

    def chapter(self, results: Results) -> Section:
        """Methods beside each other."""
        methods = by_run(results.records)
        table = Table(["", *(method.name for method in methods)], [_cost_rows(methods)])
        return Section(self.title, self.paragraphs(results), table=table)


def _cost_rows(methods: Sequence[Trainings]) -> RowGroup:
    """Parameters, and time and memory with few and with many objects."""
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
    return RowGroup("What they cost on the CPU, in batches of eight", rows)


def _mebibytes(cost: dict[str, Any]) -> str:
    return MISSING if cost["memory_mb"] is None else f"{cost['memory_mb']:.0f}"


def _milliseconds(cost: dict[str, Any]) -> str:
    return f"{1000 * cost['seconds']['median']:.1f}"


class Table2(Experiment):
    """The paper's Table 2, with what it hides."""

    prefixes: ClassVar = ("probe/", "detection/ap50", "detection/recall")
    scores: ClassVar = ("accuracy", "precision", "recall", "f1", "accuracy_end_to_end")

    def chapter(self, results: Results) -> Section:
        """Each method's row above the paper's; then ceilings and floors."""
        methods = by_run(results.records)
        groups = []
        for kind in dict.fromkeys(method.first["model"] for method in methods):
            own = [method for method in methods if method.first["model"] == kind]
            rows = [Row(_within(kind, method), _seeds(method), self._cells(method, "probe")) for method in own]
            if kind in PROBE:
                theirs = [quoted(PROBE[kind][name]) for name in self.scores[:-1]]
                rows.append(Row("the paper", "", [*theirs, MISSING, MISSING]))
            groups.append(RowGroup(kind, rows))
        for title, part in (
            ("The paper's labels: the object of largest overlap, however little", "largest_overlap"),
            ("Ceiling: codes at the true boxes", "true_boxes"),
            ("Floor: the detector's pooled features", "pooled_features"),
            ("Floor: the class that the detector names", "labels"),
            ("Floor: an untrained encoder", "random_encoder"),
            ("Floor: pixels in the box", "raw_pixels"),
        ):
            measured = [method for method in methods if method.values(f"probe/{part}/accuracy")]
            groups.append(
                RowGroup(title, [Row(each.name, "", self._cells(each, f"probe/{part}")) for each in measured])
            )
        header = ["", "accuracy", "precision", "recall", "F1", "end to end", "found"]
        table = Table(header, [group for group in groups if group.rows], _DEVIATION)
        return Section(self.title, self.paragraphs(results), table=table)

    def _cells(self, method: Trainings, prefix: str) -> list[str]:
        share = method.mean("detection/recall") if prefix == "probe" else None
        found = "" if share is None else f"{share:.3f}"
        return [*(method.text(f"{prefix}/{name}") for name in self.scores), found]


def _within(kind: str, method: Trainings) -> str:
    """What to call a method below the name of its model."""
    told = method.name.removeprefix(kind).lstrip(", ")
    return f"{told} detector" if told.startswith("class-") else told or kind


def _seeds(method: Trainings) -> str:
    count = len(method.records)
    return f"{count} trainings" if count > 1 else "one training"
