"""Measures how long the network waits for images while a folder is encoded, by the number of reading threads.

Images are on the disk, on a web server and on an S3 server. The servers are here and answer after 20 ms,
like those of the same region. The network runs on one thread.

Run: python benchmarks/reading.py PHOTOGRAPHS --out results/bench/reading.json
"""

from __future__ import annotations

import argparse
import http.server
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ssdir.data.image_files import images_in
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.writer import write_scatter
from ssdir.evaluation.provenance import provenance
from ssdir.inference.files import read_image_batches
from ssdir.inference.predictor import Predictor, load
from ssdir.outputs import atomic_file, claim
from ssdir.storage import Location

LATENCY_SECONDS, BATCH, SEED = 0.02, 32, 1
READERS = (0, 1, 4)


class Files(http.server.SimpleHTTPRequestHandler):
    """Answers requests for files of a folder as a web server and as S3 does, after a while."""

    protocol_version = "HTTP/1.1"

    def send_head(self) -> Any:
        """Finds the file, after a while."""
        time.sleep(LATENCY_SECONDS)
        return super().send_head()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


def serve(folder: Path, port: Connection) -> None:
    """Serves the files of a folder until the process ends."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder)))
    port.send(server.server_address[1])
    server.serve_forever()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serves a folder from another process; yields the address."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


def measure(predictor: Predictor, images: Sequence[Location], readers: int) -> dict[str, float]:
    """Encodes images, and measures the share of the time in which the network waits for a batch."""
    waited, network_cpu = 0.0, 0.0
    started, cpu = time.perf_counter(), time.process_time()
    batches = read_image_batches(images, predictor.image_size, predictor.resize, BATCH, True, readers=readers)
    asked = started
    for batch in batches:
        waited += time.perf_counter() - asked
        cpu_before = time.thread_time()
        predictor.encode_pixels(batch.pixels)
        network_cpu += time.thread_time() - cpu_before
        asked = time.perf_counter()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {
        "images_per_second": round(len(images) / seconds, 1),
        "waited_share": round(waited / seconds, 4),
        "network_cpu_ms_per_image": round(1000 * network_cpu / len(images), 3),
        "other_cpu_ms_per_image": round(1000 * (cpu - network_cpu) / len(images), 3),
    }


def measure_folder(model: str, folder: Path, count: int, address: str) -> Iterator[dict[str, Any]]:
    """Measures the first images of a folder, whose parent is served, by place and number of readers."""
    predictor, files = load(model, "cpu"), images_in(folder)[:count]
    names = [file.relative_to(folder.parent).as_posix() for file in files]
    places: dict[str, Sequence[Location]] = {
        "disk": files,
        "web server": [f"{address}/{name}" for name in names],
        "S3 server": [f"s3://{name}" for name in names],
    }
    for place, images in places.items():
        measure(predictor, images[: 2 * BATCH], 1)  # Connections are made, files are in the page cache.
        for readers in READERS:
            yield {"model": model, "place": place, "readers": readers} | measure(predictor, images, readers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photographs", type=Path, help="folder of photographs")
    parser.add_argument("--digits", type=int, default=2000, help="number of images of digits, 96×96 pixels")
    parser.add_argument("--count", type=int, default=96, help="number of photographs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--force", action="store_true")
    options = parser.parse_args()
    claim(options.out, options.force)
    torch.set_num_threads(1)
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    started, records = time.perf_counter(), []
    with TemporaryDirectory() as temporary:
        root = Path(temporary)
        write_scatter(
            root / "data", "digits", ScatterConfig(canvas=96, train=1, val=1, test=options.digits, seed=SEED)
        )
        (root / "digits").symlink_to(root / "data" / "test")
        (root / "photographs").symlink_to(options.photographs.resolve())
        with served(root) as address:
            os.environ["AWS_ENDPOINT_URL"] = address
            for model, name, count in (
                ("tiny-digits", "digits", options.digits),
                ("photos", "photographs", options.count),
            ):
                for record in measure_folder(model, root / name, count, address):
                    records.append(record)
                    print(json.dumps(record), flush=True)
    config = {
        "latency_seconds": LATENCY_SECONDS,
        "batch": BATCH,
        "digits": options.digits,
        "photos": options.count,
    }
    about = provenance(config, SEED, None, "cpu", time.perf_counter() - started)
    with atomic_file(options.out, options.force) as file:
        file.write_text(json.dumps({"records": records, "provenance": about}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
