"""`Track`: what a tracker keeps of one object."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from torch import Tensor

from ssdir.tracking.appearance import Gallery
from ssdir.tracking.motion import BoxMotion


@dataclass(eq=False)
class Track:
    """One object through a clip, as far as it was seen.

    Attributes:
        motion: its box.
        first: number of the frame that it was first seen in.
        last: number of the frame that it was last seen in.
        track_id: from 1, or 0 before it is given one.
        seen: number of frames that it was seen in.
        gap: number of frames from the view before the last one to that, at least 1.
        hidden: number of frames since `last` in which a nearer object hid its place.
        depth: its last `z_depth`.
        gallery: its appearance; None without embeddings.
        memory: float (S,), what a `TemporalModel` remembers of it.
        votes: sum of the scores for each class.
    """

    motion: BoxMotion
    first: int
    last: int
    track_id: int = 0
    seen: int = 0
    gap: int = 1
    hidden: int = 0
    depth: float = 0.0
    gallery: Gallery | None = None
    memory: Tensor | None = None
    votes: Counter[int] = field(default_factory=Counter)

    def join(self, earlier: Track) -> None:
        """Becomes the continuation of an earlier track."""
        self.track_id, self.first, self.memory = earlier.track_id, earlier.first, earlier.memory
        self.gap = self.last - earlier.last
        self.seen += earlier.seen
        self.votes.update(earlier.votes)
        if earlier.gallery is not None and self.gallery is not None:
            earlier.gallery.join(self.gallery)
            self.gallery = earlier.gallery
