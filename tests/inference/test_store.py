import contextlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ssdir.errors import InputError
from ssdir.inference import store
from ssdir.inference.store import ObjectWriter, read_info, read_objects
from ssdir.objects import Objects

CLASSES = ["cat", "dog"]
LATENT_DIM = 5
SIZES = [(60, 90), (10, 10), (200, 30), (7, 9)]


def make_objects(image_index: list[int], batch_size: int, seed: int = 0) -> Objects:
    rng = torch.Generator().manual_seed(seed)
    M = len(image_index)
    return Objects(
        image_index=torch.tensor(image_index, dtype=torch.int64),
        batch_size=batch_size,
        z_where=torch.rand(M, 4, generator=rng),
        scores=torch.rand(M, generator=rng),
        labels=torch.randint(0, len(CLASSES), (M,), generator=rng),
        z_what=torch.randn(M, LATENT_DIM, generator=rng),
        z_what_scale=torch.rand(M, LATENT_DIM, generator=rng),
        z_depth=torch.randn(M, generator=rng),
        anchor_index=torch.randint(0, 99, (M,), generator=rng),
    )


def write(path: Path, *batches: Objects) -> list[str]:
    images: list[str] = []
    with ObjectWriter(path, "tiny", CLASSES, LATENT_DIM) as writer:
        for objects in batches:
            new = [f"img/{len(images) + index}.png" for index in range(objects.batch_size)]
            writer.write(objects, new, (SIZES * objects.batch_size)[: objects.batch_size])
            images += new
    return images


def assert_identical(left: Objects, right: Objects) -> None:
    assert left.batch_size == right.batch_size
    assert left._tensors().keys() == right._tensors().keys()
    for name, tensor in left._tensors().items():
        assert torch.equal(tensor, getattr(right, name)), name


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "objects.parquet"


@pytest.mark.parametrize("row_group", [1, 4, 8192])
def test_round_trip(path: Path, row_group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ROW_GROUP", row_group)
    batches = [make_objects([0, 0, 2], 4), make_objects([], 2, 1), make_objects([1, 1, 1, 2], 3, 2)]
    images = write(path, *batches)
    objects, read_images = read_objects(path)
    assert read_images == images
    assert_identical(objects, Objects.cat(batches))


def test_what_the_model_has_none_of_is_null(path: Path) -> None:
    batches = [make_objects([0, 2], 3), make_objects([], 1), make_objects([0], 1)]
    bare = [part.replace(z_what_scale=None, z_depth=None) for part in batches]
    write(path, *bare)
    table = pq.read_table(path)
    assert table["z_depth"].to_pylist() == table["z_what_scale"].to_pylist() == [None] * 3
    assert_identical(read_objects(path)[0], Objects.cat(bare))


def test_a_field_that_only_some_objects_have_is_damage(path: Path) -> None:
    write(path, make_objects([0], 1), make_objects([0], 1).replace(z_depth=None))
    with pytest.raises(InputError, match="1 of 2 values of 'z_depth' are null"):
        read_objects(path)


def test_files_from_before_columns_could_be_null_are_read(path: Path) -> None:
    objects = make_objects([0, 0, 2], 4)
    write(path, objects)
    whole = pq.ParquetFile(path).read()
    fields = [field.with_nullable(False) for field in whole.schema]
    pq.write_table(whole.cast(pa.schema(fields, whole.schema.metadata)), path)
    assert_identical(read_objects(path)[0], objects)


def test_nothing_found_at_all(path: Path) -> None:
    images = write(path, make_objects([], 3))
    objects, read_images = read_objects(path)
    assert read_images == images
    assert (len(objects), objects.batch_size) == (0, 3)
    assert objects.z_what is not None
    assert objects.z_what.shape == (0, LATENT_DIM)


def test_the_names_of_very_many_empty_images_are_read_back(path: Path) -> None:
    name, number = f"{'x' * 1_000_000}.png", 110
    with ObjectWriter(path, "tiny", CLASSES, LATENT_DIM) as writer:
        writer.write(Objects.empty(number), [name] * number, [(9, 9)] * number)
    assert path.stat().st_size > 100_000_000
    assert read_info(path).images_seen == number


def test_no_images(path: Path) -> None:
    write(path)
    assert read_objects(path)[1] == []


def test_columns_against_an_oracle(path: Path) -> None:
    objects = make_objects([0, 0, 2], 4)
    write(path, objects)
    assert objects.labels is not None
    for row, expected in zip(pq.read_table(path).to_pylist(), range(3), strict=True):
        index = int(objects.image_index[expected])
        height, width = SIZES[index]
        cx, cy, w, h = objects.z_where[expected].tolist()
        box = [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]
        box_px = [min(max(side, 0), 1) * scale for side, scale in zip(box, (width, height) * 2, strict=True)]
        assert [row[f"box_{name}"] for name in ("x1", "y1", "x2", "y2")] == pytest.approx(box_px, abs=1e-4)
        assert (row["image"], row["image_height"], row["image_width"]) == (f"img/{index}.png", height, width)
        assert row["class"] == CLASSES[int(objects.labels[expected])]
        assert len(row["z_what"]) == LATENT_DIM
    types = dict(zip(*(lambda schema: (schema.names, schema.types))(pq.read_schema(path)), strict=True))
    assert types["box_x1"] == types["score"] == types["z_depth"] == pa.float32()
    assert types["z_what"] == types["z_what_scale"] == pa.list_(pa.float32(), LATENT_DIM)


def test_info(path: Path) -> None:
    write(path, make_objects([0, 0, 2], 4))
    info = read_info(path)
    assert (info.model, info.class_names, info.latent_dim) == ("tiny", CLASSES, LATENT_DIM)
    assert info.images_seen == 4
    assert info.images_without_objects == {1: "img/1.png", 3: "img/3.png"}


def test_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "year=2024"
    folder.mkdir()
    write(folder / "objects.parquet", make_objects([0], 1))
    assert len(read_objects(folder / "objects.parquet")[0]) == 1


def test_file_names_may_be_any_bytes(path: Path) -> None:
    with ObjectWriter(path, "tiny", CLASSES, LATENT_DIM) as writer:
        writer.write(make_objects([0], 2), ["caf\udce9.png", "日本.png"], SIZES[:2])
    assert read_objects(path)[1] == ["caf\\xe9.png", "日本.png"]


def test_batch_must_fit(path: Path) -> None:
    with ObjectWriter(path, "tiny", CLASSES, LATENT_DIM) as writer:
        with pytest.raises(ValueError, match="2 images"):
            writer.write(make_objects([0], 2), ["a.png"], SIZES[:2])
        with pytest.raises(ValueError, match="need scores"):
            writer.write(make_objects([0], 1).replace(scores=None), ["a.png"], SIZES[:1])
        with pytest.raises(ValueError, match=r"z_what must be \(M, 5\)"):
            writer.write(make_objects([0], 1).replace(z_what=torch.zeros(1, 3)), ["a.png"], SIZES[:1])


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_objects(tmp_path / "nothing.parquet")
    with pytest.raises(InputError, match="is a folder"):
        read_objects(tmp_path)


def test_foreign_files(path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(InputError, match="did not write"):
        read_objects(path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="not a Parquet file"):
        read_objects(path)


@pytest.mark.parametrize(
    ("header", "sentence"),
    [(b"nonsense", "metadata"), (b"[]", "metadata"), (b"{}", "metadata"), (b'{"format": 99}', "format 99")],
)
def test_damaged_metadata(path: Path, header: bytes, sentence: str) -> None:
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({store.METADATA_KEY: header}), path)
    with pytest.raises(InputError, match=sentence):
        read_objects(path)


def test_columns_of_another_kind(path: Path) -> None:
    write(path, make_objects([0, 0], 1))
    metadata = pq.read_metadata(path).metadata
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match="other columns"):
        read_objects(path)


def test_lost_rows(path: Path) -> None:
    write(path, make_objects([0, 1], 2))
    metadata = pq.read_metadata(path).metadata
    table = pq.ParquetFile(path).read().slice(1).replace_schema_metadata(metadata)
    pq.write_table(table, path)
    with pytest.raises(InputError, match="1 of 2 images"):
        read_objects(path)


def test_damage_never_goes_unnoticed(path: Path) -> None:
    objects = make_objects([0, 0, 2], 4)
    write(path, objects)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for cut in rng.integers(0, len(whole), 20):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError):
            read_objects(path)
    for place in rng.integers(0, pq.ParquetFile(io.BytesIO(whole)).metadata.row_group(0).total_byte_size, 100):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with contextlib.suppress(InputError):
            assert_identical(read_objects(path)[0], objects)
