"""Frames of video files by PyAV: all in their order, or single ones by their number."""

from __future__ import annotations

import heapq
import os
import threading
import warnings
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssdir.data.images import Image8
from ssdir.data.pixel_budget import DECODING, MAX_PIXELS
from ssdir.errors import InputError, InputWarning
from ssdir.formatting import counted
from ssdir.storage import Location, open_file

MISSING_SECONDS, MISSING_SHARE = 1.0, 0.05
"""A video whose container does not count its frames is cut short if more seconds than this, and a larger share of
its duration, are missing at its end."""

_EXACT_TIMES = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "nut", "ogg"})
"""Containers that keep the time of each frame. In others, FFmpeg guesses the times of codecs that reorder frames,
and guesses differently after a seek: frames of these are counted as they are decoded."""

_OPEN_VIDEOS = 4
"""Number of videos that a process keeps open to read single frames."""


def pyav() -> Any:
    """Returns PyAV; raises InputError if it is not installed."""
    try:
        import av
    except ImportError:
        raise InputError("to read videos, PyAV is needed: pip install 'ssdir[video]'") from None
    return av


@dataclass(frozen=True)
class VideoHeader:
    """What a video says about itself.

    Attributes:
        frame_rate: mean number of frames per second, if known.
        length: number of frames, if known; it may be an estimate by the duration.
    """

    frame_rate: float | None
    length: int | None


@dataclass
class _Faults:
    """What went wrong while a video was decoded."""

    frames: int = 0
    hidden: int = 0
    undecoded: int = 0
    damaged: int = 0
    ended: bool = False
    end: float = 0.0


def read_header(video: Location) -> VideoHeader:
    """Reads what a video says about itself.

    Raises:
        InputError: if the file is missing or no video.
    """
    with _opened(video) as (container, stream):
        rate = stream.average_rate or stream.guessed_rate
        length = stream.frames or None
        if length is None and rate and container.duration:
            length = round(container.duration / 1e6 * float(rate))
        return VideoHeader(float(rate) if rate else None, length)


def stream_frames(video: Location) -> Iterator[tuple[int, Image8]]:
    """Decodes a video from its beginning to its end, in bounded memory.

    Yields:
        The number of each frame, from 0, and its pixels uint8 (H, W, 3), RGB, turned as the video asks for.
        Numbers increase; that of a frame that can't be decoded is left out, except in containers without the time
        of each frame (`_EXACT_TIMES`), where the next one takes it. At the end, one `InputWarning` says how much
        of the video was missing or damaged.

    Raises:
        InputError: if the file is missing or no video, or has no frame that can be decoded.
    """
    faults = _Faults()
    with _opened(video) as (container, stream):
        for number, frame in _decoded(container, stream, faults):
            yield number, _pixels(frame, video)
        problem = _problem(container, stream, faults)
    if not faults.frames:
        raise InputError(f"'{video}' has no frames that can be decoded")
    if problem is not None:
        warnings.warn(f"'{video}' is damaged or cut short: {problem}", InputWarning, stacklevel=2)


def read_frame(video: Location, number: int) -> Image8:
    """Reads one frame of a video, uint8 (H, W, 3), by the number that `stream_frames` gives it.

    The video stays open, so that further frames of it take no more than decoding from the keyframe before them.

    Raises:
        InputError: as `stream_frames`; if there is no such frame.
    """
    key = (os.getpid(), *_version(video))
    with _LOCK:
        reader = _READERS.pop(key, None) or _FrameReader(video)
        _READERS[key] = reader
        while len(_READERS) > _OPEN_VIDEOS:
            _READERS.popitem(last=False)
    return reader.read(number)


def _version(video: Location) -> tuple[Any, ...]:
    """Returns what changes when a local file is replaced."""
    if isinstance(video, Path) and video.is_file():
        about = video.stat()
        return str(video), about.st_mtime_ns, about.st_size
    return (str(video),)


@contextmanager
def _opened(video: Location) -> Iterator[tuple[Any, Any]]:
    """Opens a video and its first stream of pictures."""
    container = _open(video)
    with container:
        if not container.streams.video:
            raise InputError(f"'{video}' has no pictures, only sound")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise InputError(f"'{video}' can't be decoded: its format of pictures is unknown")
        stream.thread_type = "AUTO"
        yield container, stream


def _open(video: Location) -> Any:
    av = pyav()
    if isinstance(video, Path):
        if not os.path.isfile(video):
            problem = "is a folder, not a video" if os.path.isdir(video) else "does not exist"
            raise InputError(f"'{video}' {problem}")
        if not video.stat().st_size:
            raise InputError(f"'{video}' is not a video: the file is empty")
    # A relative name with a colon would be taken for a protocol.
    file = str(video.absolute()) if isinstance(video, Path) else open_file(video)
    try:
        # Damage and metadata in unknown encodings are ours to report, not PyAV's.
        return av.open(file, metadata_errors="replace")
    except PermissionError:
        raise InputError(f"'{video}' can't be read: no permission") from None
    except (av.FFmpegError, UnicodeError):
        raise InputError(
            f"'{video}' is not a video in a known format, or was cut short before its table of contents"
        ) from None


class _Numbering:
    """Gives decoded frames the ranks of their times among those of the stream's packets.

    Seeking needs numbers that are known without decoding. A frame that is lost keeps its number to itself.
    """

    def __init__(self) -> None:
        self._pending: list[int] = []
        self._passed, self._last = 0, -1

    def add(self, packet: Any) -> None:
        """Notes a packet that is about to be decoded."""
        if _is_shown(packet):
            heapq.heappush(self._pending, packet.pts)

    def number(self, frame: Any) -> int:
        """Returns the number of a frame; frames come in the order of their times."""
        if frame.pts is not None:
            while self._pending and self._pending[0] <= frame.pts:
                heapq.heappop(self._pending)
                self._passed += 1
        self._last = max(self._last + 1, self._passed - 1)
        return self._last


def _is_shown(packet: Any) -> bool:
    """Returns whether a packet holds a frame that is shown, at a time to be relied on."""
    codec = packet.stream.codec_context.codec
    if codec.reorder and packet.stream.container.format.name not in _EXACT_TIMES:
        return False
    if packet.pts is None or not packet.size or packet.is_discard:
        return False
    # VP8's reference frames are packets of their own, with a bit that hides them.
    return codec.name != "vp8" or bool(memoryview(packet)[0] >> 4 & 1)


def _decoded(container: Any, stream: Any, faults: _Faults) -> Iterator[tuple[int, Any]]:
    """Decodes the packets from where the container is, and counts what fails."""
    av, numbering = pyav(), _Numbering()
    packets, last = container.demux(), -1
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            faults.ended = True
            return
        if packet is None:
            return
        if packet.pts is not None:
            faults.end = max(faults.end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream is not stream:
            continue
        numbering.add(packet)
        faults.hidden += bool(packet.is_discard)  # An edit list leaves it out.
        if container.format.name == "avi" and packet.dts is not None:
            faults.hidden += packet.dts - last - 1  # An AVI counts the frames that repeat the one before them.
            last = packet.dts
        try:
            frames = packet.decode()
        except av.FFmpegError:
            faults.undecoded += 1
            continue
        for frame in frames:
            faults.frames += 1
            faults.damaged += bool(frame.is_corrupt)
            yield numbering.number(frame), frame


def _problem(container: Any, stream: Any, faults: _Faults) -> str | None:
    """Says what is missing of a video that was decoded to its end; None if nothing is."""
    parts = []
    if (expected := stream.frames - faults.hidden) > faults.frames:
        parts.append(f"{faults.frames:,} of {counted(expected, 'frame')} can be decoded")
    elif not stream.frames and container.duration and faults.end:
        duration = container.duration / 1e6
        # Sound counts too: it may be longer than the picture.
        missing = duration + (container.start_time or 0) / 1e6 - faults.end
        if missing > max(MISSING_SECONDS, MISSING_SHARE * duration):
            parts.append(f"{counted(faults.frames, 'frame')} can be decoded, and {missing:.1f} s are missing")
    if not parts and (faults.undecoded or faults.ended):
        parts.append(f"{counted(faults.frames, 'frame')} can be decoded, and others can't")
    if faults.damaged:
        parts.append(f"{counted(faults.damaged, 'frame')} decoded in part only")
    return ", ".join(parts) or None


def _pixels(frame: Any, video: Location) -> Image8:
    if frame.width * frame.height > MAX_PIXELS:
        raise InputError(
            f"{video}: {frame.width} x {frame.height} is too large an image (limit: {MAX_PIXELS:,} pixels)"
        )
    with DECODING.of(frame.width * frame.height):
        pixels = frame.to_ndarray(format="rgb24")
    # PyAV gives the angle counter-clockwise, as NumPy takes it.
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


class _FrameReader:
    """Reads single frames of a video: seeks to the keyframe before each, unless it is the next one to decode.

    Args:
        video: the video.

    Raises:
        InputError: as `read_header`.
    """

    def __init__(self, video: Location) -> None:
        self.video = video
        self._lock = threading.Lock()
        self._times, self._keys = self._index()
        self._container = _open(video)
        self._stream = self._container.streams.video[0]
        self._frames: Iterator[tuple[int, Any]] = iter(())
        self._time: int | None = None
        self._in_order, self._last = self._from_start(), -1
        self._latest: tuple[int, Image8] | None = None

    def read(self, number: int) -> Image8:
        """Returns a frame, see `read_frame`; any thread may call this."""
        with self._lock:
            if self._latest is None or self._latest[0] != number:
                self._latest = None  # so that two frames are never in memory
                self._latest = number, self._sought(number)
            return self._latest[1].copy()

    def _index(self) -> tuple[list[int], list[int]]:
        """Returns the times of all frames and of the keyframes, sorted, from the packets alone."""
        av = pyav()
        times, keys = list[int](), list[int]()
        with _opened(self.video) as (container, stream):
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                except av.FFmpegError:
                    break
                if packet is None:
                    break
                if _is_shown(packet):
                    times.append(packet.pts)
                    if packet.is_keyframe:
                        keys.append(packet.pts)
        return sorted(times), sorted(keys)

    def _sought(self, number: int) -> Image8:
        is_known = len(set(self._times)) == len(self._times) > 0
        if is_known and number >= len(self._times):
            counts = counted(len(self._times), "frame")
            raise InputError(f"'{self.video}' has {counts}, there is no frame {number} (the first is 0)")
        frame = self._at(self._times[number]) if is_known else None
        return self._counted(number) if frame is None else _pixels(frame, self.video)

    def _at(self, time: int) -> Any:
        """Decodes the frame of a time; None where there is none, as in a damaged video."""
        place = bisect_right(self._keys, time) - 1
        if place < 0:
            return None
        if self._time is None or not self._keys[place] <= self._time < time:
            try:
                self._container.seek(self._keys[place], stream=self._stream)
            except pyav().FFmpegError:
                return None
            self._frames = _decoded(self._container, self._stream, _Faults())
        for _, frame in self._frames:
            if frame.pts is None:
                break
            self._time = frame.pts
            if frame.pts >= time:
                return frame if frame.pts == time else None
        self._time = None
        return None

    def _counted(self, number: int) -> Image8:
        """Decodes from the start, or on from an earlier frame, where packets don't say which frame is which."""
        if number <= self._last:
            self._in_order = self._from_start()
        for at, frame in self._in_order:
            self._last = at
            if at == number:
                return _pixels(frame, self.video)
            if at > number:
                break
        raise InputError(f"'{self.video}' has no frame {number} that can be decoded")

    def _from_start(self) -> Iterator[tuple[int, Any]]:
        with _opened(self.video) as (container, stream):
            yield from _decoded(container, stream, _Faults())


_READERS: OrderedDict[tuple[Any, ...], _FrameReader] = OrderedDict()
_LOCK = threading.Lock()
