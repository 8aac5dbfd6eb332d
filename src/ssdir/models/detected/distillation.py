"""Distillation: an embedding learns, in one pass, what a pretrained network makes of the crop of each box.

A departure from the paper, for photographs: pixels alone teach colours and outlines, not kinds. The pretrained
network looks at crops during training only. As it sees the image as it is, and the encoder an augmented one, the
embedding also learns to be the same at other sizes, places and colours. No label is used.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssdir.config import Config
from ssdir.models.backbones.crops import CropNetwork
from ssdir.ops.distributed import normalizer
from ssdir.ops.precision import in_full_precision

TEACHER_COMPONENTS = 256
"""Size T of the teacher's embeddings: their largest principal components."""


class DistillationConfig(Config):
    """How embeddings learn from a pretrained network's embeddings of crops.

    Attributes:
        weight: coefficient of the term, per object; 0 leaves it out.
        random_boxes: boxes at random places of each image that are embedded beside its objects. They are many more
            than the objects of few images, and parts and surroundings differ as kinds do.
    """

    weight: float = Field(0.0, ge=0)
    random_boxes: int = Field(12, ge=0, le=1000)


class Student(nn.Module):
    """Compares embeddings with those of a teacher, which it predicts by a linear map.

    Args:
        latent_dim: size D of the embeddings.

    Attributes:
        targets: float (N, T), the teacher's embeddings of all training objects, of length 1; row `source_index`
            of an object is its own. None outside of training.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.head = nn.Linear(latent_dim, TEACHER_COMPONENTS)
        self.targets: Tensor | None = None

    @in_full_precision
    def loss(self, z_what: Tensor, source_index: Tensor) -> Tensor:
        """Mean over objects of two distances to the teacher's embeddings.

        One is 1 minus the cosine between the prediction and the teacher's embedding. The other is the
        Kullback-Leibler divergence, in nats, between how similar each object is to the others of the batch, to the
        teacher and by the cosine of `z_what` itself, since neighbours are searched by that cosine.

        Args:
            z_what: float (M, D).
            source_index: int64 (M,), rows of `targets`.
        """
        assert self.targets is not None
        target = self.targets.to(z_what.device)[source_index]
        count = normalizer(len(z_what), z_what.device)
        distance = (1 - F.cosine_similarity(self.head(z_what), target)).sum() / count
        if len(z_what) < 2:
            return distance
        own = torch.eye(len(z_what), dtype=torch.bool, device=z_what.device)
        direction = F.normalize(z_what, dim=1)
        similar = (direction @ direction.T / SIMILARITY_TEMPERATURE).masked_fill(own, -1e4)
        wanted = (target @ target.T / SIMILARITY_TEMPERATURE).masked_fill(own, -1e4)
        relations = F.kl_div(similar.log_softmax(1), wanted.log_softmax(1), log_target=True, reduction="sum")
        return distance + relations / count


SIMILARITY_TEMPERATURE = 0.1


class Teacher:
    """A pretrained network that embeds crops; see `CropNetwork`.

    Args:
        network: in evaluation mode.
    """

    side = 192
    """Side of the crops in pixels: of 128, 192 and 224, the one whose embeddings of VOC's training objects have
    the best nearest neighbours (5-fold cross-validation)."""
    margins = (0.0, 0.15)
    """Shares of a box's sides by which crops are larger on each side: with and without surroundings."""

    def __init__(self, network: CropNetwork) -> None:
        self.network = network

    def __call__(self, crops: list[Tensor]) -> Tensor:
        """Embeds M boxes: float (M, F), normalised and side by side.

        Args:
            crops: for each of `margins`, float (M, 3, side, side) in [0, 1].
        """
        # Square roots: a few channels are far larger than the others, and would decide alone.
        features = [self.network(crop) for crop in crops]
        return torch.cat([F.normalize(part.sign() * part.abs().sqrt(), dim=1) for part in features], dim=1)
