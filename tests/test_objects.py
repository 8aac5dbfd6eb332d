from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from ssdir.objects import Objects, Scene

FULL = ("scores", "labels", "z_what", "z_what_scale", "z_depth", "anchor_index", "source_index")


def sample(*counts: int, seed: int = 0, full: bool = True) -> Objects:
    g = torch.Generator().manual_seed(seed)
    M = sum(counts)
    z_where = torch.cat([torch.rand(M, 2, generator=g), 0.1 + 0.5 * torch.rand(M, 2, generator=g)], dim=1)
    extra: dict[str, Any] = {
        "scores": torch.rand(M, generator=g),
        "labels": torch.randint(0, 3, (M,), generator=g),
        "z_what": torch.randn(M, 5, generator=g),
        "z_what_scale": torch.rand(M, 5, generator=g),
        "z_depth": torch.randn(M, generator=g),
        "anchor_index": torch.randint(0, 99, (M,), generator=g),
        "source_index": torch.arange(M),
    }
    image_index = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return Objects(image_index, len(counts), z_where, **(extra if full else {}))


def assert_same(first: Objects, second: Objects) -> None:
    assert first.batch_size == second.batch_size
    for name in ("image_index", "z_where", *FULL):
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None), name
        assert one is None or torch.equal(one, other), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"z_where": torch.rand(3, 5)}, r"z_where must be \(M, 4\), got \(3, 5\)"),
        ({"z_where": torch.rand(2, 4)}, r"z_where must be \(M, 4\) with M = 3, got \(2, 4\)"),
        ({"scores": torch.rand(3, 1)}, r"scores must be \(M,\) with M = 3, got \(3, 1\)"),
        ({"z_what": torch.rand(3)}, r"z_what must be \(M, D\)"),
        ({"labels": torch.rand(3)}, "labels must be integer, got torch.float32"),
        ({"z_depth": torch.arange(3)}, "z_depth must be floating point, got torch.int64"),
        ({"image_index": torch.tensor([0, 1, 2])}, r"image_index must be within 0 \.\.\. 1, got 0 \.\.\. 2"),
        ({"image_index": torch.tensor([-1, 0, 1])}, "image_index must be within"),
        ({"image_index": torch.tensor([0, 1, 0])}, "image_index must not decrease"),
        ({"image_index": torch.tensor(0)}, "image_index must be"),
    ],
)
def test_what_breaks_the_contract_is_named(changes: dict[str, Any], message: str) -> None:
    good = sample(2, 1)
    with pytest.raises(ValueError, match=message):
        good.replace(**changes)


def test_values_on_an_accelerator_are_not_waited_for() -> None:
    backwards = torch.tensor([1, 0])
    with pytest.raises(ValueError, match="must not decrease"):
        Objects(backwards, 2, torch.rand(2, 4))
    assert len(Objects(backwards.to("meta"), 2, torch.rand(2, 4, device="meta"))) == 2  # has no values at all


def test_boxes_are_clipped_corners() -> None:
    z_where = torch.tensor([[0.5, 0.5, 0.2, 0.4], [0.1, 0.9, 0.4, 0.4]])
    objects = Objects(torch.tensor([0, 0]), 1, z_where)
    torch.testing.assert_close(objects.boxes, torch.tensor([[0.4, 0.3, 0.6, 0.7], [0.0, 0.7, 0.3, 1.0]]))
    in_pixels = torch.tensor([[80.0, 30.0, 120.0, 70.0], [0.0, 70.0, 60.0, 100.0]])
    torch.testing.assert_close(objects.boxes_px((100, 200)), in_pixels)


def test_counts_include_images_without_objects() -> None:
    assert sample(2, 0, 3, 0).counts.tolist() == [2, 0, 3, 0]
    assert Objects.empty(3).counts.tolist() == [0, 0, 0]


def test_counts_known_to_the_host_stay_those_of_the_objects() -> None:
    objects = sample(2, 0, 3)
    assert objects.per_image == [2, 0, 3]
    assert objects.replace(z_where=objects.z_where / 2).per_image is objects.per_image, "counted once"
    assert objects[:4].per_image == [2, 0, 2]
    assert objects.replace(batch_size=4).per_image == [2, 0, 3, 0]
    last = torch.full_like(objects.image_index, 2)
    assert objects.replace(image_index=last).per_image == [0, 0, 5]
    assert objects.regrouped(torch.tensor([4, 0]), torch.tensor([0, 1]), 2).per_image == [1, 1]
    assert len(Objects.empty(3)) == 0


def test_selecting_keeps_rows_aligned() -> None:
    objects = sample(2, 0, 3)
    mask = torch.tensor([True, False, False, True, True])
    rows = mask.nonzero()[:, 0]
    for index in (mask, mask.numpy(), mask.tolist(), rows, rows.numpy(), rows.tolist()):
        chosen = objects[index]
        assert chosen.batch_size == 3
        assert chosen.counts.tolist() == [1, 0, 2]
        for name in FULL:
            assert torch.equal(getattr(chosen, name), getattr(objects, name)[mask])
    assert len(objects[1:3]) == 2
    assert len(objects[[]]) == len(objects[np.zeros(0, dtype=np.int64)]) == 0
    with pytest.raises(TypeError, match="not by one number"):
        objects[3]  # type: ignore[index]


def test_cat_inverts_split() -> None:
    objects = sample(2, 0, 3)
    parts = objects.split()
    assert [len(part) for part in parts] == [2, 0, 3]
    assert all(part.batch_size == 1 and not part.image_index.any() for part in parts)
    assert_same(Objects.cat(parts), objects)


def test_cat_shifts_images_and_keeps_only_what_all_parts_have() -> None:
    joined = Objects.cat([sample(1, 2), sample(0, 2, full=False)])
    assert joined.batch_size == 4
    assert joined.image_index.tolist() == [0, 1, 1, 3, 3]
    assert joined.scores is None
    assert Objects.cat([]).batch_size == 0


def test_to_changes_the_dtype_of_floats_alone() -> None:
    objects = sample(2, 1).to(torch.float64)
    assert objects.z_where.dtype == objects.z_what.dtype == torch.float64  # type: ignore[union-attr]
    assert objects.image_index.dtype == torch.int64
    assert objects.labels is not None
    assert objects.labels.dtype == torch.int64
    many = sample(*[1] * 3000)
    assert torch.equal(many.to(torch.bfloat16).image_index, many.image_index)  # which counts to 256


def test_detach_leaves_the_graph() -> None:
    objects = sample(2)
    z_what = torch.rand(2, 5, requires_grad=True) * 2
    attached = objects.replace(z_what=z_what)
    assert attached.z_what is not None
    assert attached.z_what.requires_grad
    detached = attached.detach()
    assert detached.z_what is not None
    assert not detached.z_what.requires_grad


def test_supervision_gets_pixels_and_latents() -> None:
    objects = sample(3)
    detections = objects.to_supervision((50, 80))
    np.testing.assert_allclose(detections.xyxy, objects.boxes_px((50, 80)).numpy())
    assert objects.labels is not None
    assert objects.z_what is not None
    assert detections.class_id.tolist() == objects.labels.tolist()
    np.testing.assert_array_equal(detections.data["z_what"], objects.z_what.numpy())
    assert len(detections[detections.confidence > 0.5]) == int((detections.confidence > 0.5).sum())
    with pytest.raises(ValueError, match="takes one image, got a batch of 2"):
        sample(1, 1).to_supervision((50, 80))


def test_arrow_table_has_a_row_per_object() -> None:
    objects = sample(2, 0, 1)
    table = objects.to_arrow()
    assert table.num_rows == 3
    assert objects.z_what is not None
    np.testing.assert_allclose(np.array(table["z_what"].to_pylist()), objects.z_what.numpy())
    assert table["image_index"].to_pylist() == [0, 0, 2]
    assert sample(0).to_arrow().num_rows == 0


def test_scene_moves_what_it_has() -> None:
    scene = Scene(torch.rand(1, 3, 4, 4), torch.rand(2, 3, 2, 2)).to("meta")
    assert scene.reconstructions.device.type == scene.appearances.device.type == "meta"
    assert scene.alpha is None


def test_repr_is_a_line_that_tells_what_is_known() -> None:
    objects = Objects(torch.tensor([0, 2]), 3, torch.ones(2, 4), z_what=torch.ones(2, 8))
    assert repr(objects) == "Objects(2 in 3 images: z_where (2, 4), z_what (2, 8); cpu)"
