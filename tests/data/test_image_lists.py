"""Tests of images named by lists, folders and patterns, on this machine and in other storages."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ssdir.data import image_lists
from ssdir.data.image_files import find_images, stream_locations
from ssdir.data.image_lists import read_image_list
from ssdir.errors import InputError, InputWarning, UnreachableError
from ssdir.storage import Location, join, write_bytes
from ssdir.store.metadata import images_metadata
from ssdir.store.skipped import write_skipped


def write_list(path: Path, *entries: str) -> Path:
    path.write_text("".join(f"{entry}\n" for entry in entries), encoding="utf-8")
    return path


def test_a_text_list(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    text = (
        f"\ufeff# of June\r\n\r\ns3://bucket/ä b.jpg\r\n  {folder / 'a.png'}  \r\n{(folder / 'c d.png').as_uri()}"
    )
    (tmp_path / "list.txt").write_bytes(text.encode())
    expected = ["s3://bucket/ä b.jpg", folder / "a.png", folder / "c d.png"]
    assert find_images([tmp_path / "list.txt"]) == find_images([(tmp_path / "list.txt").as_uri()]) == expected


def test_relative_names_of_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder, name in ((here, "a.png"), (there, "b.png")):
        folder.mkdir()
        (folder / name).touch()
    monkeypatch.chdir(here)
    # The first relative name decides for all, and no other file is looked for.
    assert find_images([write_list(there / "1.txt", "a.png", "b.png")]) == [Path("a.png"), Path("b.png")]
    assert find_images([write_list(there / "2.txt", "s3://x/y.png", "b.png", "a.png")]) == [
        "s3://x/y.png",
        there / "b.png",
        there / "a.png",
    ]
    mixed = write_list(there / "4.txt", f"{there}/b.png", "b.png")
    assert find_images([mixed]) == [there / "b.png", there / "b.png"]
    with pytest.raises(InputError, match=r"names 'c\.png', which is neither in the current folder nor in that of"):
        find_images([write_list(there / "3.txt", "c.png", "a.png")])


def test_names_of_a_list_elsewhere_are_relative_to_it(memory_folder: str) -> None:
    write_bytes(f"{memory_folder}/lists/a.txt", b"one.png\nmore/two.png\ns3://b/three.png\n")
    expected = [f"{memory_folder}/lists/one.png", f"{memory_folder}/lists/more/two.png", "s3://b/three.png"]
    assert find_images([f"{memory_folder}/lists/a.txt"]) == expected


@pytest.mark.parametrize(
    ("columns", "chosen"),
    [
        ({"label": "x", "url": "u", "path": "p"}, "u"),
        ({"URL": "u", "caption": "x"}, "u"),
        ({"id": 3, "where": "w"}, "w"),
        ({"file_name": "f", "image": 3, "caption": "x"}, "f"),
    ],
)
def test_the_column_of_a_parquet_list(columns: dict[str, object], chosen: str, tmp_path: Path) -> None:
    values = {name: [f"s3://b/{value}" if isinstance(value, str) else value] for name, value in columns.items()}
    pq.write_table(pa.table(values), tmp_path / "list.parquet")
    assert find_images([tmp_path / "list.parquet"]) == [f"s3://b/{chosen}"]
    for kind in (pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        pq.write_table(pa.table({"n": [1], "image": pa.array(["s3://b/x"]).cast(kind)}), tmp_path / "list.parquet")
        assert find_images([tmp_path / "list.parquet"]) == ["s3://b/x"]


def test_a_file_of_objects_is_a_list_of_its_images(tmp_path: Path) -> None:
    images = ["s3://b/a", "s3://b/a", "s3://b/b", "s3://b/c", "s3://b/c"]
    pq.write_table(pa.table({"image": images, "label": ["x"] * 5}), tmp_path / "objects.parquet", row_group_size=2)
    assert find_images([tmp_path / "objects.parquet"]) == ["s3://b/a", "s3://b/b", "s3://b/c"]


def test_images_without_objects_are_in_the_list(tmp_path: Path) -> None:
    path = tmp_path / "objects.parquet"
    table = pa.table({"image": ["s3://b/a", "s3://b/c"]})
    about = images_metadata(2, 3, {1: "s3://b/b"})
    pq.write_table(table.replace_schema_metadata(about), path)
    assert find_images([path]) == ["s3://b/a", "s3://b/c", "s3://b/b"]
    pq.write_table(table[:1].replace_schema_metadata(about), path)
    assert find_images([path]) == ["s3://b/a"]


def test_hidden_folders_are_left_out(any_folder: Location) -> None:
    for name in (".hidden/a.png", "more/.ipynb_checkpoints/a.png", "more/a.png"):
        write_bytes(join(any_folder, name), b"")
    assert find_images([any_folder]) == [join(any_folder, "more/a.png")]
    assert find_images([join(any_folder, ".hidden")]) == [join(any_folder, ".hidden/a.png")]


def test_what_was_skipped_is_a_list(tmp_path: Path) -> None:
    for number, names in ((3, ("a", "b")), (7, ("c",))):
        rows = [{"image_index": 1, "image": f"s3://b/{name}", "reason": "none"} for name in names]
        write_skipped(tmp_path, number, rows)
    assert find_images([tmp_path / "_skipped" / "*.parquet"]) == ["s3://b/a", "s3://b/b", "s3://b/c"]


def test_rows_without_an_image_are_counted(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uri": ["s3://b/a", None, "", "s3://b/b"]}), tmp_path / "list.parquet")
    with pytest.warns(InputWarning, match="2 rows without an image in column 'uri' left out"):
        assert find_images([tmp_path / "list.parquet"]) == ["s3://b/a", "s3://b/b"]


def test_images_that_a_list_repeats_are_counted(tmp_path: Path) -> None:
    path = write_list(
        tmp_path / "list.txt", "s3://b/a", "s3://b/x", "s3://b/x", "s3://b/b", "s3://b/a", "s3://b/b"
    )
    with pytest.warns(
        InputWarning, match=r"2 entries name an image that another names.*\(the first: images 1 and 4 of"
    ):
        assert find_images([path]) == [f"s3://b/{name}" for name in "axbab"]


def damaged_lists(folder: Path) -> Iterator[tuple[Path, str]]:
    yield folder / "none.txt", "none.txt' does not exist"
    yield folder / "none.parquet", "none.parquet' does not exist"
    yield write_list(folder / "empty.txt", "# only this", ""), "names no images"
    (folder / "latin.txt").write_bytes("s3://b/a\ns3://b/ä\n".encode("latin-1"))
    yield folder / "latin.txt", r"not UTF-8 text \(line 2\)"
    (folder / "utf16.txt").write_bytes("s3://b/a\n".encode("utf-16"))
    yield folder / "utf16.txt", r"not UTF-8 text \(line 1\)"
    (folder / "long.txt").write_bytes(b"a" * (1 << 20))
    yield folder / "long.txt", r"not UTF-8 text \(line 1\)"
    (folder / "no.parquet").write_bytes(b"nothing of the kind")
    yield folder / "no.parquet", "can't be read as Parquet"
    pq.write_table(pa.table({"a": ["x"], "b": ["y"], "c": [1]}), folder / "columns.parquet")
    yield folder / "columns.parquet", "has columns a, b, c: call the one of paths or URIs image, uri, url, path or"
    pq.write_table(pa.table({"image": pa.array([], pa.string())}), folder / "rows.parquet")
    yield folder / "rows.parquet", "names no images"


def test_damaged_lists(tmp_path: Path) -> None:
    for path, problem in damaged_lists(tmp_path):
        with pytest.raises(InputError, match=problem):
            find_images([path])


def test_faults_are_named_before_the_first_image(tmp_path: Path) -> None:
    good = write_list(tmp_path / "good.txt", "s3://b/a")
    for other, problem in ((tmp_path / "none.txt", "does not exist"), (tmp_path / "*.jpg", "no image matches")):
        with pytest.raises(InputError, match=problem):
            stream_locations([good, other])


def test_a_list_needs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_lists, "_BATCH_ROWS", 1 << 10)
    count = 50_000
    names = [f"s3://bucket/folder/{number:08d}.jpg" for number in range(count)]
    pq.write_table(pa.table({"image": names}), tmp_path / "list.parquet", row_group_size=1 << 10)
    write_list(tmp_path / "list.txt", *names)
    for path in (tmp_path / "list.parquet", tmp_path / "list.txt"):
        images = stream_locations([path])
        tracemalloc.start()
        assert sum(1 for _ in images) == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        # 8 bytes for each hash, several times while they are compared; a list of the names needs 5 MB.
        assert peak < 3_000_000, path


# Elsewhere ------------------------------------------------------------------------------------------------

NAMES = ["b.png", "a.JPG", "sub/c.webp", "sub/deep/d.tiff", "notes.txt", ".hidden.png", "odd.dat", "e.heic"]


@pytest.fixture
def filled(any_folder: Location) -> Location:
    """Returns a folder of images and other files: on this machine, in memory, or in S3."""
    for name in NAMES:
        write_bytes(join(any_folder, name), b"x")
    return any_folder


@pytest.mark.filterwarnings("ignore::ssdir.errors.InputWarning")
def test_folders_and_patterns_mean_the_same_everywhere(filled: Location) -> None:
    def images(*names: str) -> list[Location]:
        return [join(filled, name) for name in names]

    everything = images("a.JPG", "b.png", "sub/c.webp", "sub/deep/d.tiff")
    with pytest.warns(InputWarning, match=r"1 picture passed over.*\.heic"):
        assert find_images([filled]) == everything
    assert find_images([join(filled, "*")]) == everything
    assert find_images([join(filled, "*.*")]) == everything[:2]
    assert find_images([join(filled, "**/*.webp")]) == everything[2:3]
    assert find_images([join(filled, "[ab].*")]) == everything[:2]
    assert find_images([join(filled, "odd.dat")]) == images("odd.dat")
    assert find_images([join(filled, "b.png"), filled]) == [everything[1], everything[0], *everything[2:]]
    for name, problem in (
        ("no", "does not exist"),
        ("*.bmp", "no image matches"),
        ("e.h*", "1 picture of a kind"),
    ):
        with pytest.raises(InputError, match=problem):
            find_images([join(filled, name)])


def test_lists_elsewhere(any_folder: Location) -> None:
    for name, entries in (("1.txt", b"s3://b/1\ns3://b/2\n"), ("2.txt", b"s3://b/3\ns3://b/1\n")):
        write_bytes(join(any_folder, name), entries)
    expected = [f"s3://b/{number}" for number in (1, 2, 3, 1)]
    assert find_images([join(any_folder, "*.txt")]) == expected
    assert find_images([join(any_folder, name) for name in ("1.txt", "2.txt")]) == expected


def test_an_image_elsewhere_is_not_asked_for_before_it_is_read() -> None:
    addresses = ["http://127.0.0.1:9/a.jpg?size=3", "http://127.0.0.1:9/image/17", "s3://bucket/a.jpg"]
    assert find_images(addresses) == addresses
    with pytest.raises(UnreachableError, match="no kind of storage"):
        find_images(["nope://folder"])


def test_a_prefix_without_images(s3_bucket: str) -> None:
    with pytest.raises(InputError, match="does not exist"):
        find_images([f"{s3_bucket}/none/"])
    write_bytes(f"{s3_bucket}/some/notes.md", b"x")
    with pytest.raises(InputError, match="contains no images, such as"):
        find_images([f"{s3_bucket}/some/"])


def test_entries_are_read_one_by_one(tmp_path: Path) -> None:
    """A fault at the end of a list is reported only when its entry is read."""
    path = tmp_path / "list.txt"
    path.write_bytes(b"s3://b/a\n" + b"s3://b/b\n" * 3 + b"\xff\n")
    images = read_image_list(path)
    assert [*itertools.islice(images, 2)] == ["s3://b/a", "s3://b/b"]
    with pytest.raises(InputError, match="line 5"):
        next(images)
