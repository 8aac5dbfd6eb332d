"""Files of tracks as `ssdir track` writes them: objects with their tracks and visible shares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ssdir.object_arrays import ObjectArrays
from ssdir.object_table import track_schema
from ssdir.store.writer import ObjectWriter

SIZE = (40, 60)


def write_tracks(
    path: Path,
    z_what: NDArray[np.floating],
    track_id: NDArray[np.int64],
    frame: NDArray[np.int64],
    scores: NDArray[np.floating],
    visible: NDArray[np.floating],
    frames: Sequence[str | Path] | None = None,
    fingerprint: str = "weights",
) -> Path:
    """Writes views (M,), ordered by their frame, of a clip of 40 x 60 pixels."""
    count = int(frame.max()) + 1
    rng = np.random.default_rng(0)
    objects = ObjectArrays(
        image_index=frame,
        batch_size=count,
        z_where=rng.uniform(0.3, 0.5, (len(frame), 4)).astype(np.float32),
        scores=scores.astype(np.float32),
        labels=np.zeros(len(frame), dtype=np.int64),
        z_what=z_what.astype(np.float32),
        z_what_scale=np.ones_like(z_what, dtype=np.float32),
        z_depth=None,
        anchor_index=np.arange(len(frame)),
    )
    kinds = track_schema()
    given = pa.table([track_id, visible.astype(np.float32)], schema=kinds)
    names = frames or [f"clip.mp4#frame={number}" for number in range(count)]
    with ObjectWriter(path, "no-model", ["object"], z_what.shape[1], fingerprint, given=kinds) as writer:
        writer.write(objects, names, [SIZE] * count, given)
    return path
