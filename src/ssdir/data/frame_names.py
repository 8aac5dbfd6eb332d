"""Names of the frames of videos, `clip.mp4#frame=12`: whatever reads an image by its name reads these too."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from pathlib import Path

from ssdir.errors import InputError
from ssdir.storage import Location, pure_path, to_location

_FRAME = re.compile(r"(.+)#frame=(\d{1,12})", re.DOTALL)
# What stands before the number at the end of a frame's name, and the number.
_NUMBERED = re.compile(r"(.*?)([0-9]+)", re.DOTALL)

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


def numbered_names(images: Sequence[Location]) -> list[int] | None:
    """Returns the number at the end of each image's name; None where one has none, or names begin differently."""
    parts = [_NUMBERED.fullmatch(pure_path(image).stem) for image in images]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or len({part[1] for part in known}) > 1:
        return None
    return [int(part[2]) for part in known]


def frame_numbers(images: Sequence[Location], used: Collection[int] = ()) -> list[int]:
    """Returns the number of each frame in MOTChallenge's text: that of its name, else its place from 1.

    Names that count from 0 are moved to count from 1, unless the text has a frame 0. Where names begin with more
    than a number, places are preferred if they alone fit the text: frames that were cut out of a longer video may
    keep its numbers, though the text counts from 1.

    Args:
        images: the frames of a clip, of one folder, in the order of time.
        used: the frames that the text has boxes of.

    Raises:
        InputError: if two images have one number.
    """
    places, numbers = list(range(1, 1 + len(images))), numbered_names(images)
    if numbers is None:
        return places
    if len({*numbers}) < len(numbers):
        first = next(number for number, after in pairwise(numbers) if number == after)
        raise InputError(f"'{pure_path(images[0]).parent}' has two images of one frame, such as {first}: keep one")
    if numbers[0] == 0 and 0 not in used:
        numbers = [number + 1 for number in numbers]
    is_bare = pure_path(images[0]).stem.isdecimal()
    return places if not is_bare and {*places} >= {*used} and not {*numbers} >= {*used} else numbers
