"""Limits the number of pixels that all threads together decode at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

MAX_PIXELS = 200_000_000
"""The largest image that is read, and the most that all threads decode at once, in pixels of about 8 bytes."""


class PixelBudget:
    """Lets threads decode images at the same time as long as these have at most `limit` pixels in total."""

    def __init__(self, limit: int) -> None:
        self.limit, self.in_use = limit, 0
        self._changed, self._thread = threading.Condition(), threading.local()

    @contextmanager
    def of(self, pixels: int) -> Iterator[None]:
        """Waits until that many more pixels may be decoded; an image larger than the limit is decoded alone.

        What this thread keeps reserved itself is not waited for, as that would never end.
        """
        own = sum(getattr(self._thread, "kept", None) or ())
        with self._changed:
            self._changed.wait_for(lambda: self.in_use <= own or self.in_use + pixels <= self.limit)
            self.in_use += pixels
        try:
            yield
        finally:
            kept = getattr(self._thread, "kept", None)
            if kept is None:
                self._release(pixels)
            else:
                kept.append(pixels)

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Keeps the pixels that this thread decodes reserved until the block ends, as resizing needs them too."""
        kept = self._thread.kept = []
        try:
            yield
        finally:
            self._thread.kept = None
            self._release(sum(kept))

    def _release(self, pixels: int) -> None:
        with self._changed:
            self.in_use -= pixels
            self._changed.notify_all()


DECODING = PixelBudget(MAX_PIXELS)
"""The budget that all readers of images share."""
