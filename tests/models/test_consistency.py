"""The contrast of codes."""

from __future__ import annotations

import math

import pytest
import torch

from ssdir.models.consistency import info_nce


def test_info_nce_is_the_loop_over_rows() -> None:
    torch.manual_seed(0)
    first, second = torch.randn(5, 3), torch.randn(5, 3)
    total = 0.0
    for one, other in ((first, second), (second, first)):
        for i in range(5):
            cosines = [torch.cosine_similarity(one[i], other[j], dim=0).item() / 0.2 for j in range(5)]
            total -= math.log(math.exp(cosines[i]) / sum(math.exp(c) for c in cosines)) / 10
    assert info_nce(first, second, 0.2).item() == pytest.approx(total, rel=1e-5)


def test_partners_are_rewarded_and_nothing_is_worth_nothing() -> None:
    codes = torch.eye(6)
    assert info_nce(codes, codes, 0.1) < 0.01
    assert info_nce(codes, codes.roll(1, 0), 0.1) > 5
    assert info_nce(torch.zeros(0, 4), torch.zeros(0, 4), 0.1) == 0
