"""The memory of tracks: what SSDIR's embeddings know of an object's earlier views (paper, section 5).

SQAIR, SILOT and SCALOR propagate each object's latent as the prior of the next frame's. So does this memory, as a
Kalman filter in which the precision of each view is learned: a small network reads from `z_what` itself, and from
the detection's clues, how much of the object a view shows. It learns from tracks alone, without annotations: what
is remembered of a track's views up to a frame should be more like what its later views say than like other tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from ssdir.config import Config
from ssdir.models.base import Clues
from ssdir.models.detected.consistency import info_nce
from ssdir.models.sizes import MAX_WIDTH
from ssdir.ops.precision import in_full_precision

TEMPERATURE = 0.2
"""Temperature of the softmax over the tracks of a batch."""

CUTS = 3
"""Frames per track and training step at which earlier views are compared with later ones."""

_MAX_LOG_EVIDENCE = 8.0


class MemoryConfig(Config):
    """The memory of tracks.

    Attributes:
        hidden: width of the hidden layer of the network that weighs views.
    """

    hidden: int = Field(64, ge=1, le=MAX_WIDTH)


@dataclass(frozen=True, eq=False)
class TrackViews:
    """The views of N tracks in T successive frames; of a frame without a view of a track, only `seen` counts.

    Attributes:
        z_what: float (N, T, D).
        scores: float (N, T), see `Clues`.
        visible: float (N, T), see `Clues`.
        seen: bool (N, T), whether the frame has a view of the track.
    """

    z_what: Tensor
    scores: Tensor
    visible: Tensor
    seen: Tensor

    @classmethod
    def cat(cls, parts: Sequence[TrackViews]) -> TrackViews:
        """Joins the tracks of clips; frames without views are added to the shorter ones."""
        frames = max(part.seen.shape[1] for part in parts)
        columns = zip(*((part.z_what, part.scores, part.visible, part.seen) for part in parts), strict=True)
        return cls(*(torch.cat([_lengthened(part, frames) for part in parts_]) for parts_ in columns))

    def to(self, device: torch.device) -> TrackViews:
        """Moves the views to a device."""
        return TrackViews(*(value.to(device) for value in (self.z_what, self.scores, self.visible, self.seen)))

    def reversed(self) -> TrackViews:
        """Returns the views in the opposite order of time."""
        return TrackViews(*(value.flip(1) for value in (self.z_what, self.scores, self.visible, self.seen)))


def _lengthened(values: Tensor, frames: int) -> Tensor:
    """Appends zeros to values (N, T, ...), up to so many frames."""
    missing = values.new_zeros(len(values), frames - values.shape[1], *values.shape[2:])
    return torch.cat([values, missing], dim=1)


class TrackMemory(nn.Module):
    """Remembers a track's `z_what` as the mean of its views, weighted by how much each shows.

    With the view's embedding z, its evidence w and the retention r, a memory (m, e) becomes

        e' = r^gap e + w,    m' = m + w / e' · (z − m).

    Attributes:
        center: float (D,), mean of `z_what`, see `fit`.
        spread: float (D,), standard deviation.

    Args:
        latent_dim: size D of `z_what`.
        config: see `MemoryConfig`.
    """

    center: Tensor
    spread: Tensor

    def __init__(self, latent_dim: int, config: MemoryConfig) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Linear(latent_dim + 2, config.hidden), nn.SiLU(), nn.Linear(config.hidden, 1)
        )
        for parameter in self.weigh[-1].parameters():
            nn.init.zeros_(parameter)  # At first, all views count alike.
        self.retention_logit = nn.Parameter(torch.tensor(4.0))
        self.register_buffer("center", torch.zeros(latent_dim))
        self.register_buffer("spread", torch.ones(latent_dim))

    @torch.no_grad()
    def fit(self, z_what: Tensor) -> None:
        """Sets the mean and standard deviation of `z_what` (n, D), n ≥ 2, by which views are standardised."""
        self.center.copy_(z_what.mean(dim=0))
        self.spread.copy_(z_what.std(dim=0).clamp(min=1e-6))

    def evidence(self, z_what: Tensor, scores: Tensor, visible: Tensor) -> Tensor:
        """Computes how much views show of their objects.

        Args:
            z_what: float (..., D).
            scores: float (...).
            visible: float (...).

        Returns:
            float (...), positive.
        """
        clues = torch.stack([scores, visible], dim=-1)
        logits = self.weigh(torch.cat([(z_what - self.center) / self.spread, clues], dim=-1))
        weights: Tensor = logits[..., 0].clamp(-_MAX_LOG_EVIDENCE, _MAX_LOG_EVIDENCE).exp()
        return weights

    @in_full_precision
    def forward(self, memory: Tensor, z_what: Tensor, clues: Clues) -> Tensor:
        """Updates memories (N, D + 1) with a view (N, D) of each; see `TemporalModel.remember`."""
        weight = self.evidence(z_what, clues.scores, clues.visible)
        return self._update(memory, z_what, weight, clues.gap)

    def _update(self, memory: Tensor, z_what: Tensor, weight: Tensor, gap: Tensor) -> Tensor:
        mean, kept = memory[:, :-1], memory[:, -1] * self.retention_logit.sigmoid() ** gap
        total = kept + weight
        return torch.cat([mean + (weight / total)[:, None] * (z_what - mean), total[:, None]], dim=1)

    def follow(self, views: TrackViews) -> Tensor:
        """Computes the memories of tracks after each frame.

        Args:
            views: of N tracks in T frames.

        Returns:
            float (N, T, D + 1); zeros before a track's first view.
        """
        N, T, D = views.z_what.shape
        weight = self.evidence(views.z_what, views.scores, views.visible)
        memory, gap = views.z_what.new_zeros(N, D + 1), views.z_what.new_ones(N)
        memories = []
        for frame in range(T):
            seen = views.seen[:, frame]
            updated = self._update(memory, views.z_what[:, frame], weight[:, frame], gap)
            memory = torch.where(seen[:, None], updated, memory)
            gap = torch.where(seen | (memory[:, -1] == 0), 1.0, gap + 1)
            memories.append(memory)
        return torch.stack(memories, dim=1)

    def loss(self, views: TrackViews) -> dict[str, Tensor]:
        """Computes the contrastive loss between what is remembered up to a frame and what later views say.

        Later views are remembered too, in the opposite order of time, so that a hidden one counts little there.

        Args:
            views: of N tracks in T frames.

        Returns:
            `total`, in nats per track; 0 where fewer than two tracks have two views.
        """
        with torch.autocast(views.z_what.device.type, enabled=False):
            earlier, later = self.follow(views), self.follow(views.reversed()).flip(1)
            can_cut = views.seen[:, :-1] & (later[:, 1:, -1] > 0)
            rows = can_cut.any(dim=1).nonzero()[:, 0]
            if len(rows) < 2:
                return {"total": earlier.sum() * 0}
            total = earlier.new_zeros(())
            for cut in torch.multinomial(can_cut[rows].float(), CUTS, replacement=True).unbind(dim=1):
                known, unseen = self._standardised(earlier[rows, cut]), self._standardised(later[rows, cut + 1])
                total = total + info_nce(known, unseen, TEMPERATURE) / CUTS
            return {"total": total}

    def _standardised(self, memory: Tensor) -> Tensor:
        return (memory[:, :-1] - self.center) / self.spread
