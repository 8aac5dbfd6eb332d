"""Tests of sessions that report progress, that end in time, and that adopt a detector."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ssdir.errors import InputError
from ssdir.models.glimpse_vae import GlimpseEncoderConfig, GlimpseVAE, GlimpseVAEConfig
from ssdir.models.io import load_model
from ssdir.training import estimate, loop
from ssdir.training.adoption import detector_settings
from ssdir.training.fit import train
from ssdir.training.loop import StageLoop
from ssdir.training.recipe import Recipe, read_recipe
from ssdir.training.session import OutOfTime, Session

from .common import changed, summary, with_detector


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_same_weights(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(recipe: Recipe, scattered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "own"
    train(recipe, scattered, out)
    return out


def test_sessions_of_one_epoch_add_up_to_the_whole_run(
    run: Path, recipe: Recipe, scattered: Path, tmp_path: Path
) -> None:
    out = tmp_path / "pieces"
    for where in ("1 of 3 epochs", "2 of 3 epochs", "detector is trained", "1 of 3 epochs", "2 of 3 epochs"):
        with pytest.raises(OutOfTime, match=where):
            train(recipe, scattered, out, resume=True, session=Session(deadline=time.monotonic()))
    train(recipe, scattered, out, resume=True, session=Session(deadline=time.monotonic()))
    assert_same_weights(run, out)


def test_a_session_reports_every_step(
    recipe: Recipe, scattered: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reported: list[tuple[str, int, int]] = []
    short = changed(recipe, "representation", epochs=1)
    train(short, scattered, tmp_path / "run", session=Session(progress=lambda *step: reported.append(step)))
    for stage, steps in (("detector", 12), ("representation", 4)):
        assert [step[1:] for step in reported if step[0] == stage] == [(n, steps) for n in range(1, steps + 1)]
    assert "epoch" not in "".join(capfd.readouterr())


def test_the_time_of_all_stages_is_printed_before_the_first_and_changes_nothing(
    run: Path,
    recipe: Recipe,
    scattered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(estimate, "_FEWEST_STEPS", 24)
    monkeypatch.setattr(estimate, "_LEAST_SECONDS", 0.0)
    train(recipe, scattered, tmp_path / "estimated")
    first = capfd.readouterr().err.splitlines()[0]
    assert first.startswith("training takes about ")
    assert "for both stages (detector " in first
    assert_same_weights(run, tmp_path / "estimated")
    monkeypatch.setattr(
        estimate, "_FEWEST_STEPS", 25
    )  # Three epochs of four steps in each of two stages are fewer.
    train(recipe, scattered, tmp_path / "short")
    assert "takes about" not in capfd.readouterr().err


def test_reconstructions_are_shown_within_an_epoch_and_change_nothing(
    run: Path,
    recipe: Recipe,
    scattered: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    preview, steps = tmp_path / "preview.png", list[tuple[int, bool, bool]]()
    step = StageLoop.step

    def watched_step(self: StageLoop, batch: Any) -> dict[str, float]:
        if self.stage.folder.name == "representation":
            steps.append((self.epoch, preview.exists(), self.objective.training))
        return step(self, batch)

    monkeypatch.setattr(StageLoop, "step", watched_step)
    monkeypatch.setattr(loop, "SECONDS_UNTIL_SAMPLES", 0.0)
    train(recipe, scattered, tmp_path / "run", session=Session(preview=preview))
    assert steps[:3] == [(0, False, True), (0, True, True), (0, True, True)]
    assert_same_weights(run, tmp_path / "run")
    shown = [name for name in capfd.readouterr().err.splitlines() if "reconstructions so far" in name]
    assert shown == [f"representation: reconstructions so far: {preview}"]
    last = tmp_path / "run" / "representation" / "samples" / "epoch-002.png"
    assert preview.read_bytes() == last.read_bytes()


def test_reconstructions_of_a_long_epoch_are_renewed_ever_less_often(
    recipe: Recipe, scattered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the clock, a step takes 20 s, so the second, third, fifth and ninth of 16 end after the due times."""
    clock, shown = [0.0], list[int]()
    step, add_samples = StageLoop.step, StageLoop.add_samples

    def slow_step(self: StageLoop, batch: Any) -> dict[str, float]:
        clock[0] += 20
        return step(self, batch)

    def noted(self: StageLoop, number: int) -> None:
        shown.append(number + 1)
        add_samples(self, number)

    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(StageLoop, "step", slow_step)
    monkeypatch.setattr(StageLoop, "add_samples", noted)
    long = changed(changed(recipe, "representation", epochs=2, batch_size=4), "detector", epochs=1, batch_size=64)
    train(long, scattered, tmp_path / "run")
    assert shown == [1, 2, 3, 5, 9, 16, 32]  # The first is the detector's, which shows none; then ends of epochs.


def test_a_session_that_is_over_with_what_was_asked_for_has_ended(
    recipe: Recipe, scattered: Path, tmp_path: Path
) -> None:
    short = changed(recipe, "detector", epochs=1)
    over = Session(deadline=time.monotonic())
    assert train(short, scattered, tmp_path / "run", stage="detector", session=over).seconds.keys() == {"detector"}


def test_with_anothers_detector_a_run_is_as_with_its_own(
    run: Path, recipe: Recipe, scattered: Path, tmp_path: Path
) -> None:
    train(recipe, scattered, tmp_path / "adopting", start=run)
    assert_same_weights(run, tmp_path / "adopting")
    assert summary(tmp_path / "adopting", "detector") == summary(run, "detector")
    assert not (tmp_path / "adopting" / "detector" / "metrics.csv").exists()


def test_other_models_and_other_selections_share_a_detector(
    run: Path, recipe: Recipe, scattered: Path, tmp_path: Path
) -> None:
    selective = with_detector(changed(recipe, "representation", epochs=1), score_threshold=0.3)
    glimpses = GlimpseVAEConfig(
        ssd=selective.model.ssd,
        encoder=GlimpseEncoderConfig(latent_dim=8, glimpse_size=16, channels=(8, 8), mlp_channels=16),
        decoder=selective.model.decoder,
    )
    train(selective.model_copy(update={"model": glimpses}), scattered, tmp_path / "run", start=run)
    model, source = load_model(tmp_path / "run"), load_model(run)
    assert isinstance(model, GlimpseVAE)
    assert model.detector.config.score_threshold == 0.3
    theirs = source.detector.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.detector.state_dict().items())


def test_detectors_of_other_settings_or_data_are_refused(
    run: Path, recipe: Recipe, scattered: Path, deserted: Path, tmp_path: Path
) -> None:
    """The run that was there before is still there."""
    shutil.copytree(run, tmp_path / "run")
    before = files_of(tmp_path / "run")
    for other in (changed(recipe, "detector", lr=1e-3), recipe.model_copy(update={"seed": 1})):
        with pytest.raises(InputError, match="another recipe"):
            train(other, scattered, tmp_path / "run", start=run, force=True)
    with pytest.raises(InputError, match="other data"):
        train(recipe, deserted, tmp_path / "run", start=run, force=True)
    (tmp_path / "unfinished" / "detector").mkdir(parents=True)
    (tmp_path / "unfinished" / "detector" / "summary.json").write_text(json.dumps({"ended": False}))
    with pytest.raises(InputError, match="no trained detector"):
        train(recipe, scattered, tmp_path / "run", start=tmp_path / "unfinished", force=True)
    with pytest.raises(InputError, match="can't adopt its own parts"):
        train(recipe, scattered, tmp_path / "run", start=tmp_path / "run", force=True)
    assert files_of(tmp_path / "run") == before


def test_a_detector_that_is_not_adopted_is_reported(
    run: Path, recipe: Recipe, scattered: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = files_of(run)
    train(recipe, scattered, run, resume=True, start="nowhere")
    assert "keeps the detector that it has, so --from has no effect" in capfd.readouterr().err
    assert files_of(run) == before
    with pytest.raises(InputError, match="SPACE of 'space-64' has no detector to adopt: leave out --from"):
        train(read_recipe("space-64"), scattered, tmp_path / "run", start=run)


def test_what_decides_a_detector() -> None:
    settings = detector_settings(read_recipe("tiny"))
    assert settings == detector_settings(read_recipe("tiny-glimpses", ["model.ssd.nms=false"]))
    assert settings != detector_settings(read_recipe("tiny", ["classes=all"]))
    assert settings != detector_settings(read_recipe("tiny", ["augment.flip=0.5"]))
    assert settings != detector_settings(read_recipe("tiny", ["precision=single"]))
    assert settings == detector_settings(read_recipe("tiny", ["workers=2"]))
    read = [detector_settings(read_recipe("tiny", ["augment.flip=0.5", f"workers={n}"])) for n in (0, 1, 2)]
    assert read[0] != read[1] != read[2]
    assert detector_settings(read_recipe("space-64")) is None


@pytest.mark.parametrize("measured", ["keep=best", "patience=2"])
def test_what_a_detector_selects_decides_where_epochs_are_measured(measured: str) -> None:
    settings = detector_settings(read_recipe("tiny", [f"detector.{measured}"]))
    for other, is_same in (
        ("nms=false", False),
        ("nms_threshold=0.9", False),
        ("max_objects=1", False),
        ("score_threshold=0.01", False),
        ("score_threshold=0.3", True),
    ):
        assert (
            detector_settings(read_recipe("tiny", [f"detector.{measured}", f"model.ssd.{other}"])) == settings
        ) == is_same, other
