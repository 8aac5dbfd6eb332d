from typing import Any

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn
from torchvision.ops import roi_align

from ssdir.models.detected.encoders import (
    AlignedEncoder,
    AlignedEncoderConfig,
    PooledStages,
    PyramidEncoder,
    PyramidEncoderConfig,
)
from ssdir.ops.glimpses import crop_glimpses

CHANNELS = (5, 7)
SIDES = (4, 2)
NUM_REFINER_FEATURES = 48


def pyramid() -> list[Tensor]:
    g = torch.Generator().manual_seed(0)
    return [torch.rand(2, c, n, n, generator=g) for c, n in zip(CHANNELS, SIDES, strict=True)]


def aligned(size: int = 4, **options: Any) -> AlignedEncoder:
    """Builds an aligned encoder for two anchors per cell."""
    config = AlignedEncoderConfig(latent_dim=3, samples=size, hidden_channels=6, mlp_channels=8, **options)
    num_refiner_features = NUM_REFINER_FEATURES if config.refiner_features else 0
    return AlignedEncoder(CHANNELS, config, [side**2 for side in SIDES], 2, num_refiner_features)


def test_cells_are_in_order_of_level_row_column() -> None:
    encoder = PyramidEncoder(CHANNELS, PyramidEncoderConfig(latent_dim=3, num_hidden=1, hidden_channels=6))
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


@pytest.mark.parametrize("encoder", [PyramidEncoder(CHANNELS, PyramidEncoderConfig(num_hidden=1)), aligned()])
def test_weights_start_as_xavier_and_biases_at_zero(encoder: nn.Module) -> None:
    layers = [module for module in encoder.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    assert len(layers) > 3
    for layer in layers:
        assert layer.bias is not None
        assert not layer.bias.any()
        area = layer.weight.numel() // (layer.weight.shape[0] * layer.weight.shape[1])
        bound = (6 / (area * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
        assert 0.7 * bound < layer.weight.abs().max() <= bound * 1.0001


def test_objects_are_read_from_the_level_of_their_anchor() -> None:
    encoder, features = aligned(), pyramid()
    image_index = torch.tensor([0, 0, 1, 1])
    anchor_index = torch.tensor([2 * 16, 31, 39, 0])  # the coarse level's first, the fine one's last, ...
    low = torch.tensor([[0.1, 0.2], [0.3, 0.0], [0.5, 0.5], [0.0, 0.4]])
    boxes = torch.cat([low, low + 0.4], dim=1)
    what, depth = encoder(features, image_index, anchor_index, boxes)
    assert what.shape == (4, 3)
    assert depth.shape == (4,)
    for m, level in enumerate([1, 0, 1, 0]):
        projected = encoder.inputs[level](features[level])
        crop = crop_glimpses(projected, boxes[[m]], image_index[[m]], 4)
        expected = encoder.net(crop)[0]
        torch.testing.assert_close(torch.cat([what[m], depth[[m]]]), expected)


def test_objects_can_be_read_from_all_levels() -> None:
    encoder, features = aligned(levels="all"), pyramid()
    image_index, boxes = torch.tensor([1, 0]), torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 0.3]])
    what, depth = encoder(features, image_index, torch.tensor([0, 39]), boxes)
    crops = [
        crop_glimpses(project(feature), boxes, image_index, 4)
        for project, feature in zip(encoder.inputs, features, strict=True)
    ]
    torch.testing.assert_close(torch.cat([what, depth[:, None]], dim=1), encoder.net(crops[0] + crops[1]))
    assert not torch.allclose(encoder.net(crops[0]), encoder.net(crops[0] + crops[1]))


def test_each_downsampling_after_the_first_doubles_the_channels() -> None:
    net = aligned(size=9, num_downsamples=3).net
    convolutions = [layer for layer in net if isinstance(layer, nn.Conv2d)]
    assert [conv.out_channels for conv in convolutions] == [6, 12, 24]
    assert net(torch.rand(5, 6, 9, 9)).shape == (5, 4)  # 9, 5, 3 and 2 samples to each side


def test_refiner_features_are_added_to_the_features_of_an_object() -> None:
    features, refiner_features = (
        pyramid(),
        torch.rand(3, NUM_REFINER_FEATURES, generator=torch.Generator().manual_seed(1)),
    )
    image_index, anchor_index = torch.tensor([0, 1, 1]), torch.tensor([39, 0, 35])
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 0.3], [0.4, 0.5, 0.9, 1.0]])
    encoder = aligned(refiner_features=True)
    assert encoder.refiner_projection is not None
    what, depth = encoder(features, image_index, anchor_index, boxes, refiner_features)
    *reading, norm, activation, last = encoder.net
    for m, level in enumerate([1, 0, 1]):
        seen = crop_glimpses(encoder.inputs[level](features[level]), boxes[[m]], image_index[[m]], 4)
        hidden = nn.Sequential(*reading)(seen) + refiner_features[m] @ encoder.refiner_projection.weight.T
        expected = last(activation(norm(hidden)))[0]
        torch.testing.assert_close(torch.cat([what[m], depth[[m]]]), expected)


@pytest.mark.parametrize("option", [{"refiner_features": True}, {"levels": "all"}, {"samples": 4}])
def test_options_of_boxes_are_unknown_to_an_encoder_of_cells(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        PyramidEncoderConfig(**option)


def test_embeddings_depend_on_the_content_of_a_box_and_not_on_its_place() -> None:
    encoder = aligned()
    g = torch.Generator().manual_seed(0)
    tile = torch.rand(1, 5, 4, 4, generator=g)
    maps = [tile.repeat(1, 1, 2, 2), torch.zeros(1, 7, 2, 2)]
    boxes = torch.tensor([[0.1, 0.1, 0.4, 0.4], [0.6, 0.6, 0.9, 0.9], [0.1, 0.1, 0.4, 0.3]])
    what, _ = encoder(maps, torch.zeros(3, dtype=torch.int64), torch.tensor([0, 30, 0]), boxes)
    torch.testing.assert_close(what[0], what[1], rtol=1e-3, atol=1e-4)
    assert not torch.allclose(what[0], what[2], rtol=1e-2)


def test_no_objects_have_no_embeddings() -> None:
    none = torch.zeros(0, dtype=torch.int64)
    what, depth = aligned()(pyramid(), none, none, torch.zeros(0, 4))
    assert (what.shape, depth.shape) == ((0, 3), (0,))


def test_pooled_stages_are_principal_components_of_unit_samples() -> None:
    torch.manual_seed(0)
    stages, features = PooledStages(CHANNELS, 3), pyramid()
    image_index = torch.arange(40) % 2
    low = torch.rand(40, 2) * 0.5
    boxes = torch.cat([low, low + 0.2 + torch.rand(40, 2) * 0.3], dim=1)
    samples = []
    for feature in features:
        rois = torch.cat([image_index[:, None].float(), boxes * feature.shape[-1]], dim=1)
        read = roi_align(feature, rois, output_size=3, aligned=True).reshape(40, -1)
        samples.append(read / read.norm(dim=1, keepdim=True))
    pooled = torch.cat(samples, dim=1)
    torch.testing.assert_close(stages.pool(features, image_index, boxes), pooled)
    stages.fit(pooled, seed=0)
    embedded = stages(features, image_index, boxes)
    expected = torch.from_numpy(PCA(3, random_state=0).fit_transform(pooled.numpy())).float()
    torch.testing.assert_close(embedded / embedded.std(), expected / expected.std(), rtol=1e-3, atol=1e-3)
    assert embedded.square().mean().item() == pytest.approx(1, rel=0.1)
    assert not any(parameter.requires_grad for parameter in stages.parameters())


def test_fewer_objects_than_dimensions_leave_the_last_ones_zero() -> None:
    stages = PooledStages([2, 2], 8)
    stages.fit(torch.rand(4, 36), seed=0)
    assert (stages.linear.weight[4:] == 0).all()
    assert (stages.linear.bias[4:] == 0).all()


def test_pretrained_features_make_z_what_and_samples_only_depth() -> None:
    finest = (4, *CHANNELS)
    config = AlignedEncoderConfig(
        latent_dim=3, samples=4, features="pretrained", hidden_channels=6, mlp_channels=8
    )
    encoder = AlignedEncoder(finest, config, [side**2 for side in SIDES], 2).eval()
    features = [torch.rand(2, 4, 8, 8), *pyramid()]
    image_index, anchor_index = torch.tensor([1, 0]), torch.tensor([0, 39])
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.0, 0.0, 1.0, 0.3]])
    what, depth = encoder(features, image_index, anchor_index, boxes)
    assert encoder.pooled is not None
    torch.testing.assert_close(what, encoder.pooled(features[-2:], image_index, boxes))
    again, moved = encoder([features[0] + 1, *features[1:]], image_index, anchor_index, boxes)
    torch.testing.assert_close(again, what)
    assert not torch.equal(moved, depth)
