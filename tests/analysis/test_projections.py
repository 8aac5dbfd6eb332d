import numpy as np
import pytest
import torch
from torch import Tensor

from ssdir.analysis.projections import PrincipalAxes, traverse, tsne
from ssdir.errors import InputError


def embeddings() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(7, 7, generator=generator) * torch.tensor([5.0, 3, 2, 1, 0.5, 0.2, 0.1])
    return torch.randn(200, 7, generator=generator) @ mixing.T + 4


def test_axes_are_the_eigenvectors_of_the_covariance() -> None:
    axes = PrincipalAxes.fit(embeddings(), count=4)
    variances, vectors = np.linalg.eigh(np.cov(embeddings().double().numpy().T))
    lengths = axes.directions.norm(dim=1)
    agreement = np.abs(np.sum((axes.directions / lengths[:, None]).numpy() * vectors.T[::-1][:4], axis=1))
    np.testing.assert_allclose(agreement, 1, atol=1e-5)
    np.testing.assert_allclose(lengths, np.sqrt(variances[::-1][:4]), rtol=1e-5)
    np.testing.assert_allclose(axes.explained, variances[::-1][:4] / variances.sum(), rtol=1e-5)


def test_a_changed_coordinate_reads_as_set_and_leaves_the_rest_of_the_embedding() -> None:
    axes = PrincipalAxes.fit(embeddings(), count=3)
    z_what = embeddings()[5]
    coordinates = axes.coordinates(z_what).clone()
    coordinates[1] = -2.5
    changed = axes.with_coordinates(z_what, coordinates)
    torch.testing.assert_close(axes.coordinates(changed), coordinates, atol=1e-4, rtol=1e-4)
    moved, direction = changed - z_what, -axes.directions[1]
    torch.testing.assert_close(moved / moved.norm(), direction / direction.norm(), atol=1e-4, rtol=1e-4)
    unchanged = axes.with_coordinates(z_what, axes.coordinates(z_what))
    torch.testing.assert_close(unchanged, z_what, atol=1e-4, rtol=1e-4)


def test_embeddings_that_do_not_vary_have_no_axes_and_one_embedding_is_refused() -> None:
    flat = torch.zeros(10, 3)
    flat[:, 0] = torch.arange(10.0)
    assert len(PrincipalAxes.fit(flat).directions) == 1
    assert len(PrincipalAxes.fit(torch.ones(10, 3)).directions) == 0
    with pytest.raises(InputError, match="at least two objects"):
        PrincipalAxes.fit(torch.ones(1, 3))


def paint(latents: Tensor) -> Tensor:
    """Decodes z_what (M, 3) to a plain colour."""
    return latents.clamp(0, 1)[:, :, None, None].expand(-1, 3, 4, 4)


def test_traversals_are_centred_on_the_object_and_end_at_the_extent() -> None:
    latents = torch.tensor([[0.5, 0.5, 0.5], [0.2, 0.4, 0.6]])
    directions = torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.0, -0.05]])
    traversals = traverse(paint, latents, directions, steps=5, extent=2.0)
    assert traversals.shape == (2, 2, 5, 3, 4, 4)
    for row in range(2):
        assert torch.equal(traversals[:, row, 2], paint(latents))
        torch.testing.assert_close(traversals[:, row, 0], paint(latents - 2 * directions[row]))
        torch.testing.assert_close(traversals[:, row, 4], paint(latents + 2 * directions[row]))
    with pytest.raises(ValueError, match="odd"):
        traverse(paint, latents, directions, steps=4)


def test_tsne_keeps_blobs_apart_and_draws_at_most_so_many() -> None:
    labels = torch.arange(120) % 2
    latents = torch.randn(120, 6, generator=torch.Generator().manual_seed(0)) + 20 * labels[:, None]
    first = tsne(latents, seed=1, max_points=60)
    assert first.points.shape == (60, 2)
    assert len(set(first.rows.tolist())) == 60
    own = labels.numpy()[first.rows]
    centers = [first.points[own == label].mean(axis=0) for label in (0, 1)]
    nearest = np.linalg.norm(first.points[:, None] - np.stack(centers), axis=-1).argmin(axis=1)
    np.testing.assert_array_equal(nearest, own)
    np.testing.assert_array_equal(first.points, tsne(latents, seed=1, max_points=60).points)
    with pytest.raises(ValueError, match="at least 5"):
        tsne(latents[:4])
