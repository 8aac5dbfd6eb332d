"""Measures the time to build and query a large index, and its recall of the nearest neighbours.

    python benchmarks/search.py --out FILE [--force] [--objects 1000000] [--embeddings OBJECTS.parquet]

Embeddings are sampled around 2,000 cluster centres, each at a random distance from one, similar to those of real
objects. With `--embeddings`, the embeddings of a file of encoded objects, repeated with a little noise, are
measured too. Exact neighbours come from brute force in NumPy. The machine's load before is recorded, because
timings on a busy machine are longer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from rich.console import Console

from ssdir.analysis.search import Neighbours, ObjectFilter, ObjectIndex
from ssdir.errors import InputError
from ssdir.evaluation.provenance import provenance
from ssdir.object_arrays import ObjectArrays
from ssdir.outputs import atomic_file, claim
from ssdir.store.objects_file import read_stored
from ssdir.store.writer import ObjectWriter

DIM, CENTRES, QUERIES, NEAREST = 64, 2000, 200, 10
PER_IMAGE = 10
FILTERS = {"half": 0.5, "hundredth": 0.99, "ten_thousandth": 0.9999}
"""Minimum scores of filtered queries, by the share of objects that they keep."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write.")
    parser.add_argument("--force", action="store_true", help="Replace an existing file.")
    parser.add_argument("--objects", type=int, default=1_000_000, help="How many.")
    parser.add_argument("--embeddings", type=Path, help="Encoded objects whose embeddings to repeat.")
    options = parser.parse_args()
    started = time.perf_counter()
    try:
        claim(options.out, options.force)
        metrics = {"clusters": measure(made_up(options.objects))}
        if options.embeddings is not None:
            metrics["repeated"] = measure(repeated(options.embeddings, options.objects))
    except InputError as error:
        parser.error(str(error))
    config = {"objects": options.objects, "centres": CENTRES, "queries": QUERIES, "nearest": NEAREST}
    wall = time.perf_counter() - started
    with atomic_file(options.out, options.force) as file:
        content = {"metrics": metrics, "provenance": provenance(config, 0, None, "cpu", wall)}
        file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    Console().print_json(json.dumps(metrics))


def made_up(count: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CENTRES, DIM)).astype(np.float32)
    z_what = centres[rng.integers(0, CENTRES, count)]
    for start in range(0, count, 100_000):
        part = z_what[start : start + 100_000]
        part += rng.uniform(0.1, 0.6, (len(part), 1)).astype(np.float32) * rng.normal(size=part.shape)
    return z_what


def repeated(file: Path, count: int) -> NDArray[np.float32]:
    z_what = read_stored(file).z_what
    rng = np.random.default_rng(0)
    many = z_what[rng.integers(0, len(z_what), count)]
    many += (0.2 * z_what.std(axis=0) * rng.normal(size=many.shape)).astype(np.float32)
    return many


def measure(z_what: NDArray[np.float32]) -> dict[str, Any]:
    """Measures seconds to build, milliseconds of a query and of reading results, and recall, also filtered."""
    load = os.getloadavg()[0]
    rng = np.random.default_rng(1)
    queries = z_what[rng.integers(0, len(z_what), QUERIES)] + 0.05 * rng.normal(size=(QUERIES, z_what.shape[1]))
    queries = queries.astype(np.float32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store(z_what, folder / "objects.parquet")
        started = time.perf_counter()
        index = ObjectIndex.create(folder / "index", [folder / "objects.parquet"])
        build = time.perf_counter() - started
        times, results = ask(index, queries, None)
        reading = [milliseconds(lambda each=each: each.table) for each in results]
        scores = pq.read_table(folder / "objects.parquet", columns=["score"])["score"].to_numpy()
        filtered: dict[str, float] = {}
        for name, least in FILTERS.items():
            slower, left = ask(index, queries, ObjectFilter(min_score=least))
            filtered[f"query_ms_{name}"] = statistics.median(slower)
            filtered[f"recall_at_10_{name}"] = recall(z_what, queries, left, np.flatnonzero(scores >= least))
        return {
            "dim": z_what.shape[1],
            "load_before": load,
            "build_seconds": build,
            "query_ms": statistics.median(times),
            "query_ms_slowest_in_20": statistics.quantiles(times, n=20)[-1],
            "read_found_ms": statistics.median(reading),
            "recall_at_10": recall(z_what, queries, results, np.arange(len(z_what))),
            **filtered,
        }


def store(z_what: NDArray[np.float32], path: Path) -> None:
    """Writes objects as `ssdir encode` does."""
    step, rng = 100_000, np.random.default_rng(2)
    with ObjectWriter(path, "benchmark", ["object"], z_what.shape[1], "benchmark") as writer:
        for start in range(0, len(z_what), step):
            part = z_what[start : start + step]
            images = -(-len(part) // PER_IMAGE)
            objects = ObjectArrays(
                image_index=np.arange(len(part)) // PER_IMAGE,
                batch_size=images,
                z_where=np.full((len(part), 4), 0.5, dtype=np.float32),
                scores=rng.uniform(0, 1, len(part)).astype(np.float32),
                labels=np.zeros(len(part), dtype=np.int64),
                z_what=part,
                z_what_scale=None,
                z_depth=None,
                anchor_index=np.arange(len(part)),
            )
            names = [f"{start + number}.png" for number in range(images)]
            writer.write(objects, names, [(128, 128)] * images)


def ask(
    index: ObjectIndex, queries: NDArray[np.float32], where: ObjectFilter | None
) -> tuple[list[float], list[Neighbours]]:
    """Returns the milliseconds of each query, after ten for warm-up, and the results."""
    for query in queries[:10]:
        index.nearest(query, NEAREST, where)
    results: list[Neighbours] = []
    times = [
        milliseconds(lambda query=query: results.extend(index.nearest(query, NEAREST, where))) for query in queries
    ]
    return times, results


def milliseconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - started)


def recall(
    z_what: NDArray[np.float32],
    queries: NDArray[np.float32],
    results: list[Neighbours],
    counted: NDArray[np.int64],
) -> float:
    """Computes the share of the true nearest neighbours, among objects that pass the filter, in the results."""
    chosen = z_what[counted]
    lengths = np.linalg.norm(chosen, axis=1)
    k, shares = min(NEAREST, len(counted)), []
    for query, each in zip(queries, results, strict=True):
        nearest = counted[np.argpartition(-(chosen @ query) / lengths, k - 1)[:k]]
        shares.append(np.isin(nearest, each.rows).mean())
    return float(np.mean(shares))


if __name__ == "__main__":
    main()
