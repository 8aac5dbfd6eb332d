"""Tests of encoding images from other storages into folders in other storages."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ssdir import storage
from ssdir.encoding.encode import Encoded, encode_images
from ssdir.encoding.options import EncodeOptions
from ssdir.errors import InputError, UnreachableError
from ssdir.storage import Location
from ssdir.store.folder import numbered_files, part_name, read_manifest
from ssdir.store.objects_file import read_stored
from ssdir.store.skipped import read_skipped

IN_PARTS = EncodeOptions(batch_size=2, score_threshold=0.7, images_per_part=3)
NUMBERS = range(7)


@pytest.fixture
def images(tmp_path: Path, picture: NDArray[np.uint8]) -> Path:
    """Writes seven images, of which the fifth is damaged."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in NUMBERS:
        Image.fromarray(np.roll(picture, 3 * number, axis=1)).save(folder / f"{number}.png")
    (folder / "4.png").write_bytes(b"no picture")
    return folder


def copy(images: Path, folder: Location) -> list[Location]:
    copies = [storage.join(folder, path.name) for path in sorted(images.iterdir())]
    for path, there in zip(sorted(images.iterdir()), copies, strict=True):
        storage.write_bytes(there, path.read_bytes())
    return copies


def test_the_same_objects_as_on_this_machine(
    tiny_model_dir: Path, images: Path, any_folder: Location, tmp_path: Path
) -> None:
    there, out = storage.join(any_folder, "images"), storage.join(any_folder, "objects")
    copies = copy(images, there)
    encode_images(str(tiny_model_dir), [images], tmp_path / "here", IN_PARTS)
    encoded = encode_images(str(tiny_model_dir), copies, out, IN_PARTS)
    here, elsewhere = read_stored(tmp_path / "here").table, read_stored(out).table
    assert here.drop_columns(["image"]) == elsewhere.drop_columns(["image"])
    assert set(elsewhere["image"].to_pylist()) == {str(copies[number]) for number in NUMBERS if number != 4}
    (skipped,) = read_skipped(out).to_pylist()
    assert (skipped["image"], skipped["image_index"]) == (str(copies[4]), 4)
    assert (encoded.images, encoded.skipped_images) == (6, 1)


def test_an_encoding_elsewhere_goes_on(tiny_model_dir: Path, images: Path, s3_bucket: str) -> None:
    out = f"{s3_bucket}/objects"
    encode_images(str(tiny_model_dir), [images], out, IN_PARTS)
    whole = read_stored(out).table
    filesystem, path = storage.filesystem_of(f"{out}/{part_name(1)}")
    filesystem.rm(path)
    with pytest.raises(InputError, match="2 of 3 parts"):
        read_stored(out)
    encode_images(str(tiny_model_dir), [images], out, IN_PARTS)
    assert read_stored(out).table == whole
    with pytest.raises(InputError, match="in parts of 3 images"):
        encode_images(str(tiny_model_dir), [images], out, EncodeOptions(images_per_part=4, score_threshold=0.7))
    encode_images(str(tiny_model_dir), [images], out, IN_PARTS, force=True)
    assert read_stored(out).table == whole


def test_a_stopped_command_leaves_the_folder_to_an_equal_one(
    tiny_model_dir: Path, images: Path, any_folder: Location
) -> None:
    out, options = storage.join(any_folder, "objects"), EncodeOptions(batch_size=2)
    begun, first_has_ended = threading.Event(), threading.Event()
    outcomes: list[Encoded] = []

    def wait_in_the_first_part(done: int, *_: object) -> None:
        if done:
            begun.set()
            first_has_ended.wait(60)

    def encode_in_thread() -> None:
        outcomes.append(
            encode_images(str(tiny_model_dir), [images], out, options, on_progress=wait_in_the_first_part)
        )

    second = threading.Thread(target=encode_in_thread)

    def stop_once_another_has_begun(*_: object) -> None:
        second.start()
        begun.wait(60)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode_images(str(tiny_model_dir), [images], out, options, on_progress=stop_once_another_has_begun)
    first_has_ended.set()
    second.join()
    assert [encoded.images for encoded in outcomes] == [6]
    assert read_manifest(out) is not None
    assert len(read_stored(out).by_image()[1]) == 6


def test_what_is_elsewhere_is_not_replaced(tiny_model_dir: Path, images: Path, s3_bucket: str) -> None:
    thesis = f"{s3_bucket}/work/thesis.txt"
    storage.write_bytes(thesis, b"years of work")
    with pytest.raises(InputError, match=r"such as 'thesis\.txt'"):
        encode_images(str(tiny_model_dir), [images], f"{s3_bucket}/work", IN_PARTS, force=True)
    assert storage.read_bytes(thesis) == b"years of work"


def test_outputs_that_cannot_be_written(tiny_model_dir: Path, images: Path, s3_access: str) -> None:
    with pytest.raises(InputError, match=r"leave out \.parquet"):
        encode_images(str(tiny_model_dir), [images], "s3://bucket/objects.parquet", IN_PARTS)
    with pytest.raises(InputError, match="no such bucket"):
        encode_images(str(tiny_model_dir), [images], "s3://not-there/objects", IN_PARTS)


def test_a_storage_that_fails_is_no_skipped_image(
    tiny_model_dir: Path, images: Path, s3_bucket: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = copy(images, f"{s3_bucket}/images")
    monkeypatch.setattr("ssdir.inference.files.read_bytes", unreachable)
    with pytest.raises(UnreachableError, match="no credentials"):
        encode_images(str(tiny_model_dir), copies, out, IN_PARTS)
    assert len(read_skipped(out)) == len(numbered_files(out)) == 0


def unreachable(location: Location) -> bytes:
    raise UnreachableError(f"'{location}' can't be read: no credentials")
