"""Clips and tracks in COCO files: the keys that TAO, CocoVID, kwcoco and CVAT write them under."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from msgspec import Raw, Struct, UnsetType
from numpy.typing import NDArray

from ssdir.data.readers.faults import Faults, note_if_any
from ssdir.data.readers.json_entries import Id, as_other_type
from ssdir.formatting import quote


class Video(Struct):
    """An entry of `videos`."""

    id: Id
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
        notes: what is unusual, as sentences.
    """

    clip: NDArray[np.int64]
    order: NDArray[np.int64]
    names: list[str]
    frame_rates: dict[str, float]
    notes: tuple[str, ...] = ()


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
        frames: the number of each image's frame, also as text; images of a video in which one has none follow each
            other as listed.
        faults: what is wrong is added here.
    """
    if not video_ids or any(video_id is None for video_id in video_ids):
        return None
    ids, notes = _of_one_type(video_ids, {video.id for video in videos})
    used = {*ids}
    listed = {video.id: video for video in videos if video.id in used}
    places = {each: place for place, each in enumerate(dict.fromkeys([*listed, *ids]))}
    clip = np.array([places[each] for each in ids], dtype=np.int64)
    number = np.array([_frame_number(frame) for frame in frames])
    unordered = np.unique(clip[np.isnan(number)])
    as_listed = np.flatnonzero(np.isin(clip, unordered))
    number[as_listed] = as_listed
    order = np.lexsort((number, clip))
    same = (clip[order[1:]] == clip[order[:-1]]) & (number[order[1:]] == number[order[:-1]])
    for first in np.flatnonzero(same).tolist():
        faults.add(f"video {quote(ids[order[first]])} has two images of frame {number[order[first]]:g}")
    names = _names(list(places), listed, faults)
    what = "videos with an image whose frame_id is no number, taken in the order in which images are listed"
    notes += note_if_any(what, [names[place] for place in unordered])
    rates = {
        place: listed[each].fps or listed[each].frame_rate for each, place in places.items() if each in listed
    }
    known_rates = {names[place]: float(rate) for place, rate in rates.items() if rate}
    return CocoClips(clip, order, names, known_rates, tuple(notes))


def _of_one_type(video_ids: Sequence[Id], listed: set[Id]) -> tuple[list[Id], list[str]]:
    """Returns the ids of images' videos, of which `7` and `"7"` are one, and a note that counts these."""
    known, ids, others = set(listed), list[Id](), list[str]()
    for each in video_ids:
        other = as_other_type(each)
        if each not in known and other in known:
            others.append(str(each))
            ids.append(other)
        else:
            known.add(each)
            ids.append(each)
    return ids, note_if_any("ids of videos that are numbers in one place and text in another", others)


def _frame_number(frame: Any) -> float:
    """Returns the number of a frame, NaN if it is none."""
    return float(frame) if isinstance(frame, (int, float)) or str(frame).isdecimal() else np.nan


def _names(ids: Sequence[Id], listed: Mapping[Id, Video], faults: Faults) -> list[str]:
    """Returns a name for each clip: the video's or, where two videos share it, its id."""
    videos = [listed.get(each) for each in ids]
    names = [
        (video and (video.name or video.file_name)) or str(each) for each, video in zip(ids, videos, strict=True)
    ]
    named = Counter(names)
    names = [name if named[name] == 1 else str(each) for each, name in zip(ids, names, strict=True)]
    for name, count in Counter(names).items():
        if count > 1:
            faults.add(f"{count} videos are called {quote(name)}, by name or id: give each a name of its own")
    return names
