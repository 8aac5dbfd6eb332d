"""Tests of Slot Attention: the attention step, the masks, and the objects that are derived from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn import functional as F

from ssdir.data.masks import mask_boxes
from ssdir.device import seeded
from ssdir.evaluation.collect import Collector
from ssdir.evaluation.segmentation import segment
from ssdir.inference.predictor import Predictor
from ssdir.models.io import load_model, save_model
from ssdir.models.slots.attention import ATTENTION_OFFSET, SlotUpdates
from ssdir.models.slots.masks import MIN_PIXELS, mask_box_iou, read_masks
from ssdir.models.slots.model import SlotAttention, SlotAttentionConfig
from ssdir.models.slots.networks import BroadcastDecoder
from ssdir.objects import Objects

SIDE = 16


def tiny_slots(**changes: Any) -> SlotAttention:
    values = {
        "image_size": SIDE,
        "num_slots": 4,
        "latent_dim": 8,
        "mlp_hidden": 12,
        "channels": 8,
        "encoder_kernels": (3, 3),
        "encoder_strides": (2, 1),
        "decoder_start": 4,
        "decoder_kernels": (4, 3, 2),
        "decoder_strides": (2, 1, 2),
        "glimpse_size": 16,
        **changes,
    }
    with seeded(0):
        return SlotAttention(SlotAttentionConfig(**values)).eval()


class PaintedSlots(torch.nn.Module):
    """A decoder whose slots hold a rectangle (x1, y1, x2, y2 in pixels), a colour, and the logit of its mask."""

    def forward(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.arange(SIDE) + 0.5
        x1, y1, x2, y2 = (slots[:, i, None] for i in range(4))
        inside = ((y1 <= x) & (x < y2))[:, :, None] & ((x1 <= x) & (x < x2))[:, None, :]
        logits = torch.where(inside, slots[:, 7, None, None], -10.0)[:, None]
        return slots[:, 4:7, None, None].expand(-1, -1, SIDE, SIDE), logits


def painted(slots: Tensor) -> SlotAttention:
    """Returns a model that has the slots (K, 8) of `PaintedSlots` in each image."""
    model = tiny_slots(num_slots=len(slots))

    def same(features: Tensor, noise: Tensor) -> Tensor:
        return slots.expand(len(features), -1, -1)

    model.updates.forward = same  # type: ignore[method-assign]
    model.decoder = PaintedSlots()  # type: ignore[assignment]
    return model


BEHIND = [0.0, 0, SIDE, SIDE, 0.1, 0.1, 0.1, 3.0]
RED = [2.0, 3, 7, 9, 1, 0, 0, 9.0]
BLUE = [9.0, 8, 15, 12, 0, 0, 1, 9.0]
NOWHERE = [0.0, 0, 0, 0, 1, 1, 1, 9.0]


def naive_step(updates: SlotUpdates, slots: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Updates one slot of one image at a time, with the equations of a GRU written out."""
    result = torch.zeros_like(slots)
    for b in range(len(slots)):
        queries = [updates.queries(updates.norm_slots(slot)) for slot in slots[b]]
        for k, slot in enumerate(slots[b]):
            weights = []
            for key in keys[b]:
                dots = [float(query @ key) / len(key) ** 0.5 for query in queries]
                weights.append(np.exp(dots[k]) / sum(np.exp(dot) for dot in dots) + ATTENTION_OFFSET)
            mean = sum(w * value for w, value in zip(weights, values[b], strict=True)) / sum(weights)
            gru = updates.gru
            from_mean = (gru.weight_ih @ mean + gru.bias_ih).chunk(3)
            from_slot = (gru.weight_hh @ slot + gru.bias_hh).chunk(3)
            reset, keep = ((i + h).sigmoid() for i, h in zip(from_mean[:2], from_slot[:2], strict=True))
            new = torch.tanh(from_mean[2] + reset * from_slot[2])
            after = (1 - keep) * new + keep * slot
            norm, first, _, second = updates.mlp
            result[b, k] = after + second(first(norm(after)).relu())
    return result


@torch.no_grad()
def test_a_step_equals_one_slot_at_a_time() -> None:
    torch.manual_seed(0)
    updates = SlotUpdates(latent_dim=5, mlp_hidden=7, iterations=1)
    slots, keys, values = torch.randn(2, 3, 5), torch.randn(2, 6, 5), torch.randn(2, 6, 5)
    expected = naive_step(updates, slots, keys, values)
    assert torch.allclose(updates.step(slots, keys, values), expected, atol=1e-5)


@torch.no_grad()
def test_iterations_repeat_the_step_from_samples_of_the_learned_normal() -> None:
    torch.manual_seed(0)
    updates = SlotUpdates(latent_dim=5, mlp_hidden=7, iterations=2)
    features, noise = torch.randn(2, 6, 5), torch.randn(2, 3, 5)
    normed = updates.norm_features(features)
    keys, values = updates.keys(normed), updates.values(normed)
    slots = updates.loc + updates.log_scale.exp() * noise
    expected = updates.step(updates.step(slots, keys, values), keys, values)
    assert torch.allclose(updates(features, noise), expected, atol=1e-6)


@torch.no_grad()
def test_slots_are_equivariant_and_features_invariant_to_permutations() -> None:
    torch.manual_seed(0)
    updates = SlotUpdates(latent_dim=5, mlp_hidden=7, iterations=3)
    features, noise = torch.randn(2, 6, 5), torch.randn(2, 4, 5)
    order, shuffled = torch.tensor([2, 0, 3, 1]), torch.randperm(6)
    slots = updates(features, noise)
    assert torch.allclose(updates(features, noise[:, order]), slots[:, order], atol=1e-5)
    assert torch.allclose(updates(features[:, shuffled], noise), slots, atol=1e-5)
    assert not torch.allclose(slots[:, 0], slots[:, 1], atol=1e-2)


@torch.no_grad()
def test_masks_sum_to_one_and_weigh_the_pictures() -> None:
    model = tiny_slots()
    images = torch.rand(2, 3, SIDE, SIDE)
    decoded = model._decode_all(images)
    assert decoded.masks.shape == (2, 4, 1, SIDE, SIDE)
    assert torch.allclose(decoded.masks.sum(dim=1), torch.ones(2, 1, SIDE, SIDE), atol=1e-6)
    mean = (decoded.masks * decoded.pictures).sum(dim=1)
    loss = model.loss(images)
    assert torch.isclose(loss["mse"], F.mse_loss(mean, images))
    assert torch.isclose(loss["total"], 0.5 * (2 * (mean - images)).square().sum() / 2)


@pytest.mark.parametrize(("kernel", "stride"), [(5, 2), (4, 2), (3, 1), (6, 4), (3, 2)])
def test_each_layer_of_the_decoder_enlarges_by_its_stride(kernel: int, stride: int) -> None:
    decoder = BroadcastDecoder(latent_dim=3, channels=4, start=3, kernels=(kernel, 3), strides=(stride, 1))
    pictures, logits = decoder(torch.randn(2, 3))
    assert pictures.shape == (2, 3, 3 * stride, 3 * stride)
    assert logits.shape == (2, 1, 3 * stride, 3 * stride)


def test_boxes_are_tight_around_the_pixels_that_slots_win() -> None:
    torch.manual_seed(0)
    masks = (4 * torch.randn(3, 5, SIDE, SIDE)).softmax(dim=1)
    read = read_masks(masks)
    winners = masks.argmax(dim=1)
    for image, boxes in zip(winners, read.boxes_cxcywh, strict=True):
        expected, pixels = mask_boxes(image.numpy().astype(np.uint8) + 1, 5)
        assert pixels.min() > 0
        center, half = boxes[:, :2], boxes[:, 2:] / 2
        assert np.allclose(torch.cat([center - half, center + half], dim=1) * SIDE, expected, atol=1e-4)


def test_background_has_most_of_the_border_and_empty_slots_no_score() -> None:
    owner = torch.zeros(1, SIDE, SIDE, dtype=torch.int64)
    owner[0, :, SIDE - 1] = 1
    owner[0, :4, :4] = 2
    owner[0, 8:11, 8:12] = 3
    owner[0, 8, 5 : 5 + MIN_PIXELS - 1] = 4
    masks = F.one_hot(owner, 6).permute(0, 3, 1, 2).float() * 0.7 + 0.05
    read = read_masks(masks)
    assert read.background.tolist() == [[True, False, False, False, False, False]]
    assert torch.allclose(read.scores, torch.tensor([[0, 0.75, 0.75, 0.75, 0, 0]]), atol=1e-6)


def test_overlap_of_a_mask_with_a_box_is_that_of_sets_of_pixels() -> None:
    masks = torch.zeros(1, 2, SIDE, SIDE)
    masks[0, 0, 2:6, 3:9] = 1
    masks[0, 1] = 0.5
    box = torch.tensor([[4, 2, 10, 8]]) / SIDE  # 36 pixels, 4 × 5 of which are in the first mask of 24
    expected = torch.tensor([[20 / (24 + 36 - 20), 18 / (128 + 36 - 18)]])
    assert torch.allclose(mask_box_iou(masks, box), expected)


def test_objects_of_known_slots() -> None:
    model = painted(torch.tensor([RED, NOWHERE, BEHIND, BLUE]))
    images = torch.zeros(2, 3, SIDE, SIDE)
    objects = model.encode(images)
    assert objects.image_index.tolist() == [0, 0, 1, 1]
    assert objects.anchor_index is not None
    assert objects.anchor_index.tolist() == [0, 3, 0, 3]
    expected = torch.tensor([RED[:4], BLUE[:4]] * 2) / SIDE
    assert torch.allclose(objects.boxes, expected, atol=1e-6)
    assert torch.equal(objects.z_what[0], torch.tensor(RED))  # type: ignore[index]

    embedded = model.embed(images, objects[[1, 2]])
    assert embedded.anchor_index is not None
    assert embedded.anchor_index.tolist() == [3, 0]

    owner = torch.zeros(SIDE, SIDE, dtype=torch.int64)
    owner[3:9, 2:7], owner[8:12, 9:15] = 1, 2
    assert torch.equal(segment(objects, model.decode(objects))[1], owner)
    scene = model.reconstruct(images, objects)
    colours = torch.tensor([BEHIND[4:7], RED[4:7], BLUE[4:7]])
    assert (scene.reconstructions[0] - colours[owner].permute(2, 0, 1)).abs().mean() < 0.03


def test_masks_of_a_reconstruction_show_where_the_background_is_in_front() -> None:
    """The background shows through a hole in the object, which the object's own slot does not encode."""
    large = [2.0, 2, 14, 14, 1, 0, 0, 9.0]
    model = painted(torch.tensor([large, BEHIND]))
    images, paint = torch.zeros(1, 3, SIDE, SIDE), model.decoder.forward

    def with_hole(slots: Tensor) -> tuple[Tensor, Tensor]:
        pictures, logits = paint(slots)
        logits[slots[:, 7] == BEHIND[7], :, 6:10, 6:10] = 20
        return pictures, logits

    model.decoder.forward = with_hole  # type: ignore[method-assign]
    objects = model.encode(images)
    owner = torch.zeros(SIDE, SIDE, dtype=torch.int64)
    owner[2:14, 2:14] = 1
    assert torch.equal(segment(objects, model.decode(objects))[0], owner)
    owner[6:10, 6:10] = 0
    assert torch.equal(segment(objects, model.reconstruct(images, objects))[0], owner)

    collector = Collector(model)
    collector.add(images, objects, torch.zeros(1, dtype=torch.int64), masks=[owner])
    assert collector.finish().masks["masks/miou"] == 1  # evaluation takes the masks of the reconstruction


def test_images_without_objects_are_decoded_as_background() -> None:
    model = painted(torch.tensor([BEHIND, NOWHERE]))
    images = torch.zeros(2, 3, SIDE, SIDE)
    objects = model.encode(images, score_threshold=0.0)
    assert len(objects) == 0
    assert objects.batch_size == 2
    assert torch.equal(model.decode(objects).reconstructions, torch.zeros(2, 3, SIDE, SIDE))
    assert torch.allclose(model.reconstruct(images, objects).reconstructions, torch.tensor(0.1), atol=1e-5)
    assert len(model.embed(images, Objects.empty(2))) == 0


def test_training_samples_slots_and_evaluation_does_not() -> None:
    model = tiny_slots()
    images = torch.rand(1, 3, SIDE, SIDE).expand(2, -1, -1, -1)
    first, second = model._decode_all(images).slots
    assert torch.allclose(first, second, atol=1e-6)
    first, second = model.train()._decode_all(images).slots
    assert not torch.allclose(first, second, atol=1e-3)


def test_a_saved_model_has_the_same_objects(tmp_path: Path) -> None:
    model = tiny_slots(score_threshold=0.0)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    images = torch.rand(3, 3, SIDE, SIDE)
    expected, objects = model.encode(images), loaded.encode(images)
    assert len(objects) == len(expected) > 0
    assert torch.equal(objects.z_what, expected.z_what)  # type: ignore[arg-type]
    fast = Predictor(loaded).encode(images)
    assert torch.allclose(fast.z_what, expected.z_what, atol=1e-4)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder_strides": (2, 2, 2)}, "decoder_start times all decoder_strides must be image_size, 16, got 32"),
        ({"encoder_strides": (2,)}, "encoder_kernels has 2 entries, but encoder_strides 1"),
        ({"encoder_strides": (3, 1)}, "encoder_strides must divide image_size, 16"),
        ({"encoder_kernels": (4, 3)}, "encoder_kernels must be odd"),
        ({"decoder_kernels": (1, 3, 2)}, "decoder_kernels must be at least decoder_strides"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny_slots(**changes)
