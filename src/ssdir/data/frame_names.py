"""Names of the frames of videos, `clip.mp4#frame=12`: whatever reads an image by its name reads these too."""

from __future__ import annotations

import re
from pathlib import Path

from ssdir.storage import Location, pure_path, to_location

_FRAME = re.compile(r"(.+)#frame=(\d{1,12})", re.DOTALL)

_VIDEOS = ".3gp .avi .flv .m2ts .m4v .mkv .mov .mp4 .mpeg .mpg .mts .mxf .ogv .ts .vob .webm .wmv .y4m"

VIDEO_SUFFIXES = frozenset(_VIDEOS.split())
"""The usual suffixes of videos; whether a file is one, PyAV decides."""


def frame_name(video: Location, number: int) -> str:
    """Returns the name of a video's frame, counted from 0."""
    return f"{video}#frame={number}"


def split_frame_name(name: object) -> tuple[Location, int] | None:
    """Returns the video and the number of a frame that a name means; None if it means something else."""
    match = _FRAME.fullmatch(str(name)) if isinstance(name, (str, Path)) else None
    return None if match is None else (to_location(match[1]), int(match[2]))


def file_of(location: Location) -> Location:
    """Returns the file that holds an image: the video, if the image is a video's frame."""
    split = split_frame_name(location)
    return location if split is None else split[0]


def is_video_name(location: Location) -> bool:
    """Returns whether a location ends as videos do."""
    return pure_path(location).suffix.lower() in VIDEO_SUFFIXES
