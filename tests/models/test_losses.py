from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ssdir.models.losses import laplacian_l1


def pyramid(picture: NDArray[np.float32], levels: int) -> list[NDArray[np.float32]]:
    """Returns the details of a picture (S, S, C) at each level, by OpenCV."""
    details = []
    for _ in range(levels):
        side = picture.shape[0]
        coarse = cv2.resize(picture, (side // 2, side // 2), interpolation=cv2.INTER_AREA)
        details.append(picture - cv2.resize(coarse, (side, side), interpolation=cv2.INTER_LINEAR))
        picture = coarse
    return details


@pytest.mark.parametrize("weighted", [False, True])
def test_laplacian_distance_is_that_of_both_pyramids(weighted: bool) -> None:
    first, second = np.random.default_rng(0).random((2, 3, 16, 16, 3), dtype=np.float32)
    weights = np.random.default_rng(1).random((3, 16, 16), dtype=np.float32) if weighted else np.ones((3, 16, 16))
    expected = np.zeros(3)
    for row in range(3):
        for level, pair in enumerate(zip(pyramid(first[row], 3), pyramid(second[row], 3), strict=True)):
            side = 16 >> level
            share = cv2.resize(weights[row], (side, side), interpolation=cv2.INTER_AREA)
            expected[row] += (np.abs(pair[0] - pair[1]) * share[..., None]).sum()
    tensors = [torch.from_numpy(each).movedim(-1, 1) for each in (first, second)]
    given = torch.from_numpy(weights)[:, None].float() if weighted else None
    torch.testing.assert_close(
        laplacian_l1(*tensors, given), torch.from_numpy(expected).float(), rtol=1e-4, atol=0
    )


def test_laplacian_distance_ignores_a_constant_and_dislikes_blur() -> None:
    picture = torch.zeros(1, 1, 16, 16)
    picture[..., 6:10, 6:10] = 0.8
    assert laplacian_l1(picture + 0.1, picture).item() == pytest.approx(0, abs=1e-5)
    blurred = torch.nn.functional.avg_pool2d(picture, 3, 1, padding=1)
    assert laplacian_l1(blurred, picture) > 1
