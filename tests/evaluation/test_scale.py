from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ssdir.evaluation.probing import LabelledLatents
from ssdir.evaluation.scale import (
    default_sizes,
    latent_drift,
    render_sizes,
    retrieval_at_1,
    same_instance_metrics,
    size_error_metrics,
    size_probe_metrics,
)
from ssdir.objects import Objects, Scene

CANVAS = 64
COUNT = 20


def squares(count: int = COUNT) -> list[NDArray[np.uint8]]:
    """Returns glyphs with a margin that differ in brightness only."""
    glyphs = []
    for number in range(count):
        glyph = np.zeros((12, 10), dtype=np.uint8)
        glyph[2:10, 3:7] = 50 + 10 * number
        glyphs.append(glyph)
    return glyphs


class FakeEncoder:
    """A model whose embeddings depend on an object's brightness, on its size, or on both."""

    class_names = ("object",)
    image_size = CANVAS
    score_threshold = 0.5

    def __init__(self, brightness: float, size: float) -> None:
        g = torch.Generator().manual_seed(0)
        self._brightness = brightness * torch.randn(256, 8, generator=g)
        self._size = size * torch.randn(CANVAS + 1, 8, generator=g)

    def encode(self, images: Tensor, score_threshold: float | None = None) -> Objects:
        raise NotImplementedError

    def embed(self, images: Tensor, boxes: Objects) -> Objects:
        value = (images.amax(dim=(1, 2, 3)) * 255).round().long()
        side = (boxes.z_where[:, 2:].amax(dim=1) * CANVAS).round().long()
        return boxes.replace(z_what=7 + self._brightness[value] + self._size[side])

    def decode(self, objects: Objects) -> Scene:
        raise NotImplementedError

    def pooled_features(self, images: Tensor, objects: Objects) -> Tensor:
        return objects.z_where[:, 2:]


def test_an_invariant_embedding_does_not_drift_and_is_retrieved() -> None:
    metrics = same_instance_metrics(FakeEncoder(brightness=1, size=0), squares(), batch_size=7)
    assert metrics["scale/drift"] == pytest.approx(0, abs=1e-6)
    assert metrics["scale/retrieval_at_1"] == 1
    assert metrics["scale/pooled_features/retrieval_at_1"] == 1 / COUNT


def test_an_embedding_of_size_alone_retrieves_at_chance() -> None:
    metrics = same_instance_metrics(FakeEncoder(brightness=0, size=1), squares())
    assert metrics["scale/retrieval_at_1"] <= 2 / COUNT
    assert "scale/drift" not in metrics  # different instances do not differ


def test_drift_grows_with_what_size_adds() -> None:
    drifts = [same_instance_metrics(FakeEncoder(1, size), squares())["scale/drift"] for size in (0.1, 0.5, 2.0)]
    assert 0 < drifts[0] < drifts[1] < 1 < drifts[2]


def test_an_embedding_that_size_dominates_is_not_retrieved() -> None:
    metrics = same_instance_metrics(FakeEncoder(brightness=1, size=20), squares())
    assert metrics["scale/retrieval_at_1"] < 0.5


def test_drift_is_the_naive_ratio() -> None:
    latents = 3 + torch.randn(6, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    centred = latents - latents.mean(dim=(0, 1))
    within = [
        1 - float(F.cosine_similarity(centred[i, a], centred[i, b], dim=0))
        for i in range(6)
        for a in range(4)
        for b in range(4)
        if a != b
    ]
    between = [
        1 - float(F.cosine_similarity(centred[i, a], centred[j, a], dim=0))
        for i in range(6)
        for j in range(6)
        for a in range(4)
        if i != j
    ]
    assert latent_drift(latents) == pytest.approx(np.mean(within) / np.mean(between))


def test_retrieval_ignores_a_common_part() -> None:
    gallery = torch.randn(10, 4, generator=torch.Generator().manual_seed(0)).double()
    gallery -= gallery.mean(dim=0)
    assert retrieval_at_1(1000 + 0.1 * gallery, 1000 + gallery) == 1
    assert retrieval_at_1(gallery.roll(1, 0), gallery) == 0


def test_rendered_boxes_hold_the_ink() -> None:
    images, objects = render_sizes(squares(3), (8, 17, 32), CANVAS)
    assert images.shape == (9, 3, CANVAS, CANVAS)
    assert objects.counts.tolist() == [1] * 9
    assert objects.source_index is not None
    assert objects.source_index.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    for number, (image, box) in enumerate(zip(images, objects.boxes_px((CANVAS, CANVAS)), strict=True)):
        rows, columns = image[0].nonzero(as_tuple=True)
        ink = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert box.tolist() == pytest.approx([float(edge) for edge in ink])
        size = (8, 17, 32)[number % 3]
        assert box[3] - box[1] == pytest.approx(size)
        assert box[2] - box[0] == pytest.approx(size / 2, abs=0.5)
        assert image.max() == pytest.approx((50 + 10 * (number // 3)) / 255)


def test_invalid_arguments_of_rendering_are_refused() -> None:
    with pytest.raises(ValueError, match="sizes_px must be within"):
        render_sizes(squares(1), (65,), CANVAS)
    with pytest.raises(ValueError, match="blank"):
        render_sizes([np.zeros((4, 4), dtype=np.uint8)], (8,), CANVAS)
    with pytest.raises(ValueError, match="grey uint8"):
        render_sizes([np.zeros((4, 4, 3), dtype=np.uint8)], (8,), CANVAS)


def test_same_instances_need_two_glyphs_and_the_gallery_size() -> None:
    with pytest.raises(ValueError, match="at least two"):
        same_instance_metrics(FakeEncoder(1, 0), squares(1))
    with pytest.raises(ValueError, match="4 times"):
        same_instance_metrics(FakeEncoder(1, 0), squares(), (8, 16))


@pytest.mark.parametrize("image_size", [16, 100, 128, 300])
def test_default_sizes_fit(image_size: int) -> None:
    sizes = default_sizes(image_size)
    assert sorted(sizes) == list(sizes)
    assert sizes[-1] == 4 * sizes[0] <= image_size


def sized(seed: int, n: int, *, flip_large: bool) -> LabelledLatents:
    """Returns latents whose sign is the class; with `flip_large`, large objects have the opposite sign."""
    g = torch.Generator().manual_seed(seed)
    labels, sizes = torch.randint(0, 2, (n,), generator=g), torch.rand(n, generator=g)
    sign = 2.0 * labels - 1
    if flip_large:
        sign = torch.where(sizes > 2 / 3, -sign, sign)
    latents = torch.stack([sign + 0.1 * torch.randn(n, generator=g), torch.randn(n, generator=g)], dim=1)
    return LabelledLatents(latents, labels, sizes, n)


def test_transfer_between_sizes() -> None:
    same = size_probe_metrics(sized(0, 300, flip_large=False), sized(1, 300, flip_large=False))
    assert set(same.values()) == {1.0}
    assert set(same) == {
        "scale/probe/accuracy_small",
        "scale/probe/accuracy_medium",
        "scale/probe/accuracy_large",
        "scale/small_to_large/accuracy",
        "scale/large_to_small/accuracy",
    }
    turned = size_probe_metrics(sized(0, 600, flip_large=True), sized(1, 600, flip_large=True))
    assert turned["scale/probe/accuracy_small"] == 1
    assert turned["scale/probe/accuracy_large"] < 0.1
    assert turned["scale/small_to_large/accuracy"] < 0.1
    assert turned["scale/large_to_small/accuracy"] < 0.1


def test_terciles_are_those_of_train() -> None:
    train = sized(0, 300, flip_large=False)
    large = sized(1, 300, flip_large=False)
    large = large[large.sizes > 0.8]
    metrics = size_probe_metrics(train, large)
    assert set(metrics) == {"scale/probe/accuracy_large", "scale/small_to_large/accuracy"}


def test_errors_of_each_third_of_sizes() -> None:
    sizes = torch.tensor([0.3, 0.1, 0.9, 0.2, 0.8, 0.4])
    errors = torch.tensor([3.0, 1.0, 8.0, 2.0, 9.0, 4.0], dtype=torch.float64)
    means = {"small": 1.5, "medium": 3.5, "large": 8.5}
    expected = {f"scale/object_mse_{name}": value for name, value in means.items()}
    assert size_error_metrics(errors, sizes) == expected
    assert size_error_metrics(errors[:0], sizes[:0]) == {}
    assert size_error_metrics(errors[:1], sizes[:1]).keys() == {"scale/object_mse_small"}


def test_no_objects_no_figures() -> None:
    some = sized(0, 30, flip_large=False)
    none = LabelledLatents(torch.zeros(0, 0), some.labels[:0], some.sizes[:0], 30)
    assert size_probe_metrics(none, some) == {}
    assert size_probe_metrics(some, none) == {}
