"""Searches for anchors, image size and NMS threshold that suit the boxes of a data set.

The grid of cells is that of the detector's backbone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssdir.models.backbones.build import build_backbone
from ssdir.models.detector.ssd import MATCH_IOU, AnchorConfig, SSDConfig
from ssdir.models.registry import without_pretrained
from ssdir.ops.anchors import level_iou

READABLE_SIDE = 8
"""The least pixels of a box's shorter side at which an object is recognisable."""
READABLE_SHARE = 0.9
MAX_GROWTH = 2
"""The most that the image's side grows, because time and memory grow with its square."""
SIZE_STEP = 32

_FIT_BOXES = 3000
_FACTORS = (0.7, 0.85, 0.95, 1.05, 1.18, 1.4)
_ROUNDS = 12
_STRIDES = (1, 8)
"""The least and largest side of a level's anchors in its strides, which its cells can separate and see."""

_DISTINCT = 1.1
_RATIOS = 0.15, 7


def pyramid(config: SSDConfig, image_size: int | None = None) -> list[int]:
    """Returns the cells along each side of the detector's levels, at another image size if one is given."""
    size = image_size or config.image_size
    return build_backbone(without_pretrained(config).backbone, size).feature_sizes(size)


def match_levels(boxes_cxcywh: Tensor, anchors: AnchorConfig, cells: Sequence[int], image_size: int) -> Tensor:
    """Computes the largest IoU of each box with the anchors of each level.

    Args:
        boxes_cxcywh: float (M, 4), relative to the image.
        anchors: the sizes of anchors, a range per level.
        cells: number of cells along each side of each level, see `pyramid`.
        image_size: side of the image that the anchors' sizes refer to.

    Returns:
        float (M, L).
    """
    ranges = zip(cells, anchors.min_sizes, anchors.max_sizes, strict=True)
    levels = [
        level_iou(boxes_cxcywh, n, low / image_size, high / image_size, anchors.aspect_ratios)
        for n, low, high in ranges
    ]
    return torch.stack(levels, dim=1)


def recommend(
    boxes_cxcywh: Tensor, image_sides: Sequence[int], nms_threshold: float, config: SSDConfig
) -> SSDConfig:
    """Fits a detector's input and anchors to boxes.

    The anchors are as many per cell as the detector's own, and match at least as many of the boxes.

    Args:
        boxes_cxcywh: float (M, 4), relative to the image.
        image_sides: the longer side of each image, in pixels.
        nms_threshold: NMS threshold of the result.
        config: the detector to start from.
    """
    config = config.model_copy(update={"nms_threshold": nms_threshold})
    if not len(boxes_cxcywh):
        return config
    own = pyramid(config)
    # Sizes beyond what half of the images have would invent pixels.
    there = int(np.median(image_sides)) // SIZE_STEP * SIZE_STEP
    size = max(config.image_size, min(full_size(boxes_cxcywh), there, MAX_GROWTH * config.image_size))
    target = _matched(match_levels(boxes_cxcywh, config.anchors, own, config.image_size))
    for side in dict.fromkeys([size, config.image_size]):
        cells = own if side == config.image_size else pyramid(config, side)
        anchors = fit_anchors(boxes_cxcywh, config, cells, side)
        if _matched(match_levels(boxes_cxcywh, anchors, cells, side)) >= target:
            return config.model_copy(update={"image_size": side, "anchors": anchors})
    return config


def full_size(boxes_cxcywh: Tensor) -> int:
    """Returns the multiple of `SIZE_STEP` at which `READABLE_SHARE` of the boxes have `READABLE_SIDE` pixels."""
    side = float(np.quantile(boxes_cxcywh[:, 2:].amin(dim=1).numpy(), 1 - READABLE_SHARE))
    return ceil(READABLE_SIDE / side / SIZE_STEP) * SIZE_STEP


def fit_anchors(boxes_cxcywh: Tensor, config: SSDConfig, cells: Sequence[int], image_size: int) -> AnchorConfig:
    """Searches for anchors that match boxes, as many per cell as the config's.

    From the config's own, and from clusters of the boxes' sizes, single sizes are changed as long as more
    boxes are matched, or as many are matched better. Clusters alone are not enough, because an anchor matches what
    its grid lets it reach, and must suit its level. A box counts less the more there are of its size (by the
    root of their number), so that many small ones don't outweigh all large ones.

    Args:
        boxes_cxcywh: float (M, 4), M >= 1, relative to the image.
        config: the detector.
        cells: number of cells along each side of each level, see `pyramid`.
        image_size: side of the square input.

    Returns:
        The best of the tried anchors, including the config's own, with boxes counted as above.
    """
    scale = image_size / config.image_size
    grown = AnchorConfig(
        min_sizes=tuple(scale * side for side in config.anchors.min_sizes),
        max_sizes=tuple(scale * side for side in config.anchors.max_sizes),
        aspect_ratios=config.anchors.aspect_ratios,
    )
    generator = torch.Generator().manual_seed(0)
    sample = boxes_cxcywh[torch.randperm(len(boxes_cxcywh), generator=generator)[:_FIT_BOXES]].double()
    search = _Search(sample, _weights(sample), cells, image_size)
    starts = [search.start(grown), search.start(_clustered(sample, grown, image_size))]
    candidates = [_rounded(grown), config.anchors, *(_rounded(search.climb(start)) for start in starts)]
    overlaps = [match_levels(boxes_cxcywh, each, cells, image_size) for each in candidates]
    weights = _weights(boxes_cxcywh)
    return candidates[int(np.argmax([_quality(iou, weights) for iou in overlaps]))]


@dataclass(frozen=True)
class _Sizes:
    """The anchors that a search varies: each level's smaller and larger square in pixels, and the ratios."""

    small: tuple[float, ...]
    large: tuple[float, ...]
    ratios: tuple[float, ...]

    def config(self) -> AnchorConfig:
        largest = tuple(large**2 / small for small, large in zip(self.small, self.large, strict=True))
        return AnchorConfig(min_sizes=self.small, max_sizes=largest, aspect_ratios=self.ratios)

    def changed(self) -> list[_Sizes]:
        """Returns all variants with one size or ratio multiplied by one of `_FACTORS`."""
        return [
            _Sizes(**{**vars(self), name: (*values[:i], values[i] * factor, *values[i + 1 :])})
            for name, values in vars(self).items()
            for i in range(len(values))
            for factor in _FACTORS
        ]


@dataclass(frozen=True)
class _Search:
    boxes: Tensor
    weights: Tensor
    cells: Sequence[int]
    image_size: int

    @property
    def limits(self) -> list[tuple[float, float]]:
        """The least and largest side of each level's anchors.

        The finest level goes down to half of that, and the coarsest up to the image, which no level suits better.
        """
        strides = np.divide(self.image_size, self.cells)
        low, high = _STRIDES[0] * strides, np.minimum(_STRIDES[1] * strides, self.image_size)
        low[0], high[-1] = low[0] / 2, self.image_size
        return list(zip(np.minimum(low, self.image_size / 2).tolist(), high.tolist(), strict=True))

    def start(self, anchors: AnchorConfig) -> _Sizes:
        """Returns the sizes nearest to the anchors that the limits allow."""
        low, high = np.transpose(self.limits)
        larger = np.sqrt(np.multiply(anchors.min_sizes, anchors.max_sizes))
        small = np.maximum.accumulate(np.clip(anchors.min_sizes, low, high / _DISTINCT))
        large = np.clip(larger, small * _DISTINCT, high)
        ratios = np.clip(anchors.aspect_ratios, *_RATIOS)
        return _Sizes(tuple(small.tolist()), tuple(large.tolist()), tuple(ratios.tolist()))

    def allows(self, sizes: _Sizes) -> bool:
        """Tells whether each level's sizes are distinct and within its limits, and levels and ratios in order."""
        pairs = zip(sizes.small, sizes.large, self.limits, strict=True)
        within = all(low <= small <= large / _DISTINCT <= high / _DISTINCT for small, large, (low, high) in pairs)
        ratios = all(_RATIOS[0] <= ratio <= _RATIOS[1] for ratio in sizes.ratios)
        return within and ratios and list(sizes.small) == sorted(sizes.small)

    def quality(self, sizes: _Sizes) -> float:
        iou = match_levels(self.boxes, sizes.config(), self.cells, self.image_size)
        return _quality(iou, self.weights)

    def climb(self, sizes: _Sizes) -> AnchorConfig:
        best = self.quality(sizes)
        for _ in range(_ROUNDS):
            tried = [(self.quality(each), each) for each in sizes.changed() if self.allows(each)]
            quality, better = max(tried, key=lambda pair: pair[0], default=(best, sizes))
            if quality <= best + 1e-4:
                break
            best, sizes = quality, better
        return sizes.config()


def _clustered(boxes: Tensor, anchors: AnchorConfig, image_size: int) -> AnchorConfig:
    """Clusters the boxes' sizes, two centres per level, and their ratios.

    Logarithms are clustered, because the distance between those of two concentric boxes follows their IoU.
    """
    from sklearn.cluster import KMeans

    width, height = boxes[:, 2:].log().numpy().T
    squares = _centers(KMeans, (width + height) / 2, 2 * len(anchors.min_sizes)) * image_size
    ratios = _centers(KMeans, width - height, len(anchors.aspect_ratios)).tolist() if anchors.aspect_ratios else ()
    small, large = squares[::2], squares[1::2]
    return AnchorConfig(min_sizes=tuple(small), max_sizes=tuple(large**2 / small), aspect_ratios=tuple(ratios))


def _centers(kmeans: type, logarithms: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Returns cluster centres, ascending; the last is repeated where there are fewer distinct values."""
    distinct = min(count, len(np.unique(logarithms)))
    fitted = kmeans(distinct, n_init=3, random_state=0).fit(logarithms[:, None])
    centers = np.sort(fitted.cluster_centers_[:, 0])
    padded: NDArray[np.float64] = np.exp(np.concatenate([centers, np.repeat(centers[-1:], count - distinct)]))
    return padded


def _rounded(anchors: AnchorConfig) -> AnchorConfig:
    """Rounds sizes to whole pixels, and ratios to two digits."""
    small = [max(1, round(side)) for side in anchors.min_sizes]
    large = [max(low, round(side)) for low, side in zip(small, anchors.max_sizes, strict=True)]
    ratios = tuple(round(ratio, 2) for ratio in anchors.aspect_ratios)
    return AnchorConfig(min_sizes=tuple(small), max_sizes=tuple(large), aspect_ratios=ratios)


def _weights(boxes: Tensor) -> Tensor:
    """Returns weights of boxes, summing to 1: an octave of size counts by the root of its number of boxes."""
    octave = boxes[:, 2:].amax(dim=1).log2().floor().long()
    _, member, count = octave.unique(return_inverse=True, return_counts=True)
    weights: Tensor = count[member].double().rsqrt()
    return weights / weights.sum()


def _quality(iou: Tensor, weights: Tensor) -> float:
    """Returns the share of boxes matched; the mean overlap decides between equals."""
    best = iou.amax(dim=1)
    return float(((best >= MATCH_IOU) + 0.1 * best) @ weights.to(best))


def _matched(iou: Tensor) -> int:
    return int((iou.amax(dim=1) >= MATCH_IOU).sum())
