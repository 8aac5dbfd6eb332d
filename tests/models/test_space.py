from __future__ import annotations

from math import log, tanh
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily, Normal

from ssdir.device import seeded
from ssdir.inference.predictor import Predictor
from ssdir.models.io import load_model, save_model
from ssdir.models.losses import gaussian_log_prob, mixture_log_likelihood
from ssdir.models.presence import Schedule
from ssdir.models.space.background import SceneMixture, SPACEBackgroundConfig
from ssdir.models.space.foreground import (
    boundary_ring,
    windows_from_where,
)
from ssdir.models.space.model import FOREGROUND_SIGMA, SPACE, SPACEConfig
from ssdir.objects import Objects
from ssdir.ops.boxes import inside_windows, tight_boxes
from ssdir.training.recipe import read_recipe

SIZE = 32
BEHIND = SPACEBackgroundConfig(
    num_components=1, component_dim=4, encoder_channels=(8, 8), decoder_channels=(16, 8, 8, 8)
)
THREE_BEHIND = BEHIND.model_copy(update={"num_components": 3})


def tiny_space(**changes: Any) -> SPACE:
    values = {
        "image_size": SIZE,
        "grid": 4,
        "encoder_channels": (8, 16, 16),
        "feature_dim": 16,
        "latent_dim": 8,
        "glimpse_size": 8,
        "glimpse_channels": (8, 16),
        "glimpse_hidden": 16,
        "decoder_channels": (16, 16, 8, 8),
        "decoder_mixing": False,
        "background": BEHIND,
        **changes,
    }
    with seeded(0):
        return SPACE(SPACEConfig(**values))


def squares(B: int = 8) -> Tensor:
    """Returns images with two white 6×6 px squares on black, at random places."""
    g = torch.Generator().manual_seed(0)
    images = torch.zeros(B, 3, SIZE, SIZE)
    for image in images:
        for x, y in torch.randint(0, SIZE - 6, (2, 2), generator=g).tolist():
            image[:, y : y + 6, x : x + 6] = 1
    return images


# Geometry.


def test_windows_against_hand_computed_values() -> None:
    where = torch.zeros(1, 4, 4)  # a grid of 2 × 2
    where[0, 1] = torch.tensor([log(1 / 3), log(3.0), 0.5, -0.5])
    windows = windows_from_where(where, grid=2, min_side=0.01)[0]
    torch.testing.assert_close(windows[0], torch.tensor([0.25, 0.25, 0.5, 0.5]))
    expected = [0.75 + tanh(0.5) / 2, 0.25 - tanh(0.5) / 2, 0.25, 0.75]  # the second cell is to the right
    torch.testing.assert_close(windows[1], torch.tensor(expected))
    torch.testing.assert_close(windows[2], torch.tensor([0.25, 0.75, 0.5, 0.5]))


def test_no_window_vanishes() -> None:
    windows = windows_from_where(torch.full((1, 1, 4), -50.0), grid=1, min_side=1 / 64)
    assert windows[0, 0, 2:].tolist() == [1 / 64, 1 / 64]


def test_tight_boxes_hold_what_is_opaque() -> None:
    alpha = torch.full((3, 1, 8, 8), 0.1)
    alpha[0, 0, 2:5, 1:7] = 0.9
    alpha[1, 0, 7, 0] = 0.6
    alpha[2, 0, 3, 4] = 0.3  # below the threshold, but the most opaque there is
    expected = [[1, 2, 7, 5], [0, 7, 1, 8], [4, 3, 5, 4]]
    assert (8 * tight_boxes(alpha, threshold=0.5)).tolist() == expected


def test_parts_of_windows_lie_inside_them() -> None:
    windows = torch.tensor([[0.2, 0.4, 0.6, 0.5]])
    parts = torch.tensor([[0.25, 0.0, 1.0, 0.5]])
    torch.testing.assert_close(inside_windows(windows, parts), torch.tensor([[0.3, 0.4, 0.6, 0.45]]))


def test_ring_is_as_wide_as_asked() -> None:
    ring = boundary_ring(8, 0.25)[0, 0]
    assert ring[2:6, 2:6].sum() == 0
    assert ring.sum() == 64 - 16


# Likelihood.


def test_mixture_likelihood_against_torch() -> None:
    g = torch.Generator().manual_seed(0)
    images, front, behind = (torch.rand(2, 3, 5, 5, generator=g) for _ in range(3))
    coverage = 0.02 + 0.96 * torch.rand(2, 1, 5, 5, generator=g)
    log_likelihood = mixture_log_likelihood(
        gaussian_log_prob(images, front, 0.2), gaussian_log_prob(images, behind, 0.1), coverage
    )
    weights = torch.stack([coverage, 1 - coverage], dim=-1).expand(-1, 3, -1, -1, -1)
    scales = torch.tensor([0.2, 0.1]).expand(2, 3, 5, 5, 2)
    parts = Normal(torch.stack([front, behind], dim=-1), scales)
    expected = MixtureSameFamily(Categorical(probs=weights), parts).log_prob(images).sum(dim=(1, 2, 3))
    torch.testing.assert_close(log_likelihood, expected, rtol=1e-3, atol=0.05)


def test_background_likelihood_of_components_against_torch() -> None:
    torch.manual_seed(0)
    mixture = SceneMixture(THREE_BEHIND, SIZE)
    images = squares(2)
    latents, _ = mixture._infer_masks(images, sample=False)
    masks = mixture._break_sticks(latents)
    torch.testing.assert_close(masks.sum(dim=1), torch.ones(2, 1, SIZE, SIZE))
    assert masks.min() >= 0
    background = mixture(images, sigma=0.3, sample=False)
    inputs = torch.cat([(masks + 1e-5).log(), images[:, None].expand(-1, 3, -1, -1, -1)], dim=2).flatten(0, 1)
    means = mixture.component_decoder(mixture.component_encoder(inputs)[:, :4]).sigmoid().unflatten(0, (2, 3))
    torch.testing.assert_close(background.pictures, (means * masks).sum(dim=1))
    weights = masks.expand(-1, -1, 3, -1, -1).movedim(1, -1)
    oracle = MixtureSameFamily(Categorical(probs=weights), Normal(means.movedim(1, -1), torch.tensor(0.3)))
    torch.testing.assert_close(background.log_likelihood, oracle.log_prob(images), rtol=1e-3, atol=1e-2)
    assert (background.kl > 0).all()


# The interface that all models share.


@pytest.mark.parametrize("boxes", ["window", "tight"])
@pytest.mark.parametrize("behind", [BEHIND, THREE_BEHIND, SPACEBackgroundConfig(num_components=0)])
def test_what_is_encoded_can_be_decoded(boxes: str, behind: SPACEBackgroundConfig) -> None:
    model = tiny_space(output_boxes=boxes, background=behind).eval()
    images = squares(3)
    objects = model.encode(images, score_threshold=0)
    assert len(objects) == 3 * 16
    assert objects.z_what is not None
    assert objects.z_what.shape == (48, model.latent_dim)
    assert objects.scores is not None
    assert ((objects.scores > 0) & (objects.scores < 1)).all()
    assert objects.anchor_index is not None
    assert objects.anchor_index.tolist() == 3 * list(range(16))
    assert objects.labels is not None
    assert not objects.labels.any()
    assert objects.z_where.min() >= 0
    assert objects.z_where.max() <= 1
    alone, reconstructed = model.decode(objects), model.reconstruct(images, objects)
    # Objects do not encode the background behind them; the images show it.
    assert torch.equal(reconstructed.reconstructions, alone.reconstructions) == (behind.num_components == 0)
    seen = Predictor(model).reconstruct(images).reconstructions
    torch.testing.assert_close(seen, model(images).reconstructions, rtol=1e-4, atol=1e-5)
    for scene in (alone, reconstructed, model(images)):
        assert scene.alpha is not None
        assert scene.reconstructions.shape == (3, 3, SIZE, SIZE)
        assert scene.reconstructions.min() >= 0
        assert scene.reconstructions.max() <= 1
        assert (scene.appearances <= scene.alpha + 1e-6).all()


def test_scores_decide_what_is_detected() -> None:
    model, images = tiny_space().eval(), squares(2)
    all_objects = model.encode(images, score_threshold=0)
    assert all_objects.scores is not None
    middle = float(all_objects.scores.median())
    detected = model.encode(images, score_threshold=middle)
    assert 0 < len(detected) < 32
    torch.testing.assert_close(detected.z_what, all_objects[all_objects.scores >= middle].z_what)


def test_given_boxes_keep_their_rows() -> None:
    model, images = tiny_space().eval(), squares(3)
    z_where = torch.tensor([[0.9, 0.1, 0.2, 0.3], [0.3, 0.6, 0.1, 0.1], [0.5, 0.5, 1.0, 1.0]])
    boxes = Objects(torch.tensor([0, 0, 2]), 3, z_where, labels=torch.tensor([4, 5, 6]))
    objects = model.embed(images, boxes)
    assert torch.equal(objects.z_where, z_where)
    assert objects.labels is not None
    assert objects.labels.tolist() == [4, 5, 6]
    assert objects.anchor_index is not None
    assert objects.anchor_index.tolist() == [3, 9, 10]
    assert objects.z_what is not None
    assert model.decode(objects).reconstructions.shape == images.shape
    moved = model.embed(images, boxes.replace(z_where=z_where + torch.tensor([-0.1, 0.1, 0, 0])))
    assert not torch.allclose(moved.z_what, objects.z_what)


def test_a_tight_box_is_where_the_object_is_decoded() -> None:
    model = tiny_space().eval()
    with torch.no_grad():
        objects = model.encode(squares(1), score_threshold=0)[:1]
        objects = objects.replace(z_where=torch.tensor([[0.5, 0.5, 0.25, 0.25]]))
        scene = model.decode(objects, background=torch.ones(1, 3, SIZE, SIZE))
    outside = torch.ones(SIZE, SIZE, dtype=torch.bool)
    outside[11:21, 11:21] = False
    assert (scene.reconstructions[..., outside] == 1).all()
    assert scene.reconstructions[..., 14:18, 14:18].max() < 0.9


def test_images_without_objects_and_empty_batches() -> None:
    model = tiny_space().eval()
    for B in (0, 2):
        nothing = model.encode(squares(2)[:B], score_threshold=1.0)
        assert len(nothing) == 0
        assert nothing.batch_size == B
        assert nothing.z_what is not None
        assert nothing.z_what.shape == (0, 8)
        reconstructions = model.decode(nothing).reconstructions if B else torch.zeros(0, 3, SIZE, SIZE)
        assert reconstructions.shape == (B, 3, SIZE, SIZE)
        assert not reconstructions.any()


def test_decoding_needs_latents() -> None:
    with pytest.raises(ValueError, match="need z_what and z_depth"):
        tiny_space().decode(Objects.empty(1))


# Learning.


@pytest.mark.parametrize("mixing", [False, True])
def test_one_batch_is_learned(mixing: bool) -> None:
    torch.manual_seed(0)
    model, images = tiny_space(decoder_mixing=mixing).train(), squares()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(30):
        terms = model.loss(images)
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        totals.append(terms["total"].item())
    assert sum(totals[-5:]) / 5 < sum(totals[:5]) / 5 - 500  # of some 4000 nats
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("behind", [BEHIND, THREE_BEHIND, SPACEBackgroundConfig(num_components=0)])
def test_constant_images_give_finite_losses_and_gradients(level: float, behind: SPACEBackgroundConfig) -> None:
    torch.manual_seed(0)
    model = tiny_space(background=behind).train()
    terms = model.loss(torch.full((2, 3, SIZE, SIZE), level))
    terms["total"].backward()
    assert all(term.isfinite() for term in terms.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    parts = [value for name, value in terms.items() if name not in ("total", "mse")]
    torch.testing.assert_close(terms["total"], torch.stack(parts).sum())


def test_steps_count_in_training_alone_and_are_saved() -> None:
    model, images = tiny_space(), squares(1)
    model.train().loss(images)
    model.loss(images)
    model.eval().loss(images)
    assert int(model.step) == 2
    assert int(model.state_dict()["step"]) == 2


def test_annealed_priors_follow_the_step() -> None:
    schedule = Schedule(start=0.5, end=0.001, from_step=0, to_step=10)
    model = tiny_space(presence_prior=schedule, boundary=Schedule(start=1, end=0, from_step=5, to_step=5))
    terms = []
    for step in (0, 10):
        model.step.fill_(step)
        with seeded(1), torch.no_grad():
            terms.append(model.eval().loss(squares(2)))
    assert terms[1]["kl_present"] > terms[0]["kl_present"] + 1
    assert terms[0]["boundary"] > 0
    assert terms[1]["boundary"] == 0


def test_a_fixed_mixing_weight_does_not_depend_on_decoded_opacity() -> None:
    model = tiny_space(fix_alpha_steps=1, presence_prior=Schedule(start=0.5, end=0.5))
    model.eval().loss(squares(2))["nll"].backward()
    presence = model.grid_encoder.head.weight.grad
    assert presence is not None
    fixed = presence[0].abs().sum()
    model.zero_grad()
    model.step.fill_(1)
    model.loss(squares(2))["nll"].backward()
    assert model.grid_encoder.head.weight.grad is not None
    assert model.grid_encoder.head.weight.grad[0].abs().sum() > 3 * fixed


@pytest.mark.parametrize(("step", "alike"), [(0, True), (1, False)])
def test_the_background_learns_from_every_pixel_while_the_mixing_weight_is_fixed(step: int, alike: bool) -> None:
    gradients = []
    for colour in (-3.0, 3.0):
        with seeded(0):
            model = tiny_space(fix_alpha_steps=1, presence_prior=Schedule(start=0.5, end=0.5)).eval()
        model.step.fill_(step)
        last = list(model.glimpse_decoder.parameters())[-1]
        with torch.no_grad():
            last[:3] = colour  # Objects of one colour or another explain other pixels.
        with seeded(1):
            model.loss(squares(2))["nll"].backward()
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.background.parameters() if p.grad is not None])
        )
    dark, bright = gradients
    assert bright.abs().max() > 0.1
    assert torch.allclose(dark, bright, rtol=1e-3, atol=1e-4) == alike


def test_kl_of_presence_grows_with_the_present_cells() -> None:
    model = tiny_space()
    with torch.no_grad():
        model.grid_encoder.head.weight.zero_()
        model.grid_encoder.head.bias[0] = -20  # log odds of -8.8: no object is present
        nothing = model.eval().loss(squares(1))
        model.grid_encoder.head.bias[0] = 20
        everybody = model.loss(squares(1))
    assert nothing["kl_what"] + nothing["kl_depth"] + nothing["kl_where"] < 0.1
    assert everybody["kl_where"] > 1
    assert float(everybody["kl_present"]) == pytest.approx(16 * log(10), abs=0.1)  # all 16, against a prior of 0.1


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"power of two.*got 32 / 5"):
        SPACEConfig(image_size=32, grid=5)
    with pytest.raises(ValidationError, match=r"up to glimpse_size, 8, got 6 entries"):
        SPACEConfig(glimpse_size=8)
    with pytest.raises(ValidationError, match=r"halve glimpse_size, 8, to one pixel at least, got 4 entries"):
        SPACEConfig(glimpse_size=8, decoder_channels=(64, 32, 16, 16), glimpse_channels=(8, 8, 8, 8))


def test_a_saved_model_comes_back_with_its_step(tmp_path: Path) -> None:
    model, images = tiny_space(output_boxes="window").train(), squares(2)
    model.loss(images)
    save_model(model.eval(), tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, SPACE)
    assert loaded.config == model.config
    assert loaded.class_names == ["object"]
    assert int(loaded.step) == 1
    assert torch.equal(loaded(images).reconstructions, model(images).reconstructions)


@pytest.mark.parametrize("name", ["space-64", "paper-space"])
def test_presets_take_a_step(name: str) -> None:
    config = read_recipe(name).model
    assert isinstance(config, SPACEConfig)
    with seeded(0):
        model = SPACE(config).train()
        model.loss(torch.rand(1, 3, config.image_size, config.image_size))["total"].backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    assert not still


def test_the_authors_constants() -> None:
    config = read_recipe("paper-space").model
    assert isinstance(config, SPACEConfig)
    assert (config.image_size, config.grid, config.latent_dim, config.glimpse_size) == (128, 16, 32, 32)
    assert (FOREGROUND_SIGMA, config.background_sigma, config.background.num_components) == (0.15, 0.15, 5)
    assert [config.presence_prior.value(step) for step in (0, 4000, 7000, 10_000)] == [0.1, 0.1, 0.055, 0.01]
    assert [config.temperature.value(step) for step in (0, 10_000, 20_000)] == [2.5, 1.5, 0.5]
    assert [config.size_prior.value(step) for step in (0, 10_000, 15_000, 20_000)] == [-1, -1, -1.5, -2]
    assert [config.boundary.value(step) for step in (0, 99_999, 100_000)] == [1, 1, 0]
    assert config.output_boxes == "window"
