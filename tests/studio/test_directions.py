import numpy as np
import pytest
import torch

from ssdir.errors import InputError
from ssdir.studio.directions import LatentDirections


def codes() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(7, 7, generator=generator) * torch.tensor([5.0, 3, 2, 1, 0.5, 0.2, 0.1])
    return torch.randn(200, 7, generator=generator) @ mixing.T + 4


def test_directions_are_the_eigenvectors_of_the_covariance() -> None:
    directions = LatentDirections.fit(codes(), count=4)
    variances, vectors = np.linalg.eigh(np.cov(codes().double().numpy().T))
    agreement = np.abs(np.sum(directions.components.numpy() * vectors.T[::-1][:4], axis=1))
    np.testing.assert_allclose(agreement, 1, atol=1e-5)
    np.testing.assert_allclose(directions.scales, np.sqrt(variances[::-1][:4]), rtol=1e-5)
    np.testing.assert_allclose(directions.explained, variances[::-1][:4] / variances.sum(), rtol=1e-5)


def test_a_turned_knob_reads_as_set_and_leaves_the_rest_of_the_code() -> None:
    directions = LatentDirections.fit(codes(), count=3)
    code = codes()[5]
    settings = directions.read(code).clone()
    settings[1] = -2.5
    turned = directions.turn(code, settings)
    torch.testing.assert_close(directions.read(turned), settings, atol=1e-4, rtol=1e-4)
    moved = turned - code
    torch.testing.assert_close(moved / moved.norm(), -directions.components[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(directions.turn(code, directions.read(code)), code, atol=1e-4, rtol=1e-4)


def test_codes_that_do_not_vary_have_no_knobs_and_one_code_is_refused() -> None:
    flat = torch.zeros(10, 3)
    flat[:, 0] = torch.arange(10.0)
    assert len(LatentDirections.fit(flat)) == 1
    assert len(LatentDirections.fit(torch.ones(10, 3))) == 0
    with pytest.raises(InputError, match="at least two objects"):
        LatentDirections.fit(torch.ones(1, 3))
