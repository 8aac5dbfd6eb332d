"""A second look at what the detector found: boxes set right, and named, in their own frame.

SSD's heads read a box off one cell, at a stride of several pixels, so its sides are off by some hundredths of the
object; what codes are read from, and what is drawn, is off with them. The second stage of two-stage detectors (Ren
et al. 2015, here in its class-agnostic form, as in Cascade R-CNN: Cai & Vasconcelos 2018) sees each object at the
same place and size, which few images suffice to learn. It is still one pass over the image: what it reads are the
detector's own feature maps, and one more that is finer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssdir.config import Config
from ssdir.models.backbone import init_xavier
from ssdir.models.sizes import MAX_WIDTH
from ssdir.objects import Objects
from ssdir.ops.boxes import clip_cxcywh, decode_boxes, encode_boxes, grow_boxes, to_xyxy
from ssdir.ops.glimpses import crop_levels
from ssdir.ops.precision import at_least_single

_LEAST_SIDE = 1e-3


class RefinerConfig(Config):
    """A second look at each box.

    Attributes:
        size: samples of each feature map along each side of the window around a box.
        context: side of that window over the box's; beyond 1, for the true sides may lie outside the box.
        channels: of the samples; of the convolution behind them, twice as many.
        hidden: width of the hidden layer.
        jitter: standard deviation by which the boxes that it learns from are off: of the centre, over the box's
            sides, and of the sides' logarithms.
        copies: such boxes of each true object.
        weight: coefficient of its boxes' loss.
        class_weight: coefficient of the loss of its classes; with 0, or one class, the first look's stay.
    """

    size: int = Field(7, ge=2, le=64)
    context: float = Field(1.4, ge=1, le=100)
    channels: int = Field(64, ge=1, le=MAX_WIDTH)
    hidden: int = Field(256, ge=1, le=MAX_WIDTH)
    jitter: float = Field(0.08, gt=0, lt=1)
    copies: int = Field(3, ge=1, le=1000)
    weight: float = Field(1.0, gt=0)
    class_weight: float = Field(1.0, ge=0)


class Refiner(nn.Module):
    """Corrects boxes, and tells their classes, by what feature maps show in and around each.

    Args:
        channels: of each map that it reads.
        num_classes: K, the foreground classes.
        config: sizes and options.
        variances: of the box code in which it answers, see `encode_boxes`.
        beta: of its smooth L1 loss.
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
        self.num_named = num_classes if num_classes > 1 and config.class_weight else 0
        width = config.channels
        self.inputs = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.net = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(2 * width * ((config.size + 1) // 2) ** 2, config.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(config.hidden, 4 + self.num_named),
        )
        self.apply(init_xavier)
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # Before it has learned, boxes stay as they are.

    def forward(
        self, maps: Sequence[Tensor], z_where: Tensor, image_index: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Corrected boxes, and their classes.

        Args:
            maps: feature maps, each (B, C, h, w).
            z_where: float (M, 4), cxcywh relative to the image, of positive area.
            image_index: int64 (M,).

        Returns:
            float (M, 4), row-aligned, inside the image and of positive area; and float (M, K), the logits of the
            foreground classes, or None where it tells none.
        """
        deltas, class_logits = self._look(maps, z_where, image_index)
        refined = clip_cxcywh(decode_boxes(deltas, z_where, self.variances))
        refined = torch.where((refined[:, 2:] > 0).all(dim=1, keepdim=True), refined, z_where)
        return refined, class_logits if self.num_named else None

    def loss(self, maps: Sequence[Tensor], targets: Objects) -> dict[str, Tensor]:
        """Of true boxes that are off, per box; 0 without boxes.

        Returns:
            `refine`: smooth L1 of the corrections, summed over sides; `name`, where it tells classes: their
            cross-entropy.
        """
        copies = self.config.copies
        true = targets.z_where.repeat(copies, 1)
        moved = decode_boxes(torch.randn_like(true), true, (self.config.jitter, self.config.jitter))
        seen = clip_cxcywh(moved).clamp(min=_LEAST_SIDE)
        wanted = encode_boxes(true, seen, self.variances)
        deltas, class_logits = self._look(maps, seen, targets.image_index.repeat(copies))
        count = max(1, len(true))
        losses = {"refine": F.smooth_l1_loss(deltas, wanted, beta=self.beta, reduction="sum") / count}
        if self.num_named:
            assert targets.labels is not None
            entropy = F.cross_entropy(class_logits, targets.labels.repeat(copies), reduction="sum")
            losses["name"] = entropy / count
        return losses

    def hidden_features(self, maps: Sequence[Tensor], z_where: Tensor, image_index: Tensor) -> Tensor:
        """Computes the hidden layer for each box.

        Args:
            maps: see `forward`.
            z_where: see `forward`.
            image_index: see `forward`.

        Returns:
            float (M, hidden).
        """
        windows = to_xyxy(grow_boxes(z_where, self.config.context))
        inputs = [project(feature) for project, feature in zip(self.inputs, maps, strict=True)]
        seen: Tensor = self.net[:-1](crop_levels(inputs, windows, image_index, self.config.size))
        return seen

    def _look(self, maps: Sequence[Tensor], z_where: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """Corrections (M, 4), and class logits (M, K or 0)."""
        outputs = at_least_single(self.net[-1](self.hidden_features(maps, z_where, image_index)))
        return outputs[:, :4], outputs[:, 4:]
