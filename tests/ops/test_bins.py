import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.ops import roi_align

from ssdir.ops.bins import bin_weights, sparse_bins
from ssdir.ops.glimpses import crop_levels


def naive_bin_weights(low: float, high: float, size: int, num_pixels: int) -> Tensor:
    """Returns the weights (S, P) of one box by a loop over samples, after torchvision's kernel."""
    weights = torch.zeros(size, num_pixels)
    extent = (high - low) * num_pixels / size
    num_samples = max(1, math.ceil(extent))
    for bin_ in range(size):
        for sample in range(num_samples):
            position = low * num_pixels - 0.5 + (bin_ + (sample + 0.5) / num_samples) * extent
            if not -1 <= position <= num_pixels:
                continue
            position = min(max(position, 0), num_pixels - 1)
            before = min(int(position), num_pixels - 1)
            weights[bin_, before] += (1 - (position - before)) / num_samples
            if before + 1 < num_pixels:
                weights[bin_, before + 1] += (position - before) / num_samples
    return weights


def random_boxes(seed: int, M: int, largest: float) -> Tensor:
    """Returns boxes (M, 4) of sides up to `largest`, some of which reach far beyond the image."""
    g = torch.Generator().manual_seed(seed)
    low = 2 * torch.rand(M, 2, generator=g) - 0.7
    return torch.cat([low, low + 0.005 + largest * torch.rand(M, 2, generator=g)], dim=1)


def aligned(level: Tensor, boxes: Tensor, image_index: Tensor, size: int) -> Tensor:
    H, W = level.shape[-2:]
    rois = torch.cat([image_index[:, None].float(), boxes * torch.tensor([W, H, W, H])], dim=1)
    return roi_align(level, rois, output_size=size, aligned=True)


def test_weights_of_an_axis_equal_a_loop_over_samples() -> None:
    low, _, high, _ = random_boxes(0, 40, 1.5).unbind(1)
    weights = bin_weights(low, high, 5, 23)
    for m in range(len(low)):
        expected = naive_bin_weights(low[m].item(), high[m].item(), 5, 23)
        torch.testing.assert_close(weights[m], expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    M=st.integers(0, 9),
    size=st.integers(1, 9),
    largest=st.sampled_from([0.05, 0.5, 2.5]),
)
def test_levels_and_their_gradients_equal_torchvisions(seed: int, M: int, size: int, largest: float) -> None:
    g = torch.Generator().manual_seed(seed)
    boxes, image_index = random_boxes(seed, M, largest), torch.randint(3, (M,), generator=g)
    levels = [torch.rand(3, 4, h, w, generator=g) for h, w in ((16, 24), (8, 12), (1, 2))]
    for level in levels[:2]:
        level.requires_grad_()  # The last one is frozen.
    upstream = torch.rand(M, 4, size, size, generator=g)
    read = crop_levels(levels, boxes, image_index, size)
    expected = torch.stack([aligned(level, boxes, image_index, size) for level in levels]).sum(dim=0)
    torch.testing.assert_close(read, expected, rtol=1e-4, atol=1e-4)
    gradients = torch.autograd.grad(read, levels[:2], upstream)
    expected_gradients = torch.autograd.grad(expected, levels[:2], upstream)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-4)


def test_a_transposed_matrix_has_the_same_entries() -> None:
    boxes, image_index = random_boxes(1, 6, 0.6), torch.tensor([1, 0, 1, 1, 2, 2])
    matrix = sparse_bins(boxes, image_index, 3, 3, (10, 7))
    dense = matrix @ torch.eye(3 * 10 * 7)
    assert dense.shape == (6 * 9, 3 * 10 * 7)
    assert dense.count_nonzero() > 6 * 9
    torch.testing.assert_close(matrix.transpose() @ torch.eye(6 * 9), dense.T)
