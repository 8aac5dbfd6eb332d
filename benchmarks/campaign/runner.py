"""Runs commands of ssdir within limits, in forked children of a process that has imported everything."""

from __future__ import annotations

import importlib
import os
import pkgutil
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CPU_SECONDS = 60
WALL_SECONDS = 150
GIB = 1 << 30
MOST_BYTES = 2 * GIB
ADDRESS_ROOM = 6 * GIB
"""More than `MOST_BYTES`, since much that is reserved is never used; less than would stop the machine."""


@dataclass
class Task:
    """A child process's work.

    Attributes:
        key: of whoever asks.
        folder: the child's working folder; its output is kept beside it, in `FOLDER.stdout` and `FOLDER.stderr`.
        work: called in the child.
    """

    key: Any
    folder: Path
    work: Callable[[], None]


@dataclass
class Observed:
    """The end of a child process.

    Attributes:
        code: its exit code, or minus the signal that ended it.
        stdout: what it printed.
        stderr: what it printed there.
        seconds: how long it took.
        peak_bytes: memory that it held at most, beyond the parent's.
        timed_out: whether it was ended by a limit of time.
    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    peak_bytes: int
    timed_out: bool


@dataclass
class _Running:
    task: Task
    started: float
    before: int = field(default_factory=lambda: resident_bytes())


def warm_up() -> None:
    """Imports all of ssdir and what it imports late, without computing anything: children inherit it."""
    import ssdir

    for module in pkgutil.walk_packages(ssdir.__path__, "ssdir."):
        if not module.name.endswith("__main__"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    importlib.import_module(module.name)
                except ImportError:
                    continue
    for name in ("onnx", "onnxruntime", "onnxscript", "sklearn.linear_model", "sklearn.cluster"):
        importlib.import_module(name)
    for name in ("PIL.PngImagePlugin", "matplotlib.pyplot", "lightning.pytorch", "pyarrow.csv", "pandas"):
        importlib.import_module(name)


def command(arguments: Iterable[str]) -> Callable[[], None]:
    """Runs `ssdir` as its entry point does; the studio ends where it would serve."""
    given = list(arguments)

    def work() -> None:
        from ssdir.cli import main

        if given[0] == "studio":
            import ssdir.studio.server

            ssdir.studio.server.serve = lambda open_app, *_: open_app(Path(tempfile.gettempdir()), print)  # type: ignore[assignment]
        sys.argv = ["ssdir", *given]
        main()

    return work


def run_all(tasks: Iterator[Task], workers: int) -> Iterator[tuple[Task, Observed]]:
    """Runs tasks, some at once, and yields each when it has ended."""
    running: dict[int, _Running] = {}
    waiting: Task | None = next(tasks, None)
    while running or waiting is not None:
        while waiting is not None and len(running) < workers:
            running[_start(waiting)] = _Running(waiting, time.monotonic())
            waiting = next(tasks, None)
        ended = None
        for pid, each in running.items():
            done, status, usage = os.wait4(pid, os.WNOHANG)
            if done:
                ended = pid
                break
            if time.monotonic() - each.started > WALL_SECONDS:
                os.killpg(pid, signal.SIGKILL)
        if ended is None:
            time.sleep(0.005)
            continue
        each = running.pop(ended)
        yield each.task, _observe(each, status, usage, ended)


def _start(task: Task) -> int:
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        _become(task)
        _limit()
        code = _code_of(task.work)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                code = code or 1
        os._exit(code)


def _become(task: Task) -> None:
    """Sets the child's folder, streams and folder for temporary files."""
    temporary = task.folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    os.chdir(task.folder)
    os.environ["TMPDIR"] = tempfile.tempdir = str(temporary)
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(f"{task.folder}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
        os.close(file)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)


def _limit() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_ROOM, used + ADDRESS_ROOM))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _code_of(work: Callable[[], None]) -> int:
    try:
        work()
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _observe(each: _Running, status: int, usage: Any, pid: int) -> Observed:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # What the child may have started.
    code = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - each.started
    said = [Path(f"{each.task.folder}.{name}") for name in ("stdout", "stderr")]
    stdout, stderr = (path.read_text(errors="replace") if path.exists() else "" for path in said)
    for path in said:
        path.unlink(missing_ok=True)
    timed_out = code in (-signal.SIGXCPU, -signal.SIGKILL)
    return Observed(code, stdout, stderr, seconds, usage.ru_maxrss * 1024 - each.before, timed_out)


def resident_bytes() -> int:
    """Returns the memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def fresh(folder: Path) -> Path:
    """Makes a new empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
