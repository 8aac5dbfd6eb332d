"""Options of tracking."""

from __future__ import annotations

from dataclasses import dataclass

from ssdir.errors import InputError
from ssdir.inference.files import check_threshold


@dataclass(frozen=True)
class TrackOptions:
    """Options of tracking.

    Attributes:
        appearance: whether `z_what` takes part in the association; without it, motion alone decides.
        score_threshold: minimum score of a detection that may start a track; None takes the model's.
        low_score: minimum score of a detection that may continue a track, as a share of `score_threshold`.
        max_gap: number of frames that an object may be unseen and still keep its track.
        min_frames: number of frames in a row that a new track must be seen in before it is given out; 1 gives out
            every confident detection.
    """

    appearance: bool = True
    score_threshold: float | None = None
    low_score: float = 0.5
    max_gap: int = 30
    min_frames: int = 1

    def check(self) -> None:
        """Raises InputError for an option out of range."""
        check_threshold(self.score_threshold)
        if not 0 <= self.low_score <= 1:
            raise InputError(
                f"low_score must be in [0, 1], a share of the score threshold, got {self.low_score:g}"
            )
        if self.max_gap < 0:
            raise InputError(f"max_gap must be at least 0 frames, got {self.max_gap}")
        if self.min_frames < 1:
            raise InputError(f"min_frames must be at least 1, got {self.min_frames}")

    def thresholds(self, model_threshold: float) -> tuple[float, float]:
        """Returns the minimum scores of detections that continue a track, and of those that may start one.

        Args:
            model_threshold: the model's score threshold.
        """
        start = model_threshold if self.score_threshold is None else self.score_threshold
        return self.low_score * start, start
