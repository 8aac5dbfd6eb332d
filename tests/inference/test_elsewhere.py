"""Images in other storages are encoded as local ones are, fetched ahead, and skipped or refused one by one."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import ssdir
from clip_files import moving_squares, write_video
from command_line import ok, refused
from ssdir import storage
from ssdir.data.image_files import find_images
from ssdir.errors import InputError, UnreachableError
from ssdir.inference import files
from ssdir.inference.files import encode_files
from ssdir.inference.predictor import Predictor
from ssdir.objects import Objects
from ssdir.storage import Location, join, write_bytes
from ssdir.store.objects_file import read_objects
from storages import use_environment

NAMES = [f"{number}.png" for number in range(6)]


@pytest.fixture(scope="module")
def predictor(tiny_model_dir: Path) -> Predictor:
    return ssdir.load(tiny_model_dir, "cpu")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """Writes a folder of images, one of them damaged."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for name in NAMES:
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / name)
    (folder / NAMES[2]).write_bytes(b"no image")
    return folder


def uploaded(local: Path, folder: Location) -> list[Location]:
    """Uploads the same images, and returns their locations and one of a missing image."""
    for name in NAMES:
        write_bytes(join(folder, name), (local / name).read_bytes())
    return [join(folder, name) for name in [*NAMES, "missing.png"]]


def assert_same(one: Objects, other: Objects) -> None:
    assert one.counts.tolist() == other.counts.tolist()
    assert one.z_what is not None
    assert other.z_what is not None
    assert np.array_equal(one.z_what, other.z_what)


@pytest.mark.parametrize("readers", [0, 2])
def test_images_elsewhere_are_encoded_as_local_ones_are(
    predictor: Predictor, local: Path, any_folder: Location, readers: int
) -> None:
    paths = uploaded(local, any_folder)
    paths[1] = local / NAMES[1]  # A list may mix storages.
    batches = [*encode_files(predictor, paths, 4, readers=readers, score_threshold=0.5)]
    whole = Objects.cat([batch.objects for batch in batches])
    assert len(whole)
    assert [index for batch in batches for index in batch.indices] == [0, 1, 3, 4, 5]
    assert [path for batch in batches for path in batch.paths] == [paths[index] for index in (0, 1, 3, 4, 5)]
    read = [name for name in NAMES if name != NAMES[2]]
    assert_same(whole, predictor.encode([local / name for name in read], 0.5))
    skipped = [image for batch in batches for image in batch.skipped]
    assert [(image.index, image.location) for image in skipped] == [(2, paths[2]), (6, paths[6])]
    assert str(skipped[0]) == f"'{paths[2]}' is not an image in a known format"
    assert str(skipped[1]).startswith(f"'{paths[6]}' does not exist")


def test_a_predictor_takes_uris_folders_and_lists(predictor: Predictor, local: Path, memory_folder: str) -> None:
    (local / NAMES[2]).unlink()
    read = [name for name in NAMES if name != NAMES[2]]
    for name in read:
        write_bytes(f"{memory_folder}/{name}", (local / name).read_bytes())
    write_bytes(f"{memory_folder}/list.txt", "\n".join(read).encode())
    expected = predictor.encode(local, 0.5)
    assert len(expected)
    uris = [f"{memory_folder}/{name}" for name in read]
    for images in (uris, memory_folder, f"{memory_folder}/*.png", f"{memory_folder}/list.txt", local.as_uri()):
        assert_same(predictor.encode(images, 0.5), expected)
    boxes: Any = {"boxes": [np.array([[1, 2, 12, 9]])] * len(read), "box_unit": "pixels"}
    assert_same(predictor.encode(uris, **boxes), predictor.encode(local, **boxes))


def test_frames_of_a_video_elsewhere_are_encoded(predictor: Predictor, tmp_path: Path, memory_folder: str) -> None:
    video = write_video(tmp_path / "a.mkv", moving_squares(4))
    write_bytes(f"{memory_folder}/a.mkv", video.read_bytes())
    expected = predictor.encode([f"{video}#frame=1", f"{video}#frame=3"], 0.1)
    names: list[Location] = [f"{memory_folder}/a.mkv#frame=1", f"{memory_folder}/a.mkv#frame=3"]
    assert len(expected)
    assert_same(predictor.encode(names, 0.1), expected)
    (batch,) = encode_files(predictor, names, 4, score_threshold=0.1)
    assert not batch.skipped
    assert_same(batch.objects, expected)


def test_a_storage_that_fails_ends_the_encoding(
    predictor: Predictor, local: Path, s3_access: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No image of a failing storage is skipped, because the next run may be able to read them all."""
    use_environment(monkeypatch, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", HOME=str(tmp_path))
    paths: list[Location] = [local / NAMES[0], "s3://bucket/a.png"]
    for readers in (0, 2):
        with pytest.raises(UnreachableError, match="no credentials were found"):
            list(encode_files(predictor, paths, readers=readers))


@pytest.mark.parametrize("readers", [0, 2])
def test_images_are_fetched_at_once_and_not_all_in_advance(
    predictor: Predictor, local: Path, readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, fetched, at_once, most = (local / NAMES[0]).read_bytes(), 0, 0, 0
    lock = threading.Lock()

    def slow(_: Location) -> bytes:
        nonlocal fetched, at_once, most
        with lock:
            fetched, at_once = fetched + 1, at_once + 1
            most = max(most, at_once)
        time.sleep(0.02)
        with lock:
            at_once -= 1
        return content

    monkeypatch.setattr(files, "read_bytes", slow)
    batches: Any = encode_files(predictor, [f"memory://{number}.png" for number in range(400)], 4, readers=readers)
    next(batches)
    assert most > 4
    assert fetched <= 4 + 4 + 2 * files.FETCHERS
    batches.close()


def test_the_command_encodes_a_list_of_uris(
    tiny_model_dir: Path, local: Path, s3_bucket: str, tmp_path: Path
) -> None:
    uris = uploaded(local, s3_bucket)
    (tmp_path / "list.txt").write_text("\n".join(map(str, uris)))
    out = tmp_path / "objects.parquet"
    result = ok("encode", tiny_model_dir, tmp_path / "list.txt", "--out", out, "--score-threshold", 0.5)
    objects, images = read_objects(out)
    assert len(objects)
    assert set(images) <= {str(uri) for uri in uris}
    assert f"skipped: '{uris[2]}' is not an image" in result.stderr
    assert f"skipped: '{uris[6]}' does not exist" in result.stderr


def test_the_command_reports_what_is_wrong_with_a_storage(
    tiny_model_dir: Path, s3_access: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refusal(images: str) -> str:
        return str(refused("encode", tiny_model_dir, images, "--out", tmp_path / "o.parquet"))

    assert "'s3://nowhere/a.png' does not exist (no such bucket)" in refusal("s3://nowhere/a.png")
    assert "'s3://nowhere/a/' does not exist" in refusal("s3://nowhere/a/")
    assert "nope:// is no kind of storage" in refusal("nope://a.png")
    monkeypatch.setattr(storage, "ATTEMPTS", 1)
    use_environment(monkeypatch, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert "can't be reached: check the endpoint or the network" in refusal("s3://bucket/a/")
    use_environment(monkeypatch, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", HOME=str(tmp_path))
    assert "no credentials were found" in refusal("s3://bucket/a.png")
    with pytest.raises(InputError, match="no credentials"):
        find_images(["s3://bucket/*.png"])
