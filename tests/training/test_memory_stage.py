"""Tests of the stage that trains the memory on clips."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ssdir.data.readers.registry import open_dataset
from ssdir.data.scatter.clip_writer import write_moving
from ssdir.data.scatter.moving import MovingConfig
from ssdir.errors import InputError
from ssdir.models.backbones.timm_net import TimmConfig
from ssdir.models.detected.encoders import AlignedEncoderConfig
from ssdir.models.detected.memory import MemoryConfig
from ssdir.models.io import load_model, save_model
from ssdir.models.registry import build_model, without_pretrained
from ssdir.models.ssdir import SSDIR
from ssdir.objects import Objects
from ssdir.training.adoption import check_start
from ssdir.training.estimate import estimate_training
from ssdir.training.fit import train
from ssdir.training.loading import Batch, ClipBatch, collate_clips
from ssdir.training.loop import StageLoop
from ssdir.training.recipe import Recipe, StageConfig, read_recipe
from ssdir.training.run_folder import RunData
from ssdir.training.tracks import track_clips, views_of

from .common import SIZE, changed, rows_of


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes six training and two validation clips of five frames."""
    folder = tmp_path_factory.mktemp("data") / "clips"
    config = MovingConfig(canvas=SIZE, frames=5, objects=(2, 3), min_size=0.25, train=6, val=2, test=0)
    write_moving(folder, "digits", config)
    return folder


@pytest.fixture(scope="session")
def video_recipe(recipe: Recipe) -> Recipe:
    """Returns `recipe` with three further epochs of two steps for the memory."""
    model = recipe.model.model_copy(update={"memory": MemoryConfig(hidden=8)})
    # Low enough for the briefly trained detector to detect most objects.
    model = model.model_copy(update={"ssd": model.ssd.model_copy(update={"score_threshold": 0.02})})
    stage = StageConfig(epochs=3, batch_size=3, lr=1e-2)
    return recipe.model_copy(update={"name": "video", "model": model, "memory": stage})


@pytest.fixture(scope="session")
def video_run(video_recipe: Recipe, clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "video"
    train(video_recipe, clips, out)
    return out


def parts(folder: Path) -> tuple[SSDIR, SSDIR]:
    """Returns the frame model and the model of a run."""
    frame_model, model = load_model(folder / "representation"), load_model(folder)
    assert isinstance(frame_model, SSDIR)
    assert isinstance(model, SSDIR)
    return frame_model, model


def test_all_stages_train_into_one_model(video_run: Path) -> None:
    frame_model, model = parts(video_run)
    assert frame_model.memory is None
    assert model.memory is not None
    assert model.memory.weigh[-1].bias.abs() > 0  # type: ignore[operator]
    assert (model.memory.spread != 1).all()
    assert len(rows_of(video_run / "memory" / "metrics.csv")) == 3
    assert len(list((video_run / "memory" / "samples").iterdir())) == 3
    ours = model.state_dict()
    for name, weights in frame_model.state_dict().items():
        torch.testing.assert_close(ours[name], weights, rtol=0, atol=0)


def test_single_images_are_encoded_as_by_the_frame_model(video_run: Path, clips: Path) -> None:
    images = torch.stack([open_dataset(clips, "val", "object", SIZE)[i][0] for i in range(4)]).float() / 255
    alone, model = (each.encode(images, 0.0) for each in parts(video_run))
    assert alone.z_what is not None
    assert model.z_what is not None
    torch.testing.assert_close(model.z_what, alone.z_what)


def interrupt_memory(self: StageLoop, batch: Batch | ClipBatch) -> dict[str, float]:
    if self.stage.folder.name == "memory" and self.epoch == 1:
        raise KeyboardInterrupt
    return TAKE_STEP(self, batch)


TAKE_STEP: Callable[[StageLoop, Batch | ClipBatch], dict[str, float]] = StageLoop.step


def test_a_resumed_memory_equals_an_uninterrupted_one(
    video_run: Path, video_recipe: Recipe, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(StageLoop, "step", interrupt_memory)
        with pytest.raises(KeyboardInterrupt):
            train(video_recipe, clips, out, start=video_run)
    assert not (out / "model").exists()
    train(video_recipe, clips, out, resume=True)
    whole, resumed = (load_model(folder).state_dict() for folder in (video_run, out))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(resumed[name], tensor) for name, tensor in whole.items())


def test_the_frame_model_may_be_of_other_data(
    video_recipe: Recipe, video_run: Path, clips: Path, tmp_path: Path
) -> None:
    """A model folder is enough, whatever the frame model was trained on."""
    frame_model, _ = parts(video_run)
    with torch.no_grad():
        for weights in frame_model.decoder.parameters():
            weights += 0.01
    save_model(frame_model, tmp_path / "model")
    seconds = train(video_recipe, clips, tmp_path / "run", start=tmp_path / "model").seconds
    assert seconds["detector"] == seconds["representation"] == 0 < seconds["memory"]
    adopted = parts(tmp_path / "run")[1].state_dict()
    for name, weights in frame_model.state_dict().items():
        torch.testing.assert_close(adopted[name], weights)


def test_adopted_parts_need_no_pretrained_weights(video_recipe: Recipe, clips: Path, tmp_path: Path) -> None:
    ssd, nowhere = video_recipe.model.ssd, str(tmp_path / "nowhere.safetensors")
    backbone = TimmConfig(name="test_efficientnet", weights=nowhere, num_levels=2, top_down=16, neck_depth=1)
    encoder = AlignedEncoderConfig(
        latent_dim=8, features="pretrained", samples=4, hidden_channels=16, mlp_channels=32
    )
    parts = {"ssd": ssd.model_copy(update={"backbone": backbone}), "encoder": encoder}
    recipe = video_recipe.model_copy(update={"model": video_recipe.model.model_copy(update=parts)})
    frame_model = build_model(without_pretrained(recipe.frame_model), ["object"])
    save_model(frame_model, tmp_path / "model")
    train(changed(recipe, "memory", epochs=1), clips, tmp_path / "run", start=tmp_path / "model")
    adopted = load_model(tmp_path / "run").state_dict()
    assert all(torch.equal(adopted[name], weights) for name, weights in frame_model.state_dict().items())


def test_other_parts_are_refused(video_recipe: Recipe, video_run: Path, clips: Path, tmp_path: Path) -> None:
    wide = video_recipe.model.encoder.model_copy(update={"latent_dim": 16})
    other = video_recipe.model_copy(update={"model": video_recipe.model.model_copy(update={"encoder": wide})})
    with pytest.raises(InputError, match=r"model\.encoder\.latent_dim is 8 there, and 16 in the recipe"):
        train(other, clips, tmp_path / "run", start=video_run)
    with pytest.raises(InputError, match="knows the classes object, and the data have 0, 1"):
        train(video_recipe.model_copy(update={"classes": "all"}), clips, tmp_path / "run", start=video_run)
    with pytest.raises(InputError, match="is of kind SSD, and video has an SSDIR's parts"):
        train(video_recipe, clips, tmp_path / "run", start=video_run / "detector" / "model")
    assert not (tmp_path / "run").exists()


def test_a_model_whose_backbone_was_pretrained_can_be_adopted(tmp_path: Path) -> None:
    recipe = read_recipe("photos", ["model.memory={}", "model.ssd.backbone.weights=hub"])
    check_start("photos", recipe, ["object"], RunData(fingerprint=""), tmp_path / "run")
    wide = read_recipe("photos", ["model.memory={}", "model.ssd.backbone.top_down=64"])
    with pytest.raises(InputError, match=r"model\.ssd\.backbone\.top_down is 96 there, and 64 in the recipe"):
        check_start("photos", wide, ["object"], RunData(fingerprint=""), tmp_path / "run")


def test_a_memory_needs_clips(
    recipe: Recipe, video_recipe: Recipe, scattered: Path, clips: Path, tmp_path: Path
) -> None:
    """The error is raised before anything is trained or written."""
    with pytest.raises(InputError, match="has images, but no clips"):
        train(video_recipe, scattered, tmp_path / "run")
    with pytest.raises(InputError, match=r"SSDIR of 'tiny' has no memory to train.*tiny-video"):
        train(recipe, clips, tmp_path / "run", stage="memory")
    with pytest.raises(InputError, match="has no trained detector: run stage=detector"):
        train(video_recipe, clips, tmp_path / "run", stage="memory")
    assert not (tmp_path / "run").exists()


def test_clips_without_detections_are_reported(video_run: Path, clips: Path) -> None:
    frame_model, _ = parts(video_run)
    frame_model.detector.config = frame_model.detector.config.model_copy(update={"score_threshold": 1.0})
    frame_model.config = frame_model.config.model_copy(update={"ssd": frame_model.detector.config})
    with pytest.raises(InputError, match="detects no object in two frames of a clip"):
        track_clips(frame_model, open_dataset(clips, "val", "object", SIZE))


def frame(*rows: tuple[int, float]) -> Objects:
    """Returns objects of one image, given their track and a number for their `z_what`, score and visible share."""
    tracks, values = zip(*rows, strict=True) if rows else ((), ())
    number = torch.tensor(values, dtype=torch.float32)
    return Objects(
        image_index=torch.zeros(len(rows), dtype=torch.int64),
        batch_size=1,
        z_where=torch.full((len(rows), 4), 0.5),
        scores=number,
        z_what=number[:, None].repeat(1, 2),
        track_id=torch.tensor(tracks, dtype=torch.int64),
        visible=number,
    )


def test_views_are_arranged_by_track() -> None:
    """Tracks that are seen once are left out; shorter clips of a batch have no views at their ends."""
    first = views_of([frame((3, 0.1), (7, 0.2)), frame(), frame((7, 0.3), (9, 0.4), (3, 0.5))])
    second = views_of([frame((1, 0.6)), frame((1, 0.7))])
    assert first is not None
    assert second is not None
    assert views_of([frame((1, 0.6)), frame((2, 0.7))]) is None
    assert views_of([frame(), frame()]) is None
    batch = collate_clips([first, second])
    assert batch.size == 2
    expected = torch.tensor([[0.1, 0.0, 0.5], [0.2, 0.0, 0.3], [0.6, 0.7, 0.0]])
    torch.testing.assert_close(batch.views.scores, expected)
    torch.testing.assert_close(batch.views.visible, expected)
    torch.testing.assert_close(batch.views.z_what, expected[..., None].expand(3, 3, 2))
    assert torch.equal(batch.views.seen, expected > 0)


def test_time_of_the_memory_is_estimated(video_recipe: Recipe, clips: Path) -> None:
    few, many = (estimate_training(changed(video_recipe, "memory", epochs=n), clips) for n in (1, 1000))
    assert few.stages.keys() == {"detector", "representation", "memory"}
    assert few.stages["memory"].once > 0
    long = changed(video_recipe, "memory", epochs=1000)
    assert many.of_stage("memory", long) > 100 * many.stages["memory"].epoch > 0
    assert "for all stages (detector" in few.sentence(video_recipe)
