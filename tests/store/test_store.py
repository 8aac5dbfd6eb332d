import contextlib
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
import torch

from ssdir.errors import InputError
from ssdir.identity import Identity
from ssdir.objects import Objects
from ssdir.store import writer as writer_module
from ssdir.store.objects_file import (
    find_picture,
    read_info,
    read_objects,
    read_stored,
    stream_objects,
)
from ssdir.store.writer import ObjectWriter

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
    with ObjectWriter(path, "tiny", CLASSES, LATENT_DIM, "weights") as writer:
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
    monkeypatch.setattr(writer_module, "ROW_GROUP", row_group)
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
    with pytest.raises(InputError, match=r"row 1 of .* has no z_depth, which other rows have"):
        read_objects(path)


def test_files_from_before_columns_could_be_null_are_read(path: Path) -> None:
    objects = make_objects([0, 0, 2], 4)
    write(path, objects)
    whole = pq.ParquetFile(path).read()
    fields = [field.with_nullable(False) for field in whole.schema]
    pq.write_table(whole.cast(pa.schema(fields, whole.schema.metadata)), path)
    assert_identical(read_objects(path)[0], objects)


def test_nothing_detected_at_all(path: Path) -> None:
    images = write(path, make_objects([], 3))
    objects, read_images = read_objects(path)
    assert read_images == images
    assert (len(objects), objects.batch_size) == (0, 3)
    assert objects.z_what is not None
    assert objects.z_what.shape == (0, LATENT_DIM)


def test_the_names_of_very_many_empty_images_are_read_back(path: Path) -> None:
    name, number = f"{'x' * 1_000_000}.png", 110
    with ObjectWriter(path, "tiny", CLASSES, LATENT_DIM, "weights") as writer:
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


def test_images_that_could_not_be_read_leave_gaps(path: Path) -> None:
    """In a list of seven images, 0, 4 and 5 cannot be read, and nothing is detected in 3."""
    batches = [make_objects([0, 0], 1), make_objects([1, 1], 2), make_objects([0], 1)]
    with ObjectWriter(path, "tiny", CLASSES, LATENT_DIM, "weights") as writer:
        writer.write(batches[0], ["1.png"], SIZES[:1], numbers=[1])
        writer.write(batches[1].replace(image_index=torch.tensor([0, 0])), ["2.png", "3.png"], SIZES[:2])
        writer.write(batches[2], ["6.png"], SIZES[:1], numbers=[6])
    assert pq.read_table(path)["image_index"].to_pylist() == [1, 1, 2, 2, 6]
    info = read_info(path)
    assert (info.images_seen, info.images_without_objects) == (4, {3: "3.png"})
    objects, images = read_objects(path)
    assert images == ["1.png", "2.png", "3.png", "6.png"]
    assert objects.image_index.tolist() == [0, 0, 1, 1, 3]


@pytest.mark.parametrize("numbers", [[1, 1], [2, 1], [0, 5], [1]])
def test_numbers_of_images_increase(path: Path, numbers: list[int]) -> None:
    with ObjectWriter(path, "tiny", CLASSES, LATENT_DIM, "weights") as writer:
        writer.write(make_objects([0], 1), ["a.png"], SIZES[:1])
        with pytest.raises(ValueError, match="numbers"):
            writer.write(make_objects([0, 1], 2), ["b.png", "c.png"], SIZES[:2], numbers=numbers)


def test_folder_named_like_a_partition_adds_no_column(tmp_path: Path) -> None:
    folder = tmp_path / "year=2024"
    folder.mkdir()
    write(folder / "objects.parquet", make_objects([0], 1))
    assert len(read_objects(folder / "objects.parquet")[0]) == 1


def test_file_names_may_be_any_bytes(path: Path) -> None:
    with ObjectWriter(path, "tiny", CLASSES, LATENT_DIM, "weights") as writer:
        writer.write(make_objects([0], 2), ["caf\udce9.png", "日本.png"], SIZES[:2])
    assert read_objects(path)[1] == ["caf\\xe9.png", "日本.png"]


def test_batch_must_fit(path: Path) -> None:
    with ObjectWriter(path, "tiny", CLASSES, LATENT_DIM, "weights") as writer:
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


HEADER = {
    "format": 2,
    "model": "tiny",
    "class_names": CLASSES,
    "latent_dim": LATENT_DIM,
    "fingerprint": "weights",
    "ssdir_version": "1",
}
NO_IMAGES = {"objects": 3, "images_seen": 10**9, "images_without_objects": {}}


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("ssdir", "nonsense", "its metadata: not valid JSON at line 1"),
        ("ssdir", "[" * 100_000, "too deep to read"),
        ("ssdir", [], "expected keys and values, got \\[\\]"),
        ("ssdir", {}, "'model' is missing"),
        ("ssdir", {"format": 1, "model": "tiny"}, "has format 1, this ssdir reads 2: encode the images again"),
        ("ssdir", {**HEADER, "class_names": "cat"}, "'class_names' must be a list"),
        ("ssdir", {**HEADER, "class_names": []}, "'class_names' must have "),
        ("ssdir", {**HEADER, "fingerprint": ""}, "'fingerprint' must have "),
        ("ssdir", {**HEADER, "latent_dim": 10**9}, "'latent_dim' must be "),
        ("ssdir", {**HEADER, "latent_dim": "5"}, "'latent_dim' must be "),
        ("ssdir", {**HEADER, "latent_dim": 6}, "embeddings of 5 numbers, those of its model have 6"),
        ("ssdir.images", {"objects": 3}, "'images_seen' is missing"),
        ("ssdir.images", NO_IMAGES, "1,000,000,000 images, and names fewer"),
        ("ssdir.images", {**NO_IMAGES, "images_seen": 2, "images_without_objects": {"x": "a"}}, "x"),
        ("ssdir.images", {**NO_IMAGES, "images_seen": 1}, "counts 1 images, its rows others"),
    ],
)
def test_damaged_metadata_is_one_sentence(path: Path, key: str, value: object, sentence: str) -> None:
    """Every header below is wrong in one way; the last counts one image, where rows are of two."""
    write(path, make_objects([0, 0, 2], 4))
    table = pq.ParquetFile(path).read()
    text = value if isinstance(value, str) else json.dumps(value)
    about = {**table.schema.metadata, key.encode(): text.encode()}
    about[b"ssdir.images.crc32"] = str(zlib.crc32(about[b"ssdir.images"])).encode()
    del about[b"PANDAS_ATTRS"]
    pq.write_table(table.replace_schema_metadata(about), path)
    with pytest.raises(InputError, match=sentence):
        read_objects(path)


def test_metadata_that_names_two_models_is_damage(path: Path) -> None:
    write(path, make_objects([0], 1))
    table = pq.ParquetFile(path).read()
    about = {**table.schema.metadata, b"ssdir": json.dumps({**HEADER, "class_names": ["cat", "dot"]}).encode()}
    pq.write_table(table.replace_schema_metadata(about), path)
    with pytest.raises(InputError, match="its metadata names two models"):
        read_info(path)


@pytest.mark.parametrize("key", [b"ssdir.images", b"ssdir.images.crc32"])
def test_names_of_images_that_have_changed_are_damage(path: Path, key: bytes) -> None:
    """No page of the file holds the path of an image without objects, so no page's checksum covers it."""
    write(path, make_objects([0], 2))
    table = pq.ParquetFile(path).read()
    about = table.schema.metadata
    for changed in ({key: about[key].replace(b"1", b"2")}, {key + b"x": about[key]}):
        kept = {name: value for name, value in about.items() if name != key}
        pq.write_table(table.replace_schema_metadata({**kept, **changed}), path)
        with pytest.raises(InputError, match=r"its metadata under ssdir\.images has changed"):
            read_info(path)


def test_metadata_that_is_no_text_is_one_sentence(path: Path) -> None:
    write(path, make_objects([0], 1))
    table = pq.ParquetFile(path).read()
    pq.write_table(table.replace_schema_metadata({b"ssdir": b"\xff\xfe\xff"}), path)
    with pytest.raises(InputError, match="not valid JSON"):
        read_objects(path)


# Files that other tools have written ---------------------------------------------------------------------


def by_dataset(path: Path, out: Path, least: float) -> None:
    pq.write_table(pyarrow.dataset.dataset(path).to_table(filter=pc.field("score") >= least), out)


def by_read_table(path: Path, out: Path, least: float) -> None:
    table = pq.read_table(path)
    pq.write_table(table.filter(pc.greater_equal(table["score"], least)), out)


def by_parquet_file(path: Path, out: Path, least: float) -> None:
    """Keeps all metadata, that of the images too, which is then no longer right."""
    table = pq.ParquetFile(path).read()
    pq.write_table(table.filter(pc.greater_equal(table["score"], least)), out)


def by_pandas(path: Path, out: Path, least: float) -> None:
    frame = pandas.read_parquet(path)
    frame[frame["score"] >= least].to_parquet(out)


@pytest.mark.parametrize("select", [by_dataset, by_read_table, by_parquet_file, by_pandas])
@pytest.mark.parametrize("bare", [False, True])
def test_selected_rows_keep_their_model(
    path: Path, tmp_path: Path, select: Callable[[Path, Path, float], None], bare: bool
) -> None:
    """Five objects are in images 1, 1, 3, 4 and 4 of six; the two of image 4 and one of image 1 remain."""
    objects = make_objects([1, 1, 3, 4, 4], 6).replace(scores=torch.tensor([0.9, 0.1, 0.2, 0.8, 0.5]))
    objects = objects.replace(z_what_scale=None, z_depth=None) if bare else objects
    images = write(path, objects)
    select(path, tmp_path / "selected.parquet", 0.5)
    info = read_info(tmp_path / "selected.parquet")
    assert (info.model, info.class_names, info.fingerprint) == ("tiny", CLASSES, "weights")
    assert (info.objects, info.images_seen, info.images_without_objects) == (3, None, {})
    kept_objects, named = read_objects(tmp_path / "selected.parquet")
    assert named == [images[1], images[4]]
    kept = objects[torch.tensor([0, 3, 4])]
    assert_identical(kept_objects, kept.replace(image_index=torch.tensor([0, 1, 1]), batch_size=2))


def test_no_rows_that_pandas_selected(path: Path) -> None:
    write(path, make_objects([0, 0, 2], 4))
    pandas.read_parquet(path).query("score > 2").to_parquet(path)
    objects, images = read_objects(path)
    assert (len(objects), objects.batch_size, images) == (0, 0, [])
    assert objects.z_what is not None
    assert objects.z_what.shape == (0, LATENT_DIM)


def test_rows_in_another_order_are_read_by_image(path: Path) -> None:
    """In the order of their scores, the objects are of images 1, 0 and 1."""
    objects = make_objects([0, 0, 1, 1], 2).replace(scores=torch.tensor([0.5, 0.0, 0.1, 0.9]))
    images = write(path, objects)
    pandas.read_parquet(path).nlargest(3, "score").to_parquet(path)
    read, named = read_objects(path)
    assert named == [images[1], images[0]]
    assert_identical(read, objects.regrouped(torch.tensor([3, 2, 0]), torch.tensor([0, 0, 1]), 2))


def test_files_that_follow_each_other_are_one(tmp_path: Path) -> None:
    """Both files count their images from 0."""
    parts = [make_objects([0, 1], 2), make_objects([0], 1, 1)]
    for number, part in enumerate(parts):
        with ObjectWriter(tmp_path / f"{number}.parquet", "tiny", CLASSES, LATENT_DIM, "weights") as writer:
            writer.write(
                part, [f"{number}-{image}.png" for image in range(part.batch_size)], SIZES[: part.batch_size]
            )
    tables = [pq.read_table(tmp_path / f"{number}.parquet") for number in range(2)]
    pq.write_table(pa.concat_tables(tables), tmp_path / "both.parquet")
    read, named = read_objects(tmp_path / "both.parquet")
    assert named == ["0-0.png", "0-1.png", "1-0.png"]
    assert_identical(read, Objects.cat(parts))


def without_metadata(path: Path) -> None:
    """Rewrites a file as DuckDB and Polars do: with lists of any length, and without the model's metadata."""
    table = pq.read_table(path)
    fields = [
        field.with_type(pa.list_(pa.float32())) if pa.types.is_fixed_size_list(field.type) else field
        for field in table.schema
    ]
    pq.write_table(table.cast(pa.schema(fields)), path)


def test_a_lost_model_is_named(path: Path) -> None:
    objects = make_objects([0, 0], 1)
    write(path, objects)
    without_metadata(path)
    with pytest.raises(InputError, match=r"does not say which model encoded it.*name the model with --model"):
        read_objects(path)
    assert_identical(read_objects(path, identity())[0], objects)
    with pytest.raises(InputError, match="a row has 5 numbers, expected 6"):
        read_objects(path, identity(latent_dim=6))
    with pytest.raises(InputError, match="class is not the name of the label"):
        read_objects(path, identity(class_names=["ant", "bee"]))


def identity(**changes: object) -> Identity:
    about = {"model": "here", "class_names": CLASSES, "latent_dim": LATENT_DIM, "fingerprint": "weights"}
    return Identity(**{**about, **changes})  # type: ignore[arg-type]


def test_objects_go_with_their_own_model_only(path: Path) -> None:
    write(path, make_objects([0], 1))
    assert read_info(path, identity()).model == "here"
    with pytest.raises(InputError, match=r"'tiny'\) and 'here' don't go together: embeddings of different models"):
        read_objects(path, identity(fingerprint="other"))


# Values --------------------------------------------------------------------------------------------------


def test_columns_are_checked_on_opening(path: Path) -> None:
    write(path, make_objects([0, 0], 1))
    whole = pq.ParquetFile(path).read()
    cases = {
        "has no column 'z_what'": whole.drop_columns("z_what"),
        "has 2 columns called 'score'": whole.append_column("score", whole["score"]),
        "has 2 columns called 'note'": whole.append_column("note", whole["score"]).append_column(
            "note", whole["score"]
        ),
    }
    for sentence, table in cases.items():
        pq.write_table(table, path)
        with pytest.raises(InputError, match=sentence):
            read_info(path)


def test_types_of_columns_are_checked_on_reading(path: Path) -> None:
    write(path, make_objects([0, 0], 1))
    whole = pq.ParquetFile(path).read()
    short = pa.array([[0.1] * 3] * 2, pa.list_(pa.float32(), 3))
    cases = {
        "the column 'label' of .* holds string, expected int32": whole.set_column(9, "label", [["a", "b"]]),
        "the column 'label' of .* holds double, expected int32": whole.set_column(9, "label", [[0.0, 0.5]]),
        "the column 'z_where' of .* holds fixed_size_list<.*>\\[3\\]": whole.set_column(11, "z_where", short),
        "the column 'z_what_scale' of .* holds string": whole.set_column(13, "z_what_scale", [["a", "b"]]),
        "the column 'image_index' of .* holds string": whole.set_column(1, "image_index", [["a", "b"]]),
        "row 0 of .* has no score": whole.set_column(10, "score", pa.nulls(2)),
    }
    for sentence, table in cases.items():
        pq.write_table(table, path)
        with pytest.raises(InputError, match=sentence):
            read_stored(path)


NAN, INFINITE = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("z_what", [NAN, 0, 0, 0, 0], "z_what is not a finite number"),
        ("z_what", [0, 0, 0, 0, INFINITE], "z_what is not a finite number"),
        ("z_what", [3e38, 3e38, 0, 0, 0], "z_what is too large"),
        ("z_what", [None, 0, 0, 0, 0], "z_what is not a finite number"),
        ("z_what", None, "has no z_what"),
        ("z_what_scale", [NAN] * 5, "z_what_scale is not a finite number"),
        ("z_where", [0.5, 0.5, -0.1, 0.1], "z_where has a negative size"),
        ("z_where", [0.5, NAN, 0.1, 0.1], "z_where is not a finite number"),
        ("z_depth", INFINITE, "z_depth is not a finite number"),
        ("score", NAN, "score is not a finite number"),
        ("score", 1.5, "score must be within 0 ... 1"),
        ("label", 2, "label must be within 0 ... 1"),
        ("label", -1, "label must be within 0 ... 1"),
        ("class", "eel", "class is not the name of the label"),
        ("class", None, "has no class"),
        ("image", None, "has no image"),
        ("image_height", 0, "image_height and image_width must be at least 1"),
        ("image_index", -3, "image_index is negative"),
        ("anchor_index", -1, "anchor_index is negative"),
        ("box_x1", NAN, "box_x1 is not a finite number"),
        ("box_x2", -1.0, "the box has a negative size"),
        ("box_x2", 9e9, "the box reaches over the edge of its image"),
    ],
)
@pytest.mark.parametrize(
    "read", [read_objects, lambda path: list(stream_objects(read_info(path), 2)), read_stored]
)
def test_wrong_values_are_named_by_their_row(
    path: Path, column: str, value: object, sentence: str, read: Callable[[Path], object]
) -> None:
    write(path, make_objects([0, 0, 0, 1], 2))
    table = pq.ParquetFile(path).read()
    values = table[column].to_pylist()
    values[2] = value
    field = table.schema.field(column).with_nullable(True)
    number = table.schema.get_field_index(column)
    pq.write_table(table.set_column(number, field, pa.array(values, field.type)), path)
    with pytest.raises(InputError, match=rf"row 2 of .*{sentence}"):
        read(path)


def test_what_a_model_makes_of_an_image_is_checked_before_it_is_written(path: Path) -> None:
    objects = make_objects([0, 1], 2)
    assert objects.z_what is not None
    objects.z_what[1, 2] = NAN
    with (
        pytest.raises(
            InputError, match=r"row 1 as the model encoded it \(image 'b.png'\).*z_what is not a finite"
        ),
        ObjectWriter(path, "tiny", CLASSES, LATENT_DIM, "weights") as writer,
    ):
        writer.write(objects, ["a.png", "b.png"], SIZES[:2])


def test_pictures_are_looked_for_by_name_then_in_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("here.png", "there/sub/a.png", "there/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_picture("here.png", ".", "there") == Path("here.png")
    assert find_picture("sub/a.png", ".", "there") == Path("there/sub/a.png")
    assert find_picture(str(tmp_path / "here.png"), "there") == tmp_path / "here.png"
    assert find_picture("/gone/b.png", ".", "there") == Path("/gone/b.png")
    assert find_picture("/gone/b.png", ".", beside="there") == Path("there/b.png")
    assert find_picture("/gone/sub/a.png", ".", beside="there") == Path("there/sub/a.png")
    assert find_picture("/gone/sub/c.png", ".", beside="there") == Path("/gone/sub/c.png")
    (tmp_path / "there" / "a.png").touch()
    assert find_picture("/gone/sub/a.png", ".", beside="there") == Path("there/sub/a.png"), "the longest ending"
    assert find_picture("gone.png", "there", ".") == Path("there/gone.png")
    # Names that no file system takes.
    assert find_picture("x" * 5000, ".") == Path("x" * 5000)
    assert find_picture("a\0b.png", ".", beside="there") == Path("a\0b.png")


def test_pieces_are_read_in_bounded_memory(path: Path) -> None:
    count, rng = 8192, torch.Generator().manual_seed(0)
    one = make_objects([0] * count, 1)
    with ObjectWriter(path, "tiny", CLASSES, 64, "weights") as writer:
        for number in range(12):
            writer.write(
                one.replace(z_what=torch.randn(count, 64, generator=rng), z_what_scale=None),
                [f"{number}"],
                SIZES[:1],
            )
    before = pa.total_allocated_bytes()
    in_memory = [pa.total_allocated_bytes() - before for _ in stream_objects(read_info(path))]
    assert max(in_memory) < path.stat().st_size / 2


@pytest.mark.parametrize("with_further_columns", [False, True])
def test_damage_never_goes_unnoticed(path: Path, with_further_columns: bool) -> None:
    objects = make_objects([0, 0, 2], 4)
    write(path, objects)
    if with_further_columns:
        read_stored(path).write(path, {"cluster": np.arange(3)}, force=True)
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
