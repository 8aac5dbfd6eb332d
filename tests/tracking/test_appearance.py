"""Galleries, the evidence of similarities, and assignment equal those of other implementations."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import norm

from ssdir.tracking.appearance import MAX_VIEWS, Gallery, Reliability, RunningNormal, best_cosines, similarities
from ssdir.tracking.association import assign


def test_running_statistics_are_those_of_all_numbers() -> None:
    values = np.random.default_rng(0).normal(2, 3, 300)
    running = RunningNormal()
    for part in np.split(values, [10, 11, 50, 50, 200]):
        running.add(part)
    assert (running.count, running.mean, running.variance) == pytest.approx((300, values.mean(), values.var()))


def test_running_statistics_forget_the_oldest() -> None:
    running = RunningNormal()
    running.add(np.zeros(2000))
    for _ in range(100):
        running.add(np.ones(200))
    assert running.mean == pytest.approx(1, abs=0.01)


def learned(gap: float, frames: int = 400) -> Reliability:
    """Returns what is learned of similarities N(0, 0.2²) of different objects, and `gap` more of the same."""
    rng, reliability = np.random.default_rng(1), Reliability()
    for _ in range(frames):
        reliability.add(rng.normal(0, 0.2, (4, 4)) + gap * np.eye(4))
    return reliability


def test_evidence_is_the_ratio_of_likelihoods() -> None:
    similarity = np.linspace(0.3, 0.9, 7)
    evidence = learned(0.6).evidence(similarity, unlike=0.1)
    same, different = norm.pdf(similarity, 0.6, 0.2), norm.pdf(similarity, 0, 0.2)
    expected = np.log(0.9 * np.minimum(same / different, np.exp(8)) + 0.1)
    np.testing.assert_allclose(evidence, expected, atol=0.3)


def test_chance_is_wide_while_little_is_known() -> None:
    assert Reliability().chance(2) == pytest.approx(0.6)
    assert learned(0.6, frames=10).chance(2) > learned(0.6, frames=100).chance(2) > norm.ppf(norm.cdf(2), 0, 0.2)
    assert learned(0.6).chance(2) == pytest.approx(0.4, abs=0.02)


def test_similarities_that_distinguish_no_objects_are_no_evidence() -> None:
    assert np.abs(learned(0.01).evidence(np.linspace(-1, 1, 9), 0.1)).max() < 0.3
    assert not Reliability().evidence(np.ones(3)).any()


def test_the_gallery_keeps_the_clearest_views() -> None:
    gallery = Gallery(np.zeros(2))
    clearness = [0.9, 0.1, *[0.5] * (MAX_VIEWS - 2), 0.8, 0.7]
    for number, clear in enumerate(clearness):
        gallery.add(np.array([number, 1.0]), clear, frame=10 * number)
    assert len(gallery.views) == MAX_VIEWS
    assert {0.9, 0.8, 0.7} <= set(gallery.clearness)
    assert 0.1 not in gallery.clearness
    expected = np.average(np.arange(len(clearness)), weights=clearness)
    assert gallery.mean[0] == pytest.approx(expected)


def test_of_successive_frames_the_clearest_view_is_kept() -> None:
    gallery = Gallery(np.zeros(1))
    for frame, clear in enumerate([0.2, 0.9, 0.3, 0.4]):
        gallery.add(np.array([float(frame)]), clear, frame)
    assert [view.item() for view in gallery.views] == [1, 3]


def test_similarities_are_cosines_with_mean_and_best_view() -> None:
    rng = np.random.default_rng(2)
    galleries = []
    for count in (1, 5, 3):
        gallery = Gallery(np.zeros(8))
        for number in range(count):
            gallery.add(rng.normal(size=8), 1.0, 4 * number)
        galleries.append(gallery)
    embeddings, center = rng.normal(size=(4, 8)), rng.normal(size=8)

    def cosine(one: np.ndarray, other: np.ndarray) -> float:
        one, other = one - center, other - center
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    expected = [
        [(cosine(g.mean, row) + max(cosine(view, row) for view in g.views)) / 2 for row in embeddings]
        for g in galleries
    ]
    np.testing.assert_allclose(similarities(galleries, embeddings, center), expected)
    assert best_cosines([], embeddings, center).shape == (0, 4)


@pytest.mark.parametrize("seed", range(5))
def test_the_assignment_has_the_most_evidence(seed: int) -> None:
    evidence = np.random.default_rng(seed).normal(0, 2, (4, 4))
    pairs = assign(evidence)
    best = max(sum(max(evidence[t, n], 0) for t, n in enumerate(order)) for order in permutations(range(4)))
    assert sum(evidence[pair] for pair in pairs) == pytest.approx(best)
    assert all(evidence[pair] > 0 for pair in pairs)


def test_an_assignment_must_lead() -> None:
    evidence = np.array([[3.0, 0.0], [2.5, 4.0]])
    assert assign(evidence) == [(0, 0), (1, 1)]
    assert assign(evidence, margin=1) == [(1, 1)]
