"""Commands that are killed while they work: what they leave is whole or nothing, and trainings go on as if not."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from campaign import samples
from campaign.runner import fresh

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
"""One thread, since threads that wait for each other take CPU time, by which the moments of kills are chosen."""

PATIENCE = 120
"""Seconds in which a command must end after Ctrl-C."""

WRONG = ("traceback", "hang", "partial_output", "leftovers", "differs", "not_resumed")


@dataclass(frozen=True)
class Job:
    """A command that writes.

    Attributes:
        line: its arguments, with `{base}`, `{many}` (a folder of many pictures, as COCO) and `{out}`.
        output: what it writes, below `{out}`.
        weight: how often it is killed, relative to the others.
        resume: further arguments with which the command goes on where it was; None if it begins anew.
    """

    line: str
    output: str
    weight: int = 1
    resume: tuple[str, ...] | None = None


RECIPE = "{base}/recipe.yaml detector.epochs=3 representation.epochs=3 --data {base}/coco"
JOBS = {
    "encode": Job(
        "encode {base}/model {many}/train --out {out}/o.parquet --batch-size 8 --images-per-part 100",
        "o.parquet",
        resume=(),
    ),
    "index": Job("index {many}/objects.parquet --out {out}/index", "index"),
    "export": Job("export {base}/model --out {out}/model.onnx", "model.onnx"),
    "data convert": Job("data convert {many} --to yolo --out {out}/o", "o"),
    "data scatter": Job("data scatter --out {out}/o --train 400 --val 20 --test 20", "o"),
    "train": Job(f"train {RECIPE} --out {{out}}/run", "run", 2, resume=("--resume",)),
}


@dataclass(frozen=True)
class Kill:
    """The outcome of a kill."""

    command: str
    signal: str
    number: int
    share: float
    outcome: str
    detail: str


def make_many(folder: Path, base: Path, count: int = 600) -> None:
    """Makes a COCO data set of many pictures, which are links to four, and its objects."""
    content: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    samples.photos(folder / "four")
    (folder / "train").mkdir()
    for number in range(count):
        name = f"{number:05d}.png"
        os.link(folder / "four" / f"{'abcd'[number % 4]}.png", folder / "train" / name)
        content["images"].append({"id": number, "file_name": name, "width": samples.SIDE, "height": samples.SIDE})
        box = {"id": number, "image_id": number, "category_id": 1, "bbox": [4, 4, 30, 30]}
        content["annotations"].append(box)
    samples.write_json(folder / "annotations/instances_train.json", content)
    arguments = ["encode", str(base / "model"), str(folder / "train"), "--out", str(folder / "objects.parquet")]
    subprocess.run([sys.executable, "-m", "ssdir", *arguments], check=True, capture_output=True)


class Killer:
    """Runs the jobs to their ends, then again, killed at random moments."""

    def __init__(self, folder: Path, base: Path, seed: int, workers: int) -> None:
        self.folder, self.base, self.seed, self.workers = fresh(folder), base, seed, workers
        self.cpu_seconds: dict[str, float] = {}
        # Where Ctrl-C is ignored, as of what a shell starts in the background, commands would ignore it, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.whole: dict[str, Any] = {}

    def run(self, total: int) -> Iterator[Kill]:
        """Yields as many kills."""
        make_many(self.folder / "many", self.base)
        with ThreadPoolExecutor(self.workers) as pool:
            list(pool.map(self._run_whole, JOBS))
            commands = [name for name, job in JOBS.items() for _ in range(job.weight)]
            chosen = [(commands[number % len(commands)], number) for number in range(total)]
            yield from pool.map(lambda pair: self._kill(*pair), chosen)

    def _arguments(self, name: str, out: Path) -> list[str]:
        places = {"{base}": self.base, "{many}": self.folder / "many", "{out}": out}
        arguments = JOBS[name].line.split()
        for mark, place in places.items():
            arguments = [argument.replace(mark, str(place)) for argument in arguments]
        return [sys.executable, "-m", "ssdir", *arguments]

    def _run_whole(self, name: str) -> None:
        out = fresh(self.folder / "whole" / name)
        process = self._start(name, out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{name} failed: {Path(f'{out}.stderr').read_text()[-500:]}")
        self.cpu_seconds[name] = usage.ru_utime + usage.ru_stime
        self.whole[name] = contents(out / JOBS[name].output)

    def _start(self, name: str, out: Path) -> subprocess.Popen[bytes]:
        with Path(f"{out}.stderr").open("wb") as said:
            command = self._arguments(name, out)
            streams: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": said}
            return subprocess.Popen(command, **streams, env=ONE_THREAD, start_new_session=True)

    def _kill(self, name: str, number: int) -> Kill:
        rng = np.random.default_rng([self.seed, 77, number])
        sent = SIGNALS[int(rng.integers(len(SIGNALS)))]
        share = float(rng.uniform(0.3, 1.0))
        out = fresh(self.folder / "kills" / str(number))
        process = self._start(name, out)
        # Not after seconds of the clock, of which a busy machine takes more.
        while process.poll() is None and _cpu_seconds(process.pid) < share * self.cpu_seconds[name]:
            time.sleep(0.005)
        if process.poll() is None:
            process.send_signal(sent)
        try:
            process.wait(PATIENCE)
            outcome, detail = self._judge(name, out, sent, Path(f"{out}.stderr").read_text(errors="replace"))
        except subprocess.TimeoutExpired:
            outcome, detail = "hang", f"not ended {PATIENCE} s after the signal"
        _end_group(process)
        shutil.rmtree(out)
        return Kill(name, sent.name, number, round(share, 3), outcome, detail)

    def _judge(self, name: str, out: Path, sent: signal.Signals, stderr: str) -> tuple[str, str]:
        if "Traceback (most recent call last)" in stderr:
            return "traceback", stderr.strip().splitlines()[-1]
        output = out / JOBS[name].output
        job = JOBS[name]
        kept = [output, *([out / f".{output.name}.parts"] if job.resume is not None else [])]
        others = [path.name for path in out.iterdir() if path not in kept]
        if any(not other.startswith(".") or sent != signal.SIGKILL for other in others):
            return "leftovers", ", ".join(others)
        if job.resume is not None and not output.is_file():
            return self._resume(name, output, job.resume)
        if not output.exists():
            return "nothing", ""
        return _same(lambda: contents(output), self.whole[name])

    def _resume(self, name: str, output: Path, further: Sequence[str]) -> tuple[str, str]:
        arguments = [*self._arguments(name, output.parent), *further]
        ended = subprocess.run(arguments, capture_output=True, text=True, check=False, env=ONE_THREAD)
        if ended.returncode:
            return "not_resumed", ended.stderr.strip()[-300:]
        outcome, detail = _same(lambda: contents(output), self.whole[name])
        return ("resumed", "") if outcome == "whole" else ("differs", detail)


def _cpu_seconds(pid: int) -> float:
    """Returns the CPU time that a process has taken so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return math.inf
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends what the command started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _same(read: Callable[[], Any], whole: Any) -> tuple[str, str]:
    try:
        now = read()
    except Exception as error:  # What can't be read is not whole, for whatever reason.
        return "partial_output", f"{type(error).__name__}: {str(error)[:200]}"
    return ("whole", "") if now == whole else ("partial_output", f"{str(now)[:150]} instead of {str(whole)[:150]}")


def contents(output: Path) -> Any:
    """Returns what identifies a whole output: weights bit by bit, rows and images by number, files by name."""
    if output.name == "run":
        return weights_of(output / "model" / "model.safetensors")
    if output.suffix == ".onnx":
        import onnx

        onnx.checker.check_model(onnx.load(output))
        return len(onnx.load(output).graph.node)
    if output.suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.ParquetFile(output, page_checksum_verification=True).read(["image_index", "score"]).to_pylist()
    if output.name == "index":
        from ssdir.analysis.search.index import ObjectIndex

        return len(ObjectIndex.open(output))
    return sorted(str(path.relative_to(output)) for path in output.rglob("*"))


def weights_of(path: Path) -> dict[str, bytes]:
    """Returns the bytes of each tensor."""
    from safetensors.numpy import load_file

    return {name: value.tobytes() for name, value in sorted(load_file(path).items())}


def summarise(kills: Sequence[Kill]) -> dict[str, Any]:
    """Returns counts, and all failures."""
    outcomes = sorted({kill.outcome for kill in kills} | set(WRONG))

    def counts(group: Sequence[Kill]) -> dict[str, int]:
        found = {name: sum(kill.outcome == name for kill in group) for name in outcomes}
        return {"tried": len(group), **{name: number for name, number in found.items() if number}}

    by_command = {name: counts([kill for kill in kills if kill.command == name]) for name in JOBS}
    by_signal = {each.name: counts([kill for kill in kills if kill.signal == each.name]) for each in SIGNALS}
    total = {"tried": len(kills), **{name: sum(kill.outcome == name for kill in kills) for name in outcomes}}
    failures = [vars(kill) for kill in kills if kill.outcome in WRONG]
    return {"total": total, "by_command": by_command, "by_signal": by_signal, "failures": failures}
