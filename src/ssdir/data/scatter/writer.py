"""Writing generated scenes as a COCO folder."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import cv2

from ssdir.data.processes import run_jobs
from ssdir.data.scatter.generator import ScatterConfig, ScatteredImage, image_rng, scatter_image
from ssdir.data.scatter.glyphs import SPLITS, Glyphs, Split, load_glyphs
from ssdir.documents import json_text
from ssdir.errors import InputError
from ssdir.outputs import atomic_dir

_IMAGES_PER_JOB = 32
_PNG_FLAGS = (cv2.IMWRITE_PNG_COMPRESSION, 1)

_Job: TypeAlias = tuple[Split, int, int]
_Entries: TypeAlias = list[dict[str, Any]]


def write_scatter(
    out: Path,
    source: str,
    config: ScatterConfig,
    root: Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    force: bool = False,
) -> None:
    """Writes scattered glyphs as a COCO data set, whole or not at all.

    Images are 8-bit grey PNGs `<split>/000000.png`, .... Annotations carry three keys beyond COCO's:
    `draw_order` (0 is drawn first, farthest), `source_index` (the glyph's number in its source) and
    `visible` (the share of its ink that no later object covers). The bytes do not depend on `workers`.

    Args:
        out: the folder to create.
        source: the glyph source, see `load_glyphs`.
        config: what to generate, and how many images.
        root: the glyph source's folder, see `load_glyphs`.
        workers: number of processes.
        progress: called with the number of images written, and of all, every now and then.
        force: replace an earlier data set at `out`.

    Raises:
        InputError: if `out` exists and must not be replaced, or the glyphs can't be loaded.
    """
    with atomic_dir(out, force) as folder:
        glyphs = {split: load_glyphs(source, split, root) for split in SPLITS if config.count(split)}
        if not glyphs:
            raise InputError("nothing to write: train, val and test are all 0 images")
        (folder / "annotations").mkdir()
        _write_images(_Writer(folder, glyphs, config), source, workers, progress)


@dataclass(frozen=True)
class _Writer:
    """What a process needs to generate images; `run` does one job."""

    folder: Path
    glyphs: dict[Split, Glyphs]
    config: ScatterConfig

    def jobs(self) -> list[_Job]:
        """Runs of images: (split, first, one after the last)."""
        return [
            (split, start, min(start + _IMAGES_PER_JOB, self.config.count(split)))
            for split in self.glyphs
            for start in range(0, self.config.count(split), _IMAGES_PER_JOB)
        ]

    def run(self, job: _Job) -> list[_Entries]:
        """Writes the images of a job; returns the annotations of each, without ids."""
        split, start, stop = job
        annotations = []
        for index in range(start, stop):
            rng = image_rng(self.config.seed, split, index)
            scattered = scatter_image(self.glyphs[split], self.config, rng)
            path = self.folder / split / _file_name(index)
            # Written by us, not by OpenCV, which does not say why it could not.
            path.write_bytes(cv2.imencode(".png", scattered.image, _PNG_FLAGS)[1].tobytes())
            annotations.append(_annotations(scattered))
        return annotations


def _write_images(writer: _Writer, source: str, workers: int, progress: Callable[[int, int], None] | None) -> None:
    total, done = sum(writer.config.count(split) for split in SPLITS), 0
    collected: dict[Split, list[_Entries]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        (writer.folder / split).mkdir()
    jobs = writer.jobs()
    with closing(run_jobs(writer.run, jobs, workers)) as results:
        for (split, start, stop), per_image in zip(jobs, results, strict=True):
            collected[split] += per_image
            done += stop - start
            if progress is not None:
                progress(done, total)
    class_names = next(iter(writer.glyphs.values())).class_names
    for split, per_image in collected.items():
        content = _coco_json(per_image, class_names, source, writer.config)
        (writer.folder / "annotations" / f"instances_{split}.json").write_text(
            json_text(content, indent=None), "utf-8"
        )


def _coco_json(
    per_image: list[_Entries], class_names: list[str], source: str, config: ScatterConfig
) -> dict[str, Any]:
    side = config.canvas
    numbered = [(index, entry) for index, entries in enumerate(per_image) for entry in entries]
    return {
        "info": {
            "description": "Multi-scale scattered glyphs",
            "source": source,
            "seed": config.seed,
            "config": config.model_dump(mode="json"),
            "ssdir_version": metadata.version("ssdir"),
        },
        "licenses": [],
        "categories": [{"id": i + 1, "name": name, "supercategory": ""} for i, name in enumerate(class_names)],
        "images": [
            {"id": i + 1, "file_name": _file_name(i), "width": side, "height": side} for i in range(len(per_image))
        ],
        "annotations": [
            {"id": i + 1, "image_id": index + 1, **entry} for i, (index, entry) in enumerate(numbered)
        ],
    }


def _annotations(scattered: ScatteredImage) -> _Entries:
    columns = (scattered.boxes_px, scattered.labels, scattered.source_index, scattered.visible)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        {
            "category_id": label + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
            "draw_order": order,
            "source_index": source_index,
            "visible": round(visible, 4),
        }
        for order, ((x1, y1, x2, y2), label, source_index, visible) in enumerate(rows)
    ]


def _file_name(index: int) -> str:
    return f"{index:06d}.png"
