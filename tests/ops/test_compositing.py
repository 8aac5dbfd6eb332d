from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample
from torch.utils._python_dispatch import TorchDispatchMode

from ssdir.ops import pasting
from ssdir.ops.compositing import (
    composite_alpha,
    composite_weighted,
    image_softmax,
    pixel_owners,
    pixel_shares,
)
from ssdir.ops.pasting import GROUP_SIZE, paste_sum, tent_weights

HEIGHT, WIDTH, SIDE = 33, 40, 6


@pytest.fixture(autouse=True, params=["regions", "product", "groups"], scope="module")
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs every test of this module with each implementation of pasting, including that for GPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pasting, "CALL_COST", -1e15 if request.param == "regions" else 1e15)
        if request.param == "groups":
            patch.setattr(pasting, "_sum_as_product", pasting._sum_of_groups)
            patch.setattr(pasting, "GROUP_SIZE", 2)  # so that there are groups that are full, and more than one
        yield


def paste_by_grid_sample(appearance: Tensor, box: Tensor, size: tuple[int, int]) -> Tensor:
    """Pastes one appearance (C, S, S) on a canvas of its own, which is zero outside its box."""
    scale = 1 / (box[2:] - box[:2])
    shift = (1 - box[:2] - box[2:]) * scale
    zero = torch.zeros_like(scale[0])
    theta = torch.stack([scale[0], zero, shift[0], zero, scale[1], shift[1]]).view(1, 2, 3)
    grid = affine_grid(theta, [1, len(appearance), *size], align_corners=False)
    return grid_sample(appearance[None], grid, align_corners=False, padding_mode="zeros")[0]


@dataclass(frozen=True)
class Layers:
    """Objects to composite, by default 2, 0 and 3 in three images."""

    appearances: Tensor
    alpha: Tensor
    boxes: Tensor
    z_depth: Tensor
    image_index: Tensor
    batch_size: int = 3

    @property
    def counts(self) -> list[int]:
        return torch.bincount(self.image_index, minlength=self.batch_size).tolist()

    def weighted(self, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Tensor:
        return composite_weighted(self.appearances, self.boxes, self.z_depth, self.image_index, self.counts, size)

    def merged(self, size: tuple[int, int] = (HEIGHT, WIDTH)) -> tuple[Tensor, Tensor]:
        return composite_alpha(
            self.appearances, self.alpha, self.boxes, self.z_depth, self.image_index, self.counts, size
        )

    def owners(self, size: tuple[int, int] = (HEIGHT, WIDTH)) -> Tensor:
        return pixel_owners(self.alpha, self.boxes, self.z_depth, self.image_index, self.counts, size)


def layers(seed: int = 0, counts: tuple[int, ...] = (2, 0, 3), side: int = SIDE, min_box: float = 0.2) -> Layers:
    g = torch.Generator().manual_seed(seed)
    M = sum(counts)
    low = -0.15 + 0.7 * torch.rand(M, 2, generator=g)
    boxes = torch.cat([low, low + min_box + 0.5 * torch.rand(M, 2, generator=g)], dim=1)
    alpha = torch.rand(M, 1, side, side, generator=g)
    return Layers(
        appearances=alpha * torch.rand(M, 3, side, side, generator=g),
        alpha=alpha,
        boxes=boxes,
        z_depth=torch.randn(M, generator=g),
        image_index=torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        batch_size=len(counts),
    )


def one_box(*boxes: list[float], depth: list[float], colours: list[list[float]], side: int = 8) -> Layers:
    """Returns layers of one image with opaque, plain-coloured objects."""
    M = len(boxes)
    return Layers(
        appearances=torch.tensor(colours)[:, :, None, None].expand(M, 3, side, side).contiguous(),
        alpha=torch.ones(M, 1, side, side),
        boxes=torch.tensor(boxes),
        z_depth=torch.tensor(depth),
        image_index=torch.zeros(M, dtype=torch.int64),
        batch_size=1,
    )


box_side = st.floats(0.03, 1.5)
box_start = st.floats(-0.5, 1.2)


@settings(max_examples=60)
@given(st.lists(st.tuples(box_start, box_start, box_side, box_side), min_size=3, max_size=3), st.integers(0, 99))
def test_paste_sum_equals_grid_sample_on_full_canvases(where: list[tuple[float, ...]], seed: int) -> None:
    boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in where], dtype=torch.float64)
    g = torch.Generator().manual_seed(seed)
    appearances = torch.rand(3, 2, SIDE, SIDE, generator=g, dtype=torch.float64)
    weights = torch.rand(3, generator=g, dtype=torch.float64)
    pasted = paste_sum(appearances * weights[:, None, None, None], boxes, [1, 0, 2], (HEIGHT, WIDTH))
    canvases = [
        weight * paste_by_grid_sample(appearance, box, (HEIGHT, WIDTH))
        for weight, appearance, box in zip(weights, appearances, boxes, strict=True)
    ]
    expected = torch.stack([canvases[0], torch.zeros_like(canvases[0]), canvases[1] + canvases[2]])
    torch.testing.assert_close(pasted, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("size", [(300, 300), (64, 96)])
def test_paste_sum_in_single_precision(size: tuple[int, int]) -> None:
    many = layers(seed=4, counts=(12,), side=64, min_box=0.05)
    pasted = paste_sum(many.appearances, many.boxes, [12], size)[0]
    expected = sum(
        paste_by_grid_sample(a.double(), box.double(), size)
        for a, box in zip(many.appearances, many.boxes, strict=True)
    )
    # Rounding a pixel's place changes the summed intensities by about 1e-5; grid_sample itself loses more.
    torch.testing.assert_close(pasted, torch.as_tensor(expected).float(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("antialias", [False, True])
def test_gradients_of_paste_sum(antialias: bool) -> None:
    few = layers(seed=1, counts=(2, 1), side=3)
    appearances = few.appearances.double().requires_grad_()
    boxes = few.boxes.double().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda a, b: paste_sum(a, b, [2, 1], (7, 5), antialias), (appearances, boxes), atol=1e-6
    )


@pytest.mark.parametrize("antialias", [False, True])
def test_gradients_do_not_depend_on_the_layout_of_memory(antialias: bool) -> None:
    few = layers(seed=1, counts=(2, 1))
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        appearances = few.appearances.clone(memory_format=layout).requires_grad_()
        boxes = few.boxes.clone().requires_grad_()
        paste_sum(appearances, boxes, [2, 1], (HEIGHT, WIDTH), antialias).square().sum().backward()
        assert appearances.grad is not None
        assert boxes.grad is not None
        gradients.append((appearances.grad, boxes.grad))
    (first, of_boxes), (second, of_boxes_again) = gradients
    assert first.abs().sum(dim=(1, 2, 3)).min() > 0
    torch.testing.assert_close(second, first)
    torch.testing.assert_close(of_boxes_again, of_boxes)


@pytest.mark.parametrize("kind", ["weighted", "alpha"])
def test_gradients_of_the_merges(kind: str) -> None:
    few = layers(seed=2, counts=(2, 0, 1), side=3)

    def merge(appearances: Tensor, boxes: Tensor, z_depth: Tensor) -> Tensor:
        given_ = replace(few, appearances=appearances, alpha=few.alpha.double(), boxes=boxes, z_depth=z_depth)
        return given_.weighted((7, 5)) if kind == "weighted" else given_.merged((7, 5))[0]

    inputs = [tensor.double().requires_grad_() for tensor in (few.appearances, few.boxes, few.z_depth)]
    assert torch.autograd.gradcheck(merge, tuple(inputs), atol=1e-5)


def weighted_by_loops(given_: Layers, size: tuple[int, int]) -> Tensor:
    """Merges as in the paper, one image and one object at a time."""
    images = []
    for image in range(given_.batch_size):
        rows = [row for row in range(len(given_.boxes)) if given_.image_index[row] == image]
        canvas = torch.zeros(3, *size)
        total = sum(float(given_.z_depth[row].exp()) for row in rows)
        for row in rows:
            share = float(given_.z_depth[row].exp()) / total
            canvas += share * paste_by_grid_sample(given_.appearances[row], given_.boxes[row], size)
        images.append(canvas / canvas.max() if rows else canvas)
    return torch.stack(images)


@pytest.mark.parametrize("seed", range(4))
def test_weighted_merge_equals_loops(seed: int) -> None:
    given_ = layers(seed)
    expected = weighted_by_loops(given_, (HEIGHT, WIDTH))
    torch.testing.assert_close(given_.weighted(), expected, rtol=0, atol=1e-5)


def alpha_by_loops(given_: Layers, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Merges one pixel and one object at a time; boxes must have at least a pixel per sample."""
    images, covers = torch.zeros(given_.batch_size, 3, *size), torch.zeros(given_.batch_size, 1, *size)
    colour = [paste_by_grid_sample(a, b, size) for a, b in zip(given_.appearances, given_.boxes, strict=True)]
    alpha = [paste_by_grid_sample(a, b, size)[0] for a, b in zip(given_.alpha, given_.boxes, strict=True)]
    weight = given_.z_depth.exp()
    for image in range(given_.batch_size):
        rows = [row for row in range(len(given_.boxes)) if given_.image_index[row] == image]
        for y in range(size[0]):
            for x in range(size[1]):
                weighted_alpha = sum(float(weight[row] * alpha[row][y, x]) for row in rows)
                if not weighted_alpha:
                    continue
                cover = min(1.0, sum(float(alpha[row][y, x]) for row in rows))
                shown = torch.stack([weight[row] * colour[row][:, y, x] for row in rows]).sum(dim=0)
                images[image, :, y, x] = shown / weighted_alpha * cover
                covers[image, 0, y, x] = cover
    return images, covers


@pytest.mark.parametrize("seed", range(3))
def test_alpha_merge_equals_loops(seed: int) -> None:
    given_ = layers(seed, min_box=0.4)
    size = (20, 24)
    pictures, coverage = given_.merged(size)
    expected, expected_coverage = alpha_by_loops(given_, size)
    torch.testing.assert_close(coverage, expected_coverage, rtol=0, atol=1e-5)
    torch.testing.assert_close(pictures, expected, rtol=0, atol=1e-4)


def owners_by_loops(given_: Layers, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Returns the owner of each pixel from a canvas per object, and its margin over any other answer."""
    owners = torch.full((given_.batch_size, *size), -1)
    margins = torch.full((given_.batch_size, *size), torch.inf)
    for image in range(given_.batch_size):
        rows = [row for row in range(len(given_.boxes)) if given_.image_index[row] == image]
        if not rows:
            continue
        alpha = torch.stack([paste_by_grid_sample(given_.alpha[r], given_.boxes[r], size)[0] for r in rows])
        total = sum(float(given_.z_depth[row].exp()) for row in rows)
        shown = alpha * torch.tensor([float(given_.z_depth[r].exp()) / total for r in rows])[:, None, None]
        best = shown.sort(dim=0, descending=True)
        covered = alpha.sum(dim=0) >= 0.5
        owners[image] = torch.where(covered, torch.tensor(rows)[best.indices[0]], -1)
        runner_up = best.values[1] if len(rows) > 1 else torch.zeros(size)
        tied = torch.where(covered, best.values[0] - runner_up, torch.inf)
        margins[image] = torch.minimum(tied, (alpha.sum(dim=0) - 0.5).abs())
    return owners, margins


@pytest.mark.parametrize("seed", range(5))
def test_owners_equal_canvases(seed: int) -> None:
    given_ = layers(seed, counts=(3, 0, 5, 1), min_box=0.4)
    size = (20, 24)
    expected, margins = owners_by_loops(given_, size)
    clear = margins > 1e-4
    assert clear.float().mean() > 0.99
    assert torch.equal(given_.owners(size)[clear], expected[clear])
    assert len(expected[clear].unique()) > 6  # The background, and nearly all objects.


def test_owners_without_any_object() -> None:
    none = layers(counts=(0, 0))
    assert torch.equal(none.owners((5, 7)), torch.full((2, 5, 7), -1))


LEFT, RIGHT, FULL = [0.0, 0.0, 0.6, 1.0], [0.4, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]
RED, GREEN = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]


@pytest.mark.parametrize("near", [0, 1])
def test_nearer_opaque_object_hides_the_other(near: int) -> None:
    depth = [8.0 * (row == near) for row in range(2)]
    picture = one_box(LEFT, RIGHT, depth=depth, colours=[RED, GREEN]).merged((20, 20))[0][0]
    shared = picture[:, 5:15, 9:11].mean(dim=(1, 2))
    torch.testing.assert_close(shared, torch.tensor([RED, GREEN][near]), rtol=0, atol=2e-3)
    # Where each is alone, depth does not matter.
    torch.testing.assert_close(picture[:, 5:15, 2:6].mean(dim=(1, 2)), torch.tensor(RED), rtol=0, atol=1e-3)
    torch.testing.assert_close(picture[:, 5:15, 14:18].mean(dim=(1, 2)), torch.tensor(GREEN), rtol=0, atol=1e-3)


@pytest.mark.parametrize("near", [0, 1])
def test_the_nearer_opaque_object_owns_what_two_cover(near: int) -> None:
    pair = one_box(LEFT, RIGHT, depth=[30.0 * (row == near) for row in range(2)], colours=[RED, GREEN])
    owners = pair.owners((20, 20))[0]
    assert (owners[:, 1:7] == 0).all()
    assert (owners[:, 9:11] == near).all()
    assert (owners[:, 13:19] == 1).all()
    half = replace(pair, alpha=pair.alpha * 0.45).owners((20, 20))[0]
    assert (half[:, 1:7] == -1).all()
    assert (half[:, 9:11] == near).all()  # Together they cover enough.


@pytest.mark.parametrize("near", [0, 1])
def test_far_objects_keep_their_order_whatever_is_near_elsewhere(near: int) -> None:
    depth = [6.0 * (row == near) for row in range(2)]
    scene = one_box(LEFT, RIGHT, [0.8, 0.8, 1.0, 1.0], depth=[*depth, 20.0], colours=[RED, GREEN, [0.0, 0.0, 1.0]])
    shared = scene.merged((20, 20))[0][0][:, 5:15, 9:11].mean(dim=(1, 2))
    torch.testing.assert_close(shared, torch.tensor([RED, GREEN][near]), rtol=0, atol=5e-3)
    assert (scene.owners((20, 20))[0][:15, 9:11] == near).all()


def test_far_object_stays_where_it_is_alone_however_far() -> None:
    picture = one_box(LEFT, RIGHT, depth=[-30.0, 30.0], colours=[RED, GREEN]).merged((20, 20))[0][0]
    torch.testing.assert_close(picture[:, 5:15, 2:6].mean(dim=(1, 2)), torch.tensor(RED), rtol=0, atol=1e-3)


@pytest.mark.parametrize("depth", [-50.0, 0.0, 50.0])
def test_lone_object_is_reproduced_whatever_its_depth(depth: float) -> None:
    lone = replace(layers(counts=(1,), side=16), boxes=torch.tensor([FULL]), z_depth=torch.tensor([depth]))
    picture, coverage = lone.merged((16, 16))
    torch.testing.assert_close(picture, lone.appearances, rtol=0, atol=1e-5)
    torch.testing.assert_close(coverage, lone.alpha, rtol=0, atol=1e-5)


def test_small_box_shows_the_mean_of_its_appearance() -> None:
    """The box has fewer pixels than samples, so fine lines must not vanish between the samples that pixels hit."""
    lines = (torch.arange(64) % 8 == 1).float()  # one bright column in eight, and eight pixels across
    small = replace(
        one_box([0.25, 0.25, 0.75, 0.75], depth=[0.0], colours=[RED], side=64),
        appearances=lines.expand(1, 3, 64, 64).contiguous(),
    )
    picture = small.merged((16, 16))[0][0, :, 5:11, 5:11]
    torch.testing.assert_close(picture, torch.full_like(picture, 1 / 8), rtol=0, atol=0.02)


@pytest.mark.parametrize("counts", [(2, 0, 3), (0, 0)])
def test_images_without_objects_are_black(counts: tuple[int, ...]) -> None:
    given_ = layers(counts=counts)
    pictures, coverage = given_.merged()
    for image, count in enumerate(counts):
        assert bool(given_.weighted()[image].any()) == bool(count)
        assert bool(pictures[image].any()) == bool(coverage[image].any()) == bool(count)


def test_no_image_has_no_canvas() -> None:
    nothing = torch.zeros(0, 3, 4, 4), torch.zeros(0, 4)
    assert paste_sum(*nothing, [], (6, 8)).shape == (0, 3, 6, 8)


def test_order_of_an_images_objects_does_not_matter() -> None:
    given_ = layers(counts=(3, 2))
    order = torch.tensor([2, 0, 1, 4, 3])
    fields = ("appearances", "alpha", "boxes", "z_depth")
    permuted = replace(given_, **{name: getattr(given_, name)[order] for name in fields})
    torch.testing.assert_close(permuted.weighted(), given_.weighted(), rtol=0, atol=1e-6)
    torch.testing.assert_close(permuted.merged()[0], given_.merged()[0], rtol=0, atol=1e-6)


def test_image_softmax_is_each_images_softmax() -> None:
    logits = torch.tensor([100.0, 99.0, -3.0, 0.0, 5.0])
    image_index = torch.tensor([0, 0, 2, 2, 2])
    weights = image_softmax(logits, image_index, 4)
    torch.testing.assert_close(weights, torch.cat([logits[:2].softmax(0), logits[2:].softmax(0)]))
    totals = torch.zeros(4).index_add(0, image_index, weights)
    torch.testing.assert_close(totals, torch.tensor([1.0, 0.0, 1.0, 0.0]))
    assert image_softmax(logits[:0], image_index[:0], 2).shape == (0,)


def test_tents_of_a_box_as_wide_as_its_samples_are_the_identity() -> None:
    weights = tent_weights(torch.tensor([0.25]), torch.tensor([0.5]), num_pixels=8, size=4)
    expected = torch.zeros(8, 4)
    expected[2:6] = torch.eye(4)
    torch.testing.assert_close(weights[0], expected)


class LargestTensor(TorchDispatchMode):
    """A dispatch mode that records the largest number of elements of any tensor that an operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, Tensor):
                # What is allocated: a view or an expanded tensor is no larger than its storage.
                self.numel = max(self.numel, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


@pytest.mark.parametrize("kind", ["weighted", "alpha"])
def test_no_object_has_a_canvas_of_its_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pasting, "GROUP_SIZE", GROUP_SIZE)
    M, H, W = 30, 256, 256
    given_ = layers(counts=(M // 2, M // 2), side=32)
    with LargestTensor() as largest:
        _ = given_.weighted((H, W)) if kind == "weighted" else given_.merged((H, W))
    assert 0 < largest.numel < M * 3 * H * W / 2


@pytest.mark.parametrize("near", [0, 1])
def test_of_what_two_cover_the_nearer_has_the_larger_share(near: int) -> None:
    depth = [3.0 * (row == near) for row in range(2)]
    pair = one_box(LEFT, RIGHT, depth=depth, colours=[RED, GREEN], side=30)
    arguments = (pair.boxes, pair.z_depth, pair.image_index, pair.counts, (60, 60))
    shares = pixel_shares(pair.alpha, *arguments)[:, 0]
    expected = 1 / (1 + torch.exp(torch.tensor([-3.0 if near == 0 else 3.0, 3.0 if near == 0 else -3.0])))
    # The boxes share a third of each: the last ten columns of the left one, the first ten of the right one.
    torch.testing.assert_close(shares[0, 3:-3, 22:28].mean(), expected[0], rtol=0, atol=0.02)
    torch.testing.assert_close(shares[1, 3:-3, 2:8].mean(), expected[1], rtol=0, atol=0.02)
    assert shares[0, 3:-3, 3:17].min() > 0.99, "an object alone has the whole share of its pixels"
    clear = pixel_shares(pair.alpha * torch.tensor([1.0, 0.0])[:, None, None, None], *arguments)[:, 0]
    assert clear[0].min() > 0.9, "a transparent object takes no share from the other one"
    assert clear[1, 3:-3, 2:8].max() < 0.6, "a transparent object has little share where the other one is opaque"
    assert clear[1, 3:-3, 14:].min() > 0.99, "where no object is opaque, each has the whole share"


def test_owners_need_the_canvases_of_one_image_only() -> None:
    M, H, W = 32, 128, 128
    given_ = layers(counts=(4,) * 8, side=16)
    with LargestTensor() as largest:
        given_.owners((H, W))
    assert 0 < largest.numel <= M * H * W / 4
