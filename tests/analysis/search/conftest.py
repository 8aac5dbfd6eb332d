"""Fixtures of encoded objects with known classes, sizes and neighbours."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdir.object_arrays import ObjectArrays
from ssdir.store.writer import ObjectWriter

NAMES = ["cat", "o'dog"]
DIM = 8
MakeObjects = Callable[..., Path]


@pytest.fixture
def make_objects(tmp_path: Path) -> MakeObjects:
    """Writes a file of objects in ten pictures; each embedding lies around the centre of its class."""

    def make(
        name: str = "objects.parquet",
        count: int = 60,
        seed: int = 0,
        names: list[str] = NAMES,
        fingerprint: str = "weights",
        size: tuple[int, int] = (100, 200),
    ) -> Path:
        rng = np.random.default_rng(seed)
        paths = [tmp_path / f"{name}-{number}.png" for number in range(10)]
        for number, path in enumerate(paths):
            Image.new("RGB", size[::-1], (20 * number, 90, 200)).save(path)
        image = np.sort(rng.integers(0, 10, count))
        labels = rng.integers(0, len(names), count)
        centres = np.eye(len(names), DIM) * 4
        sides = rng.uniform(0.1, 0.5, (count, 2))
        objects = ObjectArrays(
            image_index=image,
            batch_size=10,
            z_where=np.concatenate([np.full((count, 2), 0.5), sides], axis=1).astype(np.float32),
            scores=rng.uniform(0.5, 1, count).astype(np.float32),
            labels=labels,
            z_what=(centres[labels] + rng.normal(size=(count, DIM))).astype(np.float32),
            z_what_scale=None,
            z_depth=None,
            anchor_index=np.arange(count),
        )
        path = tmp_path / name
        with ObjectWriter(path, "tiny", names, DIM, fingerprint) as writer:
            writer.write(objects, paths, [size] * 10)
        return path

    return make
