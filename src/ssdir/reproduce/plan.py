"""Plans: a YAML file for each scale that lists trainings, their data, and the experiments that need them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Self, TypeAlias

from pydantic import Field, model_validator

from ssdir.config import Config, merge, parse, parse_values
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.documents import MAX_YAML_BYTES, read_text
from ssdir.errors import InputError, nearest
from ssdir.formatting import quote

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


class ChoicePlan(Config):
    """Settings of a run that are chosen on the validation split, from one training each.

    Attributes:
        by: the metric whose largest value is chosen.
        among: the overrides of each candidate.
    """

    by: str = "detection/ap50"
    among: tuple[tuple[str, ...], ...] = Field(min_length=2, max_length=20)


class RunPlan(Config):
    """A run: one training for each seed.

    Attributes:
        like: name of another run that gives the keys missing here; its overrides are applied first.
        preset: name of the preset to train.
        overrides: changes of the preset, `key=value`.
        choose: further overrides, of which the best are chosen on the validation split.
        data: name of the data set to train and measure on.
        seeds: number of trainings, with the seeds 0, 1, ....
        label: name in tables; by default the model's name.
        probes: whether to probe categories, which takes longer than all other measurements.
        floors: whether to probe floors too: pixels, pooled features and an untrained encoder.
    """

    like: str | None = None
    preset: str = ""
    overrides: tuple[str, ...] = ()
    choose: ChoicePlan | None = None
    data: str = ""
    seeds: int = Field(1, ge=1, le=1000)
    label: str = ""
    probes: bool = True
    floors: bool = True


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
            if run.choose is not None and self.data[run.data].vary:
                raise ValueError(
                    f"run '{name}' chooses settings on data '{run.data}', which vary: give it data without 'vary'"
                )
            if not run.preset:
                raise ValueError(f"run '{name}' has no preset to train")
        for experiment, runs in self.experiments.items():
            for run_name in runs:
                if run_name not in self.runs:
                    raise ValueError(f"experiment '{experiment}' needs run '{run_name}', which the plan lacks")
        return self


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
    """Merges a run's values with those of the run that it is `like`."""
    own = runs.get(name)
    if not isinstance(own, dict) or name in below:
        raise InputError(f"{source}: run {quote(name)} is not a run to be like")
    other = own.get("like")
    if other is None:
        return own
    if not isinstance(other, str):
        raise InputError(f"{source}: run '{name}' must name the run that it is like, got {quote(other)}")
    base = _inherit(other, runs, source, (*below, name))
    overrides = [change for values in (base, own) for change in _listed(values, "overrides", name, source)]
    kept = {key: value for key, value in base.items() if key != "label"}
    return {**merge(kept, own), "overrides": overrides}


def _listed(run: Mapping[str, Any], key: str, name: str, source: str) -> list[Any]:
    values = run.get(key, [])
    if not isinstance(values, list):
        raise InputError(f"{source}: '{key}' of run '{name}' must be a list, got {quote(values)}")
    return values


__all__ = [
    "SCALES",
    "ChoicePlan",
    "CostConfig",
    "DataPlan",
    "FileName",
    "MeasureConfig",
    "Plan",
    "RunPlan",
    "read_plan",
]
