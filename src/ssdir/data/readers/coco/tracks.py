"""Clips and tracks in COCO files: the keys that TAO, CocoVID, kwcoco and CVAT write them under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct, UnsetType
from numpy.typing import NDArray

from ssdir.data.readers.faults import Faults
from ssdir.formatting import quote


class Video(Struct):
    """An entry of `videos`."""

    id: int | float | str
    name: str | None = None
    file_name: str | None = None
    fps: int | float | None = None
    frame_rate: int | float | None = None


@dataclass(frozen=True, eq=False)
class CocoClips:
    """The clips of a COCO file with n images.

    Attributes:
        clip: int64 (n,), position of each image's clip.
        order: int64 (n,), positions of the images such that those of a clip follow each other in time.
        names: one per clip.
        frame_rates: frames per second by clip, where they are given.
    """

    clip: NDArray[np.int64]
    order: NDArray[np.int64]
    names: list[str]
    frame_rates: dict[str, float]


class Attributes(Struct):
    """What CVAT writes among an annotation's attributes."""

    track_id: Any = None
    rotation: Any = None


_decode_attributes = msgspec.json.Decoder(Attributes).decode


def read_attributes(attributes: Raw | UnsetType) -> Attributes:
    """Returns an annotation's attributes; none if there is no object of them."""
    if not isinstance(attributes, Raw):
        return Attributes()
    try:
        return _decode_attributes(attributes)
    except msgspec.DecodeError:
        return Attributes()  # Other tools have lists there.


def clips_of_videos(
    videos: Sequence[Video], video_ids: Sequence[Any], frames: Sequence[Any], faults: Faults
) -> CocoClips | None:
    """Makes clips of the videos that images name; None unless every image names one.

    Args:
        videos: the entries of `videos`; those without images are left out, and those that images name without an
            entry have their id for a name.
        video_ids: one per image, None where it has none.
        frames: the number of each image's frame; where some image has none, images follow each other as listed.
        faults: what is wrong is added here.
    """
    if not video_ids or any(video_id is None for video_id in video_ids):
        return None
    used = {*video_ids}
    listed = {video.id: video for video in videos if video.id in used}
    places = {each: place for place, each in enumerate(dict.fromkeys([*listed, *video_ids]))}
    clip = np.array([places[each] for each in video_ids], dtype=np.int64)
    numbered = all(isinstance(frame, (int, float)) for frame in frames)
    number = np.array(frames if numbered else range(len(clip)), dtype=np.float64)
    order = np.lexsort((number, clip))
    same = (clip[order[1:]] == clip[order[:-1]]) & (number[order[1:]] == number[order[:-1]])
    for first in np.flatnonzero(same).tolist():
        video = quote(video_ids[order[first]])
        faults.add(f"video {video} has two images of frame {number[order[first]]:g}")
    names = _names(list(places), listed)
    rates = {
        place: listed[each].fps or listed[each].frame_rate for each, place in places.items() if each in listed
    }
    return CocoClips(clip, order, names, {names[place]: float(rate) for place, rate in rates.items() if rate})


def _names(ids: Sequence[Any], listed: dict[Any, Video]) -> list[str]:
    """Returns a name for each clip: the video's or, where two videos share it, its id."""
    videos = [listed.get(each) for each in ids]
    names = [
        (video and (video.name or video.file_name)) or str(each) for each, video in zip(ids, videos, strict=True)
    ]
    return [name if names.count(name) == 1 else str(each) for each, name in zip(ids, names, strict=True)]
