"""Tests of the baseline that reduces the detector's pooled features to the size of an embedding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ssdir.errors import InputError
from ssdir.inference.predictor import Predictor
from ssdir.models.detected.model import pool_pyramid
from ssdir.models.io import load_model, random_encoder, save_model
from ssdir.models.pooled_features import PooledFeatures, PooledFeaturesConfig
from ssdir.models.registry import build_model
from ssdir.objects import Objects
from ssdir.training.recipe import read_recipe

from .tiny import NAMES, assert_same_objects, detector_config, noise, tiny_detector, truth

D = 6


def pooled_features(**changes: int) -> PooledFeatures:
    config = PooledFeaturesConfig(ssd=detector_config(), **{"latent_dim": D, "pool_size": 2, **changes})
    return PooledFeatures(config, NAMES, tiny_detector()).eval()


def features(model: PooledFeatures, images: Tensor, objects: Objects) -> Tensor:
    return model.pooled_features(images, objects, model.config.pool_size)


@pytest.fixture
def fitted() -> PooledFeatures:
    model, images, boxes = pooled_features(), noise(8), truth(*[6] * 8)
    model.fit(features(model, images, boxes), seed=0)
    return model


def test_embeddings_are_principal_components_of_standardised_features() -> None:
    """The oracle is a singular value decomposition; the sign of a component is arbitrary."""
    model, images, boxes = pooled_features(), noise(8), truth(*[6] * 8)
    rows = features(model, images, boxes).double().numpy()
    share = model.fit(torch.from_numpy(rows).float(), seed=0)
    spread = rows.std(axis=0)
    standardised = (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1)
    left, values, _ = np.linalg.svd(standardised, full_matrices=False)
    oracle = left[:, :D] * values[:D]
    z_what = model.embed(images, boxes).z_what
    assert z_what is not None
    np.testing.assert_allclose(np.abs(z_what.numpy()), np.abs(oracle), atol=2e-3)
    assert share == pytest.approx((values[:D] ** 2).sum() / (values**2).sum(), abs=1e-4)
    assert int(model.num_fitted) == 48


def test_embeddings_are_single_in_bfloat16(fitted: PooledFeatures) -> None:
    images, boxes = noise(2), truth(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        half = fitted.embed(images, boxes).z_what
    whole = fitted.embed(images, boxes).z_what
    assert half is not None
    assert whole is not None
    assert half.dtype == torch.float32
    assert (half - whole).abs().mean() < 0.1 * whole.abs().mean()


def test_it_embeds_what_its_detector_detects_without_depth_or_scale(fitted: PooledFeatures) -> None:
    images = noise(3)
    objects, detected = fitted.encode(images), fitted.detector.encode(images)
    assert len(objects)
    assert torch.equal(objects.z_where, detected.z_where)
    assert objects.z_what is not None
    assert objects.z_what.shape == (len(detected), D)
    assert objects.z_depth is None
    assert objects.z_what_scale is None
    given = truth(2, 0, 1).replace(scores=torch.tensor([0.3, 0.2, 0.1]))
    encoded = fitted.embed(images, given)
    for name in ("image_index", "z_where", "scores", "labels"):
        assert torch.equal(getattr(encoded, name), getattr(given, name)), name
    none = fitted.encode(images, score_threshold=1.0)
    assert none.z_what is not None
    assert none.z_what.shape == (0, D)


def test_levels_lie_side_by_side() -> None:
    objects = truth(1, 2)
    levels = [torch.rand(2, 3, 8, 8), torch.rand(2, 5, 4, 4)]
    pooled = pool_pyramid(levels, objects, 2)
    assert pooled.shape == (3, (3 + 5) * 4)
    torch.testing.assert_close(pooled[:, :12], pool_pyramid(levels[:1], objects, 2))
    # Of one value all over, any average is that value.
    plain = pool_pyramid([torch.full((2, 1, 8, 8), 0.25)], objects, 3)
    torch.testing.assert_close(plain, torch.full((3, 9), 0.25))


def test_saved_and_loaded_with_what_was_fitted(fitted: PooledFeatures, tmp_path: Path) -> None:
    save_model(fitted, tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, PooledFeatures)
    assert int(loaded.num_fitted) == 48
    assert_same_objects(loaded.encode(noise(2)), fitted.encode(noise(2)))


def test_fewer_objects_than_components_leave_zeros() -> None:
    model, images, boxes = pooled_features(), noise(2), truth(2, 2)
    # Four points span three directions.
    assert model.fit(features(model, images, boxes), seed=0) == pytest.approx(1)
    z_what = model.embed(images, boxes).z_what
    assert z_what is not None
    assert z_what[:, :3].abs().amax(dim=0).min() > 0.1
    torch.testing.assert_close(z_what[:, 3:], torch.zeros(4, D - 3), atol=1e-3, rtol=0)


def test_invalid_fits_are_refused_in_one_sentence(fitted: PooledFeatures) -> None:
    with pytest.raises(InputError, match="not fitted: go on with its training"):
        pooled_features().encode(noise(1))
    with pytest.raises(ValueError, match="at least two objects, got 1"):
        pooled_features().fit(torch.rand(1, 112), seed=0)
    with pytest.raises(InputError, match="PooledFeatures has no decoder"):
        Predictor(fitted).reconstruct(noise(1))


def test_it_has_no_decoder_and_no_random_floor(fitted: PooledFeatures) -> None:
    assert not hasattr(fitted, "decode")
    assert not hasattr(fitted, "loss")
    assert random_encoder(fitted) is None


def test_its_preset_differs_from_tiny_in_nothing_but_the_representation() -> None:
    """Both have the same detector, weight by weight, and embeddings of one size."""
    ours, theirs = read_recipe("tiny-pooled"), read_recipe("tiny")
    assert ours.model.ssd == theirs.model.ssd
    assert ours.model.latent_dim == theirs.model.latent_dim
    for same in ("seed", "classes", "augment", "detector"):
        assert getattr(ours, same) == getattr(theirs, same)
    assert isinstance(build_model(ours.model, ["object"]), PooledFeatures)
