"""Every shipped preset takes a training step of each stage."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ssdir.config import presets
from ssdir.models.base import GenerativeModel
from ssdir.models.detected.model import DetectedConfig
from ssdir.models.detected.vae import DetectedVAEConfig
from ssdir.models.detector.ssd import SSD
from ssdir.models.registry import build_model
from ssdir.objects import Objects
from ssdir.training.recipe import Recipe, read_recipe

from .tiny import NAMES, truth


def step(model: nn.Module, loss: Tensor) -> set[str]:
    """Returns the names of the trainable parameters that one optimiser step on a loss changes."""
    before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    loss.backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3).step()
    return {name for name, p in model.named_parameters() if name in before and not torch.equal(p, before[name])}


DETECTED = [name for name in presets() if isinstance(read_recipe(name).model, DetectedConfig)]


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTED)
def test_preset_takes_a_step_of_each_stage(name: str, untrained_recipe: Callable[..., Recipe]) -> None:
    recipe = untrained_recipe(name, ["model.ssd.score_threshold=0", "model.ssd.max_objects=4"])
    torch.manual_seed(0)
    size = recipe.model.ssd.image_size
    images = torch.rand(2, 3, size, size)
    detector = SSD(recipe.model.ssd, NAMES).train()
    loss = detector.loss(images, truth(3, 2))["total"]
    assert torch.isfinite(loss)
    changed = step(detector, loss)
    for part in ("backbone.", "class_heads.", "box_heads."):
        assert any(parameter.startswith(part) for parameter in changed), part

    if not isinstance(recipe.model, DetectedVAEConfig):
        return  # its representation takes no steps: see test_pooled_features
    model = build_model(recipe.model, NAMES, detector=detector).train()
    loss = model.loss(images)["total"]
    assert torch.isfinite(loss)
    changed = step(model, loss)
    for part in ("encoder.", "decoder.") + (
        ("backbone.",) if getattr(recipe.model, "clone_backbone", False) else ()
    ):
        assert any(parameter.startswith(part) for parameter in changed), part
    assert not any(parameter.startswith("detector.") for parameter in changed)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in presets() if name not in DETECTED])
def test_preset_without_a_detector_takes_a_step(name: str) -> None:
    recipe = read_recipe(name)
    torch.manual_seed(0)
    images = torch.rand(2, 3, recipe.model.image_size, recipe.model.image_size)
    model = build_model(recipe.model, NAMES).train()
    assert model.class_names == ["object"]  # whatever the data's classes are
    model.loss(images)  # on wheels, if it has any, not everything is trained yet
    if hasattr(model, "step"):
        model.step += 10_000
    loss = model.loss(images)["total"]
    assert torch.isfinite(loss)
    parts = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert parts <= {name.split(".")[0] for name in step(model, loss)}


@pytest.mark.parametrize("name", ["tiny", "tiny-glimpses", "tiny-pooled", "spair-64", "space-64", "slots-32"])
def test_images_of_another_size_are_refused(name: str) -> None:
    recipe = read_recipe(name)
    model, side = build_model(recipe.model, NAMES).eval(), recipe.model.image_size
    images = torch.rand(2, 3, side, side + 32)
    calls: list[Callable[[], object]] = [
        lambda: model.encode(images),
        lambda: model.embed(images, truth(3, 2)),
    ]
    if isinstance(model, GenerativeModel):
        calls.append(lambda: model.loss(images))
    for call in calls:
        with pytest.raises(ValueError, match=rf"must be \(B, 3, {side}, {side}\), got \(2, 3, {side}, "):
            call()


@pytest.mark.parametrize("name", ["tiny", "tiny-glimpses", "tiny-pooled", "spair-64", "space-64", "slots-32"])
def test_boxes_of_another_number_of_images_are_refused(name: str) -> None:
    recipe = read_recipe(name)
    model, side = build_model(recipe.model, NAMES).eval(), recipe.model.image_size
    with pytest.raises(ValueError, match="must be of the 1 images given, got objects of 2"):
        model.embed(torch.rand(1, 3, side, side), truth(3, 2))
    if name in ("space-64", "slots-32"):  # Their background is that of the images.
        with pytest.raises(ValueError, match="must be of the 1 images given, got objects of 2"):
            model.reconstruct(torch.rand(1, 3, side, side), Objects.empty(2))


@pytest.mark.parametrize("name", ["tiny", "tiny-glimpses", "spair-64", "space-64", "slots-32"])
def test_boxes_in_double_precision_are_embedded_as_in_single(name: str) -> None:
    recipe = read_recipe(name)
    torch.manual_seed(0)
    model, side = build_model(recipe.model, NAMES).eval(), recipe.model.image_size
    images, boxes = torch.rand(2, 3, side, side), truth(3, 2)
    objects = model.embed(images, boxes.to(torch.float64))
    torch.testing.assert_close(objects.z_what, model.embed(images, boxes).z_what)
    if isinstance(model, GenerativeModel):
        assert model.decode(objects).reconstructions.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "clone", "image", "objects", "kl_what", "kl_depth", "what", "depth", "hidden", "latent"),
    [
        ("paper-mnist", False, 10, 10, 1, 1, 0.1, 0.1, 3, 64),
        ("paper-clevr", True, 1, 14, 0.54, 0.44, 0.27, 0.14, 3, 256),
        ("paper-widerface", True, 1, 10, 0.1, 0.4, 0.3, 0.1, 4, 512),
    ],
)
def test_the_papers_constants(
    name: str,
    clone: bool,
    image: float,
    objects: float,
    kl_what: float,
    kl_depth: float,
    what: float,
    depth: float,
    hidden: int,
    latent: int,
) -> None:
    model = read_recipe(name).model
    encoder, loss = model.encoder, model.loss
    assert model.clone_backbone == clone
    assert (loss.image, loss.objects, loss.kl_what, loss.kl_depth) == (image, objects, kl_what, kl_depth)
    assert (encoder.what_scale, encoder.depth_scale) == (what, depth)
    assert (encoder.num_hidden, encoder.latent_dim) == (hidden, latent)
    assert (model.consistency.weight, encoder.kind, model.decoder.alpha) == (0, "pyramid", False)
    assert model.decoder.size == 64
