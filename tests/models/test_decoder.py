from typing import Literal

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import resize

from ssdir.models.decoder import BilinearDecoder, DecoderConfig, WhatDecoder, build_decoder

Upsampling = Literal["transposed", "bilinear"]


@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_sizes_double_to_the_appearances(upsampling: Upsampling) -> None:
    config = DecoderConfig(upsampling=upsampling, stem=8, channels=(8, 6, 4))
    assert config.size == 8
    assert DecoderConfig().size == 64
    appearances, alpha = build_decoder(5, config)(torch.randn(7, 5))
    assert appearances.shape == (7, 3, 8, 8)
    assert alpha is None
    assert 0 <= appearances.min() < appearances.max() <= 1


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
def test_no_objects_decode_to_none(upsampling: Upsampling, norm: bool) -> None:
    config = DecoderConfig(upsampling=upsampling, stem=8, channels=(4,), alpha=True, norm=norm)
    appearances, alpha = build_decoder(5, config)(torch.zeros(0, 5))
    assert appearances.shape == (0, 3, 2, 2)
    assert alpha is not None
    assert alpha.shape == (0, 1, 2, 2)


def by_convolutions(decoder: WhatDecoder, z_what: Tensor) -> Tensor:
    """Applies the paper's transposed convolutions in turn, up to the split into colour and alpha."""
    side = round(decoder.cells**0.5)
    cells = decoder.stem(z_what[:, :, None, None]).relu().reshape(len(z_what), decoder.cells, -1)
    pictures = torch.zeros(len(z_what), cells.shape[2], side, side)
    for cell in range(decoder.cells):  # in Morton order: a quarter's quarters are next to each other
        row = sum((cell >> 2 * bit + 1 & 1) << bit for bit in range(3))
        column = sum((cell >> 2 * bit & 1) << bit for bit in range(3))
        pictures[:, :, row, column] = cells[:, cell]
    for level, block in enumerate(decoder.blocks):
        pictures = block(pictures)
        if decoder.norms:
            pictures = decoder.norms[level](pictures.movedim(1, -1)).movedim(-1, 1)
        pictures = pictures.relu()
    decoded: Tensor = decoder.head(pictures).sigmoid()
    return decoded


@pytest.mark.parametrize("norm", [False, True])
def test_icnr_initialisation_has_no_pattern_but_can_learn_any(norm: bool) -> None:
    config = DecoderConfig(stem=8, grid=2, channels=(8, 6), norm=norm, icnr=True)
    decoder = WhatDecoder(5, config)
    pictures, _ = decoder(torch.randn(6, 5))
    cells = pictures.unflatten(3, (2, 4)).unflatten(2, (2, 4))  # what each of 2×2 cells of the start became
    torch.testing.assert_close(cells, cells[:, :, :, :1, :, :1].expand_as(cells))
    assert pictures.std() > 0.001
    (pictures - torch.rand(6, 3, 8, 8)).square().sum().backward()
    for block in decoder.blocks:
        gradient = block.weight.grad
        assert isinstance(gradient, Tensor)
        assert gradient.std(dim=(2, 3)).max() > 0  # the four are free to differ


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("grid", [1, 2, 4])
def test_decoding_equals_convolutions(alpha: bool, norm: bool, grid: Literal[1, 2, 4]) -> None:
    config = DecoderConfig(stem=8, grid=grid, channels=(8, 6, 4), alpha=alpha, norm=norm)
    assert config.size == 8 * grid
    decoder = WhatDecoder(5, config)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    z_what = 2 * torch.randn(6, 5)
    expected = by_convolutions(decoder, z_what)
    appearances, opacity = decoder(z_what)
    if not alpha:
        torch.testing.assert_close(appearances, expected)
        return
    assert opacity is not None
    torch.testing.assert_close(opacity, expected[:, 3:])
    # Premultiplied.
    torch.testing.assert_close(appearances, expected[:, :3] * expected[:, 3:])


@pytest.mark.parametrize("norm", [False, True])
def test_bilinear_decoding_equals_plain_layers(norm: bool) -> None:
    """Plain layers in the default memory format, with layer norm over an object's whole map, give the same."""
    config = DecoderConfig(upsampling="bilinear", stem=6, grid=4, channels=(8, 4), alpha=True, norm=norm)
    decoder = build_decoder(5, config)
    assert isinstance(decoder, BilinearDecoder)
    z_what = 2 * torch.randn(6, 5)
    maps = decoder.stem(z_what).relu().reshape(6, 6, 4, 4)
    for block in decoder.blocks:
        maps = F.conv2d(maps, block[0].weight, block[0].bias, padding=1)
        maps = (F.layer_norm(maps, maps.shape[1:]) if norm else maps).relu()
        maps = resize(maps, [2 * maps.shape[2]] * 2)
    first, _, last = decoder.head
    pictures = F.conv2d(
        F.conv2d(maps, first.weight, first.bias, padding=1).relu(), last.weight, last.bias, padding=1
    )
    expected = pictures.sigmoid()
    appearances, alpha = decoder(z_what)
    assert alpha is not None
    torch.testing.assert_close(alpha, expected[:, 3:])
    torch.testing.assert_close(appearances, expected[:, :3] * expected[:, 3:])


@pytest.mark.parametrize(("upsampling", "mixes"), [("transposed", False), ("bilinear", True)])
def test_only_bilinear_upsampling_mixes_neighbouring_cells(upsampling: Upsampling, mixes: bool) -> None:
    """Each of the first 2×2 cells decodes to one quarter of the picture, unless upsampling mixes cells."""
    config = DecoderConfig(upsampling=upsampling, stem=6, grid=2, channels=(8, 8))
    torch.manual_seed(0)  # With some weights, ReLU hides the change of a pixel.
    decoder = build_decoder(4, config)
    weight = decoder.stem.weight
    with torch.no_grad():
        weight.zero_()  # Each latent is one cell.
        in_cells = weight.view(6, 4, 4) if mixes else weight.view(4, 6, 4).transpose(0, 1)
        in_cells += torch.eye(4)
    z_what = torch.ones(1, 4)
    changed = (decoder(z_what)[0] != decoder(z_what - torch.tensor([0.5, 0, 0, 0]))[0]).any(dim=1)[0]
    assert changed[:4, :4].all()
    assert changed[:, 4:].any() == mixes
    assert changed[4:].any() == mixes


def test_icnr_needs_transposed_convolutions() -> None:
    with pytest.raises(ValueError, match="icnr initialises transposed convolutions only"):
        DecoderConfig(upsampling="bilinear", icnr=True)
