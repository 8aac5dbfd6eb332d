"""The report of the comparison: a section for each data set, from the files of results in a folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ssdir.evaluation.classifiers import FEW_LABELS
from ssdir.formatting import counted
from ssdir.outputs import atomic_file
from ssdir.reports.markdown import markdown
from ssdir.reports.report import Report, Row, RowGroup, Section, Table, dated
from ssdir.reproduce.photos.embedders import embedders
from ssdir.reproduce.photos.measure import VERSION
from ssdir.reproduce.photos.photographs import SOURCES
from ssdir.reproduce.records import Record, Trainings, by_group, read_stored
from ssdir.reproduce.stored import StoredRecord

REPORT = "report.html"

_SCORES = {
    "probe/accuracy": "linear probe",
    "probe/balanced": "linear probe, class-balanced",
    "knn_10/accuracy": "10-NN",
    "knn_10/balanced": "10-NN, class-balanced",
    "knn_1/accuracy": "1-NN",
    "knn_1/balanced": "1-NN, class-balanced",
}
_CHANGES = {
    "half": "half size",
    "quarter": "quarter size",
    "jpeg": "JPEG of quality 30",
    "blur": "blur",
    "padding": "padding to twice the area",
}
METRICS: dict[str, dict[str, str]] = {
    "Classes, at true boxes": {f"true_boxes/{name}": label for name, label in _SCORES.items()},
    "Classes, at detected boxes": {
        "detected/recall": "objects that are detected",
        **{f"detected/{name}": label for name, label in _SCORES.items()},
        **{f"detected/{name}_end_to_end": f"{label}, end to end" for name, label in _SCORES.items()},
    },
    "Search, clusters, few labels": {
        "retrieval/map": "retrieval, mAP",
        "retrieval/precision_at_10": "retrieval, precision at 10",
        "clusters/nmi": "k-means, NMI",
        **{f"few_labels/{count}/accuracy": f"{counted(count, 'label')} per class" for count in FEW_LABELS},
        **{
            f"few_labels/{count}/balanced": f"{counted(count, 'label')} per class, class-balanced"
            for count in FEW_LABELS
        },
    },
    "Attributes, class-balanced linear probe": {
        f"attributes/{name}": name for name in ("blur", "expression", "illumination", "occlusion", "pose")
    },
    "Robustness": {
        **{f"robustness/{name}/cosine": f"cosine, {label}" for name, label in _CHANGES.items()},
        "robustness/unrelated_cosine": "cosine of unrelated objects, median",
        **{f"robustness/{name}/knn_10": f"10-NN, {label}" for name, label in _CHANGES.items()},
    },
    "Time and size": {
        **{f"time/{count}/ms": f"ms per image, {count} objects" for count in (5, 20, 50)},
        **{f"time/{count}/share_of_crops": f"time over crops-224's, {count} objects" for count in (5, 20, 50)},
        "size/bytes_per_object": "bytes per object",
    },
}
"""Labels of the metrics, by group."""

_LEAD = (
    "How well embeddings of photographs serve: those of trained models, of crops through a pretrained network, of "
    "its maps, and of floors. Principal components and classifiers learn from the training split, or, where the "
    "data have none to test on, from four fifths of the images in turn."
)
_CAPTION = (
    "“±” is the standard deviation: over trainings or random weights where a row has several, over draws for few "
    "labels, over initialisations for clusters, over folds where the data have no split to test on."
)


def write_report(folder: Path) -> None:
    """Writes the report of the results in a folder, as HTML and as Markdown."""
    report = build_report([*stored_rows(folder).values()])
    for name, text in (("report.md", markdown(report)), (REPORT, report.html())):
        with atomic_file(folder / name, force=True) as temporary:
            temporary.write_text(text, encoding="utf-8")


def stored_rows(folder: Path) -> dict[Path, Record]:
    """Reads the results in a folder, by their files."""
    return {file: read_stored(StoredRecord, file) for file in sorted(folder.glob("*.json"))}


def build_report(records: Sequence[Record]) -> Report:
    """Builds the report: for each data set a table of metrics by rows of the comparison."""
    known = list(SOURCES)
    names = sorted({record["data"] for record in records}, key=lambda name: (name not in known, name))
    sections = [_section(name, [record for record in records if record["data"] == name]) for name in names]
    return Report(dated("embeddings of photographs"), _LEAD, [], None, sections)


def _section(data: str, records: Sequence[Record]) -> Section:
    """Builds the section of a data set, and names the results of an earlier version of the measurement."""
    earlier = [record for record in records if record["provenance"]["config"].get("version") != VERSION]
    rows = in_order(record for record in records if record not in earlier)
    text = [f"{row.name}: {row.first['provenance']['config']['about']}." for row in rows]
    if (splits := records[0]["provenance"]["config"].get("splits")) is not None:
        tested = f", tested on {splits['test']}" if splits["test"] else ""
        text.insert(0, f"Learned from {splits['train']}{tested}.")
    if earlier:
        names = ", ".join(record["run"] for record in earlier)
        text.append(f"Left out, because the measurement has changed since: {names}.")
    groups = []
    for title, metrics in METRICS.items():
        measured = [name for name in metrics if any(row.values(name) for row in rows)]
        groups.append(
            RowGroup(title, [Row(metrics[name], "", [_cell(row, name) for row in rows]) for name in measured])
        )
    table = Table(["", *(row.name for row in rows)], [group for group in groups if group.rows], _CAPTION)
    return Section(data, text, table=table)


def in_order(records: Iterable[Record]) -> list[Trainings]:
    """Groups records by row: trained models first, then the others in the order of `embedders`."""
    order = [embedder.name for embedder in embedders()]
    return sorted(by_group(records), key=lambda row: order.index(row.name) if row.name in order else -1)


def _cell(row: Trainings, metric: str) -> str:
    """Formats a metric with its standard deviation over seeds or, for one seed, the measured one."""
    spec = ".1f" if metric.endswith("/ms") else ".0f" if metric.startswith("size/") else ".3f"
    text = row.text(metric, spec)
    deviation = row.first["metrics"].get(f"{metric}_std")
    return f"{text} ± {deviation:{spec}}" if len(row.records) == 1 and deviation else text
