"""A clip in the studio: its frames to play, its tracks, and one track's views and path on the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from ssdir.analysis.tracks import CLEAR_SHARE
from ssdir.data.frame_names import split_frame_name
from ssdir.objects import Objects
from ssdir.studio.collection import Collection

MAX_FRAMES = 150
"""Maximum number of frames that are played: of a longer clip, frames at equal distances."""
MAX_TRACKS = 48
"""Maximum number of tracks that are listed."""
MAX_VIEWS = 12
"""Maximum number of views of a followed track that are shown."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A collection whose images are the frames of a clip, and whose objects have tracks.

    Attributes:
        collection: the objects, with `track_id` from 1; 0 for an object without a track.
    """

    collection: Collection

    @property
    def objects(self) -> Objects:
        """The views of all tracks."""
        return self.collection.objects

    @cached_property
    def track_id(self) -> NDArray[np.int64]:
        """The track of each object, int64 (M,)."""
        assert self.objects.track_id is not None
        return self.objects.track_id.numpy()

    @cached_property
    def weights(self) -> NDArray[np.float32]:
        """Score times visible share of each object, float (M,), see `ssdir.analysis.tracks`."""
        weights = torch.ones(len(self.objects)) if self.objects.scores is None else self.objects.scores
        if self.objects.visible is not None:
            weights = weights * self.objects.visible
        return weights.numpy()

    @cached_property
    def step(self) -> int:
        """Distance between two frames that are played; 1 if all are."""
        return max(1, -(-len(self.collection.names) // MAX_FRAMES))

    @cached_property
    def frames(self) -> NDArray[np.int64]:
        """The images that are played, int64 (F,), rising."""
        return np.arange(0, len(self.collection.names), self.step)

    @cached_property
    def longest(self) -> list[int]:
        """The tracks with the most views, at most `MAX_TRACKS`; of equally many, those that begin first."""
        tracks, first, views = np.unique(self.track_id, return_index=True, return_counts=True)
        order = [row for row in np.lexsort((first, -views)) if tracks[row] > 0]
        return [int(tracks[row]) for row in order[:MAX_TRACKS]]

    @cached_property
    def num_tracks(self) -> int:
        """Number of all tracks."""
        return int((np.unique(self.track_id) > 0).sum())

    def rows_of(self, track: int) -> NDArray[np.int64]:
        """Returns the views of a track, rows of the collection int64 (n,), in the order of time."""
        return np.flatnonzero(self.track_id == track)

    def clearest(self, track: int) -> int:
        """Returns the clearest view of a track, a row of the collection."""
        rows = self.rows_of(track)
        return int(rows[self.weights[rows].argmax()])

    def shown_views(self, track: int) -> NDArray[np.int64]:
        """Returns at most `MAX_VIEWS` views of a track at equal distances, the first and the last among them."""
        rows = self.rows_of(track)
        return rows[np.unique(np.linspace(0, len(rows) - 1, MAX_VIEWS).round().astype(np.int64))]

    def is_clear(self, row: int) -> bool:
        """Returns whether a view counts in the embedding of its track."""
        rows = self.rows_of(int(self.track_id[row]))
        return bool(self.weights[row] >= CLEAR_SHARE * self.weights[rows].max())

    def path(self, track: int | None, mapped: Sequence[int] | NDArray[np.int64]) -> list[int]:
        """Returns the points of the map that are views of a track, in the order of time.

        Args:
            track: the track; None for none.
            mapped: the row of the collection that each point shows.
        """
        if track is None:
            return []
        return np.flatnonzero(self.track_id[np.asarray(mapped, dtype=np.int64)] == track).tolist()

    def frame_title(self, image_index: int) -> str:
        """Returns `frame 12` for a frame of a video, and the name of any other image: it need not be numbered."""
        name = self.collection.names[image_index]
        frame = split_frame_name(name)
        return name if frame is None else f"frame {frame[1]}"

    def frame_near(self, image_index: int) -> int:
        """Returns the number of the played frame that is nearest to an image."""
        return int(np.abs(self.frames - image_index).argmin())


def clip_of(collection: Collection) -> Clip | None:
    """Returns a collection as a clip; None if none of its objects has a track."""
    track_id = collection.objects.track_id
    return Clip(collection) if track_id is not None and bool((track_id > 0).any()) else None
