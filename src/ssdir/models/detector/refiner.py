"""The refiner: a second stage that corrects the detector's boxes, and classifies them, from features in each box.

SSD's heads predict a box from one cell, at a stride of several pixels, so its sides have errors of a few per cent
of the object's, which carry over to embeddings and decoded objects. Like the second stage of two-stage detectors
(Ren et al. 2015; class-agnostic as in Cascade R-CNN: Cai & Vasconcelos 2018), the refiner samples features in the
frame of each box, where all objects have the same position and size; few images suffice to learn from these. It is
still one pass over the image: the refiner reads the detector's own feature maps, and one finer map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssdir.config import Config
from ssdir.models.backbones.base import init_xavier
from ssdir.models.sizes import MAX_WIDTH
from ssdir.objects import Objects
from ssdir.ops.boxes import clip_cxcywh, decode_boxes, encode_boxes, grow_boxes, to_xyxy
from ssdir.ops.distributed import normalizer, rows_of
from ssdir.ops.glimpses import crop_levels
from ssdir.ops.precision import at_least_single

CONTEXT = 1.4
"""Ratio of the sides of the sampled window and of the box: the object may extend beyond the predicted box."""

_MIN_SIDE = 1e-3


class RefinerConfig(Config):
    """A refiner of boxes.

    Attributes:
        size: samples of each feature map along each side of the window around a box.
        channels: channels of the samples; the convolution after them has twice as many.
        hidden: width of the hidden layer.
        jitter: standard deviation of the noise on the true boxes that it learns to correct: of the centre,
            relative to the box's sides, and of the sides' logarithms.
        copies: number of noisy boxes of each true object.
        weight: coefficient of the loss of its boxes.
    """

    size: int = Field(7, ge=2, le=64)
    channels: int = Field(64, ge=1, le=MAX_WIDTH)
    hidden: int = Field(256, ge=1, le=MAX_WIDTH)
    jitter: float = Field(0.08, gt=0, lt=1)
    copies: int = Field(3, ge=1, le=1000)
    weight: float = Field(1.0, gt=0)


class Refiner(nn.Module):
    """Corrects and classifies boxes from the feature maps in and around each.

    Args:
        channels: channels of each feature map.
        num_classes: K, the foreground classes; a single class is not classified.
        config: sizes and options.
        variances: see `encode_boxes`.
        beta: see `SSDConfig.box_beta`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        config: RefinerConfig,
        variances: tuple[float, float],
        beta: float,
    ) -> None:
        super().__init__()
        self.config, self.variances, self.beta = config, variances, beta
        self.num_classified = num_classes if num_classes > 1 else 0
        width = config.channels
        self.inputs = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.net = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(2 * width * ((config.size + 1) // 2) ** 2, config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, 4 + self.num_classified),
        )
        self.apply(init_xavier)
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # Before training, boxes stay as they are.

    def forward(
        self, maps: Sequence[Tensor], z_where: Tensor, image_index: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Corrects boxes, and classifies them if there are several classes.

        Args:
            maps: feature maps, each (B, C, h, w).
            z_where: float (M, 4), cxcywh relative to the image, of positive area.
            image_index: int64 (M,).

        Returns:
            float (M, 4), row-aligned, inside the image and of positive area; and float (M, K), the logits of the
            foreground classes, or None.
        """
        deltas, class_logits = self._heads(maps, z_where, image_index)
        refined = clip_cxcywh(decode_boxes(deltas, z_where, self.variances))
        refined = torch.where((refined[:, 2:] > 0).all(dim=1, keepdim=True), refined, z_where)
        return refined, class_logits if self.num_classified else None

    def loss(self, maps: Sequence[Tensor], targets: Objects) -> dict[str, Tensor]:
        """The loss on noisy copies of true boxes, per true box; 0 without boxes.

        Returns:
            `refine`: smooth L1 of the corrections, summed over sides; `name`, if it classifies: the cross-entropy.
        """
        copies = self.config.copies
        true = targets.z_where.repeat(copies, 1)
        rows = rows_of(len(targets), true.device)
        noise = rows.randn_of_copies(copies, 4)
        noisy = decode_boxes(noise, true, (self.config.jitter, self.config.jitter))
        noisy = clip_cxcywh(noisy).clamp(min=_MIN_SIDE)
        delta_targets = encode_boxes(true, noisy, self.variances)
        deltas, class_logits = self._heads(maps, noisy, targets.image_index.repeat(copies))
        count = normalizer(len(true), true.device)
        losses = {"refine": F.smooth_l1_loss(deltas, delta_targets, beta=self.beta, reduction="sum") / count}
        if self.num_classified:
            assert targets.labels is not None
            entropy = F.cross_entropy(class_logits, targets.labels.repeat(copies), reduction="sum")
            losses["name"] = entropy / count
        return losses

    def hidden_features(self, maps: Sequence[Tensor], z_where: Tensor, image_index: Tensor) -> Tensor:
        """Computes the hidden layer of each box, float (M, hidden); for the arguments see `forward`."""
        windows = to_xyxy(grow_boxes(z_where, CONTEXT))
        inputs = [project(feature) for project, feature in zip(self.inputs, maps, strict=True)]
        hidden: Tensor = self.net[:-1](crop_levels(inputs, windows, image_index, self.config.size))
        return hidden

    def _heads(self, maps: Sequence[Tensor], z_where: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """Computes corrections (M, 4), and class logits (M, K or 0)."""
        outputs = at_least_single(self.net[-1](self.hidden_features(maps, z_where, image_index)))
        return outputs[:, :4], outputs[:, 4:]
