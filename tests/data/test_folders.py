import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ssdir.data.folders import files_below
from ssdir.data.image_files import find_images
from ssdir.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/x.png", "a/y.png", "z.png", "a/deep/w.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    (tmp_path / "notes.txt").touch()
    return tmp_path


def test_files_are_those_that_pathlib_finds(folder: Path) -> None:
    assert files_below(folder) == sorted(path for path in folder.rglob("*") if path.is_file())
    assert files_below(folder / "none") == []
    assert find_images([folder]) == [path for path in files_below(folder) if path.suffix == ".png"]


def test_links_to_folders_elsewhere_are_followed_once(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "deep").mkdir()
    for name in ("u.png", "deep/v.png"):
        Image.new("RGB", (4, 4)).save(elsewhere / name)
    (elsewhere / "deep" / "back").symlink_to(elsewhere)
    (folder / "linked").symlink_to(elsewhere)
    (folder / "linked twice").symlink_to(elsewhere / "deep")
    names = [path.relative_to(folder).as_posix() for path in find_images([folder])]
    assert names == ["a/deep/w.png", "a/y.png", "b/x.png", "linked/deep/v.png", "linked/u.png", "z.png"]


@pytest.mark.parametrize("names", [("a", "b"), ("b", "a")])
def test_a_link_to_a_folder_above_another_linked_one_is_followed(tmp_path: Path, names: tuple[str, str]) -> None:
    elsewhere, view = tmp_path / "elsewhere", tmp_path / "view"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "x.png").touch()
    (elsewhere / "deep" / "y.png").touch()
    (elsewhere / "deep" / "back").symlink_to(elsewhere)
    view.mkdir()
    (view / names[0]).symlink_to(elsewhere / "deep")
    (view / names[1]).symlink_to(elsewhere)
    assert sorted(path.name for path in find_images([view])) == ["x.png", "y.png"]


def test_links_to_images_of_the_same_folder_are_left_out(folder: Path, tmp_path_factory: Any) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for path in (elsewhere / "far.png", folder / ".cache" / "kept"):
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path, "PNG")
    (folder / "a" / "latest.png").symlink_to(folder / "b" / "x.png")
    # These are the only names of their images.
    (folder / "far.png").symlink_to(elsewhere / "far.png")
    (folder / "kept.png").symlink_to(Path(".cache", "kept"))
    expected = ["a/deep/w.png", "a/y.png", "b/x.png", "far.png", "kept.png", "z.png"]
    for given in (folder, folder / "**"):
        assert [path.relative_to(folder).as_posix() for path in find_images([given])] == expected  # type: ignore[union-attr]
    assert find_images([folder / "a" / "latest.png"]) == [folder / "a" / "latest.png"]


def test_a_link_to_a_folder_above_is_no_endless_way(folder: Path) -> None:
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "c").symlink_to(folder / "b")
    assert [path.name for path in find_images([folder])] == ["w.png", "y.png", "x.png", "z.png"]


def test_a_folder_that_cannot_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read anything, so the system's refusal is imitated."""
    scandir: Callable[[Any], Iterator[Any]] = os.scandir

    def refuse(path: Any) -> Iterator[Any]:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"folder '.*a' can't be read \(permission denied\)"):
        find_images([folder])


def test_a_folder_is_no_image_whatever_it_is_called_and_a_broken_link_is(folder: Path) -> None:
    (folder / "album.png").mkdir()
    (folder / "gone.png").symlink_to("nowhere.png")
    assert find_images([folder / "z*.png"]) == [folder / "z.png"]
    # Reading the link reports that its target is missing.
    assert [path.name for path in find_images([folder])] == ["w.png", "y.png", "x.png", "gone.png", "z.png"]
