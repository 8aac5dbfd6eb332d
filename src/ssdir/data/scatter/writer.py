"""Writes generated scenes as a COCO folder, or with colours as images with index masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ssdir.data.annotations import AnnotationTable
from ssdir.data.readers.mask_folder import line_of
from ssdir.data.readers.masked_images import MaskedObject
from ssdir.data.readers.splits import SplitName
from ssdir.data.scatter.generator import ScatterConfig, ScatteredImage, image_rng, scatter_image
from ssdir.data.scatter.glyphs import Glyphs
from ssdir.data.scatter.writing import load_splits, origin, write_png, write_splits
from ssdir.data.writers.layouts import write_coco
from ssdir.outputs import atomic_dir

_IMAGES_PER_JOB = 32


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
        glyphs = load_splits(source, config, root)
        writer = _Writer(folder, glyphs, config)
        for split in glyphs:
            for place in writer.places(split):
                place.mkdir(parents=True)
        written = write_splits(writer.write, config, _IMAGES_PER_JOB, workers, progress)
        class_names = next(iter(glyphs.values())).class_names
        if config.colours:
            _write_masked_objects(folder / "objects", written, class_names)
            return
        info = origin("Multi-scale scattered glyphs", source, config)
        for split, images in written.items():
            table = replace(_table(folder, images, class_names, config.canvas), info=info)
            write_coco(folder, split, table, table.image_names)


@dataclass(frozen=True)
class _Writer:
    """The inputs that a process needs to generate images."""

    folder: Path
    glyphs: Mapping[SplitName, Glyphs]
    config: ScatterConfig

    def places(self, split: SplitName) -> list[Path]:
        """Returns the folder of a split's images, and with colours that of its masks."""
        if self.config.colours:
            return [self.folder / "images" / split, self.folder / "masks" / split]
        return [self.folder / split]

    def write(self, split: SplitName, index: int) -> ScatteredImage:
        """Writes an image, with colours its mask too, and returns what is in it, without its pixels."""
        scattered = scatter_image(self.glyphs[split], self.config, image_rng(self.config.seed, split, index))
        layers = [scattered.image] if scattered.mask is None else [scattered.image, scattered.mask]
        for place, layer in zip(self.places(split), layers, strict=True):
            write_png(place / _file_name(index), layer)
        return replace(scattered, image=scattered.image[:0], mask=None)


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
        name: np.concatenate([getattr(scattered, name) for scattered in images])
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
        draw_order=np.concatenate([np.arange(count) for count in counts]),
        source_index=columns["source_index"].astype(np.int64),
        visible=columns["visible"].astype(np.float64).round(4),
    )


def _file_name(index: int) -> str:
    return f"{index:06d}.png"
