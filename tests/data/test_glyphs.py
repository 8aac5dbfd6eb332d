import gzip
import os
import struct
import tracemalloc
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ssdir.data.scatter import glyphs as module
from ssdir.data.scatter.glyphs import SPLITS, Glyphs, load_glyphs
from ssdir.errors import InputError

from .real import real_data

MNIST, needs_mnist = real_data("MNIST")


def idx(array):
    return struct.pack(f">BBBB{array.ndim}i", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def mnist_arrays():
    rng = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": rng.integers(0, 256, (24, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": rng.integers(0, 10, 24, dtype=np.uint8),
        "t10k-images-idx3-ubyte": rng.integers(0, 256, (5, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": rng.integers(0, 10, 5, dtype=np.uint8),
    }


@pytest.fixture
def mnist_root(tmp_path, mnist_arrays):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, array in mnist_arrays.items():
        (raw / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    return tmp_path


@pytest.fixture
def glyph_folder(tmp_path):
    for name in ("square", "bar"):
        (tmp_path / name).mkdir()
        for i in range(60):
            glyph = np.zeros((10, 8), np.uint8)
            glyph[2:8, 2 : 6 if name == "square" else 3] = 200 + i % 50
            Image.fromarray(glyph).save(tmp_path / name / f"{i}.png")
    return tmp_path


def assert_partition(parts: list[Glyphs], total: int):
    indices = np.concatenate([part.indices for part in parts])
    assert len(indices) == len(np.unique(indices)) == total
    assert (indices.min(), indices.max()) == (0, total - 1)


def test_digits_are_split_60_15_25_in_every_class():
    parts = [load_glyphs("digits", split) for split in SPLITS]
    assert_partition(parts, 1797)
    for digit in range(10):
        counts = np.array([(part.labels == digit).sum() for part in parts])
        assert counts / counts.sum() == pytest.approx([0.60, 0.15, 0.25], abs=0.01)


def test_digits_are_scikit_learns_at_full_contrast():
    bunch, part = load_digits(), load_glyphs("digits", "test")
    assert part.class_names == [str(digit) for digit in range(10)]
    assert np.array_equal(part.labels, bunch.target[part.indices])
    for image, index in zip(part.images, part.indices, strict=True):
        assert image.dtype == np.uint8
        assert np.array_equal(image, np.rint(bunch.images[index] / 16 * 255))


def test_the_split_never_changes():
    # A change would silently turn training glyphs of published results into test glyphs.
    assert load_glyphs("digits", "test").indices[:8].tolist() == [9, 12, 16, 19, 22, 28, 33, 37]


@pytest.mark.parametrize("below", ["", "MNIST", "MNIST/raw"])
def test_mnist_is_read_from_gz_files_without_writing(mnist_root, mnist_arrays, below):
    before = sorted(mnist_root.rglob("*"))
    parts = [load_glyphs("mnist", split, mnist_root / below) for split in SPLITS]
    assert sorted(mnist_root.rglob("*")) == before
    assert [len(part) for part in parts] == [22, 2, 5]
    for part, kind, rows in zip(
        parts, ("train", "train", "t10k"), (slice(22), slice(22, 24), slice(5)), strict=True
    ):
        assert np.array_equal(np.stack(part.images), mnist_arrays[f"{kind}-images-idx3-ubyte"][rows])
        assert np.array_equal(part.labels, mnist_arrays[f"{kind}-labels-idx1-ubyte"][rows])
    assert len(np.unique(np.concatenate([part.indices for part in parts]))) == 29


def test_mnist_is_read_from_plain_files(tmp_path, mnist_arrays):
    for name, array in mnist_arrays.items():
        (tmp_path / name).write_bytes(idx(array))
    assert len(load_glyphs("mnist", "test", tmp_path)) == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "not a readable idx"),
        (gzip.compress(bytes(99))[:10] + b"\xff" * 20, "not a readable idx"),
        (gzip.compress(b"\0\0\x08\x03 short"), "idx file of bytes"),
        (gzip.compress(idx(np.zeros((5, 28, 28), np.uint8))[:-1]), "cut short"),
        (gzip.compress(idx(np.zeros((5, 28, 28), np.uint8)))[:-12], "not a readable idx"),
        (gzip.compress(idx(np.zeros((5, 28, 28), np.uint8)) + b"x"), "longer than its 5 x 28 x 28 bytes"),
        (gzip.compress(bytes([0, 0, 8, 3]) + b"\xff" * 12), "4294967295 x 4294967295 .*at most 600,000,000 bytes"),
        (gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 10**6, 28, 28)), "at most 600,000,000 bytes"),
        (gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 5, 0, 28)), "sides of 1 ... 256"),
        (gzip.compress(idx(np.zeros((4, 28, 28), np.uint8))), "4 images but 5 labels"),
    ],
    # By default an id holds the bytes, and gzip writes the time into them: each process would have other ids.
    ids=("no gzip", "damaged", "short", "cut", "unended", "longer", "huge", "many", "no height", "few images"),
)
def test_damaged_mnist_is_named(mnist_root, content, message):
    (mnist_root / "MNIST/raw/t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_glyphs("mnist", "test", mnist_root)


def test_no_more_is_decompressed_than_the_sizes_say(mnist_root):
    """The file has 128 MiB of zeros behind a header of five images."""
    file = mnist_root / "MNIST" / "raw" / "t10k-images-idx3-ubyte.gz"
    squeeze = zlib.compressobj(wbits=31)
    with file.open("wb") as stream:
        stream.write(squeeze.compress(idx(np.zeros((5, 28, 28), np.uint8))))
        for _ in range(8):
            stream.write(squeeze.compress(bytes(1 << 24)))
        stream.write(squeeze.flush())
    tracemalloc.start()
    with pytest.raises(InputError, match="longer than its 5 x 28 x 28 bytes"):
        load_glyphs("mnist", "test", mnist_root)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_labels_are_digits(tmp_path, mnist_arrays):
    for name, array in mnist_arrays.items():
        (tmp_path / name).write_bytes(idx(np.full_like(array, 10) if array.ndim == 1 else array))
    with pytest.raises(InputError, match=r"t10k-labels-idx1-ubyte: a label is 10, but digits are 0 \.\.\. 9"):
        load_glyphs("mnist", "test", tmp_path)


def test_the_message_for_missing_mnist_names_the_files(tmp_path):
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.*as root"):
        load_glyphs("mnist", "train", tmp_path)


def test_mnist_without_root_or_network(tmp_path, monkeypatch):
    import torchvision.datasets

    def no_network(*args, **kwargs):
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(torchvision.datasets, "MNIST", no_network)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    with pytest.raises(InputError, match=r"could not be downloaded.*as root"):
        load_glyphs("mnist", "train")


@needs_mnist
def test_the_real_mnist():
    parts = [load_glyphs("mnist", split, MNIST) for split in SPLITS]
    assert [len(part) for part in parts] == [55_000, 5_000, 10_000]
    assert_partition(parts, 70_000)
    assert parts[2].labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(parts[2].labels).tolist()[:2] == [980, 1135]


def test_folders_are_split_by_file_name(glyph_folder):
    parts = [load_glyphs(str(glyph_folder), split) for split in SPLITS]
    assert_partition(parts, 120)
    assert parts[0].class_names == ["bar", "square"]
    assert len(parts[0]) > len(parts[2]) > len(parts[1]) > 0
    for part in parts:
        for image, label in zip(part.images, part.labels, strict=True):
            assert ((image > 0).sum() == 36 - 12) == (label == 1)
            assert ((image > 0).sum() == 6) == (label == 0)


def test_folders_are_split_the_same_in_each_unicode_form_of_the_names(tmp_path):
    for form in ("NFC", "NFD"):
        (tmp_path / form / "a").mkdir(parents=True)
        for number in range(30):
            name = unicodedata.normalize(form, f"ä{number:02d}.png")
            Image.new("L", (8, 8), 100).save(tmp_path / form / "a" / name)
    for split in SPLITS:
        composed, decomposed = (load_glyphs(str(tmp_path / form), split).indices for form in ("NFC", "NFD"))
        assert composed.tolist() == decomposed.tolist()


def test_adding_a_file_moves_no_other(glyph_folder):
    def brightest(split):
        return sorted(int(image.max()) for image in load_glyphs(str(glyph_folder), split).images)

    before = [brightest(split) for split in SPLITS]
    Image.new("L", (4, 4), 99).save(glyph_folder / "bar" / "0a.png")
    after = [brightest(split) for split in SPLITS]
    assert sum(part.count(99) for part in after) == 1
    assert [[value for value in part if value != 99] for part in after] == before


def test_dark_ink_on_light_paper_is_inverted(tmp_path):
    (tmp_path / "x").mkdir()
    glyph = np.full((9, 9, 3), 250, np.uint8)
    glyph[3:6, 3:6] = 10
    for i in range(30):
        Image.fromarray(glyph).save(tmp_path / "x" / f"{i}.png")
    image = load_glyphs(str(tmp_path), "train").images[0]
    assert image[4, 4] == 245
    assert image[0, 0] == 5


@pytest.mark.parametrize(("ink", "expected"), [(0, 255), (60, 195), (255, 255), (200, 200)])
def test_ink_on_transparent_ground_is_light_ink_on_black(tmp_path, ink, expected):
    (tmp_path / "x").mkdir()
    glyph = np.full((9, 9, 4), 90, np.uint8)
    glyph[..., 3] = 0
    glyph[2:7, 2:7] = (ink, ink, ink, 255)
    for i in range(30):
        Image.fromarray(glyph).save(tmp_path / "x" / f"{i}.png")
    image = load_glyphs(str(tmp_path), "train").images[0]
    assert image[2:7, 2:7].tolist() == [[expected] * 5] * 5
    assert image.sum() == 25 * expected


@pytest.mark.parametrize("alpha", [None, 255, 0])
def test_a_glyph_without_ink_is_an_error(tmp_path, alpha):
    (tmp_path / "x").mkdir()
    for i in range(30):
        image = Image.new("L", (8, 8))
        if alpha is not None:
            image.putalpha(alpha)
        image.save(tmp_path / "x" / f"{i}.png")
    with pytest.raises(InputError, match=r"glyph '.*x/\d+\.png' has no ink.*remove it"):
        load_glyphs(str(tmp_path), "train")


@pytest.mark.parametrize(
    ("source", "message"), [("digit", "did you mean 'digits'"), ("/nowhere/at/all", "nor a folder")]
)
def test_unknown_sources(source, message):
    with pytest.raises(InputError, match=message):
        load_glyphs(source, "train")


def test_unknown_splits_and_unusable_folders(tmp_path):
    with pytest.raises(InputError, match="did you mean 'train'"):
        load_glyphs("digits", "trian")
    with pytest.raises(InputError, match="no subfolders"):
        load_glyphs(str(tmp_path), "train")
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="contains no images"):
        load_glyphs(str(tmp_path), "train")
    Image.new("L", (4, 4)).save(tmp_path / "a" / "only.png")
    empty = next(split for split in SPLITS if module._folder_split("a/only.png") != split)
    with pytest.raises(InputError, match="too small"):
        load_glyphs(str(tmp_path), empty)
    (tmp_path / os.fsdecode(b"caf\xe9")).mkdir()
    with pytest.raises(InputError, match=r"subfolder 'caf\\udce9' is not UTF-8 text: rename it"):
        load_glyphs(str(tmp_path), "train")
