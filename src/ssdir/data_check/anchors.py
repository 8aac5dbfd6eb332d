"""The boxes that a detector's anchors match, and those that recommended anchors would match."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from ssdir.data_check.anchor_fit import full_size, match_levels, pyramid, recommend
from ssdir.data_check.annotations import SIZE_EDGES, SIZE_NAMES
from ssdir.models.detector.ssd import MATCH_IOU, AnchorConfig, SSDConfig


@dataclass(frozen=True)
class LevelMatches:
    """The boxes that anchors match.

    Attributes:
        name: name of the level, or "all levels".
        cells: number of cells along each side; 0 for all levels.
        sizes: sides of the two squares, in pixels; none for all levels.
        share: share of all boxes.
        by_size: share by `SIZE_NAMES`; None where there are no boxes.
    """

    name: str
    cells: int
    sizes: tuple[float, ...]
    share: float
    by_size: dict[str, float | None]


@dataclass(frozen=True)
class DetectorMatches:
    """The boxes that a detector's anchors match.

    Attributes:
        image_size: side of its square input.
        anchors: its anchors.
        nms_threshold: IoU above which the weaker of two detections goes.
        levels: the matches of each level, fine to coarse.
        together: the matches of all levels.
    """

    image_size: int
    anchors: AnchorConfig
    nms_threshold: float
    levels: list[LevelMatches]
    together: LevelMatches


@dataclass(frozen=True)
class DetectorFit:
    """A preset's detector, and one that suits the data better.

    Attributes:
        nms: whether it suppresses duplicate detections.
        current: the boxes that it matches.
        recommended: the boxes that it would match with the recommended settings.
        full_size: the image size at which nearly all objects would be readable; maybe more than recommended.
    """

    nms: bool
    current: DetectorMatches
    recommended: DetectorMatches
    full_size: int

    def as_json(self) -> dict[str, Any]:
        """Returns plain values."""
        detectors = {
            name: dataclasses.asdict(detector) | {"anchors": detector.anchors.model_dump(mode="json")}
            for name, detector in (("current", self.current), ("recommended", self.recommended))
        }
        return {"match_iou": MATCH_IOU, "full_size": self.full_size, **detectors}


def fit_detector(
    boxes_cxcywh: Tensor, image_sides: Sequence[int], nms_threshold: float, config: SSDConfig
) -> DetectorFit:
    """Measures a detector as it is, and with what `recommend` changes; the arguments are those of `recommend`."""
    return DetectorFit(
        nms=config.nms,
        current=_detector(boxes_cxcywh, config),
        recommended=_detector(boxes_cxcywh, recommend(boxes_cxcywh, image_sides, nms_threshold, config)),
        full_size=full_size(boxes_cxcywh) if len(boxes_cxcywh) else config.image_size,
    )


def _detector(boxes: Tensor, config: SSDConfig) -> DetectorMatches:
    cells = pyramid(config)
    matched = match_levels(boxes, config.anchors, cells, config.image_size) >= MATCH_IOU
    anchors = config.anchors
    squares = zip(anchors.min_sizes, anchors.max_sizes, strict=True)
    levels = [
        _matches(f"level {i + 1}", n, (low, (low * high) ** 0.5), matched[:, i], boxes)
        for i, (n, (low, high)) in enumerate(zip(cells, squares, strict=True))
    ]
    together = _matches("all levels", 0, (), matched.any(dim=1), boxes)
    return DetectorMatches(config.image_size, anchors, config.nms_threshold, levels, together)


def _matches(name: str, cells: int, sizes: tuple[float, ...], matched: Tensor, boxes: Tensor) -> LevelMatches:
    size = np.digitize(boxes[:, 2:].amax(dim=1).numpy(), SIZE_EDGES) if len(boxes) else np.zeros(0)
    hits = matched.numpy()
    by_size = {
        label: float(hits[size == i].mean()) if (size == i).any() else None for i, label in enumerate(SIZE_NAMES)
    }
    return LevelMatches(name, cells, sizes, float(hits.mean()) if len(hits) else 0.0, by_size)
