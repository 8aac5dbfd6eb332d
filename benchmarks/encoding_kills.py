"""Kills encoding by Ray's workers at random, and compares what it writes with an undisturbed encoding.

A cluster of two machines, which are processes of this one, runs `ssdir encode --engine ray`. When a random number
of further parts is written, and after a random delay, `kill -9` ends a worker, the command, or a machine. A killed
command is repeated as it was; a killed machine is replaced by another.

Run: python benchmarks/encoding_kills.py --out results/bench/encoding-kills.json  (--small for a trial)
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from ray.cluster_utils import Cluster

sys.path.insert(0, str(Path(__file__).parent))

from encoding import MODEL, make_images, write_record
from ssdir.store.objects_file import read_stored
from ssdir.store.skipped import read_skipped

KINDS = ("worker", "command", "machine")
MOST_PARTS_BETWEEN, MOST_DELAY_SECONDS = 3, 2.0
OBJECT_STORE_BYTES = 80 << 20


class Machines:
    """A cluster of two machines with one core each; its head has none."""

    def __init__(self) -> None:
        about = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        self.cluster = Cluster(initialize_head=True, head_node_args=about)
        self.nodes: list[Any] = []
        self.complete()

    def complete(self) -> None:
        """Adds the machines that are missing."""
        while len(self.nodes) < 2:
            self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES))

    def kill_one(self, rng: np.random.Generator) -> None:
        """Kills a machine."""
        node = self.nodes.pop(int(rng.integers(len(self.nodes))))
        node.all_processes["raylet"][0].process.kill()


class Encoding:
    """A command that is begun again, as it is, whenever it was killed."""

    def __init__(self, images: Path, out: Path, machines: Machines) -> None:
        self.out, self.machines = out, machines
        how = ["--images-per-part", "50", "--engine", "ray", "--address", machines.cluster.address]
        self.command = [sys.executable, "-m", "ssdir", "encode", MODEL, str(images), "--out", str(out), *how]
        self.begin()

    def begin(self) -> None:
        """Starts the command."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def parts(self) -> int:
        """Returns how many parts are written."""
        return len(list(self.out.glob("part-*")))

    def wait_for(self, parts: int) -> bool:
        """Waits until so many parts are written; returns False if the command ends first."""
        while self.parts() < parts:
            if self.process.poll() is not None:
                return False
            time.sleep(0.02)
        return True

    def kill(self, kind: str, rng: np.random.Generator) -> bool:
        """Kills; returns False if there was nothing of this kind to kill."""
        if kind == "command":
            self.process.kill()
            self.process.communicate()
            self.begin()
        elif kind == "machine":
            self.machines.kill_one(rng)
            self.machines.complete()
        else:
            processes = list(psutil.process_iter(["cmdline"]))
            workers = [each for each in processes if "_Worker.encode" in (each.info["cmdline"] or [""])[0]]
            if not workers:
                return False
            workers[int(rng.integers(len(workers)))].kill()
        return True


def kill_often(encoding: Encoding, number: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Kills so many times while the encoding runs, each kind as often, in random order."""
    kinds = rng.permutation([KINDS[index % len(KINDS)] for index in range(number)]).tolist()
    kills: list[dict[str, Any]] = []
    while len(kills) < number:
        if not encoding.wait_for(encoding.parts() + int(rng.integers(1, MOST_PARTS_BETWEEN + 1))):
            break
        time.sleep(rng.uniform(0, MOST_DELAY_SECONDS))
        kind, parts = kinds[len(kills)], encoding.parts()
        if encoding.process.poll() is not None:
            break
        if encoding.kill(kind, rng):
            kills.append({"kind": kind, "parts_before": parts})
            print(len(kills), kills[-1], flush=True)
    return kills


def compare(killed: Path, undisturbed: Path) -> dict[str, Any]:
    """Compares two encodings row by row, by the repetition and value of every column."""
    counts: Counter[str] = Counter()
    same_metadata, (mine, whole) = True, (parts_of(each) for each in (killed, undisturbed))
    for name in sorted(mine | whole):
        tables = [
            read_stored(each / name).table if (each / name).exists() else None for each in (killed, undisturbed)
        ]
        got, expected = (Counter(map(repr, table.to_pylist())) if table else Counter() for table in tables)
        counts["rows"] += expected.total()
        counts["lost"] += (expected - got).total()
        further = got - expected
        counts["doubled"] += sum(count for row, count in further.items() if row in expected)
        counts["different"] += sum(count for row, count in further.items() if row not in expected)
        same_metadata &= None not in tables and tables[0].schema.equals(tables[1].schema, check_metadata=True)
    return {
        **{name: counts[name] for name in ("rows", "lost", "doubled", "different")},
        "same_parts": mine == whole,
        "same_metadata": same_metadata,
        "same_skipped": read_skipped(killed) == read_skipped(undisturbed),
        "skipped": len(read_skipped(killed)),
    }


def parts_of(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("part-*")}


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    number, count = (3, 1000) if arguments.small else (arguments.kills, 8000)
    images = make_images(folder / "images", count, arguments.seed, count // 100)
    machines = Machines()
    try:
        encoding = Encoding(images, folder / "killed", machines)
        kills = kill_often(encoding, number, np.random.default_rng(arguments.seed))
        errors = encoding.process.communicate()[1]
    finally:
        machines.cluster.shutdown()
    plain = [sys.executable, "-m", "ssdir", "encode", MODEL, str(images), "--out", str(folder / "undisturbed")]
    subprocess.run([*plain, "--images-per-part", "50"], check=True, capture_output=True)
    return {
        "kills": dict(Counter(kill["kind"] for kill in kills)) | {"total": len(kills)},
        "exit_code": encoding.process.returncode,
        "errors": [line for line in errors.splitlines() if not line.startswith("skipped")],
        **compare(folder / "killed", folder / "undisturbed"),
        "each_kill": kills,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="few images and kills, for a trial")
    arguments = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        results = measure(Path(folder), arguments)
    print({name: value for name, value in results.items() if name != "each_kill"})
    write_record(results, arguments, ("kills", "seed", "small"), started)


if __name__ == "__main__":
    main()
