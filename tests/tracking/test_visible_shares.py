"""Tests of which objects hide others."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ssdir.objects import Objects
from ssdir.tracking.occlusion import visible_shares


def test_objects_of_low_score_hide_none() -> None:
    """The nearer of two boxes covers the right half of the other one."""
    z_where = torch.tensor([[0.4, 0.5, 0.4, 0.2], [0.6, 0.5, 0.4, 0.2]])
    pair = Objects(torch.zeros(2, dtype=torch.int64), 1, z_where, z_depth=torch.tensor([0.0, 1.0]))
    for front, expected in ((0.9, [0.5, 1.0]), (0.2, [1.0, 1.0])):
        scored = pair.replace(scores=torch.tensor([0.9, front]))
        assert torch.allclose(visible_shares(scored, threshold=0.3), torch.tensor(expected), atol=1e-6)
    # Those of low score are hidden themselves.
    assert torch.allclose(
        visible_shares(pair.replace(scores=torch.tensor([0.2, 0.9])), threshold=0.3), torch.tensor([0.5, 1.0])
    )


class _Largest(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.elements = max(self.elements, made.numel() if isinstance(made, torch.Tensor) else 0)
        return made


def test_images_of_a_batch_are_compared_one_by_one() -> None:
    z_where = torch.rand(80, 4, generator=torch.manual_seed(0)) * 0.3 + 0.3
    frames = Objects(torch.arange(8).repeat_interleave(10), 9, z_where, z_depth=torch.arange(80.0))
    with _Largest() as largest:
        shares = visible_shares(frames)
    assert torch.equal(shares, torch.cat([visible_shares(frame) for frame in frames.split()]))
    assert 0 < (shares < 1).sum() < 80
    assert largest.elements < 80 * 80
