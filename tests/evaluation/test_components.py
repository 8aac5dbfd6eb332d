"""Tests of principal components that are fitted on the first objects, batch by batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from ssdir.evaluation import components
from ssdir.evaluation.components import Components, project


def features(seed: int, n: int, size: int = 7) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, size, generator=g) * torch.logspace(-1, 1, size)


@pytest.mark.parametrize("standardise", [False, True])
def test_components_equal_those_of_scikit_learn_on_the_first_objects(
    standardise: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(components, "MAX_FITTED", 50)
    known, unseen = features(0, 130), features(1, 40)
    reducer = Components(3, standardise=standardise)
    for batch in known.split(13):
        reducer.add(batch)
    reduced, projection = reducer.finish()
    scaler = StandardScaler(with_mean=standardise, with_std=standardise).fit(known[:50].numpy())
    plain = PCA(3).fit(scaler.transform(known[:50].numpy()))
    for ours, given in ((reduced, known), (project(projection, unseen), unseen)):
        theirs = plain.transform(scaler.transform(given.numpy()))
        np.testing.assert_allclose(ours.abs().numpy(), np.abs(theirs), rtol=1e-3, atol=1e-3)


def test_few_objects_have_few_components() -> None:
    reducer = Components(100)
    reducer.add(features(0, 80))
    assert reducer.finish()[0].shape == (80, 7)
    reduced, projection = Components(3).finish()
    assert projection is None
    assert len(reduced) == 0


def test_features_must_be_finite() -> None:
    with pytest.raises(ValueError, match="must be finite"):
        Components(3).add(torch.full((2, 4), torch.nan))
