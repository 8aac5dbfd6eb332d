from __future__ import annotations

from itertools import permutations

import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import normalized_mutual_info_score
from torch import Tensor

from ssdir.evaluation.clusters import cluster_metrics, mixture_metrics
from ssdir.models.ssdir import SSDIR


def test_separate_clusters_are_recovered_whatever_their_number() -> None:
    labels = torch.tensor([2, 0, 1] * 10)
    latents = torch.tensor([[0.0, 0], [5, 5], [-5, 5]])[labels]
    latents = latents + 0.1 * torch.randn(30, 2, generator=torch.Generator().manual_seed(0))
    metrics = cluster_metrics(latents, labels, 3)
    assert metrics == {
        "clusters/nmi": pytest.approx(1),
        "clusters/ari": pytest.approx(1),
        "clusters/accuracy": 1,
    }


def test_accuracy_is_that_of_the_best_naming() -> None:
    g = torch.Generator().manual_seed(0)
    latents, labels = torch.randn(60, 4, generator=g), torch.randint(0, 4, (60,), generator=g)
    clusters = KMeans(4, n_init=10, random_state=3).fit_predict(latents.double().numpy())
    best = max(
        float((torch.tensor(names)[clusters] == labels).double().mean()) for names in permutations(range(4))
    )
    assert cluster_metrics(latents, labels, 4, seed=3)["clusters/accuracy"] == pytest.approx(best)


def test_absent_categories_are_no_obstacle() -> None:
    metrics = cluster_metrics(torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.ones(20), 4)
    assert 0 < metrics["clusters/accuracy"] < 1


def test_too_few_objects() -> None:
    assert cluster_metrics(torch.zeros(2, 3), torch.zeros(2), 3) == {}
    assert cluster_metrics(torch.zeros(0, 0), torch.zeros(0), 3) == {}


class Mixture(SSDIR):
    """A model whose four classes are given by the largest of four latents."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.weight = torch.nn.Parameter(torch.eye(4))

    num_clusters = 4  # type: ignore[assignment]

    def cluster_probs(self, z_what: Tensor) -> Tensor:
        return (z_what @ self.weight.detach()).softmax(dim=1)


def test_accuracy_of_a_mixture_is_that_of_the_best_naming() -> None:
    g = torch.Generator().manual_seed(1)
    latents, labels = torch.randn(60, 4, generator=g), torch.randint(0, 4, (60,), generator=g)
    latents[torch.arange(60), (labels + 1) % 4] += 1.5
    clusters = latents.argmax(dim=1)
    named = [torch.tensor(names)[clusters] == labels for names in permutations(range(4))]
    best = max(float(right.double().mean()) for right in named)
    metrics = mixture_metrics(Mixture(), latents.double(), labels)
    assert metrics["clusters/mixture/accuracy"] == pytest.approx(best)
    assert metrics["clusters/mixture/nmi"] == pytest.approx(normalized_mutual_info_score(labels, clusters))
    assert mixture_metrics(Mixture(), latents[:0], labels[:0]) == {}


def test_models_without_a_mixture_have_no_classes_to_measure() -> None:
    model = Mixture()
    model.num_clusters = 0  # type: ignore[misc]
    assert mixture_metrics(model, torch.randn(5, 4), torch.zeros(5)) == {}
