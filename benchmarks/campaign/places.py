"""Runs commands in bad circumstances: full disks, read-only folders, two commands at once, many pictures."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign import samples
from campaign.kills import ONE_THREAD, contents
from campaign.runner import Observed, Task, command, fresh, run_all
from campaign.verdict import ACCEPTED, SENTENCE, Verdict, judge

WRITERS = {
    "encode": "encode {base}/model {base}/photos --out {out}/o.parquet",
    "index": "index {base}/objects.parquet --out {out}/index",
    "convert to CSV": "convert {base}/objects.parquet --to csv --out {out}/o.csv",
    "convert to COCO": "convert {base}/objects.parquet --to coco --out {out}/o.json",
    "convert to NumPy": "convert {base}/objects.parquet --to npz --out {out}/o.npz",
    "convert for FiftyOne": "convert {base}/objects.parquet --to fiftyone --out {out}/o.json",
    "cluster": "cluster {base}/objects.parquet -k 2 --out {out}/c.csv --image-grid {out}/s.png",
    "outliers": "outliers {base}/objects.parquet --embeddings-only --out {out}/o.parquet --image-grid {out}/s.png",
    "classify fit": "classify fit {base}/objects.parquet --labels {base}/labels.csv --out {out}/c.json",
    "classify predict": "classify predict {base}/classifier.json {base}/objects.parquet --out {out}/p.csv",
    "search": "search {base}/index --row 0 --image-grid {out}/s.png",
    "export to ONNX": "export {base}/model --out {out}/model.onnx",
    "export to torch": "export {base}/model --format torch --out {out}/model.pt2",
    "reconstruct": "reconstruct {base}/model {base}/photos --out {out}/s.png",
    "evaluate": "evaluate {base}/model {base}/coco --train-split none --out {out}/m.json",
    "data scatter": "data scatter --out {out}/o --train 40 --val 4 --test 4",
    "data check": "data check {base}/coco --out {out}/check",
    "data convert": "data convert {base}/coco --to yolo --out {out}/o",
    "data unpack": "data unpack {base}/tetrominoes_train.tfrecords --out {out}/o --train 2 --val 1 --test 1",
    "train": "train {base}/recipe.yaml --data {base}/coco --out {out}/run",
    "bench": "bench {base}/model --objects 1 --repeats 1 --no-memory --no-engines --out {out}/b.json",
    "reproduce": "reproduce depth --scale {base}/plan.yaml --so-far --out {out}/results --runs {out}/runs",
}
DISK = 1 << 20


@dataclass(frozen=True)
class Trial:
    """The outcome of one command in one circumstance."""

    circumstance: str
    command: str
    outcome: str
    detail: str


def arguments_of(line: str, base: Path, out: Path) -> list[str]:
    """Fills in the folders of a command's arguments."""
    return [part.replace("{base}", str(base)).replace("{out}", str(out)) for part in line.split()]


def can_mount(folder: Path) -> str | None:
    """Says why no disk can be mounted here; None if one can."""
    try:
        _mount(fresh(folder / "trial"))
    except (OSError, subprocess.CalledProcessError) as error:
        return f"a small disk can't be mounted: {error}"
    _unmount(folder / "trial")
    return None


def _mount(disk: Path) -> None:
    arguments = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(disk)]
    subprocess.run(arguments, check=True, capture_output=True)


def _unmount(disk: Path) -> None:
    subprocess.run(["umount", "-l", str(disk)], check=True, capture_output=True)


def try_disks(folder: Path, base: Path, workers: int) -> Iterator[Trial]:
    """Runs every command that writes, on a full disk and on a read-only one."""
    samples.records(base)
    for circumstance in ("full disk", "read-only folder"):
        tasks = (_on_disk(circumstance, name, folder, base) for name in WRITERS)
        for task, observed in run_all(tasks, workers):
            verdict = judge(observed, task.folder, {"out/", "/out"}, None, None, False, None)
            _unmount(task.folder / "disk")
            shutil.rmtree(task.folder)
            yield Trial(*task.key, *_must_fail(verdict, observed))


def _on_disk(circumstance: str, name: str, folder: Path, base: Path) -> Task:
    own = fresh(folder / "disks" / f"{circumstance}-{name}".replace(" ", "-"))
    disk = own / "disk"
    disk.mkdir()
    _mount(disk)
    (disk / "out").mkdir()
    (own / "out").symlink_to(disk / "out")
    if circumstance == "full disk":
        with (disk / "filler").open("wb") as filler:
            while True:
                try:
                    os.write(filler.fileno(), bytes(4096))
                except OSError:
                    break
    else:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, capture_output=True)
    return Task((circumstance, name), own, command(arguments_of(WRITERS[name], base, own / "out")))


def _must_fail(verdict: Verdict, observed: Observed) -> tuple[str, str]:
    if verdict.outcome == ACCEPTED and observed.code == 0:
        return "silent_difference", "ended as if it had written"
    return verdict.outcome, verdict.detail


# Two at once ------------------------------------------------------------------------------------------------

AT_ONCE = ("encode", "index", "export to ONNX", "data scatter", "data convert", "train", "convert to CSV")


def try_two_at_once(folder: Path, base: Path) -> Iterator[Trial]:
    """Runs two of the same command with one output, without and with --force; and two that add to one index."""
    for name in AT_ONCE:
        for more in ("", " --force"):
            own = fresh(folder / "two" / f"{name}{more}".replace(" ", "-"))
            (own / "out").mkdir()
            line = arguments_of(WRITERS[name] + more, base, own / "out")
            yield _pair(f"{name}{more}", own, [line, line], base)
    own = fresh(folder / "two" / "add")
    shutil.copytree(base / "index", own / "out" / "index")
    files = []
    for number in (1, 2):
        samples.photos(own / f"photos{number}")
        files.append(own / f"{number}.parquet")
        encode = ["encode", str(base / "model"), str(own / f"photos{number}"), "--out", str(files[-1])]
        list(run_all(iter([Task("", own / f"encoding{number}", command(encode))]), 1))
    adding = [["index", str(file), "--out", str(own / "out" / "index"), "--add"] for file in files]
    yield _pair("index --add", own, adding, base)


def fresh_command(arguments: Sequence[str]) -> Callable[[], None]:
    """Runs `ssdir` in a fresh interpreter: the threads of Lance, which writes indices, don't survive a fork."""

    def work() -> None:
        os.execv(sys.executable, [sys.executable, "-m", "ssdir", *arguments])

    return work


def _pair(name: str, own: Path, lines: list[list[str]], base: Path) -> Trial:
    tasks = [Task(number, own / f"at{number}", fresh_command(line)) for number, line in enumerate(lines)]
    ends = [observed for _, observed in run_all(iter(tasks), 2)]
    outcome, detail = _judge_pair(name, own / "out", ends, base)
    shutil.rmtree(own)
    return Trial("two at once", name, outcome, detail)


def _judge_pair(name: str, out: Path, ends: list[Observed], base: Path) -> tuple[str, str]:
    for observed in ends:
        if "Traceback (most recent call last)" in observed.stderr or observed.code < 0:
            return "traceback", f"exit {observed.code}, {observed.seconds:.0f} s: {observed.stderr.strip()[-300:]}"
        if observed.code and not any(line.startswith("error: ") for line in observed.stderr.splitlines()):
            return "unclear_error", observed.stderr.strip()[-300:]
    succeeded = sum(observed.code == 0 for observed in ends)
    hidden = [path.name for path in out.iterdir() if path.name.startswith(".")]
    if hidden:
        return "partial_output", f"left: {', '.join(hidden)}"
    if not succeeded:
        return "unclear_error", "neither succeeded: " + ends[0].stderr.strip()[-300:]
    try:
        for path in out.iterdir():
            contents(path)
        if name == "index --add":
            added = contents(out / "index") - contents(base / "index")
            if added != succeeded * 32:
                return "silent_difference", f"{succeeded} succeeded, {added} objects were added"
    except Exception as error:  # What can't be read is not whole, for whatever reason.
        return "partial_output", f"{type(error).__name__}: {str(error)[:200]}"
    return (ACCEPTED, "both succeeded") if succeeded == 2 else (SENTENCE, "one was refused")


# Memory -----------------------------------------------------------------------------------------------------


def memory_of_many(folder: Path, base: Path, few: int = 2000, many: int = 20_000) -> dict[str, Any]:
    """Measures the peak memory of encoding few and many small pictures, in new processes."""
    peaks = {}
    for count in (few, many):
        own = fresh(folder / "memory")
        samples.photos(own / "four")
        (own / "photos").mkdir()
        for number in range(count):
            os.link(own / "four" / f"{'abcd'[number % 4]}.png", own / "photos" / f"{number:06d}.png")
        line = ["encode", str(base / "model"), str(own / "photos"), "--out", str(own / "o.parquet")]
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "ssdir", *line],
            ONE_THREAD,
            file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
        )
        _, status, usage = os.wait4(pid, 0)
        if os.waitstatus_to_exitcode(status):
            raise RuntimeError(f"encoding {count} pictures failed")
        peaks[count] = usage.ru_maxrss / 1024
        shutil.rmtree(own)
    return {
        "images": [few, many],
        "peak_mib": [round(peaks[few], 1), round(peaks[many], 1)],
        "growth_mib": round(peaks[many] - peaks[few], 1),
    }
