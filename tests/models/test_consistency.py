"""Tests of the contrastive loss on embeddings."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch

from ssdir.models.detected.consistency import agreement, info_nce


@pytest.mark.parametrize("decoupled", [False, True])
def test_info_nce_is_the_loop_over_rows(decoupled: bool) -> None:
    torch.manual_seed(0)
    first, second = torch.randn(5, 3), torch.randn(5, 3)
    total = 0.0
    for one, other in ((first, second), (second, first)):
        for i in range(5):
            cosines = [torch.cosine_similarity(one[i], other[j], dim=0).item() / 0.2 for j in range(5)]
            among = [c for j, c in enumerate(cosines) if not (decoupled and j == i)]
            total -= math.log(math.exp(cosines[i]) / sum(math.exp(c) for c in among)) / 10
    assert info_nce(first, second, 0.2, decoupled).item() == pytest.approx(total, rel=1e-5)


def test_loss_is_small_for_partners_and_zero_without_pairs() -> None:
    embeddings = torch.eye(6)
    assert info_nce(embeddings, embeddings, 0.1) < 0.01
    assert info_nce(embeddings, embeddings.roll(1, 0), 0.1) > 5
    for lone in (torch.zeros(0, 4), embeddings[:1]):
        assert info_nce(lone, lone, 0.1) == 0
        assert info_nce(lone, lone, 0.1, decoupled=True) == 0


def test_easy_decoupled_pairs_still_have_a_gradient() -> None:
    embeddings = torch.eye(6)
    pulls = []
    for decoupled in (False, True):
        seen = embeddings.clone().requires_grad_()
        info_nce(seen, (embeddings + 0.2 * embeddings.roll(1, 0)).detach(), 0.1, decoupled).backward()
        pulls.append(seen.grad.norm().item())
    assert pulls[1] > 50 * pulls[0]


def test_every_pair_of_views_is_contrasted_by_the_objects_that_both_show() -> None:
    torch.manual_seed(0)
    rows = [torch.arange(7), torch.tensor([4, 2, 6, 0, 1]), torch.tensor([1, 5, 4, 6]), torch.tensor([3, 0, 2])]
    embeddings = [torch.randn(len(shown), 4) for shown in rows]
    losses = []
    for first, second in combinations(range(4), 2):
        here = {
            number: embedding for number, embedding in zip(rows[first].tolist(), embeddings[first], strict=True)
        }
        there = {
            number: embedding for number, embedding in zip(rows[second].tolist(), embeddings[second], strict=True)
        }
        both = sorted(here.keys() & there.keys())
        pair = ([here[number] for number in both], [there[number] for number in both])
        losses.append(info_nce(*(torch.stack(each) if each else torch.zeros(0, 4) for each in pair), 0.2).item())
    loss = agreement(embeddings[0], list(zip(embeddings[1:], rows[1:], strict=True)), 0.2)
    assert loss.item() == pytest.approx(sum(losses) / 6, rel=1e-5)
    assert losses[-1] == 0  # The last two have no object in common.
