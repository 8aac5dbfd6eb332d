"""The clips of a data set: which of its images are the frames of a video, in order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssdir.data.annotations import AnnotationTable
from ssdir.errors import InputError

if TYPE_CHECKING:
    from ssdir.data.dataset import ObjectDataset


@dataclass(frozen=True)
class Clip:
    """A run of images of a data set that are the frames of a video.

    Attributes:
        name: the clip's name, which no other clip of the split has.
        images: numbers of the images, in the order of time.
        frame_rate: frames per second; None if it is unknown.
    """

    name: str
    images: range
    frame_rate: float | None


def clips_of(dataset: ObjectDataset) -> list[Clip]:
    """Returns the clips of a data set that has images, in the order of its images.

    Raises:
        InputError: if its images are not frames of clips.
    """
    table = dataset.table
    if table.clip is None or table.clip_names is None:
        raise InputError(
            f"'{table.root}' has images, but no clips: they are in MOTChallenge folders, and in COCO files whose "
            "images have a video_id (see docs/data.md)"
        )
    names = [table.clip_names[table.clip[images.start]] for images in dataset.clip_ranges]
    if len({*names}) < len(names):
        raise ValueError("the images of a clip must follow each other")
    return [
        Clip(name, images, frame_rate(table, name))
        for name, images in zip(names, dataset.clip_ranges, strict=True)
    ]


def frame_rates_info(rates: Mapping[str, float | None]) -> dict[str, Any]:
    """Returns the frame rates of clips, by name, as a key of `AnnotationTable.info`; none if all are unknown."""
    known = {name: rate for name, rate in rates.items() if rate is not None}
    shared = {*rates.values()}
    return {"frame_rate": shared.pop() if len(shared) == 1 else known} if known else {}


def frame_rate(table: AnnotationTable, clip: str) -> float | None:
    """Returns the frames per second of a clip: `info["frame_rate"]` is one number, or one by the clip's name."""
    rate = table.info.get("frame_rate")
    rate = rate.get(clip) if isinstance(rate, Mapping) else rate
    return float(rate) if isinstance(rate, (int, float)) else None
