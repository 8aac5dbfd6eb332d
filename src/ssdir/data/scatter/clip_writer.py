"""Writes generated clips of moving glyphs in the MOTChallenge layout and as COCO."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ssdir.data.annotations import AnnotationTable
from ssdir.data.readers.splits import SplitName
from ssdir.data.scatter.generator import image_rng
from ssdir.data.scatter.glyphs import Glyphs
from ssdir.data.scatter.moving import MovingClip, MovingConfig, moving_clip
from ssdir.data.scatter.writing import load_splits, origin, write_png, write_splits
from ssdir.data.writers.layouts import write_coco
from ssdir.data.writers.mot import frame_name, write_mot
from ssdir.outputs import atomic_dir


def write_moving(
    out: Path,
    source: str,
    config: MovingConfig,
    root: Path | None = None,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
    force: bool = False,
) -> None:
    """Writes clips of moving glyphs, whole or not at all.

    Each clip is a MOTChallenge sequence, `<split>/<split>-0000/`, whose objects all have class 1, `object`: the
    usual tools measure no other. `annotations/instances_<split>.json` has the glyphs' classes, and more keys:
    images have `video_id` and `frame_id` (from 0), annotations `track_id`, `draw_order`, `source_index` and
    `visible`, see `MovingClip`. The bytes do not depend on `workers`.

    Args:
        out: the folder to create.
        source: the glyph source, see `load_glyphs`.
        config: the parameters and numbers of clips.
        root: the glyph source's folder, see `load_glyphs`.
        workers: number of processes.
        progress: called with the number of clips written, and of all, every now and then.
        force: replace an earlier data set at `out`.

    Raises:
        InputError: if `out` exists and must not be replaced, or the glyphs can't be loaded.
    """
    with atomic_dir(out, force) as folder:
        glyphs = load_splits(source, config, root, "clips")
        clips = write_splits(_Writer(folder, glyphs, config).write, config, 1, workers, progress)
        info = {**origin("Moving multi-scale glyphs", source, config), "frame_rate": config.frame_rate}
        for split in glyphs:
            table = replace(_table(folder, split, clips[split], glyphs[split].class_names, config), info=info)
            write_coco(folder, split, table, table.image_names)
            one_class = replace(table, category=np.zeros_like(table.category), category_names=["object"])
            write_mot(folder, split, one_class, table.image_names)


@dataclass(frozen=True)
class _Writer:
    """The inputs that a process needs to generate clips."""

    folder: Path
    glyphs: Mapping[SplitName, Glyphs]
    config: MovingConfig

    def write(self, split: SplitName, index: int) -> MovingClip:
        """Writes the frames of a clip, and returns what is in them, without their pixels."""
        clip = moving_clip(self.glyphs[split], self.config, image_rng(self.config.seed, split, index))
        first = self.folder / split / frame_name(_clip_name(split, index), 0)
        first.parent.mkdir(parents=True)
        for frame, image in enumerate(clip.images):
            write_png(self.folder / split / frame_name(_clip_name(split, index), frame), image)
        return replace(clip, images=clip.images[:0])


def _table(
    folder: Path, split: SplitName, clips: Sequence[MovingClip], class_names: list[str], config: MovingConfig
) -> AnnotationTable:
    names = ("boxes_px", "labels", "source_index", "draw_order", "track_id", "visible")
    columns = {name: np.concatenate([getattr(clip, name) for clip in clips]) for name in names}
    clip_names = [_clip_name(split, index) for index in range(len(clips))]
    count = len(clips) * config.frames
    return AnnotationTable(
        root=folder,
        sources=(),
        category_names=class_names,
        image_names=[frame_name(name, frame) for name in clip_names for frame in range(config.frames)],
        image_sizes=np.full((count, 2), config.canvas, dtype=np.int64),
        image=np.concatenate([clip.frame + index * config.frames for index, clip in enumerate(clips)]),
        category=columns["labels"].astype(np.int64),
        boxes_px=columns["boxes_px"].astype(np.float64),
        ignored=np.zeros(len(columns["labels"]), dtype=np.bool_),
        draw_order=columns["draw_order"],
        source_index=columns["source_index"].astype(np.int64),
        visible=columns["visible"].astype(np.float64).round(4),
        track_id=columns["track_id"],
        clip=np.repeat(np.arange(len(clips)), config.frames),
        clip_names=clip_names,
    )


def _clip_name(split: SplitName, index: int) -> str:
    return f"{split}-{index:04d}"
