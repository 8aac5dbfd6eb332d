"""Writes generated scenes as a COCO folder, or with colours as images with index masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from ssdir.data.annotations import AnnotationTable
from ssdir.data.images import Image8
from ssdir.data.processes import run_jobs
from ssdir.data.readers.mask_folder import line_of
from ssdir.data.readers.masked_images import MaskedObject
from ssdir.data.readers.splits import SPLITS, SplitName
from ssdir.data.scatter.generator import ScatterConfig, ScatteredImage, image_rng, scatter_image
from ssdir.data.scatter.glyphs import Glyphs, load_glyphs
from ssdir.data.writers.layouts import write_coco
from ssdir.errors import InputError
from ssdir.outputs import atomic_dir

_IMAGES_PER_JOB = 32
_PNG_FLAGS = (cv2.IMWRITE_PNG_COMPRESSION, 1)

_Job: TypeAlias = tuple[SplitName, int, int]


def write_scatter(
    out: Path,
    source: str,
    config: ScatterConfig,
    root: Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    force: bool = False,
) -> None:
    """Writes scattered glyphs as a data set, whole or not at all: in colours as index masks, else as COCO.

    As index masks (see `readers.mask_folder`), an object's category is its glyph's class, its attribute `colour`,
    its box that of its visible pixels, and its `depth` smaller the nearer it is. As COCO, images are 8-bit grey
    PNGs `<split>/000000.png`, .... Annotations carry three keys beyond COCO's: `draw_order` (0 is drawn first,
    farthest), `source_index` (the glyph's number in its source) and `visible` (the share of its ink that no later
    object covers). The bytes do not depend on `workers`.

    Args:
        out: the folder to create.
        source: the glyph source, see `load_glyphs`.
        config: the parameters and numbers of images.
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
        _write_images(_Writer(folder, glyphs, config), source, workers, progress)


@dataclass(frozen=True)
class _Writer:
    """The inputs that a process needs to generate images; `run` does one job."""

    folder: Path
    glyphs: dict[SplitName, Glyphs]
    config: ScatterConfig

    def jobs(self) -> list[_Job]:
        """Lists groups of images: split, first index, index after the last."""
        return [
            (split, start, min(start + _IMAGES_PER_JOB, self.config.count(split)))
            for split in self.glyphs
            for start in range(0, self.config.count(split), _IMAGES_PER_JOB)
        ]

    def run(self, job: _Job) -> list[ScatteredImage]:
        """Writes the images of a job, and returns what is in each, without its pixels."""
        split, start, stop = job
        written = []
        for index in range(start, stop):
            rng = image_rng(self.config.seed, split, index)
            scattered = scatter_image(self.glyphs[split], self.config, rng)
            write_png(images_folder(self.folder, split, self.config) / _file_name(index), scattered.image)
            if scattered.mask is not None:
                write_png(self.folder / "masks" / split / _file_name(index), scattered.mask)
            written.append(replace(scattered, image=scattered.image[:0], mask=None))
        return written


def _write_images(writer: _Writer, source: str, workers: int, progress: Callable[[int, int], None] | None) -> None:
    total, done = sum(writer.config.count(split) for split in SPLITS), 0
    collected: dict[SplitName, list[ScatteredImage]] = {split: [] for split in SPLITS}
    for split in SPLITS:
        images_folder(writer.folder, split, writer.config).mkdir(parents=True)
        if writer.config.colours:
            (writer.folder / "masks" / split).mkdir(parents=True)
    jobs = writer.jobs()
    with closing(run_jobs(writer.run, jobs, workers)) as results:
        for (split, start, stop), scattered in zip(jobs, results, strict=True):
            collected[split] += scattered
            done += stop - start
            if progress is not None:
                progress(done, total)
    class_names = next(iter(writer.glyphs.values())).class_names
    if writer.config.colours:
        _write_masked_objects(writer.folder / "objects", collected, class_names)
        return
    info = {
        "description": "Multi-scale scattered glyphs",
        "source": source,
        "seed": writer.config.seed,
        "config": writer.config.model_dump(mode="json"),
        "ssdir_version": metadata.version("ssdir"),
    }
    for split, images in collected.items():
        table = replace(_table(writer.folder, images, class_names, writer.config.canvas), info=info)
        write_coco(writer.folder, split, table, table.image_names)


def images_folder(folder: Path, split: SplitName, config: ScatterConfig) -> Path:
    """Returns where the images of a split lie in the folder of a generated data set."""
    return folder / "images" / split if config.colours else folder / split


def _write_masked_objects(
    folder: Path, images: Mapping[SplitName, Sequence[ScatteredImage]], class_names: Sequence[str]
) -> None:
    """Writes what masks can't hold: class, colour and order in depth of each object."""
    folder.mkdir()
    for split, of_split in images.items():
        lines = []
        for index, scattered in enumerate(of_split):
            nearest, rows = len(scattered.labels), zip(scattered.labels, scattered.colours, strict=True)
            objects = [
                MaskedObject(number, class_names[label], {"colour": colour}, depth=float(nearest - number))
                for number, (label, colour) in enumerate(rows, start=1)
            ]
            lines.append(line_of(_file_name(index), objects))
        (folder / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def _table(folder: Path, images: Sequence[ScatteredImage], class_names: list[str], side: int) -> AnnotationTable:
    counts = [len(scattered.labels) for scattered in images]
    columns = {
        name: np.concatenate([getattr(scattered, name) for scattered in images] or [np.zeros(0)])
        for name in ("boxes_px", "labels", "source_index", "visible")
    }
    return AnnotationTable(
        root=folder,
        sources=(),
        category_names=class_names,
        image_names=[_file_name(index) for index in range(len(images))],
        image_sizes=np.full((len(images), 2), side, dtype=np.int64),
        image=np.repeat(np.arange(len(images)), counts),
        category=columns["labels"].astype(np.int64),
        boxes_px=columns["boxes_px"].reshape(-1, 4).astype(np.float64),
        ignored=np.zeros(sum(counts), dtype=np.bool_),
        draw_order=np.concatenate([np.arange(count) for count in counts] or [np.zeros(0, dtype=np.int64)]),
        source_index=columns["source_index"].astype(np.int64),
        visible=columns["visible"].astype(np.float64).round(4),
    )


def write_png(path: Path, image: Image8) -> None:
    """Writes an image uint8 (H, W) as a grey PNG, or (H, W, 3), RGB, as a coloured one.

    OpenCV's writer would not say why it can't write a file.
    """
    stored = image if image.ndim == 2 else np.ascontiguousarray(image[..., ::-1])
    path.write_bytes(cv2.imencode(".png", stored, _PNG_FLAGS)[1].tobytes())


def _file_name(index: int) -> str:
    return f"{index:06d}.png"
