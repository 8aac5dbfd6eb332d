import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ssdir.errors import InputError
from ssdir.outputs import MARKER, atomic_dir, atomic_file, claim


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_file(path: Path, error: BaseException, force: bool = False) -> None:
    with atomic_file(path, force) as temporary:
        temporary.write_text("half")
        raise error


def fail_dir(path: Path, error: BaseException) -> None:
    with atomic_dir(path) as temporary:
        (temporary / "a.txt").write_text("half")
        raise error


def test_claim_writes_nothing(tmp_path: Path) -> None:
    claim(tmp_path / "a" / "b" / "out.json")
    assert names(tmp_path) == []


def test_claim_refuses_an_existing_output(tmp_path: Path) -> None:
    (tmp_path / "out.json").touch()
    with pytest.raises(InputError, match="exists already"):
        claim(tmp_path / "out.json")
    claim(tmp_path / "out.json", force=True)


def test_claim_refuses_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with pytest.raises(InputError, match="exists already"):
        claim(tmp_path / "link")


def test_claim_refuses_a_file_as_parent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is not a folder"):
        claim(tmp_path / "file" / "sub" / "out.json")


def test_a_pipe_is_never_replaced(tmp_path: Path) -> None:
    """Nor is a device, such as /dev/null."""
    pipe = tmp_path / "out"
    os.mkfifo(pipe)
    for force in (False, True):
        with pytest.raises(InputError, match="out' can't be made: a pipe or a device"):
            fail_file(pipe, KeyError(), force)
    assert pipe.is_fifo()


@pytest.mark.parametrize("path", [Path("x" * 256), Path("new", "ä" * 128, "out")])
def test_claim_refuses_names_that_are_too_long(tmp_path: Path, path: Path) -> None:
    with pytest.raises(InputError, match="can't be made: File name too long"):
        claim(tmp_path / path)


def test_the_longest_names_can_be_written_and_replaced(tmp_path: Path) -> None:
    names = ["x" * 255, "ä" * 125 + ".json"]
    for name in names:
        for write in (atomic_file, atomic_dir):
            for force in (False, True):
                with write(tmp_path / write.__name__ / name, force) as temporary:
                    temporary.touch()


def test_claim_checks_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(InputError, match="no permission"):
        claim(tmp_path / "out.json")


def test_file_appears_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.png"
    with atomic_file(path) as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == path.parent
        temporary.write_text("done")
        assert not path.exists()
    assert path.read_text() == "done"
    assert names(path.parent) == ["out.png"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failed_file_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        fail_file(tmp_path / "new" / "out.txt", error())
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failed_replacement_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "out.txt").write_text("old")
    with pytest.raises(error):
        fail_file(tmp_path / "out.txt", error(), force=True)
    assert (tmp_path / "out.txt").read_text() == "old"
    assert names(tmp_path) == ["out.txt"]


def test_file_replaces_with_force_and_through_links(tmp_path: Path) -> None:
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("real.txt")
    with atomic_file(tmp_path / "link.txt", force=True) as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.touch(0o600)
    with atomic_file(path, force=True) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_link_to_itself_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.symlink_to(path)
    for write in (fail_file, lambda path, error, force: fail_dir(path, error)):
        with pytest.raises(InputError, match=r"out\.json' (can't be made|exists)"):
            write(path, KeyError(), True)
    assert names(tmp_path) == ["out.json"]


def test_file_is_not_put_over_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="is a folder"), atomic_file(tmp_path / "out", force=True):
        pass


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system"), "no permission"),
        (PermissionError(errno.EACCES, "Permission denied"), "no permission"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
    ],
)
def test_what_the_disk_refuses_is_a_sentence(tmp_path: Path, error: Exception, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        fail_file(tmp_path / "out.txt", error)
    assert names(tmp_path) == []


def test_an_output_within_another_is_named_as_the_whole(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"^output '.*/whole' was not written: the disk is full$"),
        atomic_dir(tmp_path / "whole") as folder,
        atomic_file(folder / "part"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


def write_late(path: Path, meanwhile: Callable[[], object], force: bool = False) -> None:
    """Writes a file or folder, and while it is being written, something else happens."""
    with (atomic_file if path.suffix else atomic_dir)(path, force) as late:
        (late if path.suffix else late / "late.txt").write_text("late")
        meanwhile()


@pytest.mark.parametrize("name", ["out", "out.txt"])
def test_what_another_command_made_in_the_meantime_is_kept(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    with pytest.raises(InputError, match="was made by another command in the meantime: it is kept"):
        write_late(out, lambda: write_late(out, lambda: None))
    assert names(tmp_path) == [name]
    write_late(out, lambda: None, force=True)
    assert names(tmp_path) == [name]


def test_a_folder_that_someone_else_made_in_the_meantime_is_kept(tmp_path: Path) -> None:
    photo = tmp_path / "out" / "photo.jpg"

    def copy_photo() -> None:
        photo.parent.mkdir()
        photo.touch()

    with pytest.raises(InputError, match="holds files that ssdir did not write"):
        write_late(tmp_path / "out", copy_photo, force=True)
    assert names(tmp_path / "out") == ["photo.jpg"]
    assert names(tmp_path) == ["out"]


def test_many_replacements_at_once_leave_one_whole_output(tmp_path: Path) -> None:
    """Each thread writes its number into two files; afterwards the numbers are the same, whoever was last."""
    out, file = tmp_path / "out", tmp_path / "out.txt"

    def replace(number: int) -> None:
        with atomic_dir(out, force=True) as folder:
            (folder / "a.txt").write_text(str(number))
            (folder / "b.txt").write_text(str(number))
        with atomic_file(file, force=True) as temporary:
            temporary.write_text(str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(replace, range(200)))
    assert (out / "a.txt").read_text() == (out / "b.txt").read_text()
    assert names(out) == [MARKER, "a.txt", "b.txt"]
    assert names(tmp_path) == ["out", "out.txt"]


def test_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "out.txt"):
        (tmp_path / "missing").read_text()


def test_folder_appears_when_complete(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with atomic_dir(out) as temporary:
        (temporary / "a.txt").write_text("done")
        assert not out.exists()
    assert names(out) == [MARKER, "a.txt"]
    assert names(out.parent) == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failed_folder_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        fail_dir(tmp_path / "new" / "out", error())
    assert names(tmp_path) == []


def test_folder_replaces_its_own_kind_with_force(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for text in ("old", "new"):
        with atomic_dir(out, force=True) as temporary:
            (temporary / f"{text}.txt").write_text(text)
    assert names(out) == [MARKER, "new.txt"]
    assert names(tmp_path) == ["out"]
    with pytest.raises(InputError, match="exists already"), atomic_dir(out):
        pass


def test_old_folder_comes_back_when_the_swap_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with atomic_dir(out) as temporary:
        (temporary / "old.txt").touch()
    rename = Path.rename

    def fail_once(path: Path, target: Path) -> Path:
        if target == out and not path.name.endswith("-old"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(InputError, match="disk is full"), atomic_dir(out, force=True):
        pass
    assert names(out) == [MARKER, "old.txt"]
    assert names(tmp_path) == ["out"]


def test_empty_folder_may_be_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with atomic_dir(tmp_path / "out") as temporary:
        (temporary / "a.txt").touch()
    assert names(tmp_path / "out") == [MARKER, "a.txt"]


def test_foreign_folders_are_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").touch()
    repository = tmp_path / "repository"
    (repository / ".git").mkdir(parents=True)
    (repository / MARKER).touch()
    (tmp_path / "file").touch()
    work = tmp_path / "work"
    (work / "inner").mkdir(parents=True)
    monkeypatch.chdir(work / "inner")
    for path in (photos, repository, tmp_path / "file", work, Path.cwd(), Path.home(), Path("/")):
        with pytest.raises(InputError), atomic_dir(path, force=True):
            pass
        assert path.exists()
