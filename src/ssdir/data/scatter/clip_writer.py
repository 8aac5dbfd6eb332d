"""Writes generated clips of moving glyphs in the MOTChallenge layout and as COCO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TypeAlias

import numpy as np

from ssdir.data.annotations import AnnotationTable
from ssdir.data.processes import run_jobs
from ssdir.data.readers.splits import SPLITS, SplitName
from ssdir.data.scatter.generator import image_rng
from ssdir.data.scatter.glyphs import Glyphs, load_glyphs
from ssdir.data.scatter.moving import MovingClip, MovingConfig, moving_clip
from ssdir.data.scatter.writer import write_png
from ssdir.data.writers.layouts import write_coco
from ssdir.data.writers.mot import frame_name, write_mot
from ssdir.errors import InputError
from ssdir.outputs import atomic_dir

_Job: TypeAlias = tuple[SplitName, int]


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
        glyphs = {split: load_glyphs(source, split, root) for split in SPLITS if config.count(split)}
        if not glyphs:
            raise InputError("nothing to write: train, val and test are all 0 clips")
        writer = _Writer(folder, glyphs, config)
        jobs: list[_Job] = [(split, index) for split in glyphs for index in range(config.count(split))]
        clips: dict[SplitName, list[MovingClip]] = {split: [] for split in glyphs}
        with closing(run_jobs(writer.run, jobs, workers)) as results:
            for done, ((split, _), clip) in enumerate(zip(jobs, results, strict=True), start=1):
                clips[split].append(clip)
                if progress is not None:
                    progress(done, len(jobs))
        for split, written in clips.items():
            _write_annotations(writer, source, split, written)


@dataclass(frozen=True)
class _Writer:
    """The inputs that a process needs to generate clips; `run` does one job."""

    folder: Path
    glyphs: dict[SplitName, Glyphs]
    config: MovingConfig

    def run(self, job: _Job) -> MovingClip:
        """Writes the frames of a clip, and returns what is in them, without their pixels."""
        split, index = job
        clip = moving_clip(self.glyphs[split], self.config, image_rng(self.config.seed, split, index))
        first = self.folder / split / frame_name(_clip_name(split, index), 0)
        first.parent.mkdir(parents=True)
        for frame, image in enumerate(clip.images):
            write_png(self.folder / split / frame_name(_clip_name(split, index), frame), image)
        return replace(clip, images=clip.images[:0])


def _write_annotations(writer: _Writer, source: str, split: SplitName, clips: Sequence[MovingClip]) -> None:
    info = {
        "description": "Moving multi-scale glyphs",
        "source": source,
        "seed": writer.config.seed,
        "frame_rate": writer.config.frame_rate,
        "config": writer.config.model_dump(mode="json"),
        "ssdir_version": metadata.version("ssdir"),
    }
    class_names = writer.glyphs[split].class_names
    table = replace(_table(writer.folder, split, clips, class_names, writer.config), info=info)
    write_coco(writer.folder, split, table, table.image_names)
    one_class = replace(table, category=np.zeros_like(table.category), category_names=["object"])
    write_mot(writer.folder, split, one_class, table.image_names)


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
