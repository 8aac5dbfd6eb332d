"""Tests of the glimpse VAE, which differs from SSDIR in the encoder alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssdir.device import seeded
from ssdir.errors import InputError
from ssdir.models.decoder import DecoderConfig
from ssdir.models.glimpse_vae import GlimpseEncoderConfig, GlimpseVAE, GlimpseVAEConfig
from ssdir.models.io import load_model, random_encoder, save_model
from ssdir.models.registry import build_model
from ssdir.models.ssdir import SSDIR
from ssdir.objects import Objects
from ssdir.training.recipe import Recipe, read_recipe

from .tiny import NAMES, SIZE, assert_same_objects, detector_config, noise, tiny_detector, truth


def glimpse_vae() -> GlimpseVAE:
    config = GlimpseVAEConfig(
        ssd=detector_config(),
        encoder=GlimpseEncoderConfig(latent_dim=6, glimpse_size=16, channels=(8, 12), mlp_channels=16),
        decoder=DecoderConfig(stem=12, channels=(12, 8, 8), alpha=True),
    )
    with seeded(2):
        return GlimpseVAE(config, NAMES, tiny_detector().requires_grad_(False)).eval()


def test_it_embeds_what_its_detector_detects_from_the_image() -> None:
    model, images = glimpse_vae(), noise(3)
    objects = model.encode(images)
    detected = model.detector.encode(images)
    assert torch.equal(objects.z_where, detected.z_where)
    assert objects.z_what is not None
    assert objects.z_what.shape == (len(detected), 6)
    # Pixels outside every box change no embedding.
    inside = torch.zeros(3, SIZE, SIZE, dtype=torch.bool)
    boxes = truth(1, 1, 1)
    embeddings = model.embed(images, boxes).z_what
    for image, (x1, y1, x2, y2) in enumerate(boxes.boxes_px((SIZE, SIZE)).tolist()):
        inside[image, max(0, int(y1) - 1) : int(y2) + 2, max(0, int(x1) - 1) : int(x2) + 2] = True
    other = torch.where(inside[:, None], images, 1 - images)
    torch.testing.assert_close(model.embed(other, boxes).z_what, embeddings)
    elsewhere = torch.where(inside[:, None], 1 - images, images)
    assert not torch.allclose(model.embed(elsewhere, boxes).z_what, embeddings, atol=1e-2)


def test_a_whole_pixel_box_of_the_glimpses_size_is_cut_out_as_it_is() -> None:
    """The oracle is plain slicing, which is exact where nothing is resampled."""
    model, images = glimpse_vae(), noise(1)
    box = torch.tensor([[8 + 8, 20 + 8, 16, 16]]) / SIZE
    objects = Objects(torch.zeros(1, dtype=torch.int64), 1, box)
    with torch.no_grad():
        what_loc, depth_loc = model.encoder(images[:, :, 20:36, 8:24])
    encoded = model.embed(images, objects)
    assert encoded.z_depth is not None
    torch.testing.assert_close(encoded.z_what, what_loc, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(encoded.z_depth, depth_loc, atol=1e-5, rtol=1e-4)


def test_it_learns() -> None:
    model, images = glimpse_vae().train(), noise(2)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    torch.manual_seed(0)
    history = []
    for _ in range(30):
        loss = model.loss(images)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss.detach()))
    assert sum(history[-3:]) < sum(history[:3])


def test_images_without_objects_and_constant_ones() -> None:
    model = glimpse_vae()
    for value in (0.0, 1.0, 0.5):
        images = torch.full((2, 3, SIZE, SIZE), value)
        none = model.encode(images, score_threshold=1.0)
        assert model.decode(none).reconstructions.shape == (2, 3, SIZE, SIZE)
        assert all(torch.isfinite(term) for term in model.loss(images).values())


def test_saved_and_loaded_by_its_kind(tmp_path: Path) -> None:
    model = glimpse_vae()
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, GlimpseVAE)
    assert_same_objects(loaded.encode(noise(2)), model.encode(noise(2)))
    fresh = random_encoder(model)
    assert isinstance(fresh, GlimpseVAE)
    first, second = fresh.encode(noise(2)), model.encode(noise(2))
    assert torch.equal(first.z_where, second.z_where)
    assert first.z_what is not None
    assert second.z_what is not None
    assert not torch.allclose(first.z_what, second.z_what)


def test_recipes_select_the_model() -> None:
    recipe = read_recipe("tiny-glimpses")
    assert isinstance(recipe.model, GlimpseVAEConfig)
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
    assert isinstance(build_model(read_recipe("tiny").model, ["object"]), SSDIR)
    with pytest.raises(InputError, match="kind must be one of SSDIR, GlimpseVAE"):
        read_recipe("tiny", ["model.kind=VAE"])
    with pytest.raises(InputError, match=r"unknown key 'model\.clone_backbone'"):
        read_recipe("tiny-glimpses", ["model.clone_backbone=true"])


def test_it_differs_from_tiny_in_nothing_but_the_encoder() -> None:
    """The preset differs in the encoder alone, so that a comparison is of single shot and glimpses alone."""
    ours, theirs = (read_recipe(name).model_dump() for name in ("tiny", "tiny-glimpses"))
    for recipe in (ours, theirs):
        recipe.pop("name")
        for key in ("kind", "clone_backbone", "encoder", "memory"):
            recipe["model"].pop(key, None)
    assert ours == theirs
    tiny, glimpses = read_recipe("tiny").model, read_recipe("tiny-glimpses").model
    for key in ("latent_dim", "what_scale", "depth_scale"):
        assert getattr(tiny.encoder, key) == getattr(glimpses.encoder, key)
