"""The jobs of a plan: each training with its recipe, its data, and how it is measured."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from ssdir.config import Config, parse
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.errors import InputError
from ssdir.formatting import quote
from ssdir.models.detected.model import DetectedConfig
from ssdir.reproduce.plan import ChoicePlan, DataPlan, MeasureConfig, Plan, RunPlan
from ssdir.training.adoption import detector_settings
from ssdir.training.recipe import Recipe, read_recipe


@dataclass(frozen=True)
class DataSpec:
    """One data set of a plan.

    Attributes:
        name: the data set's name in the plan.
        plan: the data set's plan, with the values of this variation.
        variation: suffix of this variation, such as `-03`; empty if there is only one.
    """

    name: str
    plan: DataPlan
    variation: str = ""

    @property
    def slug(self) -> str:
        """Name of the data set's folder, which depends on all that trainings see."""
        return (
            f"{self.name}{self.variation}-{_digest(self.plan.model_dump(mode='json', exclude={'vary', 'test'}))}"
        )


@dataclass(frozen=True)
class Job:
    """One training.

    Attributes:
        group: the plan's name of the run; its jobs differ in seed, or in variation of the data.
        trained_as: the plan's name of the run that it would be a training of; not the group of a candidate.
        label: name in tables.
        recipe: the recipe of the training.
        preset: the preset that the recipe is based on.
        data: the data set to train and measure on.
        measure: options of the measurement.
        probes: whether categories are probed.
        floors: whether floors are probed too.
        split: the split that is measured.
    """

    group: str
    trained_as: str
    label: str
    recipe: Recipe
    preset: str
    data: DataSpec
    measure: MeasureConfig
    probes: bool
    floors: bool
    split: str

    @property
    def name(self) -> str:
        """The name of the training, such as `ssdir-0`."""
        return f"{self.group}{self.data.variation}-{self.recipe.seed}"

    @property
    def slug(self) -> str:
        """Name of the training's folder, which depends on the recipe and the data."""
        name = f"{self.trained_as}{self.data.variation}-{self.recipe.seed}"
        return f"{name}-{_digest([_settings(self.recipe), self.data.slug])}"

    @property
    def model(self) -> str:
        """The model's class."""
        return self.recipe.model.kind

    @property
    def detector(self) -> str | None:
        """The supervision of its detector: `class_aware` or `class_agnostic`; None where there is none."""
        if not isinstance(self.recipe.model, DetectedConfig):
            return None
        return "class_agnostic" if self.recipe.classes == "object" else "class_aware"

    @property
    def detector_key(self) -> str | None:
        """Equal for jobs that can share a trained detector."""
        settings = detector_settings(self.recipe)
        return None if settings is None else _digest([settings, self.data.slug])


def jobs_of(plan: Plan, experiments: Iterable[str]) -> list[Job]:
    """Lists the trainings that some experiments need, each once, by seed, then in the plan's order."""
    wanted = dict.fromkeys(group for name in experiments for group in plan.experiments[name])
    jobs = [job for group in wanted for job in expand(plan, group)]
    # The first seed of every run comes before the second of any, so that a partial result compares all runs.
    return sorted(jobs, key=lambda job: job.recipe.seed)


def expand(plan: Plan, group: str) -> list[Job]:
    """Lists the trainings of one run of the plan; with a choice to be made, those of its first candidate.

    Raises:
        InputError: if the recipe or the data of the run are invalid; it names the plan and the run.
    """
    return _jobs(plan, group, (chosen(plan, group, 0) if plan.runs[group].choose else plan).runs[group])


def candidates(plan: Plan, group: str) -> list[Job]:
    """Lists the trainings, with seed 0, among which a run's settings are chosen; they are measured on `val`."""
    jobs = []
    for number, _ in enumerate(_choice(plan, group).among):
        run = chosen(plan, group, number).runs[group].model_copy(update={"seeds": 1, "probes": False})
        jobs += [
            replace(job, group=f"{group}-candidate-{number}", split=job.data.plan.val)
            for job in _jobs(plan, group, run)
        ]
    return jobs


def chosen(plan: Plan, group: str, number: int) -> Plan:
    """Returns the plan after the choice of one of a run's candidates."""
    run = plan.runs[group]
    overrides = (*run.overrides, *_choice(plan, group).among[number])
    settled = run.model_copy(update={"overrides": overrides, "choose": None})
    return plan.model_copy(update={"runs": {**plan.runs, group: settled}})


def _choice(plan: Plan, group: str) -> ChoicePlan:
    choice = plan.runs[group].choose
    assert choice is not None
    return choice


def _jobs(plan: Plan, group: str, run: RunPlan) -> list[Job]:
    jobs = []
    try:
        for data in _variations(run.data, plan.data[run.data]):
            splits = [f"train_split={json.dumps(data.plan.train)}", f"val_split={json.dumps(data.plan.val)}"]
            for seed in range(run.seeds):
                recipe = read_recipe(run.preset, [*run.overrides, *splits, f"seed={seed}"])
                label = run.label or recipe.model.kind
                how = plan.measure, run.probes, run.floors, data.plan.test
                jobs.append(Job(group, group, label, recipe, run.preset, data, *how))
    except InputError as error:
        raise InputError(f"plan '{plan.name}', run {quote(group)}: {error}") from None
    return jobs


def _variations(name: str, plan: DataPlan) -> list[DataSpec]:
    if not plan.vary:
        return [DataSpec(name, plan)]
    specs = []
    for number, values in enumerate(itertools.product(*plan.vary.values())):
        changed = {**plan.scatter.model_dump(), **dict(zip(plan.vary, values, strict=True))}
        scatter = parse(ScatterConfig, changed, source=f"data '{name}'")
        specs.append(DataSpec(name, plan.model_copy(update={"scatter": scatter}), f"-{number:02d}"))
    return specs


def guess_seconds(plan: Plan, job: Job, num_images: int | None, *, own_detector: bool) -> float:
    """Estimates how long a job takes: training, and measuring.

    Args:
        plan: the plan, with the times to estimate from.
        job: the job.
        num_images: number of images of its training split; None if it is unknown because nothing is trained.
        own_detector: whether the job trains its detector, instead of sharing one.
    """
    cost, recipe = plan.cost, job.recipe
    each = cost.representation.get(job.trained_as, cost.representation.get(job.preset, 0.0))
    each *= recipe.representation.epochs
    if own_detector:
        each += cost.detector.get(job.preset, 0.0) * recipe.detector.epochs
    seconds = each * (num_images or 0) + cost.measure
    if job.probes:
        read = job.measure.train_images
        seconds += cost.probes * (read if num_images is None else min(read, num_images))
    return seconds


def _settings(config: Config) -> dict[str, Any]:
    """Returns a config's kinds, and its values that differ from their defaults.

    The digest of these stays the same where a new key is added to a config, so trainings keep their folders.
    """
    settings = config.model_dump(mode="json", exclude_defaults=True)
    for name, value in config:
        if name == "kind":
            settings[name] = value
        elif isinstance(value, Config) and name in settings:
            settings[name] = _settings(value)
    return settings


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


__all__ = [
    "DataSpec",
    "Job",
    "candidates",
    "chosen",
    "expand",
    "guess_seconds",
    "jobs_of",
]
