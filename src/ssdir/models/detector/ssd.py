"""The SSD detector: `z_where` and `z_present` of the objects (paper §3.1; Liu et al. 2016)."""

from __future__ import annotations

from typing import Annotated, NamedTuple, Self, TypeAlias

import torch
from einops import rearrange
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ssdir.config import Config
from ssdir.data.letterbox import Resize
from ssdir.errors import InputError
from ssdir.models.backbones.base import init_xavier
from ssdir.models.backbones.build import BackboneConfig, build_backbone
from ssdir.models.backbones.conv import ConvConfig
from ssdir.models.backbones.vgg import VGGConfig
from ssdir.models.base import ObjectModel, check_batch, check_size
from ssdir.models.detector.refiner import Refiner, RefinerConfig
from ssdir.models.sizes import MAX_SIDE, MAX_STAGES, check_class_names, check_map
from ssdir.objects import Objects
from ssdir.ops.anchors import AnchorLevel, assign_anchors, level_anchors, match_anchors
from ssdir.ops.boxes import clip_cxcywh, decode_boxes, encode_boxes, to_xyxy
from ssdir.ops.distributed import normalizer
from ssdir.ops.precision import at_least_single
from ssdir.ops.suppression import keep_best

NEGATIVES_PER_POSITIVE = 3

MATCH_IOU = 0.5
"""Least IoU of an anchor with the object that it is matched with."""

MAX_ANCHORS = 1 << 22
"""Maximum number of anchors of an image."""

Sizes: TypeAlias = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(max_length=MAX_STAGES)]


class AnchorConfig(Config):
    """Default boxes, with one range of sizes per pyramid level.

    Attributes:
        min_sizes: side of each level's smaller square, in pixels of the input image.
        max_sizes: the side of the larger square is the geometric mean of this and `min_sizes`.
        aspect_ratios: width / height of further anchors per cell.
    """

    min_sizes: Sizes = (32, 80, 153, 207, 261)
    max_sizes: Sizes = (80, 153, 207, 261, 315)
    aspect_ratios: Sizes = ()

    @model_validator(mode="after")
    def _check(self) -> AnchorConfig:
        if len(self.min_sizes) != len(self.max_sizes):
            raise ValueError("min_sizes and max_sizes must have one entry per level each")
        if any(not 0 < low <= high for low, high in zip(self.min_sizes, self.max_sizes, strict=True)):
            raise ValueError("each min_size must be positive and at most its max_size")
        return self

    @property
    def num_per_cell(self) -> int:
        """Anchors per cell, A."""
        return 2 + len(self.aspect_ratios)


class SSDConfig(Config):
    """An SSD detector.

    Attributes:
        image_size: side of the square input, in pixels.
        resize: how images become square: `stretch`, or `letterbox`, which keeps their proportions and pads them
            with grey at the right or bottom. Boxes are relative to the image either way.
        backbone: the network that computes the feature pyramid.
        anchors: the default boxes.
        variances: divisors of centre offsets and log sizes in box deltas, see `encode_boxes`.
        box_beta: error of box deltas above which their loss (smooth L1) is linear instead of quadratic. SSD's is
            1; a smaller value makes boxes more precise.
        refiner: corrects the detected boxes, see `Refiner`; none in the paper.
        score_threshold: minimum class confidence of a present object. From 0.5 on, a foreground class then has the
            highest probability, which is the paper's rule (eq. 4).
        nms: suppress overlapping detections; the paper's model returns them all, several per object.
        nms_threshold: IoU above which the weaker of two detections is suppressed.
        max_objects: maximum number of detections kept per image.
    """

    image_size: int = Field(300, ge=16, le=MAX_SIDE)
    resize: Resize = "stretch"
    backbone: BackboneConfig = VGGConfig()
    anchors: AnchorConfig = AnchorConfig()
    variances: tuple[float, float] = (0.1, 0.2)
    box_beta: float = Field(1.0, gt=0)
    refiner: RefinerConfig | None = None
    score_threshold: float = Field(0.5, ge=0, lt=1)
    nms: bool = True
    nms_threshold: float = Field(0.45, gt=0, le=1)
    max_objects: int = Field(200, ge=1, le=100_000)

    @model_validator(mode="after")
    def _maps_fit_in_memory(self) -> Self:
        if isinstance(self.backbone, ConvConfig):
            for stage, channels in enumerate(self.backbone.channels, start=1):
                in_pyramid = stage > len(self.backbone.channels) - self.backbone.num_levels
                widest = max(channels, self.backbone.top_down if in_pyramid else 0)
                check_map(widest, self.image_size / 2**stage, self.image_size)
        return self

    @property
    def kind(self) -> str:
        """The model's class, for a detector that is stored alone."""
        return "SSD"

    @property
    def latent_dim(self) -> int:
        """Size of `z_what`, which a detector's objects do not have: 0."""
        return 0

    @property
    def suppress_above(self) -> float:
        """IoU above which the weaker of two detections is suppressed; 1 without suppression."""
        return self.nms_threshold if self.nms else 1.0


class Detections(NamedTuple):
    """Raw outputs of the heads for all anchors.

    Attributes:
        class_logits: float (B, N, K+1), background is class 0.
        box_deltas: float (B, N, 4), see `encode_boxes`.
    """

    class_logits: Tensor
    box_deltas: Tensor


class SSD(ObjectModel):
    """Single-shot detector over a feature pyramid.

    Args:
        config: the detector's.
        class_names: the K foreground classes; `["object"]` for a class-agnostic detector.

    Attributes:
        feature_sizes: cells along each side of each level of the pyramid.
        map_shapes: (C, h, w) of each map that `read` returns.
    """

    config: SSDConfig
    supports_bfloat16 = True
    anchors: Tensor

    def __init__(self, config: SSDConfig, class_names: list[str]) -> None:
        check_class_names(class_names)
        super().__init__(config, class_names)
        self.backbone = build_backbone(config.backbone, config.image_size)
        A, K = config.anchors.num_per_cell, len(self.class_names)
        channels = self.backbone.channels
        self.class_heads = nn.ModuleList(nn.Conv2d(c, A * (K + 1), 3, padding=1) for c in channels)
        self.box_heads = nn.ModuleList(nn.Conv2d(c, A * 4, 3, padding=1) for c in channels)
        self.class_heads.apply(init_xavier)
        self.box_heads.apply(init_xavier)
        read = channels if config.refiner is None else [self._finer_channels(), *channels]
        self.refiner = None
        if config.refiner is not None:
            self.refiner = Refiner(read, K, config.refiner, config.variances, config.box_beta)
        sides = self.backbone.feature_sizes(config.image_size, finer=self.refiner is not None)
        self.map_shapes = [(C, side, side) for C, side in zip(read, sides, strict=True)]
        self.feature_sizes = sides[-len(channels) :]
        self.levels = self._anchor_levels()
        anchors = torch.cat([level_anchors(*level) for level in self.levels])
        self.register_buffer("anchors", anchors, persistent=False)

    def _finer_channels(self) -> int:
        finer = self.backbone.finer_channels
        if finer is None:
            raise InputError(
                "model.ssd.refiner needs a stage finer than the pyramid: lower model.ssd.backbone.num_levels, or "
                "give the backbone one stage more"
            )
        return finer

    def _anchor_levels(self) -> list[AnchorLevel]:
        spec, size = self.config.anchors, self.config.image_size
        if len(spec.min_sizes) != len(self.feature_sizes):
            raise InputError(
                f"anchors.min_sizes must have {len(self.feature_sizes)} entries, one per pyramid level, "
                f"got {len(spec.min_sizes)}"
            )
        count = spec.num_per_cell * sum(cells**2 for cells in self.feature_sizes)
        if count > MAX_ANCHORS:
            raise InputError(
                f"images of {size} pixels would have {count:,} anchors, more than {MAX_ANCHORS:,}: use smaller "
                "images, or a backbone of more stages"
            )
        levels = zip(self.feature_sizes, spec.min_sizes, spec.max_sizes, strict=True)
        return [AnchorLevel(cells, low / size, high / size, spec.aspect_ratios) for cells, low, high in levels]

    def assign(self, boxes_cxcywh: Tensor) -> Tensor:
        """Returns the anchor that fits each box float (M, 4), relative to the image, best: int64 (M,)."""
        return assign_anchors(boxes_cxcywh, self.levels)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Detections]:
        """Computes feature maps, see `read`, and raw detections of images float (B, 3, H, W) in [0, 1].

        Their shapes are the same for every batch, whatever is in the images.
        """
        maps = self.read(images)
        return maps, self.heads(self.pyramid(maps))

    def heads(self, features: list[Tensor]) -> Detections:
        """Computes raw detections of all N anchors from the pyramid's features."""
        A = self.config.anchors.num_per_cell
        layout = "b (a d) h w -> b (h w a) d"
        logits = [rearrange(head(f), layout, a=A) for head, f in zip(self.class_heads, features, strict=True)]
        deltas = [rearrange(head(f), layout, a=A) for head, f in zip(self.box_heads, features, strict=True)]
        # Boxes are decoded, and losses summed, in full precision.
        return Detections(at_least_single(torch.cat(logits, dim=1)), at_least_single(torch.cat(deltas, dim=1)))

    def select(self, detections: Detections, score_threshold: float | None = None) -> Objects:
        """Selects the present objects of the whole batch at once, by threshold and suppression.

        Presence is the mode of `z_present`, whose distribution is Bernoulli(β) (eq. 4).

        Args:
            detections: raw outputs of the heads.
            score_threshold: overrides the config's.

        Returns:
            Objects with scores (β), labels and anchor_index, ordered by image, then by falling score.
        """
        threshold = self.config.score_threshold if score_threshold is None else score_threshold
        confidence, labels = self.confidence(detections.class_logits)
        present = confidence >= threshold
        image_index, anchor_index = present.nonzero(as_tuple=True)
        scores = confidence[present]
        z_where = decode_boxes(detections.box_deltas[present], self.anchors[anchor_index], self.config.variances)
        z_where = clip_cxcywh(z_where)
        keep = self._keep(z_where, scores, image_index, threshold)
        return Objects(
            image_index=image_index[keep],
            batch_size=len(confidence),
            z_where=z_where[keep],
            scores=scores[keep],
            labels=labels[present][keep],
            anchor_index=anchor_index[keep],
        )

    def confidence(self, class_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Computes the score and the class of each anchor.

        Args:
            class_logits: float (..., K+1).

        Returns:
            Scores (...): the probability of the best class or, where a refiner classifies, of any; and the best
            class, int64 (...).
        """
        probabilities = class_logits.softmax(dim=-1)
        best, labels = probabilities[..., 1:].max(dim=-1)
        refiner_classifies = self.refiner is not None and self.refiner.num_classified > 0
        return 1 - probabilities[..., 0] if refiner_classifies else best, labels

    def _keep(self, z_where: Tensor, scores: Tensor, image_index: Tensor, least: float) -> Tensor:
        """Returns the rows that are kept: by falling score within each image, at most `max_objects`, with area."""
        keep = ((z_where[:, 2:] > 0).all(dim=1) & (scores >= least)).nonzero()[:, 0]
        # One object has one latent: suppression ignores the class.
        boxes, threshold = to_xyxy(z_where[keep]), self.config.suppress_above
        return keep[keep_best(boxes, scores[keep], image_index[keep], threshold, self.config.max_objects)]

    def encode(self, images: Tensor, score_threshold: float | None = None) -> Objects:
        """Detects the objects of images; they have no z_what. See `ObjectModel.encode`."""
        with self.encoding():
            return self.detect(images, score_threshold)[0]

    def detect(self, images: Tensor, score_threshold: float | None = None) -> tuple[Objects, list[Tensor]]:
        """Detects the objects of images, and returns the feature maps too, for models that embed the objects.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            score_threshold: overrides the config's.

        Returns:
            Objects like those of `select`, refined if there is a refiner; and the feature maps, see `read`.
        """
        threshold = self.config.score_threshold if score_threshold is None else score_threshold
        maps, detections = self(images)
        objects = self.select(detections, threshold)
        if self.refiner is not None:
            objects = self.refine(maps, objects)
            assert objects.scores is not None
            # The boxes of an object that was detected twice now overlap more.
            objects = objects[self._keep(objects.z_where, objects.scores, objects.image_index, threshold)]
        return objects, maps

    def refine(self, maps: list[Tensor], objects: Objects) -> Objects:
        """Corrects boxes, and classes if there are several, by the refiner.

        Args:
            maps: feature maps, see `read`.
            objects: with scores, see `confidence`, and labels.

        Returns:
            The same objects, row-aligned, with corrected boxes; where the refiner classifies, with its `labels`,
            and scores multiplied by their probability.
        """
        assert self.refiner is not None
        z_where, class_logits = self.refiner(maps, objects.z_where, objects.image_index)
        objects = objects.replace(z_where=z_where)
        if class_logits is None:
            return objects
        assert objects.scores is not None
        probabilities, labels = class_logits.softmax(dim=1).max(dim=1)
        return objects.replace(scores=objects.scores * probabilities, labels=labels)

    def read(self, images: Tensor) -> list[Tensor]:
        """Computes the pyramid's feature maps of images float (B, 3, H, W) in [0, 1].

        If there is a refiner, one finer map precedes them.

        Raises:
            ValueError: if the images are not of the detector's size.
        """
        check_size(images, self.image_size)
        maps: list[Tensor] = self.backbone(images, finer=self.refiner is not None)
        return maps

    def pyramid(self, maps: list[Tensor]) -> list[Tensor]:
        """Returns the feature pyramid among the maps of `read`."""
        return maps[-len(self.levels) :]

    def loss(self, images: Tensor, targets: Objects) -> dict[str, Tensor]:
        """The multibox loss: `box` (smooth L1), `class` (cross-entropy, 3:1 hard negatives), `total`.

        Both are summed over anchors and divided by the number of matched anchors of the batch. A batch
        without objects has only its hardest negatives, one per image. The losses of a refiner are added.
        """
        if targets.labels is None:
            raise ValueError("targets need labels")
        check_batch(images, targets)
        # Matching comes first, because the host waits for its result, and a GPU has no other work queued yet.
        matches = match_anchors(targets, self.anchors, MATCH_IOU)
        positive = matches >= 0
        image, anchor = positive.nonzero(as_tuple=True)
        maps, detections = self(images)
        num_positive = normalizer(positive.sum(), images.device)
        rows = matches[image, anchor]
        box_targets = encode_boxes(targets.z_where[rows], self.anchors[anchor], self.config.variances)
        box_loss = F.smooth_l1_loss(
            detections.box_deltas[image, anchor], box_targets, beta=self.config.box_beta, reduction="sum"
        )

        classes = torch.zeros_like(matches)
        classes[image, anchor] = targets.labels[rows] + 1
        entropy = F.cross_entropy(detections.class_logits.flatten(0, 1), classes.flatten(), reduction="none")
        entropy = entropy.view_as(classes)
        hard = _hardest(entropy.detach().masked_fill(positive, -1), positive.sum(dim=1))
        class_loss = (entropy * (positive | hard)).sum()
        losses = {"box": box_loss / num_positive, "class": class_loss / num_positive}
        total = losses["box"] + losses["class"]
        if self.refiner is not None:
            losses |= self.refiner.loss(maps, targets)
            total = total + self.refiner.config.weight * losses["refine"] + losses.get("name", 0.0)
        return {**losses, "total": total}


def _hardest(negative_loss: Tensor, num_positive: Tensor) -> Tensor:
    """Returns a mask (B, N) of each image's hardest negatives: three per positive, at least one."""
    count = (NEGATIVES_PER_POSITIVE * num_positive).clamp(min=1)
    order = negative_loss.argsort(dim=1, descending=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order).contiguous()
    )
    return (rank < count[:, None]) & (negative_loss >= 0)
