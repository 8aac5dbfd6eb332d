"""The report of all experiments whose results are in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssdir.formatting import format_seconds
from ssdir.outputs import atomic_file
from ssdir.reports.glossary import MISSING
from ssdir.reports.markdown import FIGURES, markdown
from ssdir.reports.paper import PROBE, quoted
from ssdir.reports.report import Report, Row, RowGroup, Section, Table, dated
from ssdir.reproduce.catalogue import EXPERIMENTS
from ssdir.reproduce.experiments import Results
from ssdir.reproduce.plan import Plan
from ssdir.reproduce.published import reconstruction_section
from ssdir.reproduce.records import Record, by_group, read_records
from ssdir.training.recipe import STAGES

REPORT = "report.html"


def write_report(plan: Plan, folder: Path) -> None:
    """Writes the report of the results in a folder, as HTML and as Markdown."""
    report = build_report(plan, folder)
    for name, text in (("report.md", markdown(report)), (REPORT, report.html())):
        with atomic_file(folder / name, force=True) as temporary:
            temporary.write_text(text, encoding="utf-8")


def build_report(plan: Plan, folder: Path) -> Report:
    """Builds the report of every experiment whose results are in the folder."""
    sections, everything = [], list[Record]()
    for name, experiment in EXPERIMENTS.items():
        file = folder / f"{name}.json"
        if not file.exists():
            continue
        records, left_out = read_records(file)
        results = Results(records, left_out, folder / FIGURES)
        if records:
            section = experiment.section(results)
            for figure in section.figures:
                with atomic_file(folder / FIGURES / f"{figure.name}.png", force=True) as temporary:
                    temporary.write_bytes(figure.png)
        else:
            section = Section(experiment.title, experiment.paragraphs(results))
        sections.append(section)
        everything += records
    if (errors := reconstruction_section(everything)) is not None:
        sections.append(errors)
    lead = (
        f"Scale {plan.name}. {plan.about} Every number comes from the JSON files beside this report, which also "
        "hold the recipe, the seed, the data's hash, versions, device and times of each training."
    )
    return Report(
        dated(f"the paper's experiments, scale {plan.name}"),
        lead,
        _headline(folder),
        None,
        sections,
        [*_choices_section(everything), _runs_section(everything)],
    )


def _choices_section(records: Sequence[Record]) -> list[Section]:
    """Builds the section on settings that were chosen on validation images; empty if nothing was chosen."""
    groups = []
    for trainings in by_group(records):
        choice = trainings.first["provenance"]["config"].get("choice")
        if choice is None:
            continue
        rows = [
            Row(
                ", ".join(each["overrides"]) or "as in the preset",
                "chosen" * (number == choice["chosen"]),
                [value],
            )
            for number, each in enumerate(choice["among"])
            for value in ["undefined" if each["value"] is None else f"{each['value']:.3f}"]
        ]
        title = f"{trainings.name}, on {trainings.first['data']}: by {choice['by']} of split {choice['split']}"
        groups.append(RowGroup(title, rows))
    text = "Settings that were chosen before anything was measured on test images, from one training each."
    return [Section("Choices", [text], table=Table(["settings", "value"], groups))] if groups else []


def _runs_section(records: Sequence[Record]) -> Section:
    """Builds the section on provenance: each group once, with the times of its trainings."""
    rows = []
    trained = {record["run"]: record for record in records if record["provenance"].get("training")}
    named = {stage for record in trained.values() for stage in record["provenance"]["training"]["wall_seconds"]}
    stages = [stage for stage in STAGES if stage in named]
    for trainings in by_group(trained.values(), lambda record: record["group"]):
        seconds = [each["provenance"]["training"]["wall_seconds"] for each in trainings.records]
        times = [format_seconds(sum(each.get(stage, 0.0) for each in seconds)) for stage in stages]
        first, measured_on = (
            trainings.first["provenance"],
            {each["provenance"]["device"] for each in trainings.records},
        )
        # Before the device of a training was recorded, trainings ran where they were measured.
        trained_on = {
            each["provenance"]["training"].get("device", each["provenance"]["device"])
            for each in trainings.records
        }
        measuring = format_seconds(sum(each["provenance"]["wall_seconds"] for each in trainings.records))
        devices = [", ".join(sorted(names)) for names in (trained_on, measured_on)]
        preset = str(first["config"].get("preset", MISSING))
        values = [preset, str(len(trainings.records)), *times, devices[0], measuring, devices[1]]
        rows.append(
            Row(
                trainings.first["group"],
                f"{trainings.name}, on {trainings.first['data']}, {first['data_hash']}",
                values,
            )
        )
    header = ["group", "preset", "trainings", *stages, "trained on", "measuring", "measured on"]
    caption = "Times are sums over trainings. Trainings on one detector share it: its time counts for each."
    versions = _versions(records)
    text = f"With {', '.join(versions)}." if versions else "Nothing was measured."
    return Section("Provenance", [text], table=Table(header, [RowGroup("", rows)], caption))


def _versions(records: Sequence[Record]) -> list[str]:
    """Names each package with all versions that the records were made with, such as `torch 2.5.1 or 2.6.0`."""
    used: dict[str, dict[str, None]] = {}
    for record in records:
        for name, version in record["provenance"]["versions"].items():
            used.setdefault(name, {})[version] = None
    return [f"{name} {' or '.join(versions)}" for name, versions in used.items()]


def _headline(folder: Path) -> list[tuple[str, str]]:
    """Returns SSDIR's probe accuracy (Table 2) and the paper's, as headline numbers."""
    file = folder / "table2.json"
    if not file.exists():
        return []
    ours = [
        (method.text("probe/accuracy"), f"accuracy of digits, predicted from embeddings: {method.name}")
        for method in by_group(read_records(file)[0])
        if method.first["model"] == "SSDIR" and method.values("probe/accuracy")
    ]
    return [*ours, (quoted(PROBE["SSDIR"]["accuracy"]), "the paper's SSDIR")]
