"""What the writers of generated images and of clips share: glyphs, processes, the origin of the data, PNGs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import cv2
import numpy as np

from ssdir.data.images import Image8
from ssdir.data.processes import run_jobs
from ssdir.data.readers.splits import SPLITS, SplitName
from ssdir.data.scatter.generator import ScatterConfig
from ssdir.data.scatter.glyphs import Glyphs, load_glyphs
from ssdir.data.scatter.moving import MovingConfig
from ssdir.errors import InputError

_PNG_FLAGS = (cv2.IMWRITE_PNG_COMPRESSION, 1)

GeneratedConfig: TypeAlias = ScatterConfig | MovingConfig
WrittenT = TypeVar("WrittenT")


def load_splits(
    source: str, config: GeneratedConfig, root: Path | None, what: str = "images"
) -> dict[SplitName, Glyphs]:
    """Loads the glyphs of every split that is to be written.

    Args:
        source: the glyph source, see `load_glyphs`.
        config: says how much of each split is to be written.
        root: the glyph source's folder, see `load_glyphs`.
        what: `images` or `clips`, for the error.

    Raises:
        InputError: if nothing is to be written, or the glyphs can't be loaded.
    """
    glyphs = {split: load_glyphs(source, split, root) for split in SPLITS if config.count(split)}
    if not glyphs:
        raise InputError(f"nothing to write: train, val and test are all 0 {what}")
    return glyphs


def write_splits(
    write: Callable[[SplitName, int], WrittenT],
    config: GeneratedConfig,
    per_job: int,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> dict[SplitName, list[WrittenT]]:
    """Writes the images or clips of all splits in several processes.

    Args:
        write: writes one, given its split and number, and returns what is in it; each process receives it once.
        config: says how many each split has.
        per_job: how many a process writes at a time.
        workers: number of processes.
        progress: called with the number written, and of all, every now and then.

    Returns:
        What `write` returned, by split, in order; without splits that have none.
    """
    ranges = {split: range(count) for split in SPLITS if (count := config.count(split))}
    jobs = [
        (split, numbers[start : start + per_job])
        for split, numbers in ranges.items()
        for start in range(0, len(numbers), per_job)
    ]
    total, done = sum(len(numbers) for _, numbers in jobs), 0
    written: dict[SplitName, list[WrittenT]] = {split: [] for split in ranges}
    with closing(run_jobs(partial(_write_some, write), jobs, workers)) as results:
        for (split, numbers), of_job in zip(jobs, results, strict=True):
            written[split] += of_job
            done += len(numbers)
            if progress is not None:
                progress(done, total)
    return written


def _write_some(
    write: Callable[[SplitName, int], WrittenT], job: tuple[SplitName, Sequence[int]]
) -> list[WrittenT]:
    split, numbers = job
    return [write(split, number) for number in numbers]


def origin(description: str, source: str, config: GeneratedConfig) -> dict[str, Any]:
    """Describes how a data set was generated, for `info` in its COCO files."""
    return {
        "description": description,
        "source": source,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "ssdir_version": metadata.version("ssdir"),
    }


def write_png(path: Path, image: Image8) -> None:
    """Writes an image uint8 (H, W) as a grey PNG, or (H, W, 3), RGB, as a coloured one.

    OpenCV's writer would not say why it can't write a file.
    """
    stored = image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])
    path.write_bytes(cv2.imencode(".png", stored, _PNG_FLAGS)[1].tobytes())
