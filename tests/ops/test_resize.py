import numpy as np
import pytest
import torch
from einops import rearrange

from ssdir.data.images import resize
from ssdir.ops.resize import resize_area, resize_weights


@pytest.mark.parametrize(("old", "new"), [(1, 1), (1, 8), (7, 7), (8, 3), (64, 16), (5, 12), (1000, 9)])
def test_rows_add_up_to_one(old: int, new: int) -> None:
    weights = resize_weights(old, new)
    assert weights.shape == (new, old)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(new))


def test_weights_by_hand() -> None:
    assert resize_weights(3, 2).tolist() == pytest.approx(np.array([[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]]))
    assert resize_weights(2, 4).tolist() == [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]
    assert torch.equal(resize_weights(5, 5), torch.eye(5))


@pytest.mark.parametrize(
    ("height", "width"),
    [(32, 32), (64, 64), (75, 100), (13, 15), (50, 16), (31, 33), (1, 1), (400, 1), (500, 377)],
)
def test_pixels_are_the_readers(height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    resized = resize_area(rearrange(torch.from_numpy(image), "h w c -> 1 c h w").float() / 255, 32)
    pixels = rearrange(resized * 255, "1 c h w -> h w c").numpy()
    expected = resize(image, 32, 32).astype(np.float32)
    # OpenCV rounds after each of the two steps, and interpolates in fixed point.
    assert np.abs(pixels - expected).max() < 1.01
    if height == width == 32:
        np.testing.assert_allclose(pixels, image, atol=1e-4)
