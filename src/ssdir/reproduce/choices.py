"""Choices of a plan: settings of a run that are chosen on the validation split, from one training each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ssdir.errors import InputError
from ssdir.reproduce.jobs import candidates, chosen, expand, jobs_of
from ssdir.reproduce.plan import ChoicePlan
from ssdir.reproduce.records import read_records
from ssdir.reproduce.runner import Runner


def settle(runner: Runner, names: Sequence[str], results: Path | None) -> list[str]:
    """Gives the runs of some experiments the settings that were chosen.

    Args:
        runner: makes the trainings.
        names: the experiments.
        results: folder of earlier results, whose choices count where the candidates' trainings are gone, if they
            were made of the same candidates, by the same metric, with the same recipe, data and splits.

    Returns:
        The runs that wait for a choice, because not all of their candidates are trained and measured.

    Raises:
        InputError: if the metric to choose by is undefined for all candidates of a run.
    """
    waiting = []
    for group in dict.fromkeys(job.group for job in jobs_of(runner.plan, names)):
        plan = runner.plan.runs[group].choose
        if plan is None:
            continue
        choice = _measured_choice(runner, group, plan)
        if choice is None and results is not None:
            choice = _earlier_choice(runner, group, plan, results)
        if choice is None:
            waiting.append(group)
        else:
            runner.settle(group, choice)
    return waiting


def _measured_choice(runner: Runner, group: str, plan: ChoicePlan) -> Mapping[str, Any] | None:
    """Chooses the candidate with the largest value, of equal ones the first; None if not all are measured.

    Returns:
        `by`, the metric; `split`, the validation split; `among`, the `overrides` of each candidate and its
        `value`; and `chosen`, the number of the chosen one.
    """
    jobs = candidates(runner.plan, group)
    if not all(runner.is_made(job) for job in jobs):
        return None
    values = [(runner.measured(job) or {"metrics": {}})["metrics"].get(plan.by) for job in jobs]
    if all(value is None for value in values):
        raise InputError(f"run '{group}': {plan.by} is undefined for all candidates: choose by another metric")
    among = [{"overrides": list(each), "value": value} for each, value in zip(plan.among, values, strict=True)]
    number = max(range(len(jobs)), key=lambda i: -math.inf if values[i] is None else values[i])
    return {"by": plan.by, "split": jobs[0].split, "among": among, "chosen": number}


def _earlier_choice(runner: Runner, group: str, plan: ChoicePlan, results: Path) -> Mapping[str, Any] | None:
    """Reads from earlier results how a run's settings were chosen, if they would be chosen in the same way now."""
    for file in (results / f"{name}.json" for name in runner.plan.experiments):
        for record in read_records(file)[0] if file.exists() else ():
            choice: Mapping[str, Any] | None = record["provenance"]["config"].get("choice")
            if record["group"] != group or choice is None:
                continue
            if (choice["by"], [tuple(each["overrides"]) for each in choice["among"]]) != (plan.by, [*plan.among]):
                continue
            # The recipe of the record is that of the chosen candidate.
            job = expand(chosen(runner.plan, group, choice["chosen"]), group)[0]
            if choice["split"] == job.data.plan.val and runner.is_like(record, job):
                return choice
    return None
