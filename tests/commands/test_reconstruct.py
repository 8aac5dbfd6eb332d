"""Tests of `ssdir reconstruct`."""

from pathlib import Path

import pytest
from PIL import Image

from command_line import cut_short, files_in, ok, refused


@pytest.mark.parametrize("threshold", [0.7, 1.0])
def test_reconstruct(tiny_model_dir: Path, photos: Path, out: Path, threshold: float) -> None:
    path = out / "reconstructions.png"
    ok("reconstruct", tiny_model_dir, photos, "--out", path, "--score-threshold", threshold)
    with Image.open(path) as grid:
        assert grid.mode == "RGB"
        assert min(grid.size) >= 64
    assert files_in(out) == ["reconstructions.png"]


def test_of_many_images_some_are_shown(
    tiny_model_dir: Path, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssdir.inference.reconstruct_to_file.MAX_IMAGES", 1)
    printed = ok("reconstruct", tiny_model_dir, photos, "--out", out / "reconstructions.png").stdout
    assert f"1 image of {len(list(photos.glob('*.png')))}, evenly chosen" in printed


def test_reconstruct_refusals(tiny_model_dir: Path, photos: Path, out: Path) -> None:
    command = ["reconstruct", tiny_model_dir, photos]
    assert "must end in" in refused(*command, "--out", out / "reconstructions.txt")
    (photos / "b.png").write_bytes(b"")
    assert "b.png" in refused(*command, "--out", out / "reconstructions.png", "--strict")
    for name in ("a.png", "c.png"):
        (photos / name).write_bytes(b"")
    assert "none of the 3 images could be read" in refused(*command, "--out", out / "reconstructions.png")
    assert not out.exists()


def test_reconstruct_skips_what_it_cannot_read(tiny_model_dir: Path, photos: Path, out: Path) -> None:
    command = ["reconstruct", tiny_model_dir, photos, "--score-threshold", 0.7]
    cut_short(photos / "c.png")
    result = ok(*command, "--out", out / "two.png")
    assert "c.png" in result.stderr
    assert "2 images, " in result.stdout
    assert "1 skipped" in result.stdout
    (photos / "c.png").unlink()
    ok(*command, "--out", out / "both.png")
    assert (out / "two.png").read_bytes() == (out / "both.png").read_bytes()
