import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torchvision.ops import roi_align

from ssdir.ops.glimpses import crop_glimpses, sample_glimpses


def crop_by_grid_sample(image: Tensor, box: Tensor, size: int, padding: str = "border") -> Tensor:
    """Samples a box (xyxy) of an image (C, H, W) at the centres of size × size cells."""
    scale, shift = box[2:] - box[:2], box[:2] + box[2:] - 1
    zero = torch.zeros_like(scale[0])
    theta = torch.stack([scale[0], zero, shift[0], zero, scale[1], shift[1]]).reshape(1, 2, 3)
    grid = affine_grid(theta, [1, len(image), size, size], align_corners=False)
    return grid_sample(image[None], grid, align_corners=False, padding_mode=padding)[0]


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


def boxes_within_and_beyond() -> tuple[Tensor, Tensor]:
    """Returns seven boxes, some of which reach beyond the image, and the image of each."""
    g = torch.Generator().manual_seed(1)
    low = torch.rand(7, 2, generator=g) - 0.2
    boxes = torch.cat([low, low + 0.1 + 0.6 * torch.rand(7, 2, generator=g)], dim=1)
    return boxes, torch.tensor([0, 0, 0, 2, 2, 2, 2])


def test_samples_equal_grid_sample() -> None:
    images = torch.rand(4, 2, 20, 30, generator=torch.Generator().manual_seed(0))
    boxes, image_index = boxes_within_and_beyond()
    glimpses = sample_glimpses(images, boxes, image_index, 9)
    assert glimpses.shape == (7, 2, 9, 9)
    for m in range(7):
        expected = crop_by_grid_sample(images[image_index[m]], boxes[m], 9, padding="zeros")
        torch.testing.assert_close(glimpses[m], expected, rtol=1e-4, atol=1e-5)


def test_gradients_of_samples_equal_those_of_grid_sample() -> None:
    g = torch.Generator().manual_seed(2)
    images, weights = torch.rand(3, 2, 20, 30, generator=g), torch.rand(7, 2, 9, 9, generator=g)
    boxes, image_index = boxes_within_and_beyond()
    images.requires_grad_(True)
    boxes.requires_grad_(True)
    (sample_glimpses(images, boxes, image_index, 9) * weights).sum().backward()
    of_images, of_boxes = images.grad, boxes.grad
    images.grad = boxes.grad = None
    crops = [crop_by_grid_sample(images[image_index[m]], boxes[m], 9, padding="zeros") for m in range(7)]
    (torch.stack(crops) * weights).sum().backward()
    assert of_boxes is not None
    assert of_boxes.abs().min() > 0
    torch.testing.assert_close(of_images, images.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(of_boxes, boxes.grad, rtol=1e-3, atol=1e-3)


def test_antialiased_samples_average_instead_of_skipping_pixels() -> None:
    lines = (torch.arange(64) % 8 == 1).float().expand(1, 1, 64, 64)
    box = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    glimpse = sample_glimpses(lines, box, torch.tensor([0]), 8, antialias=True)
    torch.testing.assert_close(glimpse.mean(), torch.tensor(1 / 8), rtol=0.05, atol=0)
    assert sample_glimpses(lines, box, torch.tensor([0]), 8).max() == 0  # without, every line is missed


def test_no_boxes_to_sample() -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    for B in (2, 0):
        assert sample_glimpses(torch.rand(B, 3, 8, 8), torch.zeros(0, 4), empty, 4).shape == (0, 3, 4, 4)


def test_with_a_gradient_equals_torchvision_and_its_gradient() -> None:
    g = torch.Generator().manual_seed(2)
    features = torch.rand(4, 3, 20, 30, generator=g, requires_grad=True)
    boxes, image_index = boxes_within_and_beyond()
    shuffled = torch.randperm(7, generator=g)
    boxes, image_index = boxes[shuffled], image_index[shuffled]
    upstream = torch.rand(7, 3, 5, 5, generator=g)
    rois = torch.cat([image_index[:, None].float(), boxes * torch.tensor([30.0, 20.0, 30.0, 20.0])], dim=1)
    expected = roi_align(features, rois, output_size=5, aligned=True)
    glimpses = crop_glimpses(features, boxes, image_index, 5)
    torch.testing.assert_close(glimpses, expected, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(glimpses, features, upstream)
    (expected_gradient,) = torch.autograd.grad(expected, features, upstream)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


def test_no_boxes_with_a_gradient() -> None:
    features = torch.rand(2, 3, 8, 8, requires_grad=True)
    glimpses = crop_glimpses(features, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 4)
    assert glimpses.shape == (0, 3, 4, 4)
    glimpses.sum().backward()
