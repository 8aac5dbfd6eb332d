"""Writing files and folders whole or not at all, and never over what isn't ours."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ssdir.console import refuse_pipe
from ssdir.errors import InputError

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

MARKER = ".ssdir-output"
"""Name of an empty file in every folder that `atomic_dir` made: only such folders are ever replaced."""

_BLOCK = 1 << 20
_STEM_LENGTH = 40
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def claim(path: str | Path, force: bool = False, suffixes: Sequence[str] = ()) -> None:
    """Checks, before any work is done, that an output can be written; writes nothing itself.

    Args:
        path: the file or folder to come.
        force: an existing one may be replaced.
        suffixes: what its name may end in, in lower case; empty for anything.

    Raises:
        InputError: if it exists (without `force`), is a pipe or a device, ends in none of `suffixes`, or no such
            path can be made.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        endings = suffixes[0] if len(suffixes) == 1 else f"one of {', '.join(suffixes)}"
        raise InputError(f"output '{path}' must end in {endings}")
    names, ancestor = [path.name], path.absolute().parent
    while not os.path.lexists(ancestor):
        names.append(ancestor.name)
        ancestor = ancestor.parent
    if not ancestor.is_dir():
        raise InputError(f"output '{path}' can't be made: '{ancestor}' is not a folder")
    if not os.access(ancestor, os.W_OK | os.X_OK):
        raise InputError(f"output '{path}' can't be made: no permission to write in '{ancestor}'")
    try:
        refuse_pipe(path)
        for name in names:
            with suppress(FileNotFoundError):
                (ancestor / name).lstat()  # A name that is too long is refused here, not after the work.
    except OSError as error:
        raise InputError(f"output '{path}' can't be made: {error.strerror}") from None
    if os.path.lexists(path) and not force:
        raise InputError(f"output '{path}' exists already: choose another, or replace it with --force")


@contextmanager
def atomic_file(path: str | Path, force: bool = False) -> Iterator[Path]:
    """Writes a file that appears complete, or not at all.

    Args:
        path: the file to make; missing folders above it are made too.
        force: replace an existing file; the new one has its permissions.

    Yields:
        A path in the same folder, with the same suffix, to write to. It is renamed when the block ends,
        and removed when the block raises anything, `KeyboardInterrupt` included.

    Raises:
        InputError: as `claim`; if `path` is a folder; if the disk is full or not writable.
    """
    path = Path(path)
    claim(path, force)
    if path.is_dir():
        raise InputError(f"output '{path}' is a folder, a file is expected")
    target = _resolve(path)
    with _beside(target, path) as temporary:
        yield temporary
        _flush([temporary])
        _put_file(temporary, target, path, force)


@contextmanager
def atomic_dir(path: str | Path, force: bool = False) -> Iterator[Path]:
    """Writes a folder that appears complete, or not at all.

    Args:
        path: the folder to make; missing folders above it are made too. An empty folder may be there.
        force: replace an existing folder, if it was made by `atomic_dir`.

    Yields:
        An empty folder beside it to write into, renamed or removed as in `atomic_file`.

    Raises:
        InputError: as `claim`; if there is a file, or a folder that isn't recognisably an output.
    """
    path = Path(path)
    target = _resolve(path)
    with _alone_in(target.parent):
        claim(path, force or _is_empty_dir(target))
        _check_replaceable(path, target)
    with _beside(target, path) as temporary:
        temporary.mkdir()
        yield temporary
        (temporary / MARKER).touch()
        _flush(temporary.iterdir())
        _put_folder(temporary, target, path, force)


@contextmanager
def _beside(target: Path, path: Path) -> Iterator[Path]:
    """Yields a path beside `target`, and removes what is left there at the end.

    Folders above it are made; they go again when the block raises, and what the file system refuses becomes one
    sentence about the output `path`.
    """
    missing = [parent for parent in target.parents if not parent.exists()]
    temporary = _hidden(target, target.suffix)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except BaseException as error:
        _remove(temporary)
        for parent in missing:
            with suppress(OSError):
                parent.rmdir()
        if (reason := _reason(error)) is not None:
            raise _NotWrittenError(path, reason) from error
        raise
    _remove(temporary)


def _hidden(target: Path, ending: str) -> Path:
    """Returns a new hidden name beside `target`: with the start of its stem, as a longer name may be too long."""
    return target.with_name(f".{secrets.token_hex(4)}-{target.stem[:_STEM_LENGTH]}{ending}")


def _remove(temporary: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(temporary, ignore_errors=True) if temporary.is_dir() else temporary.unlink(missing_ok=True)


def _resolve(path: Path) -> Path:
    """Returns a path with its links followed."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # RuntimeError before Python 3.13
        raise InputError(f"output '{path}' can't be made: it leads through a link to itself") from None


def checksum(path: Path) -> int:
    """Returns the CRC-32 of a file, which shows later whether the file has changed."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value


def _is_empty_dir(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _check_replaceable(path: Path, target: Path) -> None:
    """Refuses to replace anything but an empty folder, or one that `atomic_dir` made."""
    if target in (Path.cwd(), *Path.cwd().parents, Path.home(), *Path.home().parents):
        raise InputError(f"output '{path}' is a folder that you are working in: choose a new one")
    if not target.exists():
        return
    if not target.is_dir():
        raise InputError(f"output '{path}' is a file, a folder is expected")
    if (target / ".git").exists() or not (_is_empty_dir(target) or (target / MARKER).is_file()):
        raise InputError(
            f"output '{path}' holds files that ssdir did not write: choose another, or empty it yourself"
        )


def _put_file(new: Path, target: Path, path: Path, force: bool) -> None:
    """Renames a finished file; another command may have made one of that name in the meantime."""
    if not force:
        try:
            os.link(new, target)  # Unlike renaming, this never replaces anything.
            return
        except FileExistsError:
            raise InputError(f"output '{path}' was made by another command in the meantime: it is kept") from None
        except OSError:  # Not every file system has links.
            pass
    with suppress(OSError):  # No file is there, or its file system has no permissions to set.
        shutil.copymode(target, new)
    os.replace(new, target)


def _put_folder(new: Path, target: Path, path: Path, force: bool) -> None:
    """Renames a finished folder; what is in its place goes, or comes back if that fails."""
    with _alone_in(target.parent):
        if not target.exists() or _is_empty_dir(target):
            new.rename(target)
            return
        if not force:
            raise InputError(f"output '{path}' was made by another command in the meantime: it is kept")
        _check_replaceable(path, target)
        old = _hidden(target, "-old")
        target.rename(old)
        try:
            new.rename(target)
        except BaseException:
            old.rename(target)
            raise
    shutil.rmtree(old)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keeps other commands from replacing folders in `folder` during the block, where the system can."""
    if fcntl is None or not folder.is_dir():
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # Not every network file system has locks.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _flush(files: Iterable[Path]) -> None:
    """Has the system write files to the disk."""
    for file in files:
        if file.is_file():
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())


class _NotWrittenError(InputError):
    """The file system refused an output, for a reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"output '{path}' was not written: {reason}")
        self.reason = reason


def _reason(error: BaseException) -> str | None:
    if isinstance(error, _NotWrittenError):  # of an output within this one, whose name the user does not know
        return error.reason
    return why_not_written(error) if isinstance(error, Exception) and not isinstance(error, InputError) else None


def why_not_written(error: Exception) -> str | None:
    """Returns what is wrong with the disk, as part of a sentence; None for an error of another kind."""
    code = error.errno if isinstance(error, OSError) else None
    # Libraries with writers of their own keep only the message.
    if code in _NO_SPACE or "No space left on device" in str(error):
        return "the disk is full"
    if code in _NOT_ALLOWED:
        where = f" ('{error.filename}')" if isinstance(error, OSError) and error.filename else ""
        return f"no permission to write{where}"
    return None
