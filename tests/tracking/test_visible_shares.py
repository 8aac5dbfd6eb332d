"""Tests of which objects hide others."""

from __future__ import annotations

import torch

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
