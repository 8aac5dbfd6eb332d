"""Options of tracking."""

from __future__ import annotations

from dataclasses import dataclass

from ssdir.errors import InputError
from ssdir.inference.files import check_threshold


@dataclass(frozen=True)
class Thresholds:
    """Minimum scores of detections.

    Attributes:
        low: of those that may continue a track, by motion alone.
        confident: of those that are compared with tracks by all evidence.
        start: of those that may start a track.
    """

    low: float
    confident: float
    start: float


@dataclass(frozen=True)
class TrackOptions:
    """Options of tracking.

    Attributes:
        appearance: whether `z_what` takes part in the association; without it, motion alone decides.
        score_threshold: minimum score of a detection that may start a track; None takes the middle between the
            model's threshold and 1, for the score times the visible share: a second detection of an object mostly
            lies behind the first.
        low_score: minimum score of a detection that may continue a track, as a share of `score_threshold`, or else
            of the model's threshold.
        max_gap: number of frames that an object may be unseen and still keep its track. Frames in which a nearer
            object hides its place don't count, up to as many again.
        min_frames: number of frames that a new track must be seen in before it is returned; 1 returns each at
            once.
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
            raise InputError(f"low_score is a share of the score threshold, in [0, 1], got {self.low_score:g}")
        if self.max_gap < 0:
            raise InputError(f"max_gap must be at least 0 frames, got {self.max_gap}")
        if self.min_frames < 1:
            raise InputError(f"min_frames must be at least 1, got {self.min_frames}")

    def thresholds(self, model_threshold: float | None) -> Thresholds:
        """Returns the minimum scores for detections of a model.

        Args:
            model_threshold: the model's score threshold; None for boxes from elsewhere, which are all confident
                unless `score_threshold` is given.
        """
        if self.score_threshold is not None or model_threshold is None:
            confident = start = self.score_threshold or 0.0
        else:
            confident, start = model_threshold, (1 + model_threshold) / 2
        return Thresholds(self.low_score * confident, confident, start)
