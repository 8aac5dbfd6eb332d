import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import ssdir
from ssdir.data.image_files import find_images
from ssdir.errors import InputError
from ssdir.inference import files as module
from ssdir.inference.files import encode_files
from ssdir.inference.predictor import Predictor, choose_device
from ssdir.models.io import load_model
from ssdir.objects import Objects

THRESHOLD = 0.7
Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def predictor(tiny_model_dir: Path) -> Predictor:
    return ssdir.load(tiny_model_dir, device="cpu")


def assert_equal(left: Objects, right: Objects) -> None:
    assert left.batch_size == right.batch_size
    assert left._tensors().keys() == right._tensors().keys()
    for name, tensor in left._tensors().items():
        torch.testing.assert_close(tensor, getattr(right, name), msg=name)


def test_face(predictor: Predictor) -> None:
    assert predictor.class_names == ["cat", "dog", "eel"]
    assert predictor.image_size == 64
    assert not predictor.model.training


def test_objects_carry_the_names_of_their_classes(predictor: Predictor, picture: Picture) -> None:
    objects = predictor.encode([picture, picture], THRESHOLD)
    assert objects.labels is not None
    assert [row.class_name for row in objects] == [predictor.class_names[label] for label in objects.labels]
    assert predictor.encode(picture, boxes=objects.split()[0]).class_names == ("cat", "dog", "eel")
    other = objects.split()[0].replace(class_names=("ant", "bee", "cow"))
    assert predictor.encode(picture, boxes=other).class_names == ("ant", "bee", "cow")


def test_every_kind_of_image_is_the_same_image(predictor: Predictor, picture: Picture, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    tensor = torch.from_numpy(picture).permute(2, 0, 1)
    expected = predictor.encode(picture, THRESHOLD)
    assert len(expected) > 0
    for image in (path, str(path), Image.open(path), tensor, tensor.float() / 255, picture / 255):
        assert_equal(predictor.encode(image, THRESHOLD), expected)


def test_bytes_and_open_files_are_the_image(predictor: Predictor, picture: Picture, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(picture).save(path)
    expected = predictor.encode(picture, THRESHOLD)
    content = path.read_bytes()
    assert_equal(predictor.encode(content, THRESHOLD), expected)
    assert_equal(predictor.encode(io.BytesIO(content), THRESHOLD), expected)
    with path.open("rb") as file:
        assert_equal(predictor.encode(file, THRESHOLD), expected)
        assert not file.closed
    given = predictor.encode([content, io.BytesIO(content)], boxes=Objects.cat([expected, expected]))
    assert given.counts.tolist() == [len(expected)] * 2
    with path.open("rb") as file:
        shown = predictor.reconstruct(file).reconstructions
    assert torch.equal(shown, predictor.reconstruct(picture).reconstructions)
    with pytest.raises(InputError, match=r"^'bytes' is not an image in a known format$"):
        predictor.encode(b"no image")
    with pytest.raises(InputError, match=r"^'bytes' is not an image: the file is empty$"):
        predictor.encode(b"")


def test_folders_patterns_and_iterators_are_what_the_command_encodes(
    predictor: Predictor, picture: Picture, tmp_path: Path
) -> None:
    shades = {"b/2.png": 1, "b/10.png": 2, "a.png": 3}
    (tmp_path / "b").mkdir()
    for name, shift in shades.items():
        Image.fromarray(np.roll(picture, 5 * shift, axis=1)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    files = find_images([tmp_path])
    assert len(files) == 3
    expected = predictor.encode(files, THRESHOLD)
    assert_equal(predictor.encode(tmp_path, THRESHOLD), expected)
    assert_equal(predictor.encode(str(tmp_path), THRESHOLD), expected)
    assert_equal(predictor.encode(iter(files), THRESHOLD), expected)
    pattern = str(tmp_path / "b" / "*.png")
    inner = predictor.encode(find_images([pattern]), THRESHOLD)
    assert inner.batch_size == 2
    assert_equal(predictor.encode(pattern, THRESHOLD), inner)
    assert_equal(predictor.encode([tmp_path, picture], THRESHOLD).split()[3], predictor.encode(picture, THRESHOLD))
    with pytest.raises(InputError, match="no image matches the pattern"):
        predictor.encode(str(tmp_path / "*.gif"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"contains no images, such as \.jpg, \.png"):
        predictor.encode(tmp_path / "empty")


def test_a_predictor_moves_to_a_device(
    tiny_model_dir: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = ssdir.load(tiny_model_dir, "cpu")
    expected = predictor.encode(picture, THRESHOLD)
    assert predictor.to("cpu") is predictor
    assert_equal(predictor.encode(picture, THRESHOLD), expected)
    moved = []
    for part in (predictor.model, predictor.encoder):
        monkeypatch.setattr(part, "to", lambda device, part=part: moved.append((part, device)))
    predictor.to("cpu")
    assert moved == [(predictor.model, torch.device("cpu")), (predictor.encoder, torch.device("cpu"))]
    with pytest.raises(InputError, match="unknown device 'toaster'"):
        predictor.to("toaster")


def test_mixed_sizes_keep_their_order(predictor: Predictor, picture: Picture) -> None:
    images = [picture, np.zeros((7, 300), np.uint8), np.ascontiguousarray(picture[::-1, ::-1])]
    objects = predictor.encode(images, THRESHOLD)
    assert_equal(objects, Objects.cat([predictor.encode(image, THRESHOLD) for image in images]))
    assert objects.counts[0] > 0
    assert objects.counts[1] == 0


def test_batches_do_not_matter(tiny_model_dir: Path, predictor: Predictor, picture: Picture) -> None:
    images = [np.roll(picture, shift, axis=1) for shift in range(5)]
    small = Predictor(load_model(tiny_model_dir), batch_size=2)
    assert_equal(small.encode(images), predictor.encode(images))


def test_tensor_of_the_models_size_is_taken_as_it_is(predictor: Predictor) -> None:
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(predictor.prepare(images), images)
    assert_equal(predictor.encode(images), predictor.model.encode(images))


def test_a_batch_takes_as_many_python_calls_as_an_image(predictor: Predictor, picture: Picture) -> None:
    """Selection, suppression (below 1,000 boxes: `keep_best`) and embedding process all images at once."""
    threshold = predictor.encode(picture, THRESHOLD).scores.sort(descending=True).values[:5].min().item()

    def calls(count: int) -> int:
        batch = predictor.prepare([picture] * count)
        counted = 0

        def count_calls(frame: object, event: str, argument: object) -> None:
            nonlocal counted
            counted += event in ("call", "c_call")

        sys.setprofile(count_calls)
        try:
            objects = predictor.encode_batch(batch, threshold)
        finally:
            sys.setprofile(None)
        assert objects.counts.min() > 0
        return counted

    # The first time, einops works out what to do with tensors of a shape, and remembers it.
    for _ in range(2):
        few, many = calls(2), calls(16)
    assert few == many


def test_encoding_runs_no_batch_norm_and_leaves_the_model_its_own(predictor: Predictor, picture: Picture) -> None:
    norms = [module for module in predictor.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    ran: list[torch.nn.Module] = []
    handle = torch.nn.modules.module.register_module_forward_hook(lambda module, *_: ran.append(module))
    try:
        predictor.encode(picture)
    finally:
        handle.remove()
    assert any(isinstance(module, torch.nn.Conv2d) for module in ran)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in ran)


def test_batch_of_arrays(predictor: Predictor, picture: Picture) -> None:
    assert_equal(predictor.encode(np.stack([picture] * 2)), predictor.encode([picture] * 2))


def test_boxes_fit_an_image_that_is_not_square(predictor: Predictor, picture: Picture) -> None:
    """The oracle squashes the picture and scales its boxes by hand."""
    squashed = predictor.prepare(picture)
    x1, y1, x2, y2 = predictor.model.encode(squashed, THRESHOLD).boxes.T
    boxes = predictor.encode(picture, THRESHOLD).boxes_px((60, 90))
    torch.testing.assert_close(boxes, torch.stack([x1 * 90, y1 * 60, x2 * 90, y2 * 60], dim=1))


@pytest.mark.parametrize("threshold", [THRESHOLD, 1.0])
def test_reconstruct(predictor: Predictor, picture: Picture, threshold: float) -> None:
    objects = predictor.encode([picture, picture], threshold)
    scene = predictor.decode(objects)
    assert scene.reconstructions.shape == (2, 3, 64, 64)
    assert len(scene.appearances) == len(objects)
    assert predictor.reconstruct(picture).reconstructions.shape == (1, 3, 64, 64)


@pytest.mark.parametrize("images", [[], torch.zeros(0, 3, 64, 64)])
def test_no_images(predictor: Predictor, images: list[Path]) -> None:
    with pytest.raises(InputError, match="no images"):
        predictor.encode(images)


@pytest.mark.parametrize("image", [3, None, {"image": 1}, [None]])
def test_what_is_no_image(predictor: Predictor, image: Any) -> None:
    with pytest.raises(
        InputError, match="an image must be a path, bytes, a binary file, a PIL image, an array or a tensor, got "
    ):
        predictor.encode(image)


def test_repr_is_a_line(predictor: Predictor) -> None:
    assert repr(predictor) == "Predictor(SSDIR: 64 px, 8 latents, 3 classes; cpu)"


@pytest.mark.parametrize("value", [-0.5, 2.0, float("nan")])
def test_pixels_out_of_range(predictor: Predictor, value: float) -> None:
    with pytest.raises(InputError, match=r"within \[0, 1\]"):
        predictor.encode(torch.full((3, 64, 64), value))


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_threshold_out_of_range(predictor: Predictor, picture: Picture, threshold: float) -> None:
    with pytest.raises(InputError, match="score threshold"):
        predictor.encode(picture, threshold)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device() == choose_device("cpu:0") == torch.device("cpu")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    with pytest.raises(InputError, match=r"'cuda' is not available: this torch was built for CPUs, so install"):
        choose_device("cuda")
    monkeypatch.setattr(torch.version, "cuda", "12.4")
    with pytest.raises(
        InputError, match=r"torch finds no GPU, so check the driver with nvidia-smi, or leave it out"
    ):
        choose_device("cuda")
    with pytest.raises(InputError, match="unknown device"):
        choose_device("toaster")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device() == torch.device("cuda")
    with pytest.raises(InputError, match=r"'cuda:1' is not available: this machine has cuda:0$"):
        choose_device("cuda:1")


def write_files(folder: Path, count: int) -> list[Path]:
    rng = np.random.default_rng(1)
    paths = [folder / f"{index}.png" for index in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(path)
    return paths


def test_encode_files_equals_encode(predictor: Predictor, tmp_path: Path) -> None:
    paths = write_files(tmp_path, 5)
    seen: list[tuple[int, int]] = []
    batches = list(encode_files(predictor, paths, 2, on_progress=lambda *state: seen.append(state)))
    assert [path for batch in batches for path in batch.paths] == paths
    assert {size for batch in batches for size in batch.sizes} == {(20, 30)}
    assert_equal(Objects.cat([batch.objects for batch in batches]), predictor.encode(paths))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_unreadable_files_are_skipped_and_named(predictor: Predictor, tmp_path: Path) -> None:
    paths = write_files(tmp_path, 4)
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    paths[2].write_bytes(b"")
    first, second = encode_files(predictor, paths, 2)
    assert (first.paths, second.paths) == ([paths[0]], [paths[3]])
    assert [(*first.indices, *second.indices)] == [(0, 3)]
    for batch, index in ((first, 1), (second, 2)):
        (image,) = batch.skipped
        assert (image.location, image.index) == (paths[index], index)
        assert str(image) == image.reason
        assert str(paths[index]) in image.reason
    with pytest.raises(InputError, match=r"1\.png"):
        list(encode_files(predictor, paths, 2, strict=True))


def test_batch_without_readable_files(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    (batch,) = encode_files(predictor, [tmp_path / "a.png"])
    assert (len(batch.objects), batch.objects.batch_size, len(batch.skipped)) == (0, 0, 1)


def test_reading_threads_change_nothing(predictor: Predictor, tmp_path: Path) -> None:
    paths = write_files(tmp_path, 7)
    paths[3].write_bytes(b"")
    for batches in zip(*(encode_files(predictor, paths, 3, readers=number) for number in (0, 1, 3)), strict=True):
        first, *others = batches
        for other in others:
            assert (other.paths, other.indices, other.skipped) == (first.paths, first.indices, first.skipped)
            assert_equal(other.objects, first.objects)


def test_no_more_is_read_than_needed_soon(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_files(tmp_path, 20)
    read: list[Path] = []
    original: Callable[..., object] = module._read

    def counting(side: int, resize: str, source: Any) -> object:
        read.append(source.location)
        return original(side, resize, source)

    monkeypatch.setattr(module, "_read", counting)
    batches = encode_files(predictor, paths, 2)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert len(read) <= 5


def test_options_are_checked(predictor: Predictor) -> None:
    with pytest.raises(InputError, match="batch size"):
        next(encode_files(predictor, [], 0))
    with pytest.raises(InputError, match="score threshold"):
        next(encode_files(predictor, [], score_threshold=2))


def odd_images(folder: Path, picture: Picture) -> dict[str, tuple[Path, tuple[int, int]]]:
    """Writes files of every kind; returns each with its (height, width) after the EXIF orientation is applied."""
    rgb = Image.fromarray(picture)
    exif = Image.Exif()
    exif[0x0112] = 6  # Turned by a quarter.
    wide = (picture[..., 0].astype(np.uint16) * 257).astype(np.uint16)
    saved: dict[str, tuple[Image.Image, dict[str, object], tuple[int, int]]] = {
        "grey.png": (rgb.convert("L"), {}, (60, 90)),
        "palette.png": (rgb.convert("P"), {}, (60, 90)),
        "rgba.png": (rgb.convert("RGBA"), {}, (60, 90)),
        "wide.png": (Image.fromarray(wide), {}, (60, 90)),
        "cmyk.jpg": (rgb.convert("CMYK"), {}, (60, 90)),
        "animated.gif": (rgb, {"save_all": True, "append_images": [rgb.rotate(90)]}, (60, 90)),
        "turned.jpg": (rgb, {"exif": exif}, (90, 60)),
        "pixel.png": (rgb.resize((1, 1)), {}, (1, 1)),
        "narrow.png": (rgb.resize((1, 400)), {}, (400, 1)),
    }
    for name, (image, options, _) in saved.items():
        image.save(folder / name, **options)
    return {name: (folder / name, size) for name, (_, _, size) in saved.items()}


def test_odd_images_are_encoded(predictor: Predictor, picture: Picture, tmp_path: Path) -> None:
    files = odd_images(tmp_path, picture)
    (batch,) = encode_files(predictor, [path for path, _ in files.values()], strict=True)
    assert batch.sizes == [size for _, size in files.values()]
    assert batch.objects.z_what is not None
    assert batch.objects.z_what.isfinite().all()
    assert_equal(predictor.encode(batch.paths), batch.objects)
