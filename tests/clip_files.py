"""Clips for tests: moving squares, as videos and as folders of frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]


def moving_squares(count: int = 30, height: int = 48, width: int = 64, seed: int = 0) -> list[Pixels]:
    """Returns frames uint8 (H, W, 3) of two squares on noise, each of which differs from all others."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 40, (height, width, 3))
    frames = []
    for number in range(count):
        frame = noise.copy()
        left = round(number * (width - 16) / max(count - 1, 1))
        frame[8:20, left : left + 12] = (230, 60, 20)
        frame[height - 20 : height - 8, width - 12 - left : width - left] = (20, 200, 90)
        frame[: height // 8, :] = 4 * number % 256
        frames.append(frame.astype(np.uint8))
    return frames


def write_video(path: Path, frames: Sequence[Pixels], codec: str = "ffv1", rate: int = 25) -> Path:
    """Writes a video: `ffv1` keeps pixels as they are; `libx264` has frames that refer to later ones."""
    import av

    formats = {"ffv1": "bgr0"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = formats.get(codec, "yuv420p")
        if codec == "libx264":
            stream.gop_size = 12
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_frames(folder: Path, frames: Sequence[Pixels], name: str = "{:06d}.png", first: int = 1) -> Path:
    """Writes frames as images."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, pixels in enumerate(frames, first):
        Image.fromarray(pixels).save(folder / name.format(number))
    return folder
