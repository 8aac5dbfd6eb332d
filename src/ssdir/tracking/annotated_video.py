"""A video of a clip with its tracks: boxes in a colour per track, numbers, and the paths of objects."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import cv2
import numpy as np
import supervision

from ssdir.data.images import Image8, resize
from ssdir.data.video_file import pyav

if TYPE_CHECKING:
    from ssdir.objects import Objects
    from ssdir.tracking.frames import TrackedFrame

FEWEST_PIXELS, MOST_PIXELS = 640, 1920
"""Longer side of the video, to which smaller and larger frames are resized: labels must be readable."""

USUAL_RATE = 25.0
"""Frames per second of clips whose own rate is not known."""

_PATH, _MOST_GAP = 30, 3
"""Number of frames over which an object's path is shown, and across which it is taken to be straight."""

_HIDDEN = 0.5
"""Visible share below which a label says how much of an object is visible."""


class AnnotatedVideo:
    """Writes an annotated video as frames come, to be used in a `with` block.

    All frames get the size of the first; smaller and larger ones are fitted into it, in their proportions.

    Args:
        path: the file; its suffix says the format.
        frame_rate: frames per second; None takes `USUAL_RATE`.
    """

    def __init__(self, path: Path, frame_rate: float | None) -> None:
        self._path, self._rate = path, Fraction(frame_rate or USUAL_RATE).limit_denominator(100_000)
        self._container: Any = None
        self._stream: Any = None
        self._painter: _Painter | None = None
        self._size = (0, 0)

    def write(self, frame: TrackedFrame) -> None:
        """Adds a frame, which needs its pixels.

        Raises:
            ValueError: if it has none.
        """
        if frame.pixels is None:
            raise ValueError("an annotated video needs the pixels of its frames: keep_pixels=True")
        if self._painter is None:
            self._start(frame.size)
        assert self._painter is not None
        canvas, size = _fit(frame.pixels, self._size)
        annotated = self._painter.paint(canvas, frame.objects, size, frame.index)
        self._container.mux(self._stream.encode(pyav().VideoFrame.from_ndarray(annotated, format="bgr24")))

    def _start(self, size: tuple[int, int]) -> None:
        """Chooses size and colours by the first frame."""
        self._size = _video_size(size)
        self._painter = _Painter(self._size)
        self._stream.height, self._stream.width = self._size
        self._stream.pix_fmt = "yuv420p"

    def __enter__(self) -> Self:
        av = pyav()
        self._container = av.open(str(self._path), "w")
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        self._stream = self._container.add_stream(codec, rate=self._rate)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._painter is not None:
                self._container.mux(self._stream.encode())
        finally:
            self._container.close()


class _Painter:
    """Paints tracks on frames of one size: boxes and labels by supervision, and paths."""

    def __init__(self, size: tuple[int, int]) -> None:
        scale = max(size) / FEWEST_PIXELS
        by_track = {"color_lookup": supervision.ColorLookup.TRACK}
        self._width = max(1, round(2 * scale))
        self._boxes = supervision.BoxAnnotator(thickness=self._width, **by_track)
        self._labels = supervision.LabelAnnotator(
            text_scale=0.45 * scale,
            text_padding=round(3 * scale),
            text_thickness=round(scale),
            smart_position=True,  # Labels stay within the frame.
            **by_track,
        )
        self._paths: dict[int, deque[tuple[int, int, int]]] = {}

    def paint(self, pixels: Image8, objects: Objects, size: tuple[int, int], number: int) -> Image8:
        """Paints the objects of a frame.

        Args:
            pixels: uint8 (H, W, 3), RGB.
            objects: the objects of the frame, with `track_id`.
            size: (height, width) of the frame within the pixels.
            number: the frame's.

        Returns:
            uint8 (H, W, 3), BGR.
        """
        annotated = np.ascontiguousarray(pixels[..., ::-1])
        if not len(objects) or objects.track_id is None:
            return annotated
        detections = objects.to_supervision(size)
        self._extend_paths(detections, number)
        self._paint_paths(annotated, number)
        annotated = self._boxes.annotate(annotated, detections)
        painted: Image8 = self._labels.annotate(annotated, detections, labels=_labels(objects))
        return painted

    def _extend_paths(self, detections: Any, number: int) -> None:
        centers = detections.get_anchors_coordinates(supervision.Position.CENTER).round().astype(int)
        for track, (x, y) in zip(detections.tracker_id.tolist(), centers.tolist(), strict=True):
            self._paths.setdefault(track, deque(maxlen=_PATH)).append((number, x, y))
        self._paths = {track: path for track, path in self._paths.items() if number - path[-1][0] < _PATH}

    def _paint_paths(self, canvas: Image8, number: int) -> None:
        """Paints the centres of the frame's objects in the last frames; a path ends where one was unseen long."""
        for track, path in self._paths.items():
            if path[-1][0] < number:
                continue
            colour = supervision.ColorPalette.DEFAULT.by_idx(track).as_bgr()
            for (before, *start), (after, *end) in pairwise(path):
                if after - before <= _MOST_GAP and number - before < _PATH:
                    cv2.line(canvas, start, end, colour, self._width, cv2.LINE_AA)


def _labels(objects: Objects) -> list[str]:
    """Returns the text beside each object: its track, its class where there are several, and how hidden it is."""
    assert objects.track_id is not None
    texts = [f"{track}" for track in objects.track_id.tolist()]
    if objects.labels is not None and objects.class_names is not None and len(objects.class_names) > 1:
        names = [objects.class_names[label] for label in objects.labels.tolist()]
        texts = [f"{text} {name}" for text, name in zip(texts, names, strict=True)]
    if objects.visible is not None:
        shares = objects.visible.tolist()
        texts = [
            f"{text} ({share:.0%})" if share < _HIDDEN else text for text, share in zip(texts, shares, strict=True)
        ]
    return texts


def _video_size(size: tuple[int, int]) -> tuple[int, int]:
    """Returns the video's (height, width) for frames of a size: even, and neither tiny nor huge."""
    longer = max(size)
    scale = min(max(longer, FEWEST_PIXELS), MOST_PIXELS) / longer
    height, width = (max(2, 2 * round(side * scale / 2)) for side in size)
    return height, width


def _fit(pixels: Image8, size: tuple[int, int]) -> tuple[Image8, tuple[int, int]]:
    """Fits a frame into a size, at its top left over black; returns it with the (height, width) that it covers."""
    height, width = pixels.shape[:2]
    if (height, width) == size:
        return pixels, size
    scale = min(size[0] / height, size[1] / width)
    covered = min(size[0], max(1, round(height * scale))), min(size[1], max(1, round(width * scale)))
    if max(size[0] - covered[0], size[1] - covered[1]) <= 2:  # because sides are even
        covered = size
    canvas = np.zeros((*size, 3), np.uint8)
    canvas[: covered[0], : covered[1]] = resize(pixels, *covered)
    return canvas, covered
