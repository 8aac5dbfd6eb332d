import errno
import io
import os
import struct
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from ssdir.data import images
from ssdir.data.image_files import find_images
from ssdir.data.images import (
    image_size,
    read_channels,
    read_image,
    resize,
    shrink,
    to_tensor,
)
from ssdir.data.letterbox import read_square
from ssdir.data.pixel_budget import PixelBudget
from ssdir.errors import InputError, InputWarning, UnreachableError
from ssdir.inference.files import read_image_batches

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
GREY = RGB[..., 0]
SMOOTH = np.stack(np.broadcast_arrays(*np.ogrid[0:240:60j, 0:240:90j], 100), axis=-1).astype(np.uint8)


def grey3(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def test_reads_an_rgb_png_as_it_is(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert np.array_equal(image, RGB)
    assert np.array_equal(read_image(str(tmp_path / "a.png")), RGB)


def test_reads_grey_as_three_equal_channels_or_one(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), grey3(GREY))
    assert np.array_equal(read_channels(tmp_path / "a.png"), GREY[..., None])


def test_reads_one_bit_images(tmp_path):
    Image.fromarray(GREY > 127).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), grey3(np.uint8(255) * (GREY > 127)))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_scales_16_bit_by_257(tmp_path, suffix):
    wide = RNG.integers(0, 65536, (12, 20), dtype=np.uint16)
    wide[0, :2] = 0, 65535
    Image.fromarray(wide).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(read_image(tmp_path / f"a.{suffix}"), grey3(np.rint(wide / 257).astype(np.uint8)))


def test_scales_mode_i_by_257():
    wide = (GREY.astype(np.int32) * 257).copy()
    image = Image.fromarray(wide)
    assert image.mode == "I"
    assert np.array_equal(read_image(image), grey3(GREY))


def test_reads_cmyk_jpegs(tmp_path):
    Image.fromarray(SMOOTH).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.mode == "CMYK"
    image = read_image(tmp_path / "a.jpg")
    assert image.shape == SMOOTH.shape
    assert np.abs(image.astype(int) - SMOOTH).mean() < 4


def test_reads_palettes_with_and_without_transparency(tmp_path):
    colours = np.zeros((4, 6, 3), np.uint8)
    colours[:, 2:4] = 255, 0, 0
    colours[:, 4:] = 0, 90, 200
    palette = Image.fromarray(colours).quantize(8)
    palette.save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png"), colours)
    red = int(np.asarray(palette)[0, 2])
    palette.save(tmp_path / "b.png", transparency=red)
    expected = colours.copy()
    expected[:, 2:4] = 0
    assert np.array_equal(read_image(tmp_path / "b.png"), expected)


def test_composites_transparency_over_black(tmp_path):
    alpha = np.full((12, 20), 255, np.uint8)
    alpha[:, :5], alpha[:, 5:10] = 0, 128
    rgba = np.dstack([RGB, alpha])
    expected = RGB * (alpha[..., None] / 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", rgba, Image.fromarray(rgba), torch.from_numpy(rgba).permute(2, 0, 1)):
        assert np.abs(read_image(source) - expected).max() <= 1


def test_reads_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert np.array_equal(read_image(tmp_path / "a.gif"), np.full((6, 8, 3), (255, 0, 0)))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_applies_the_exif_orientation(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(SMOOTH).save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    image = read_image(path)
    assert np.array_equal(image, expected)
    assert image_size(path) == image.shape[:2]
    assert (image.shape[:2] == (90, 60)) == (orientation >= 5)


def test_reads_one_pixel(tmp_path):
    Image.fromarray(RGB[:1, :1]).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert np.array_equal(image, RGB[:1, :1])
    assert torch.allclose(to_tensor(resize(image, 5, 5)), torch.from_numpy(image / 255).float().permute(2, 0, 1))


def test_shrinking_keeps_proportions():
    large = cv2.resize(SMOOTH, (900, 600), interpolation=cv2.INTER_LINEAR)
    reduced = shrink(large, 90)
    assert reduced.shape == (60, 90, 3)
    assert np.abs(reduced.astype(int) - SMOOTH).mean() < 3
    assert shrink(large, 900) is large
    assert shrink(large, 1).shape == (1, 1, 3)


def save_white_is_zero(path, values, bits):
    """Writes a TIFF whose smallest value is white, tag by tag, because Pillow writes none of 16 bits."""
    height, width = values.shape
    tags = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, 0), (273, 4, 0), (277, 3, 1)]
    tags += [(278, 3, height), (279, 4, values.nbytes)] + ([(339, 3, 3)] if bits == 32 else [])
    offset = 8 + 2 + 12 * len(tags) + 4
    entries = [(tag, kind, offset if tag == 273 else value) for tag, kind, value in tags]
    header = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    path.write_bytes(header + body + struct.pack("<I", 0) + values.tobytes())


@pytest.mark.parametrize(
    ("bits", "dtype", "largest"), [(8, np.uint8, 255), (16, np.uint16, 65535), (32, np.float32, 1)]
)
def test_white_is_zero_at_any_depth(tmp_path, bits, dtype, largest):
    stored = (largest - GREY * (largest / 255)).astype(dtype)
    save_white_is_zero(tmp_path / "a.tif", stored, bits)
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - grey3(GREY)).max() <= 1


def test_what_16_bits_leave_unused_is_remarked_on(tmp_path):
    values = np.linspace(0, 4095, 200, dtype=np.uint16).reshape(10, 20)
    Image.fromarray(values).save(tmp_path / "a.png")
    with pytest.warns(InputWarning, match=r"a\.png: uses 12 of its 16 bits, and so is read 16 times darker"):
        assert read_image(tmp_path / "a.png").max() == 4095 // 257 + 1
    with pytest.warns(InputWarning, match="uses 12 of its 16 bits"):
        read_image(values)
    cv2.imwrite(str(tmp_path / "rgb.png"), np.dstack([values] * 3))
    with pytest.warns(InputWarning, match=r"rgb\.png: uses 12 of its 16 bits, and so is read 16 times darker"):
        assert read_image(tmp_path / "rgb.png").max() == 15
    cv2.imwrite(str(tmp_path / "rgb.png"), np.dstack([values * np.uint16(16)] * 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(tmp_path / "rgb.png")
        read_image(values * np.uint16(16))
        read_image(np.zeros((3, 3), np.uint16))


def test_values_beyond_16_bits_are_refused(tmp_path):
    Image.fromarray(np.array([[0, 70_000]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a\.tif: its values reach from 0 to 70000"):
        read_image(tmp_path / "a.tif")


def test_large_images_are_decoded_in_strips(tmp_path, monkeypatch):
    monkeypatch.setattr("ssdir.data.images._STRIP_PIXELS", 100)
    transparent = np.dstack([SMOOTH, SMOOTH[..., 0]])
    for name, pixels in (("a.png", transparent), ("b.png", SMOOTH), ("c.png", SMOOTH[..., 0])):
        Image.fromarray(pixels).save(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            black = Image.new("RGB", image.size)
            black.paste(image.convert("RGB"), mask=image if image.mode == "RGBA" else None)
        assert np.array_equal(read_image(tmp_path / name), np.asarray(black))


def test_threads_decode_no_more_pixels_than_one_image_may_have(tmp_path, monkeypatch):
    Image.fromarray(SMOOTH).save(tmp_path / "a.png")
    budget, most = PixelBudget(2 * SMOOTH.shape[0] * SMOOTH.shape[1] + 1), []
    monkeypatch.setattr("ssdir.data.images.DECODING", budget)
    turn = images._turn

    def slow(*args):
        most.append(budget.in_use)
        time.sleep(0.02)
        return turn(*args)

    monkeypatch.setattr("ssdir.data.images._turn", slow)
    with ThreadPoolExecutor(6) as pool:
        read = list(pool.map(read_image, [tmp_path / "a.png"] * 12))
        squares = list(pool.map(lambda path: read_square(path, 8)[1], [tmp_path / "a.png"] * 12))
    assert all(np.array_equal(each, SMOOTH) for each in read)
    assert all(np.array_equal(each, resize(SMOOTH, 8, 8)) for each in squares)
    assert SMOOTH.shape[0] * SMOOTH.shape[1] < max(most) <= budget.limit
    assert budget.in_use == 0


@pytest.mark.parametrize("shape", [(12, 20), (12, 20, 1)])
def test_reads_grey_arrays_of_every_type(shape):
    grey = GREY.reshape(shape)
    for array in (grey, grey.astype(np.uint16) * 257, grey / 255, (grey / 255).astype(np.float32)):
        assert np.array_equal(read_image(array), grey3(GREY)), array.dtype
    assert np.array_equal(read_image(grey > 9), grey3(np.uint8(255) * (GREY > 9)))


def test_reads_tensors():
    tensor = torch.from_numpy(RGB).permute(2, 0, 1)
    for source in (tensor, tensor / 255, (tensor / 255).requires_grad_(), (tensor / 255).double()):
        assert np.array_equal(read_image(source), RGB)
    assert np.array_equal(read_image(tensor[:1]), grey3(GREY))


def test_leaves_a_callers_array_and_image_alone():
    array = RGB.copy()
    read_image(array)[:] = 0
    assert np.array_equal(array, RGB)
    picture = Image.fromarray(RGB)
    read_image(picture)[:] = 0
    assert np.array_equal(np.asarray(picture), RGB)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (np.zeros((3, 12, 20), np.uint8), r"\(3, 12, 20\)"),
        (np.zeros((0, 5, 3), np.uint8), r"\(0, 5, 3\)"),
        (np.zeros((4, 4), np.int64), "int64"),
        (np.full((4, 4), 1.5), "0, 1.*1.5"),
        (np.full((4, 4), np.nan), "nan"),
        (torch.zeros(2, 4, 4), r"tensor.*\(2, 4, 4\)"),
        (torch.full((3, 4, 4), -0.5), "-0.5"),
        (Image.new("RGB", (0, 3)), "no pixels"),
    ],
)
def test_names_what_is_wrong_with_an_array(source, message):
    with pytest.raises(InputError, match=message):
        read_image(source)


def damaged_files(folder: Path):
    png, jpeg = io.BytesIO(), io.BytesIO()
    noise = RNG.integers(0, 256, (80, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(png, "PNG")
    Image.fromarray(noise).save(jpeg, "JPEG")
    broken = bytearray(png.getvalue())
    broken[200:260] = bytes(60)
    contents = {
        "cut.png": png.getvalue()[: len(png.getvalue()) // 2],
        "cut.jpg": jpeg.getvalue()[: len(jpeg.getvalue()) // 2],
        "header.png": png.getvalue()[:20],
        "broken.png": bytes(broken),
        "text.png": b"this is no image",
        "empty.png": b"",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return contents


def test_damaged_files_are_named_in_one_sentence(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for name in [*damaged_files(tmp_path), "missing.png", "folder.png", "long" * 100 + ".png"]:
        with pytest.raises(InputError, match=name) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value), name
        assert caught.value.__cause__ is None
    with pytest.raises(InputError, match="empty"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(InputError, match="cut short"):
        read_image(tmp_path / "cut.png")


def test_too_many_pixels_are_refused_without_decoding(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 239)
    for source in (tmp_path / "a.png", Image.fromarray(RGB)):
        with pytest.raises(InputError, match=r"20 x 12.*239"):
            read_image(source)
    monkeypatch.setattr(images, "MAX_PIXELS", 240)
    assert np.array_equal(read_image(tmp_path / "a.png"), RGB)


def test_a_thread_does_not_wait_for_what_it_keeps_itself():
    budget = PixelBudget(10)

    def decode_twice():
        with budget.until_the_end():
            for _ in range(2):
                with budget.of(8):
                    pass

    thread = threading.Thread(target=decode_twice, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert budget.in_use == 0


def test_pillows_lower_limit_does_not_apply_and_is_kept(tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    for limit in (100, 200):  # Pillow would raise, and warn.
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert np.array_equal(read_image(tmp_path / "a.png"), RGB)
            assert image_size(tmp_path / "a.png") == (12, 20)
        assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize(
    ("code", "error", "sentence"),
    [
        (errno.EMFILE, UnreachableError, r"a\.png' can't be read \(.*Too many open files"),
        (errno.ESTALE, UnreachableError, r"a\.png' can't be read \(.*Stale file handle"),
        (errno.ENOENT, InputError, r"a\.png' does not exist"),
    ],
)
def test_errors_of_the_file_system_are_not_those_of_the_image(code, error, sentence, tmp_path, monkeypatch):
    Image.fromarray(RGB).save(tmp_path / "a.png")

    def refuse(*_):
        raise OSError(code, os.strerror(code), str(tmp_path / "a.png"))

    for name in ("PIL.Image.open", "PIL.ImageFile.ImageFile.load"):
        with monkeypatch.context() as patch:
            patch.setattr(name, refuse)
            with pytest.raises(error, match=sentence):
                [*read_image_batches([tmp_path / "a.png"], 8, readers=0, strict=True)]
            if error is UnreachableError:
                with pytest.raises(error, match=sentence):
                    [*read_image_batches([tmp_path / "a.png"], 8, readers=0)]


def test_opened_files_are_read_as_their_paths(tmp_path):
    Image.fromarray(SMOOTH).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    with (tmp_path / "a.png").open("rb") as file:
        assert np.array_equal(read_image(file), SMOOTH)
    with (tmp_path / "b.png").open("rb") as file, pytest.raises(InputError, match=r"b\.png' is not an image"):
        read_image(file)


def test_image_size_does_not_decode(tmp_path):
    damaged_files(tmp_path)
    assert image_size(tmp_path / "cut.png") == image_size(tmp_path / "cut.jpg") == (80, 80)


def test_find_images_takes_files_folders_and_patterns(tmp_path):
    names = ["b.png", "a.JPG", "sub/c.webp", "sub/deep/d.tiff", "notes.txt", ".hidden.png", "odd.dat"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    everything = [tmp_path / name for name in ("a.JPG", "b.png", "sub/c.webp", "sub/deep/d.tiff")]
    assert find_images([tmp_path]) == everything
    assert find_images([str(tmp_path / "*")]) == everything
    assert find_images([str(tmp_path / "*.*")]) == everything[:2]
    assert find_images([str(tmp_path / "**" / "*.webp")]) == everything[2:3]
    assert find_images([tmp_path / "odd.dat"]) == [tmp_path / "odd.dat"]
    assert find_images([tmp_path / "b.png", tmp_path]) == [everything[1], everything[0], *everything[2:]]


def test_what_pillow_reads_is_read_and_other_pictures_are_counted(tmp_path):
    kinds = {
        "a.jpg": "JPEG",
        "b.jfif": "JPEG",
        "c.jpe": "JPEG",
        "d.jp2": "JPEG2000",
        "e.tga": "TGA",
        "f.dib": "DIB",
    }
    for name, kind in kinds.items():
        Image.fromarray(SMOOTH).save(tmp_path / name, kind)
    for name in ("g.heic", "h.NEF", "i.heic", "notes.txt", ".j.heic"):
        (tmp_path / name).write_bytes(b"?")
    with pytest.warns(InputWarning, match=r"^3 pictures passed over.*\(\.heic, \.nef; the first is '.*g\.heic'\)"):
        paths = find_images([tmp_path])
    assert [path.name for path in paths] == [*kinds]
    for path in paths:
        assert np.abs(read_image(path).astype(int) - SMOOTH).mean() < 2
    for path in paths:
        path.unlink()
    with pytest.raises(InputError, match="no images; 3 pictures of a kind that is not read"):
        find_images([tmp_path])


def test_an_image_by_two_names_of_its_path_is_one(tmp_path, monkeypatch):
    (tmp_path / "a.png").touch()
    monkeypatch.chdir(tmp_path)
    assert find_images(["a.png", tmp_path, tmp_path / "a.png"]) == [Path("a.png")]
    assert find_images([".", tmp_path]) == [Path("a.png")]


def test_find_images_prefers_a_file_to_a_pattern(tmp_path):
    (tmp_path / "a[1].png").touch()
    assert find_images([tmp_path / "a[1].png"]) == [tmp_path / "a[1].png"]


def test_find_images_names_what_is_missing(tmp_path):
    for path, message in (
        (tmp_path / "no", "does not exist"),
        (tmp_path, "no images"),
        (tmp_path / "*.png", "pattern"),
    ):
        with pytest.raises(InputError, match=message):
            find_images([path])


def test_resize_averages_where_it_shrinks_and_interpolates_where_it_grows():
    checkers = np.indices((8, 8)).sum(0)[..., None].astype(np.uint8) % 2 * 254
    assert np.array_equal(resize(checkers, 4, 4), np.full((4, 4, 1), 127))
    assert np.array_equal(resize(checkers, 1, 16), np.full((1, 16, 1), 127))
    ramp = np.array([0, 100], np.uint8).reshape(1, 2, 1)
    assert resize(ramp, 1, 4).ravel().tolist() == [0, 25, 75, 100]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]))
def test_resizing_keeps_flat_colours(height, width, size, channels):
    image = np.full((height, width, channels), 77, np.uint8)
    assert np.array_equal(resize(image, size, size), np.full((size, size, channels), 77))


def test_to_tensor_is_a_square_in_the_unit_range():
    tensor = to_tensor(resize(np.dstack([SMOOTH[..., :2], np.full((60, 90), 255, np.uint8)]), 30, 30))
    assert tensor.shape == (3, 30, 30)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert bool((tensor[2] == 1).all())
    assert float(tensor[0, 29, 0]) > 0.9 > 0.1 > float(tensor[0, 0, 29])
