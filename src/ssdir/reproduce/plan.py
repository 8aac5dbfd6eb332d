"""Plans: a YAML file for each scale that lists trainings, their data, and the experiments that need them."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

from pydantic import Field, model_validator

from ssdir.config import Config, merge, parse, parse_values
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.documents import MAX_YAML_BYTES, read_text
from ssdir.errors import InputError, nearest
from ssdir.formatting import quote
from ssdir.models.detected.model import DetectedConfig
from ssdir.training.adoption import detector_settings
from ssdir.training.recipe import Recipe, read_recipe

SCALES = ("smoke", "cpu", "paper")

FileName: TypeAlias = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)]
"""A name of a file or folder; it can't be a path that leads out of its folder."""

_MAX_VARIATIONS = 1000


class DataPlan(Config):
    """A data set: generated scenes of scattered glyphs, or an existing folder.

    Attributes:
        source: the glyphs to scatter, see `load_glyphs`.
        scatter: parameters of the generated scenes.
        vary: by key of `scatter`, the values to try; one data set is generated for each combination.
        folder: name of a folder under `--data`.
        train: the training split.
        val: the split that trainings are validated on, and on which a plan's choices are made.
        test: the split that is measured.
    """

    source: str | None = None
    scatter: ScatterConfig = ScatterConfig()
    vary: dict[str, tuple[Any, ...]] = Field(default_factory=dict)
    folder: str | None = None
    train: str = "train"
    val: str = "val"
    test: str = "test"

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.source is None) == (self.folder is None):
            raise ValueError("a data set has either a source (to scatter) or a folder")
        count = math.prod(len(values) for values in self.vary.values())
        if count > _MAX_VARIATIONS:
            raise ValueError(f"vary makes {count:,} data sets, at most {_MAX_VARIATIONS:,} are made")
        return self


class RunPlan(Config):
    """A run: one training for each seed.

    Attributes:
        like: name of another run that gives the keys missing here; its overrides are applied first.
        of: name of another run whose trainings are used; they are only measured, labelled or counted differently.
        preset: name of the preset to train.
        overrides: changes of the preset, `key=value`.
        data: name of the data set to train and measure on.
        seeds: number of trainings, with the seeds 0, 1, ....
        label: name in tables; by default the model's name.
        probes: whether to probe categories, which takes longer than all other measurements.
        train_images: number of training images that the probes learn from; by default `measure.train_images`.
    """

    like: str | None = None
    of: str | None = None
    preset: str = ""
    overrides: tuple[str, ...] = ()
    data: str = ""
    seeds: int = Field(1, ge=1, le=1000)
    label: str = ""
    probes: bool = True
    train_images: int | None = Field(None, ge=1)


class MeasureConfig(Config):
    """Options of measuring a trained model.

    Attributes:
        train_images: number of training images, from the first on, whose objects the probes learn from.
        test_images: maximum number of test images; null for all.
        glyphs: number of unseen glyphs that are rendered at several sizes.
        sizes_in_px: side of the images, in pixels, that AP's small, medium and large sizes refer to.
        shown: numbers of the test images that figures show.
    """

    train_images: int = Field(4000, ge=1)
    test_images: int | None = Field(None, ge=1)
    glyphs: int = Field(500, ge=2)
    sizes_in_px: int = Field(128, ge=16, le=100_000)
    shown: tuple[Annotated[int, Field(ge=0)], ...] = Field((0, 1, 2), max_length=64)


class CostConfig(Config):
    """Times in seconds for the first estimate of a plan's duration.

    Attributes:
        detector: by preset, time per training image and epoch of the detector's stage.
        representation: by preset, or by run if its overrides change it, time per training image and epoch of the
            representation's stage.
        measure: time of measuring a training.
        probes: time of the probes per image that they learn from.
    """

    detector: dict[str, float] = Field(default_factory=dict)
    representation: dict[str, float] = Field(default_factory=dict)
    measure: float = 20
    probes: float = 0.03


class Plan(Config):
    """The data sets, runs and experiments of a scale.

    Attributes:
        name: name of the scale.
        about: a sentence or two about the scale, for the report.
        measure: options of measuring trainings.
        cost: times that estimates start from.
        data: data sets by name.
        runs: runs by name.
        experiments: by name, the runs that each experiment needs.
    """

    name: FileName
    about: str
    measure: MeasureConfig = MeasureConfig()
    cost: CostConfig = CostConfig()
    data: dict[FileName, DataPlan]
    runs: dict[FileName, RunPlan]
    experiments: dict[str, tuple[str, ...]]

    @model_validator(mode="after")
    def _names_are_known(self) -> Self:
        for name, run in self.runs.items():
            if run.data not in self.data:
                raise ValueError(f"run '{name}' is on data '{run.data}', which the plan lacks")
            if not run.preset:
                raise ValueError(f"run '{name}' has no preset to train")
        for experiment, runs in self.experiments.items():
            for run_name in runs:
                if run_name not in self.runs:
                    raise ValueError(f"experiment '{experiment}' needs run '{run_name}', which the plan lacks")
        return self


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
        trained_as: the run that makes this training: the same run, or the one it is `of`.
        label: name in tables.
        recipe: the recipe of the training.
        preset: the preset that the recipe is based on.
        data: the data set to train and measure on.
        measure: options of the measurement.
        probes: whether categories are probed.
    """

    group: str
    trained_as: str
    label: str
    recipe: Recipe
    preset: str
    data: DataSpec
    measure: MeasureConfig
    probes: bool

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


def read_plan(scale: str) -> Plan:
    """Reads the plan of a scale, or of a YAML file.

    Raises:
        InputError: for an unknown scale, an unreadable file, or an inconsistent plan.
    """
    if scale in SCALES:
        text = (resources.files("ssdir") / "plans" / f"{scale}.yaml").read_text(encoding="utf-8")
    elif scale.endswith((".yaml", ".yml")):
        if not Path(scale).is_file():
            raise InputError(f"plan '{scale}' does not exist")
        text = read_text(scale, MAX_YAML_BYTES)
    else:
        known = f"scales: {', '.join(SCALES)} (or a .yaml file)"
        raise InputError(f"unknown scale '{scale}'{nearest(scale, SCALES)}; {known}")
    values = {"name": Path(scale).stem, **parse_values(text, scale)}
    runs = values.get("runs")
    if isinstance(runs, dict):
        values["runs"] = {name: _inherit(name, runs, scale) for name in runs}
    return parse(Plan, values, source=scale)


def _inherit(name: str, runs: Mapping[str, Any], source: str, below: tuple[str, ...] = ()) -> dict[str, Any]:
    """Merges a run's values with those of the run that it is `like` or `of`."""
    own = runs.get(name)
    if not isinstance(own, dict) or name in below:
        raise InputError(f"{source}: run {quote(name)} is not a run to be like, or of")
    trained = sorted({"like", "preset", "data", "overrides"} & {*own})
    if "of" in own and trained:
        raise InputError(f"{source}: run '{name}' is trained as '{own['of']}': leave out its '{trained[0]}'")
    other = own.get("of", own.get("like"))
    if other is None:
        return own
    if not isinstance(other, str):
        raise InputError(f"{source}: run '{name}' must name the run that it is like, or of, got {quote(other)}")
    base = _inherit(other, runs, source, (*below, name))
    overrides = [change for values in (base, own) for change in _listed(values, "overrides", name, source)]
    if "of" in own:
        return {**merge(base, own), "overrides": overrides, "of": base.get("of", other)}
    kept = {key: value for key, value in base.items() if key not in ("label", "of")}
    return {**merge(kept, own), "overrides": overrides}


def _listed(run: Mapping[str, Any], key: str, name: str, source: str) -> list[Any]:
    values = run.get(key, [])
    if not isinstance(values, list):
        raise InputError(f"{source}: '{key}' of run '{name}' must be a list, got {quote(values)}")
    return values


def jobs_of(plan: Plan, experiments: Iterable[str]) -> list[Job]:
    """Lists the trainings that some experiments need, each once, by seed, then in the plan's order."""
    wanted = dict.fromkeys(group for name in experiments for group in plan.experiments[name])
    jobs = [job for group in wanted for job in expand(plan, group)]
    # The first seed of every run comes before the second of any, so that a partial result compares all runs.
    return sorted(jobs, key=lambda job: job.recipe.seed)


def expand(plan: Plan, group: str) -> list[Job]:
    """Lists the trainings of one run of the plan.

    Raises:
        InputError: if the recipe or the data of the run are invalid; it names the plan and the run.
    """
    run, measure = plan.runs[group], plan.measure
    if run.train_images is not None:
        measure = measure.model_copy(update={"train_images": run.train_images})
    jobs = []
    try:
        for data in _variations(run.data, plan.data[run.data]):
            splits = [f"train_split={json.dumps(data.plan.train)}", f"val_split={json.dumps(data.plan.val)}"]
            for seed in range(run.seeds):
                recipe = read_recipe(run.preset, [*run.overrides, *splits, f"seed={seed}"])
                label = run.label or recipe.model.kind
                jobs.append(Job(group, run.of or group, label, recipe, run.preset, data, measure, run.probes))
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
    "SCALES",
    "CostConfig",
    "DataPlan",
    "DataSpec",
    "Job",
    "MeasureConfig",
    "Plan",
    "RunPlan",
    "expand",
    "guess_seconds",
    "jobs_of",
    "read_plan",
]
