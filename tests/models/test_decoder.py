import torch

from ssdir.models.decoder import DecoderConfig, WhatDecoder


def test_sizes_double_to_the_appearances() -> None:
    config = DecoderConfig(stem=8, channels=(8, 6, 4))
    assert config.size == 8
    assert DecoderConfig().size == 64
    appearances, alpha = WhatDecoder(5, config)(torch.randn(7, 5))
    assert appearances.shape == (7, 3, 8, 8)
    assert alpha is None
    assert 0 <= appearances.min() < appearances.max() <= 1


def test_no_objects_decode_to_none() -> None:
    appearances, alpha = WhatDecoder(5, DecoderConfig(stem=8, channels=(4,), alpha=True))(torch.zeros(0, 5))
    assert appearances.shape == (0, 3, 2, 2)
    assert alpha is not None
    assert alpha.shape == (0, 1, 2, 2)


def test_colour_is_premultiplied_by_alpha() -> None:
    decoder = WhatDecoder(5, DecoderConfig(stem=8, channels=(8, 6), alpha=True))
    z_what = 3 * torch.randn(20, 5)
    raw = decoder.net(z_what[:, :, None, None]).sigmoid()
    appearances, alpha = decoder(z_what)
    assert alpha is not None
    torch.testing.assert_close(alpha, raw[:, 3:])
    torch.testing.assert_close(appearances, raw[:, :3] * raw[:, 3:])
