"""Measures how long a large index takes to make and to search, its memory, its size on disk, and its recall.

    python benchmarks/search.py --out FILE [--force] [--objects 10000000] [--sets clustered isotropic] [--keep DIR]

Objects with embeddings of 64 numbers are written as a folder of parts, as `ssdir encode` writes it, and indexed in
a process of its own, whose memory is read 20 times a second. Queries are other embeddings of the same kind. Exact
neighbours come from brute force in NumPy, block by block. `--keep` names a folder for the indexes, which a second
run with the same folder searches again without making them: timings depend on what else the machine does.

`clustered` embeddings are like those of real objects: 20,000 clusters, of which a few have most objects, on a
sphere; within each, the standard deviation falls along orthogonal directions of its own. `isotropic` ones have no
structure at all, and are the hardest: all distances are nearly equal. The intrinsic dimension says how hard a set
is; with `--embeddings`, that of a file of encoded objects is measured too, beside that of as many synthetic ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import pickle
import re
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from ssdir.analysis.search import Neighbours, ObjectFilter, ObjectIndex
from ssdir.analysis.search.plan import SearchPlan
from ssdir.errors import InputError
from ssdir.evaluation.provenance import provenance
from ssdir.object_arrays import ObjectArrays
from ssdir.outputs import atomic_file, claim
from ssdir.store.folder import part_name
from ssdir.store.objects_file import read_stored
from ssdir.store.writer import ObjectWriter

DIM, CLUSTERS, BASES, QUERIES, NEAREST = 64, 20_000, 64, 300, 10
BLOCK, PER_IMAGE = 100_000, 10
ADDED = {"add_few": 10_000, "add_more": 60_000}
"""Numbers of objects that are added: few are in no partition, more are assigned to those that there are."""
COLD = 20
"""Queries that are each asked of a newly opened index, none of whose files are in memory."""
SHARES = {"half": 0.5, "hundredth": 0.01, "ten_thousandth": 0.0001}
"""Share of the objects that a filter by score keeps."""
Blocks = Iterator[NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write.")
    parser.add_argument("--force", action="store_true", help="Replace an existing file.")
    parser.add_argument("--objects", type=int, default=10_000_000, help="How many.")
    parser.add_argument("--sets", nargs="+", choices=list(SETS), default=list(SETS), help="Embeddings to measure.")
    parser.add_argument("--keep", type=Path, help="Folder for the indexes, which stay there: 4 GB for 10 million.")
    parser.add_argument("--embeddings", type=Path, help="Encoded objects whose intrinsic dimension to measure.")
    options = parser.parse_args()
    started = time.perf_counter()
    metrics: dict[str, Any] = {}
    try:
        claim(options.out, options.force)
        if options.embeddings is not None:
            metrics["intrinsic_dimension_of_encoded"] = compare_dimensions(options.embeddings)
        for name in options.sets:
            with tempfile.TemporaryDirectory() as scratch:
                folder = (options.keep or Path(scratch)) / f"{name}-{options.objects}"
                metrics[name] = measure(SETS[name], options.objects, folder)
    except InputError as error:
        parser.error(str(error))
    config = {"objects": options.objects, "dim": DIM, "clusters": CLUSTERS, "queries": QUERIES, "nearest": NEAREST}
    wall = time.perf_counter() - started
    with atomic_file(options.out, options.force) as file:
        content = {"metrics": metrics, "provenance": provenance(config, 0, None, "cpu", wall)}
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    Console().print_json(json.dumps(metrics))


# Embeddings -----------------------------------------------------------------------------------------------


def clustered(count: int, seed: int) -> Blocks:
    """Yields embeddings around the same centres for any seed, in blocks (M, 64)."""
    fixed, rng = np.random.default_rng(0), np.random.default_rng([1, seed])
    falling = np.arange(1, DIM + 1) ** -0.5
    centres = fixed.normal(size=(CLUSTERS, DIM)) * falling**0.5
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    bases = np.linalg.qr(fixed.normal(size=(BASES, DIM, DIM)))[0]
    weights = fixed.pareto(1.2, CLUSTERS) + 0.1
    radii = fixed.uniform(0.3, 0.8, CLUSTERS)
    basis = fixed.integers(0, BASES, CLUSTERS)
    for start in range(0, count, BLOCK):
        cluster = rng.choice(CLUSTERS, min(BLOCK, count - start), p=weights / weights.sum())
        offsets = rng.normal(size=(len(cluster), DIM)) * falling / np.linalg.norm(falling)
        block = centres[cluster]
        for number in range(BASES):
            own = basis[cluster] == number
            block[own] += radii[cluster[own], None] * (offsets[own] @ bases[number])
        yield block.astype(np.float32)


def isotropic(count: int, seed: int) -> Blocks:
    """Yields embeddings of independent normal numbers, in blocks (M, 64)."""
    rng = np.random.default_rng([2, seed])
    for start in range(0, count, BLOCK):
        yield rng.normal(size=(min(BLOCK, count - start), DIM)).astype(np.float32)


SETS: dict[str, Callable[[int, int], Blocks]] = {"clustered": clustered, "isotropic": isotropic}


def write_part(folder: Path, number: int, z_what: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
    """Writes a part as `ssdir encode` does."""
    images = -(-len(z_what) // PER_IMAGE)
    first = number * BLOCK // PER_IMAGE
    objects = ObjectArrays(
        image_index=np.arange(len(z_what)) // PER_IMAGE,
        batch_size=images,
        z_where=np.full((len(z_what), 4), 0.5, dtype=np.float32),
        scores=scores,
        labels=np.zeros(len(z_what), dtype=np.int64),
        z_what=z_what,
        z_what_scale=None,
        z_depth=None,
        anchor_index=np.arange(len(z_what)) % PER_IMAGE,
    )
    numbers = list(range(first, first + images))
    names = [f"/photos/{each // 1000:06d}/{each:09d}.jpg" for each in numbers]
    with ObjectWriter(folder / part_name(number), "benchmark", ["object"], z_what.shape[1], "benchmark") as writer:
        writer.write(objects, names, [(128, 128)] * images, numbers=numbers)


class Exact:
    """The exact nearest objects of queries, gathered block by block."""

    def __init__(self, queries: NDArray[np.float32]) -> None:
        self._queries = directions(queries)
        self.rows = np.zeros((len(queries), 0), dtype=np.int64)
        self.cosines = np.zeros((len(queries), 0), dtype=np.float32)

    def see(self, cosines: NDArray[np.float32], rows: NDArray[np.int64]) -> None:
        """Takes the cosines (queries, M) of objects of some rows into account."""
        both = np.concatenate([self.cosines, cosines], axis=1)
        numbers = np.concatenate([self.rows, np.broadcast_to(rows, cosines.shape)], axis=1)
        best = np.argsort(-both, axis=1)[:, :NEAREST] if both.shape[1] < 1000 else _largest(both)
        self.cosines, self.rows = (np.take_along_axis(each, best, axis=1) for each in (both, numbers))

    def recall(self, results: Sequence[Neighbours]) -> float:
        """Computes the share of the exact neighbours that were found."""
        pairs = zip(self.rows, results, strict=True)
        return float(np.mean([np.isin(rows, each.rows).mean() for rows, each in pairs]))


def _largest(values: NDArray[np.float32]) -> NDArray[np.int64]:
    some = np.argpartition(-values, NEAREST, axis=1)[:, :NEAREST]
    order = np.argsort(-np.take_along_axis(values, some, axis=1), axis=1)
    return np.take_along_axis(some, order, axis=1)


def directions(z_what: NDArray[np.float32]) -> NDArray[np.float32]:
    return z_what / np.linalg.norm(z_what, axis=1, keepdims=True)


def intrinsic_dimension(cosines: NDArray[np.float32]) -> float:
    """Estimates the dimension from distances to neighbours (n, k) (Levina and Bickel 2004, MacKay's average)."""
    distances = np.sqrt(2 - 2 * np.minimum(np.sort(cosines, axis=1)[:, ::-1], 1 - 1e-7))
    return float(1 / np.log(distances[:, -1:] / distances[:, :-1]).mean())


def compare_dimensions(file: Path) -> dict[str, Any]:
    """Measures the intrinsic dimension of encoded objects and of as many synthetic ones."""
    z_what = read_stored(file).z_what
    sets = {"encoded": z_what, **{name: np.concatenate(list(make(len(z_what), 0))) for name, make in SETS.items()}}
    found: dict[str, Any] = {"objects": len(z_what), "dim": z_what.shape[1]}
    for name, each in sets.items():
        cosines = directions(each[:QUERIES]) @ directions(each).T
        found[name] = intrinsic_dimension(np.sort(cosines, axis=1)[:, -NEAREST - 1 : -1])  # without itself
    return found


# Measurements ---------------------------------------------------------------------------------------------


def measure(make: Callable[[int, int], Blocks], count: int, folder: Path) -> dict[str, Any]:
    """Measures an index of `count` objects, which is made in a folder if it is not there."""
    filters = {"": ObjectFilter()} | {name: ObjectFilter(min_score=1 - share) for name, share in SHARES.items()}
    (queries,) = make(QUERIES, 1)
    record = folder / "record.pickle"
    if not record.exists():
        objects = folder / "objects"
        objects.mkdir(parents=True)
        exact = write_objects(make(count, 0), objects, queries, filters)
        built = {"load_before": os.getloadavg()[0], "objects_bytes": bytes_in(objects)}
        built |= in_own_process(build, folder / "index", objects)
        shutil.rmtree(objects)
        record.write_bytes(pickle.dumps((built, exact)))
    built, exact = pickle.loads(record.read_bytes())
    index, plan = folder / "index", SearchPlan.of(count, DIM)
    added = {name: in_own_process(extend, index, objects) for name, objects in more_objects(make)}
    return {
        "objects": count,
        "intrinsic_dimension": intrinsic_dimension(exact[""].cosines),
        "cosine_of_nearest": float(exact[""].cosines[:, 0].mean()),
        "plan": dataclasses.asdict(plan) | {"refine": plan.refine_factor(NEAREST)},
        "build": built,
        "index_bytes": bytes_in(index),
        "partitions_bytes": bytes_in(index / "objects.lance" / "_indices"),
        "search": in_own_process(search, index, queries, exact, filters),
        "cold": in_own_process(ask_cold, index, queries),
        **added,
    }


def more_objects(make: Callable[[int, int], Blocks]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for name, count in ADDED.items():
        yield name, next(make(count, 2))


def write_objects(
    blocks: Blocks, folder: Path, queries: NDArray[np.float32], filters: dict[str, ObjectFilter]
) -> dict[str, Exact]:
    """Writes parts, and returns the exact neighbours among the objects that pass each filter."""
    rng, row = np.random.default_rng(3), 0
    exact, directed = {name: Exact(queries) for name in filters}, directions(queries)
    for number, z_what in enumerate(blocks):
        scores = rng.uniform(0, 1, len(z_what)).astype(np.float32)
        write_part(folder, number, z_what, scores)
        cosines = directed @ directions(z_what).T
        for name, where in filters.items():
            kept = np.flatnonzero(scores >= np.float32(where.min_score or 0))
            exact[name].see(cosines[:, kept], row + kept)
        row += len(z_what)
    return exact


def search(
    path: Path, queries: NDArray[np.float32], exact: dict[str, Exact], filters: dict[str, ObjectFilter]
) -> dict[str, Any]:
    """Measures searches while the files are in memory: the first time, again, and with filters."""
    load = os.getloadavg()[0]
    ObjectIndex.open(path)  # which imports what is needed
    opening, index = timed(lambda: ObjectIndex.open(path))
    with memory_watch() as peak:
        first, results = ask(index, queries)
        again, _ = ask(index, queries)
    reading = [timed(lambda each=each: each.table)[0] for each in results[:50]]
    found = {
        "load_before": load,
        "open_ms": opening,
        "query_ms": spread(again),
        "first_query_ms": spread(first),
        "read_found_ms": spread(reading),
        "recall_at_10": exact[""].recall(results),
        "peak_mb": peak[0],
    }
    for name in SHARES:
        where = filters[name]
        ask(index, queries[:10], where)
        times, results = ask(index, queries[:100], where)
        found[f"query_ms_{name}"] = spread(times)
        found[f"recall_at_10_{name}"] = Exact.recall(_first(exact[name], 100), results)
    return found


def _first(exact: Exact, count: int) -> Exact:
    part = Exact(np.ones((count, 1), dtype=np.float32))
    part.rows, part.cosines = exact.rows[:count], exact.cosines[:count]
    return part


def build(path: Path, objects: Path) -> dict[str, Any]:
    """Makes the index; returns seconds, those after which each stage began, and the peak of memory in MB."""
    stages: dict[str, float] = {}
    started = time.perf_counter()

    def note(done: int, total: int, stage: str | None = None) -> None:
        stages.setdefault(stage or "", time.perf_counter() - started)

    with memory_watch() as peak:
        ObjectIndex.create(path, [objects], on_progress=note)
    return {"seconds": time.perf_counter() - started, "stages": stages, "peak_mb": peak[0]}


def extend(path: Path, z_what: NDArray[np.float32]) -> dict[str, Any]:
    """Adds objects to a copy of an index, and checks that each 100th is then its own nearest neighbour."""
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        copy, more = Path(scratch) / "index", Path(scratch) / "more"
        shutil.copytree(path, copy, copy_function=os.link)  # Lance's files never change.
        more.mkdir()
        scores = np.full(len(z_what), 0.5, dtype=np.float32)
        write_part(more, 10**5, z_what, scores)  # of images of their own
        index = ObjectIndex.open(copy)
        first = len(index)
        with memory_watch() as peak:
            seconds = timed(lambda: index.add([more]))[0] / 1000
        times, results = ask(index, z_what[::100])
    themselves = [each.rows[0] == first + 100 * number for number, each in enumerate(results)]
    return {
        "objects": len(z_what),
        "seconds": seconds,
        "peak_mb": peak[0],
        "query_ms": spread(times),
        "found_share": float(np.mean(themselves)),
    }


def ask_cold(path: Path, queries: NDArray[np.float32]) -> dict[str, Any]:
    """Measures opening, and a query of a newly opened index, with none of its files in memory."""
    opening, asking = [], []
    for query in queries[:COLD]:
        forget(path)
        milliseconds, index = timed(lambda: ObjectIndex.open(path))
        opening.append(milliseconds)
        forget(path)
        asking.append(timed(lambda index=index, query=query: index.nearest(query, NEAREST))[0])
    return {"open_ms": spread(opening), "query_ms": spread(asking)}


def forget(folder: Path) -> None:
    """Has the system drop the files of a folder from memory."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def ask(
    index: ObjectIndex, queries: NDArray[np.float32], where: ObjectFilter | None = None
) -> tuple[list[float], list[Neighbours]]:
    """Returns the milliseconds of each query, and the results."""
    results: list[Neighbours] = []
    times = [
        timed(lambda query=query: results.extend(index.nearest(query, NEAREST, where)))[0] for query in queries
    ]
    return times, results


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return 1000 * (time.perf_counter() - started), result


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "p95": statistics.quantiles(values, n=20)[-1]}


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@contextmanager
def memory_watch() -> Iterator[list[float]]:
    """Yields a list, whose one number is the peak of the process's memory in MB, files apart."""
    peak, ended = [anonymous_mb()], threading.Event()

    def watch() -> None:
        while not ended.wait(0.05):
            peak[0] = max(peak[0], anonymous_mb())

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    yield peak
    ended.set()
    thread.join()


def anonymous_mb() -> float:
    match = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) / 1e3 if match else float("nan")


def in_own_process(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


if __name__ == "__main__":
    main()
