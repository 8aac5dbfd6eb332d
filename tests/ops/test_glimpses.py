import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from ssdir.ops.glimpses import crop_glimpses


def crop_by_grid_sample(image: Tensor, box: Tensor, size: int) -> Tensor:
    """A box (xyxy) of an image (C, H, W), sampled at the centres of size × size cells."""
    scale, shift = box[2:] - box[:2], box[:2] + box[2:] - 1
    theta = torch.tensor([[[scale[0], 0, shift[0]], [0, scale[1], shift[1]]]])
    grid = affine_grid(theta, [1, len(image), size, size], align_corners=False)
    return grid_sample(image[None], grid, align_corners=False, padding_mode="border")[0]


def test_enlarging_equals_grid_sample() -> None:
    g = torch.Generator().manual_seed(0)
    images = torch.rand(3, 2, 20, 30, generator=g)
    low = 0.5 * torch.rand(7, 2, generator=g)
    boxes = torch.cat([low, low + 0.1 + 0.4 * torch.rand(7, 2, generator=g)], dim=1)
    boxes[0], boxes[1] = torch.tensor([0.0, 0.0, 0.5, 0.5]), torch.tensor([0.6, 0.7, 1.0, 1.0])
    image_index = torch.tensor([0, 0, 0, 2, 2, 2, 2])
    glimpses = crop_glimpses(images, boxes, image_index, 32)
    assert glimpses.shape == (7, 2, 32, 32)
    for m in range(7):
        expected = crop_by_grid_sample(images[image_index[m]], boxes[m], 32)
        torch.testing.assert_close(glimpses[m], expected, rtol=1e-4, atol=1e-5)


def test_box_of_a_constant_patch_shows_the_patch_alone() -> None:
    images = torch.zeros(1, 3, 40, 40)
    images[:, :, 8:24, 16:36] = 0.7
    inside = torch.tensor([[17 / 40, 9 / 40, 35 / 40, 23 / 40]])
    glimpse = crop_glimpses(images, inside, torch.tensor([0]), 8)
    torch.testing.assert_close(glimpse, torch.full((1, 3, 8, 8), 0.7))


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    lines = (torch.arange(64) % 8 == 1).float().expand(1, 1, 64, 64)  # one bright column in eight
    glimpse = crop_glimpses(lines, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([0]), 8)
    torch.testing.assert_close(glimpse, torch.full_like(glimpse, 1 / 8))


def test_no_boxes() -> None:
    glimpses = crop_glimpses(torch.rand(2, 3, 8, 8), torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 4)
    assert glimpses.shape == (0, 3, 4, 4)
