from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch

from ssdir.object_table import OBJECT_COLUMNS, TRACK_COLUMNS
from ssdir.objects import Objects, Scene
from ssdir.store.metadata import FILE_METADATA
from ssdir.store.writer import ObjectWriter

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
    with pytest.raises(TypeError, match="a number, a mask, a slice"):
        objects[torch.tensor(1)]


def test_one_object_has_its_own_numbers_and_iteration_yields_each() -> None:
    objects = sample(1, 0, 2).replace(class_names=("ant", "bee", "cow"))
    rows = list(objects)
    assert [row.image_index for row in rows] == [0, 2, 2]
    for number, row in enumerate(rows):
        assert objects.scores is not None
        assert objects.labels is not None
        assert objects.z_what is not None
        assert row.score == objects.scores[number].item()
        assert row.class_name == ("ant", "bee", "cow")[int(objects.labels[number])]
        assert torch.equal(row.box, objects.boxes[number])
        assert row.z_what is not None
        assert torch.equal(row.z_what, objects.z_what[number])
    assert f"z_what ({objects.z_what.shape[1]},)" in repr(rows[0])
    assert f"z_depth {rows[0].z_depth:.2f}" in repr(rows[0])
    assert torch.equal(objects[-1].z_where, objects.z_where[2])
    assert objects[np.int64(1)].z_depth == rows[1].z_depth
    bare = sample(1, full=False)[0]
    assert (bare.score, bare.label, bare.class_name, bare.z_what) == (None, None, None, None)
    with pytest.raises(IndexError, match="there is no object 3 among 3"):
        objects[3]


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


def test_class_names_stay_with_their_labels() -> None:
    objects = sample(2, 1).replace(class_names=("ant", "bee", "cow"))
    for kept in (objects[1:], objects.split()[0], objects.to(torch.float64), Objects.cat([objects, sample(0)])):
        assert kept.class_names == ("ant", "bee", "cow")
    assert Objects.cat([objects, sample(1)]).class_names is None
    with pytest.raises(ValueError, match="index different classes"):
        Objects.cat([objects, sample(1).replace(class_names=("dog",))])
    detections = objects.split()[0].to_supervision((50, 80))
    assert objects.labels is not None
    expected = [("ant", "bee", "cow")[label] for label in objects.labels[:2].tolist()]
    assert detections.data["class_name"].tolist() == expected


def test_arrow_table_has_the_columns_of_the_file_that_encode_writes(tmp_path: Path) -> None:
    """Read back by pyarrow alone, a file of the same objects is the same table."""
    objects, names = sample(2, 0, 1), ("ant", "bee", "cow")
    images, sizes = ["a.png", "b.png", "c.png"], [(50, 80), (40, 40), (100, 30)]
    with ObjectWriter(tmp_path / "objects.parquet", "m", names, 5, "weights") as writer:
        writer.write(objects, images, sizes)
    table = objects.replace(class_names=names).to_arrow(images, sizes)
    stored = pyarrow.parquet.read_table(tmp_path / "objects.parquet").replace_schema_metadata()
    assert table.schema.equals(stored.schema)
    assert table.equals(stored)
    np.testing.assert_allclose(table["box_x2"][2].as_py(), objects.boxes_px((100, 30))[2, 2].item(), rtol=1e-6)


def test_missing_fields_of_objects_are_null_in_their_table() -> None:
    table = sample(2, 0, 1, full=False).to_arrow()
    assert table.column_names == sample(1).to_arrow().column_names == [column.name for column in OBJECT_COLUMNS]
    known = {name for name in table.column_names if table[name].null_count == 0}
    assert known == {"image_index", "z_where"}
    assert table["image_index"].to_pylist() == [0, 0, 2]
    assert sample(1).to_arrow()["class"].null_count == 1
    assert sample(0).to_arrow().num_rows == 0
    odd = sample(2).replace(class_names=("ant",), labels=torch.tensor([0, 4]))
    assert odd.to_arrow()["class"].to_pylist() == ["ant", None]
    with pytest.raises(ValueError, match="objects of 2 images need as many sizes, got 1"):
        sample(1, 1).to_arrow(sizes=[(4, 4)])


def test_a_data_frame_has_the_values_of_the_tensors() -> None:
    objects = sample(3)
    frame = objects.to_pandas(sizes=[(50, 80)])
    assert objects.scores is not None
    assert objects.z_what is not None
    np.testing.assert_allclose(frame["score"], objects.scores)
    np.testing.assert_allclose(np.stack(list(frame["z_what"])), objects.z_what)
    boxes = frame[["box_x1", "box_y1", "box_x2", "box_y2"]].to_numpy()
    np.testing.assert_allclose(boxes, objects.boxes_px((50, 80)), rtol=1e-6)


def test_every_column_and_key_of_a_file_is_documented(tmp_path: Path) -> None:
    with ObjectWriter(tmp_path / "objects.parquet", "m", ["ant"], 5, "weights") as writer:
        writer.write(sample(1).replace(labels=torch.tensor([0])), ["a.png"], [(50, 80)])
    footer = pyarrow.parquet.read_metadata(tmp_path / "objects.parquet")
    assert footer.metadata.keys() - {b"ARROW:schema"} == {key for key in FILE_METADATA if b"skipped" not in key}
    schema = footer.schema.to_arrow_schema()
    assert schema.names == [column.name for column in OBJECT_COLUMNS]
    for column in OBJECT_COLUMNS:
        field = schema.field(column.name)
        length = {None: None, "D": 5}.get(column.length, column.length)
        inner = field.type.value_type if length else field.type
        assert str(inner) == {"float32": "float"}.get(column.kind, column.kind)
        assert getattr(field.type, "list_size", None) == length
        assert field.nullable == column.nullable
        assert column.unit
        assert column.meaning


def test_scene_moves_what_it_has() -> None:
    scene = Scene(torch.rand(1, 3, 4, 4), torch.rand(2, 3, 2, 2)).to("meta")
    assert scene.reconstructions.device.type == scene.appearances.device.type == "meta"
    assert scene.alpha is None


def test_repr_is_a_line_with_the_fields_that_are_known() -> None:
    objects = Objects(torch.tensor([0, 2]), 3, torch.ones(2, 4), z_what=torch.ones(2, 8))
    assert repr(objects) == "Objects(2 in 3 images: z_where (2, 4), z_what (2, 8); cpu)"


def of_a_clip() -> Objects:
    return Objects(
        image_index=torch.zeros(2, dtype=torch.int64),
        batch_size=1,
        z_where=torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.2, 0.2, 0.1, 0.1]]),
        scores=torch.tensor([0.9, 0.8]),
        track_id=torch.tensor([7, 3]),
        visible=torch.tensor([1.0, 0.25]),
    )


def test_a_row_and_the_table_of_a_clip_have_tracks() -> None:
    objects = of_a_clip()
    assert [(row.track_id, row.visible) for row in objects] == [(7, 1.0), (3, 0.25)]
    table = objects.to_arrow()
    assert table.column_names == [column.name for column in (*OBJECT_COLUMNS, *TRACK_COLUMNS)]
    assert table["track_id"].to_pylist() == [7, 3]
    assert table["visible"].to_pylist() == [1.0, 0.25]


def test_tracks_reach_supervision_and_arrays() -> None:
    objects = of_a_clip()
    detections = objects.to_supervision((10, 10))
    assert detections.tracker_id.tolist() == [7, 3]
    assert detections.data["visible"].tolist() == [1.0, 0.25]
    again = Objects.from_arrays(objects.to_arrays())[torch.tensor([1])]
    assert again.track_id is not None
    assert again.track_id.tolist() == [3]
