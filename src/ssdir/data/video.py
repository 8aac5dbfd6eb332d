"""Clips as runs of frames: video files, folders of images, sequences in MOTChallenge's layout, lists of images."""

from __future__ import annotations

import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from ssdir.data.frame_names import VIDEO_SUFFIXES, frame_name, frame_numbers
from ssdir.data.image_files import find_images, is_image_name
from ssdir.data.image_lists import is_list
from ssdir.data.images import Image8, read_image
from ssdir.data.sequence_info import IMAGE_FOLDER, SEQUENCE_FILE, read_sequence_info
from ssdir.data.video_file import read_header, stream_frames
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted
from ssdir.storage import Location, absolute, is_file, pure_path, to_location

_ANIMATIONS = frozenset({".apng", ".gif"})


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of a clip.

    Attributes:
        index: its number in the clip, from 0; frames that can't be read leave gaps.
        pixels: uint8 (H, W, 3), RGB; frames of one clip may have several sizes.
        name: what reads it again, see `read_image`: a path or URI, for videos with `#frame=12` at its end.
    """

    index: int
    pixels: Image8
    name: str

    @property
    def size(self) -> tuple[int, int]:
        """Its (height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]


class FrameSource(ABC):
    """The frames of a clip, to be read in their order, as often as wanted, one in memory at a time.

    Attributes:
        location: the video, folder, pattern or list.
        frame_rate: frames per second, if known.
        length: number of frames, if known; that of a video may be an estimate.
    """

    location: Location
    frame_rate: float | None
    length: int | None

    @abstractmethod
    def __iter__(self) -> Iterator[Frame]:
        """Reads the frames. At the end, an `InputWarning` counts those that can't be read.

        Raises:
            InputError: if none can be read.
        """

    def number(self, index: int) -> int:
        """Returns the number that a frame has in MOTChallenge's text, which counts from 1."""
        return index + 1


def open_frames(source: str | Path | Sequence[str | Path]) -> FrameSource:
    """Opens a clip, without decoding any frame.

    Args:
        source: a video or animation, of any format that FFmpeg reads; a folder of images, which are sorted by the
            numbers in their names; a sequence in MOTChallenge's layout, a folder with `seqinfo.ini` or with images
            in `img1`; a pattern such as "frames/*.png"; a list of images (.txt or .parquet), whose order is kept.
            All but sequences may be URIs. Several images may also be given as a sequence, in their order.

    Raises:
        InputError: if there is no such clip, or it has no frames; if a folder holds several clips, or two images
            of one number; if a file is no video.
    """
    if not isinstance(source, (str, Path)):
        files = [file for given in source for file in find_images([given])]
        if not files:
            raise InputError("a clip needs at least one image, got none")
        return ImageFrames(files)
    location = to_location(source)
    if isinstance(location, Path) and location.is_dir():
        return _open_folder(location)
    if is_list(location):
        return ImageFrames(find_images([location]), location)
    if _is_one_video(location):
        return VideoFrames(location)
    return _numbered(find_images([location]), location)


def _is_one_video(location: Location) -> bool:
    suffix = pure_path(location).suffix.lower()
    is_usual = suffix in VIDEO_SUFFIXES | _ANIMATIONS
    if is_usual and not any(sign in str(location) for sign in "*?["):
        return True
    # A file of another suffix may be a video all the same; PyAV says what it is not.
    return (is_usual or not is_image_name(location)) and "#frame=" not in str(location) and is_file(location)


class VideoFrames(FrameSource):
    """The frames of a video file.

    Raises:
        InputError: as `read_header`.
    """

    def __init__(self, video: Location) -> None:
        header = read_header(video)
        self.location = video
        self.frame_rate, self.length = header.frame_rate, header.length

    def __iter__(self) -> Iterator[Frame]:
        """Decodes the frames, see `stream_frames`."""
        for number, pixels in stream_frames(self.location):
            yield Frame(number, pixels, frame_name(absolute(self.location), number))


class ImageFrames(FrameSource):
    """Images as frames, in the order given.

    Args:
        files: the images.
        location: where they come from; by default the first.
        frame_rate: frames per second, if known.
        has_numbers: whether names give the frames' numbers in MOTChallenge's text; else these are 1, 2, …
    """

    def __init__(
        self,
        files: Sequence[Location],
        location: Location | None = None,
        frame_rate: float | None = None,
        has_numbers: bool = False,
    ) -> None:
        self.files, self._has_numbers = [absolute(file) for file in files], has_numbers
        self._numbers = self.numbers()
        self.location = self.files[0] if location is None else location
        self.frame_rate, self.length = frame_rate, len(files)

    def number(self, index: int) -> int:
        """Returns the number that a frame has in MOTChallenge's text."""
        return self._numbers[index]

    def numbers(self, used: Collection[int] = ()) -> list[int]:
        """Returns the number of each frame in a text with boxes of the frames `used`, see `frame_numbers`."""
        return frame_numbers(self.files, used) if self._has_numbers else list(range(1, 1 + len(self.files)))

    def __iter__(self) -> Iterator[Frame]:
        """Reads the images."""
        unreadable = list[str]()
        for index, file in enumerate(self.files):
            try:
                pixels = read_image(file)
            except InputError as error:
                unreadable.append(str(error))
                continue
            yield Frame(index, pixels, str(file))
        if len(unreadable) == len(self.files):
            raise InputError(f"none of the {counted(len(self.files), 'frame')} can be read: {unreadable[0]}")
        if unreadable:
            frames = counted(len(unreadable), "frame")
            _warn(f"{frames} of {len(self.files):,} in '{self.location}' can't be read: {unreadable[0]} ...")


def _open_folder(folder: Path) -> FrameSource:
    """Opens a sequence, or a folder of images."""
    description = folder / SEQUENCE_FILE
    if description.is_file():
        return _open_sequence(folder, description)
    if (folder / IMAGE_FOLDER).is_dir():
        return _numbered(find_images([folder / IMAGE_FOLDER]), folder)
    files = find_images([folder])
    if len(folders := {pure_path(file).parent for file in files}) > 1:
        clips = [each.parent if each.name == IMAGE_FOLDER else each for each in folders]
        first, second = sorted(clips)[:2]
        raise InputError(f"'{folder}' holds {len(folders)} clips, give one of them: '{first}', '{second}' ...")
    return _numbered(files, folder)


def _open_sequence(folder: Path, description: Path) -> FrameSource:
    """Opens a sequence in MOTChallenge's layout.

    Raises:
        InputError: if its description can't be read.
    """
    info = read_sequence_info(description)
    files = find_images([folder / info.image_folder])
    if info.length is not None and info.length != len(files):
        _warn(f"'{description}' counts {counted(info.length, 'frame')}, and there are {len(files):,}")
    return _numbered(files, folder, info.frame_rate)


def _numbered(images: Sequence[Location], location: Location, frame_rate: float | None = None) -> ImageFrames:
    """Makes a clip of images in the order of their numbers, and warns where these have gaps.

    Raises:
        InputError: if two images of one folder have one number.
    """
    files = sorted(images, key=_natural)
    numbers = [_last_number(file) for file in files]
    known = [number for number in numbers if number is not None]
    if len(known) == len(files) == len(set(known)):
        missing = max(known) - min(known) + 1 - len(known)
        if missing:
            first = next(one for one, other in pairwise(known) if other != one + 1) + 1
            _warn(
                f"the frames of '{location}' are not numbered one after the other: {counted(missing, 'number')} "
                f"missing, the first {first}; the frames around a gap count as neighbours"
            )
    is_one_folder = len({pure_path(file).parent for file in files}) == 1
    return ImageFrames(files, location, frame_rate, has_numbers=is_one_folder)


def _natural(file: Location) -> tuple[str, list[tuple[int, str]], str]:
    """Sorts by folder, then by name with its numbers as numbers: frame2 before frame10."""
    path = pure_path(file)
    parts = re.split(r"(\d+)", path.name)
    return str(path.parent), [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _last_number(file: Location) -> int | None:
    numbers = re.findall(r"\d+", pure_path(file).stem)
    return int(numbers[-1]) if numbers else None


def _warn(text: str) -> None:
    warnings.warn(text, InputWarning, stacklevel=3)
