"""From a scale and the names of experiments to results and a report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssdir.console import say
from ssdir.errors import InputError, nearest
from ssdir.formatting import format_seconds
from ssdir.outputs import atomic_file, claim
from ssdir.reports.glossary import MISSING
from ssdir.reports.markdown import FIGURES, markdown
from ssdir.reports.paper import PROBE, quoted
from ssdir.reports.report import Report, Row, RowGroup, Section, Table
from ssdir.reproduce.catalogue import EXPERIMENTS
from ssdir.reproduce.experiments import Results
from ssdir.reproduce.plan import Job, Plan, jobs_of, read_plan
from ssdir.reproduce.records import Record, by_run, read_records, write_records
from ssdir.reproduce.runner import Runner
from ssdir.reproduce.watch import Watch
from ssdir.training.recipe import STAGES

ALL = "all"
REPORT = "report.html"


@dataclass(frozen=True)
class Forecast:
    """A run of the plan, before it is made.

    Attributes:
        group: its name.
        preset: what is trained.
        data: on what.
        trainings: how many there are of it.
        missing: how many of them are not trained yet.
        seconds: how long it all still takes.
    """

    group: str
    preset: str
    data: str
    trainings: int
    missing: int
    seconds: float


def choose(plan: Plan, names: Sequence[str]) -> list[str]:
    """The experiments that are asked for, in the plan's order.

    Raises:
        InputError: for one that there is not, or that the plan has not.
    """
    unknown = [name for name in plan.experiments if name not in EXPERIMENTS]
    for name in [*names, *unknown]:
        if name != ALL and name not in EXPERIMENTS:
            hint = nearest(name, EXPERIMENTS) or f"; there are {', '.join(EXPERIMENTS)}"
            raise InputError(f"unknown experiment '{name}'{hint}")
        if name != ALL and name not in plan.experiments:
            raise InputError(f"the plan '{plan.name}' has no experiment '{name}': choose another scale")
    return [name for name in plan.experiments if ALL in names or name in names]


def forecast(names: Sequence[str], scale: str, runs: Path, data: Path | None) -> tuple[list[Forecast], list[str]]:
    """What `reproduce` would train, and how long it would take; and what it would leave out, and why."""
    plan = read_plan(scale)
    runner = Runner(plan, runs / plan.name, data, Watch(), None)
    chosen = choose(plan, names)
    jobs, left_out = _available(runner, _trainings(plan, chosen))
    guesses = runner.guess(jobs)
    forecasts, counted = [], set[str]()
    for group in dict.fromkeys(job.group for job in jobs):
        own = [(job, seconds) for job, seconds in zip(jobs, guesses, strict=True) if job.group == group]
        trainings = {job.slug: job for job, _ in own if job.slug not in counted}
        counted |= trainings.keys()
        missing = sum(not runner.is_trained(job) for job in trainings.values())
        seconds = sum(seconds for _, seconds in own)
        first = own[0][0]
        forecasts.append(Forecast(group, first.preset, first.data.name, len(trainings), missing, seconds))
    return forecasts, left_out


def reproduce(
    names: Sequence[str],
    scale: str,
    out: Path,
    runs: Path,
    data: Path | None = None,
    minutes: float | None = None,
    so_far: bool = False,
    device: str | None = None,
) -> Path:
    """Trains what is missing, measures it, and writes results and the report.

    Args:
        names: experiments, or `all`.
        scale: a plan: `smoke`, `cpu`, `paper`, or a YAML file.
        out: gets a folder of the plan's name with `NAME.json` for each experiment, `figures/`, and the report of
            all experiments that have ended there, as `report.html` and `report.md`.
        runs: gets a folder of the plan's name with data sets and trainings; what is there is used again.
        data: folder that holds what cannot be generated; experiments on what is missing are left out, and say so.
        minutes: nothing new is begun after so many.
        so_far: train nothing; write results and report of what there is, which say what is missing. Records that
            stand in `out` are kept where they are of the plan's very recipe, data and measurement.
        device: where to train and to measure, see `choose_device`.

    Returns:
        The report.

    Raises:
        InputError: for an unknown scale or experiment, data that can't be read, or folders that can't be written.
        OutOfTime: when the minutes are over; everything that has ended is kept, and found again next time.
    """
    plan = read_plan(scale)
    chosen = choose(plan, names)
    for folder in (out, runs):  # Said now, not after hours.
        claim(folder / plan.name / REPORT, force=True)
    deadline = None if minutes is None else time.monotonic() + 60 * minutes
    watch = Watch()
    runner = Runner(plan, runs / plan.name, data, watch, deadline, device)
    jobs, left_out = _available(runner, _trainings(plan, chosen))
    for sentence in left_out:
        say(sentence)
    missing = {} if so_far else {job.name: job for job in jobs}
    # Costs are measured last, when no training of this process is left.
    unwritten = sorted(chosen, key=lambda name: not EXPERIMENTS[name].trains)
    guesses = {job.name: guess for job, guess in zip(jobs, runner.guess(jobs), strict=True)}
    with watch.over(guesses):
        while unwritten:
            needed = {job.name for job in _trainings(plan, unwritten[:1])}
            if needed & missing.keys():
                # Where another process makes what is needed, this one goes on with what will be.
                by_need = sorted(missing.values(), key=lambda job: job.name not in needed)
                with runner.claim(by_need) as job, watch.run(job.name):
                    runner.ensure_ready(job)
                del missing[job.name]
            else:
                _write_experiment(runner, unwritten.pop(0), out / plan.name, so_far)
    return out / plan.name / REPORT


def _trainings(plan: Plan, names: Sequence[str]) -> list[Job]:
    """The trainings that some experiments need."""
    training = [name for name in names if EXPERIMENTS[name].trains]
    every = {job.name for job in jobs_of(plan, [name for name in training if EXPERIMENTS[name].every_seed])}
    return [job for job in jobs_of(plan, training) if job.recipe.seed == 0 or job.name in every]


def _available(runner: Runner, jobs: Sequence[Job]) -> tuple[list[Job], list[str]]:
    """The jobs whose data are there, and why others are left out."""
    reasons = {job.data.name: runner.absent(job.data) for job in jobs}
    kept = [job for job in jobs if reasons[job.data.name] is None]
    return kept, [reason for reason in reasons.values() if reason is not None]


def _write_experiment(runner: Runner, name: str, folder: Path, so_far: bool = False) -> None:
    """Writes an experiment's results, and the report with it."""
    experiment = EXPERIMENTS[name]
    jobs = _trainings(runner.plan, [name]) if experiment.trains else jobs_of(runner.plan, [name])
    jobs, left_out = _available(runner, jobs)
    kept: list[Record] = []
    if so_far and experiment.trains:
        unmade = [job for job in jobs if not runner.is_made(job)]
        kept = _earlier_records(runner, unmade, folder / f"{name}.json")
        jobs = [job for job in jobs if job not in unmade]
        missing = [job.name for job in unmade if job.name not in {record["run"] for record in kept}]
        left_out += [f"not made yet: {', '.join(missing)}"] if missing else []
    order = {job.name: number for number, job in enumerate(jobs_of(runner.plan, [name]))}
    records = [*kept, *experiment.measure(runner, jobs, folder / FIGURES)]
    records.sort(key=lambda record: order[record["run"]])
    failures = [runner.failure(job) for job in jobs] if experiment.trains else []
    write_records(folder / f"{name}.json", records, [*left_out, *filter(None, failures)])
    report = _report(runner.plan, folder)
    _write(folder / "report.md", markdown(report))
    _write(folder / REPORT, report.html())


def _earlier_records(runner: Runner, jobs: Sequence[Job], file: Path) -> list[Record]:
    """Records of trainings that are not here, from the results that are about to be replaced."""
    earlier = {record["run"]: record for record in (read_records(file)[0] if file.exists() else ())}
    known = [job for job in jobs if job.name in earlier]
    return [earlier[job.name] for job in known if runner.is_of(earlier[job.name], job)]


def _report(plan: Plan, folder: Path) -> Report:
    """The report of every experiment whose results are in the folder."""
    sections, everything = [], list[Record]()
    for name, experiment in EXPERIMENTS.items():
        file = folder / f"{name}.json"
        if not file.exists():
            continue
        records, left_out = read_records(file)
        results = Results(records, left_out, folder / FIGURES)
        if records:
            section = experiment.chapter(results)
            for figure in section.figures:
                with atomic_file(folder / FIGURES / f"{figure.name}.png", force=True) as temporary:
                    temporary.write_bytes(figure.png)
        else:
            section = Section(experiment.title, experiment.paragraphs(results))
        sections.append(section)
        everything += records
    sections.append(_runs_section(everything))
    lead = (
        f"Scale {plan.name}. {plan.about} Every number comes from the JSON files beside this report, which also "
        "hold the recipe, the seed, the data's hash, versions, device and times of each training."
    )
    return Report("The paper's evidence, made again", lead, _headline(folder), None, sections)


def _runs_section(records: Sequence[Record]) -> Section:
    """What the numbers come from: each run once, with its trainings' times."""
    rows = []
    trained = {record["run"]: record for record in records if record["provenance"].get("training")}
    for run in by_run(trained.values(), lambda record: record["group"]):
        seconds = [each["provenance"]["training"]["wall_seconds"] for each in run.records]
        times = [format_seconds(sum(each.get(stage, 0.0) for each in seconds)) for stage in STAGES]
        first, measured_on = run.first["provenance"], {each["provenance"]["device"] for each in run.records}
        # Runs from before their device was noted were trained where they were measured.
        trained_on = {
            each["provenance"]["training"].get("device", each["provenance"]["device"]) for each in run.records
        }
        measuring = format_seconds(sum(each["provenance"]["wall_seconds"] for each in run.records))
        devices = [", ".join(sorted(names)) for names in (trained_on, measured_on)]
        preset = str(first["config"].get("preset", MISSING))
        values = [preset, str(len(run.records)), *times, devices[0], measuring, devices[1]]
        rows.append(Row(run.first["group"], f"{run.name}, on {run.first['data']}, {first['data_hash']}", values))
    versions = [
        f"{name} {version}" for name, version in (records[0]["provenance"]["versions"].items() if records else ())
    ]
    header = ["run", "preset", "trainings", *STAGES, "trained on", "measuring", "measured on"]
    caption = "Times are sums over trainings. Runs on one detector share it: its time counts for each of them."
    text = f"With {', '.join(versions)}." if versions else "Nothing was measured."
    return Section("Where the numbers come from", [text], table=Table(header, [RowGroup("", rows)], caption))


def _headline(folder: Path) -> list[tuple[str, str]]:
    """SSDIR's figure of Table 2, beside the paper's."""
    file = folder / "table2.json"
    if not file.exists():
        return []
    ours = [
        (method.text("probe/accuracy"), f"digits read off codes: {method.name}")
        for method in by_run(read_records(file)[0])
        if method.first["model"] == "SSDIR" and method.values("probe/accuracy")
    ]
    return [*ours, (quoted(PROBE["SSDIR"]["accuracy"]), "the paper's SSDIR")]


def _write(path: Path, text: str) -> None:
    with atomic_file(path, force=True) as temporary:
        temporary.write_text(text, encoding="utf-8")
