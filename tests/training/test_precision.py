import pytest
import torch

from ssdir.models.detected.vae import DetectedVAE
from ssdir.models.registry import build_model
from ssdir.models.space.model import SPACEConfig
from ssdir.training import devices
from ssdir.training.devices import fabric_precision
from ssdir.training.recipe import Recipe

CPU = torch.device("cpu")


@pytest.mark.parametrize(("asked", "expected"), [("single", "32-true"), ("bf16", "bf16-mixed")])
def test_a_precision_that_is_asked_for_is_had(asked: str, expected: str) -> None:
    assert fabric_precision(Recipe.model_validate({"precision": asked}), CPU) == expected


@pytest.mark.parametrize(("has_instructions", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_takes_bfloat16_where_it_is_not_emulated(
    has_instructions: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "multiplies_bf16", {"cpu": has_instructions}.get)
    assert fabric_precision(Recipe(), CPU) == expected


def test_space_is_never_trained_in_half_precision() -> None:
    recipe = Recipe.model_validate({"model": SPACEConfig().model_dump(), "precision": "bf16"})
    assert fabric_precision(recipe, CPU) == "32-true"


def test_losses_embeddings_and_detections_are_single_in_a_bf16_step(recipe: Recipe) -> None:
    torch.manual_seed(0)
    model = build_model(recipe.model, ["object"])
    assert isinstance(model, DetectedVAE)
    images = torch.rand(2, 3, model.image_size, model.image_size)
    with torch.autocast("cpu", torch.bfloat16):
        features = model.detector.backbone(images)
        detections = model.detector.heads(features)
        objects = model.detector.select(detections, score_threshold=0.0)
        losses = model.loss_of(images, objects, features)
        latents = model.infer(objects, images, features)
    assert features[0].dtype == torch.bfloat16, "autocast did not reach the backbone"
    assert detections.class_logits.dtype == detections.box_deltas.dtype == torch.float32
    assert latents.z_what is not None
    assert latents.z_what.dtype == torch.float32
    assert {name: loss.dtype for name, loss in losses.items()} == dict.fromkeys(losses, torch.float32)
