import pytest
import torch
from torch import Tensor, nn

from ssdir.models.encoders import EncoderConfig, NeighbourhoodEncoder, PyramidEncoder

CHANNELS = (5, 7)
SIDES = (4, 2)


def pyramid() -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.rand(2, c, n, n, generator=g) for c, n in zip(CHANNELS, SIDES, strict=True)]


def neighbourhood(size: int = 3) -> NeighbourhoodEncoder:
    config = EncoderConfig(latent_dim=3, neighbourhood=size, num_hidden=1, hidden_channels=6, mlp_channels=8)
    return NeighbourhoodEncoder(CHANNELS, config, SIDES, anchors_per_cell=2)


def test_cells_are_in_order_of_level_row_column() -> None:
    encoder = PyramidEncoder(CHANNELS, EncoderConfig(latent_dim=3, num_hidden=1, hidden_channels=6))
    features = pyramid()
    posterior = encoder(features)
    assert posterior.what_loc.shape == (2, 20, 3)
    assert posterior.depth_loc.shape == (2, 20)
    first = 0
    for level, feature in enumerate(features):
        what, depth = encoder.what[level](feature), encoder.depth[level](feature)
        side = SIDES[level]
        for row in range(side):
            for column in range(side):
                cell = first + row * side + column
                torch.testing.assert_close(posterior.what_loc[:, cell], what[:, :, row, column])
                torch.testing.assert_close(posterior.depth_loc[:, cell], depth[:, 0, row, column])
        first += side**2


@pytest.mark.parametrize("encoder", [PyramidEncoder(CHANNELS, EncoderConfig(num_hidden=1)), neighbourhood()])
def test_weights_start_as_xavier_and_biases_at_zero(encoder: nn.Module) -> None:
    layers = [module for module in encoder.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert len(layers) > 3
    for layer in layers:
        assert layer.bias is not None
        assert not layer.bias.any()
        area = layer.weight[0, 0].numel()
        bound = (6 / (area * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
        assert 0.7 * bound < layer.weight.abs().max() <= bound * 1.0001


@pytest.mark.parametrize("size", [1, 3, 5])
def test_neighbourhood_equals_loops(size: int) -> None:
    encoder, features = neighbourhood(size), pyramid()
    projected = [layer(feature) for layer, feature in zip(encoder.inputs, features, strict=True)]
    image_index = torch.tensor([0, 0, 0, 1, 1])
    cell_index = torch.tensor([19, 0, 7, 16, 15])  # levels mixed
    gathered = encoder.gather(features, image_index, cell_index).view(5, size, size, 6)
    reach = size // 2
    for m, (image, cell) in enumerate(zip(image_index.tolist(), cell_index.tolist(), strict=True)):
        level, cell = (0, cell) if cell < 16 else (1, cell - 16)
        side = SIDES[level]
        row, column = divmod(cell, side)
        for i in range(size):
            for j in range(size):
                y, x = row + i - reach, column + j - reach
                inside = 0 <= y < side and 0 <= x < side
                expected = projected[level][image, :, y, x] if inside else torch.zeros(6)
                torch.testing.assert_close(gathered[m, i, j], expected)


def test_neighbourhood_sees_the_box_and_which_anchor_it_is() -> None:
    encoder, features = neighbourhood(), [torch.ones(1, 5, 4, 4), torch.ones(1, 7, 2, 2)]
    image, deltas, index = torch.tensor([0]), torch.zeros(1, 4), torch.tensor([2 * 5])
    what, depth = encoder(features, image, index, deltas)
    assert what.shape == (1, 3)
    assert depth.shape == (1,)
    assert not torch.allclose(encoder(features, image, index, deltas + 1)[0], what)
    assert not torch.allclose(encoder(features, image, index + 1, deltas)[0], what)
    # The next cell's same anchor, where all is alike.
    torch.testing.assert_close(encoder(features, image, index + 2, deltas)[0], what)
    nothing = encoder(features, image[:0], index[:0], deltas[:0])
    assert (nothing[0].shape, nothing[1].shape) == ((0, 3), (0,))


def test_neighbourhood_is_odd() -> None:
    with pytest.raises(ValueError, match="must be 0 or odd"):
        EncoderConfig(neighbourhood=2)
