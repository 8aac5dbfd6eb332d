"""Tests of the mixture prior of `z_what`: its divergence, the agreement of classes, and models that have it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.metrics import mutual_info_score
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn import functional as F

from ssdir.config import parse
from ssdir.errors import InputError
from ssdir.models.detected.mixture import MixturePrior, MixturePriorConfig, class_agreement, mixture_kl
from ssdir.models.io import load_model, save_model
from ssdir.models.ssdir import SSDIR, SSDIRConfig
from ssdir.objects import Objects

from .tiny import noise, tiny_model

PRIOR = MixturePriorConfig(kind="mixture", components=4, heads=3, agreement=2.0)
CONSISTENCY = {"weight": 1.0, "view": "copy_paste", "zoom": 1.2}


def parts(M: int = 5, H: int = 2, K: int = 4, D: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    loc, scale = torch.randn(M, D, generator=g), 0.2 + torch.rand(M, D, generator=g)
    probs = torch.randn(M, H, K, generator=g).softmax(dim=2)
    return loc, scale, probs, torch.randn(1, H, K, D, generator=g), 0.5 + torch.rand(1, H, K, D, generator=g)


def test_divergence_is_the_mean_log_ratio_of_samples() -> None:
    loc, scale, probs, prior_loc, prior_scale = parts()
    torch.manual_seed(0)
    z = loc + scale * torch.randn(40_000, *loc.shape)
    log_q = Normal(loc, scale).log_prob(z).sum(dim=2)
    for head in range(2):
        y = Categorical(probs[:, head]).sample(torch.Size([len(z)]))
        components = Normal(prior_loc[0, head][y], prior_scale[0, head][y])
        log_prior = components.log_prob(z).sum(dim=2) - torch.tensor(4.0).log()
        ratio = log_q + probs[:, head].log().expand(len(z), -1, -1).gather(2, y[:, :, None])[:, :, 0] - log_prior
        kl = mixture_kl(loc, scale, probs, prior_loc, prior_scale)[:, head]
        torch.testing.assert_close(ratio.mean(dim=0), kl, rtol=0.02, atol=0.03)


def test_divergence_bounds_that_from_the_mixture_without_classes() -> None:
    loc, scale, probs, prior_loc, prior_scale = parts()
    torch.manual_seed(0)
    z = loc + scale * torch.randn(20_000, *loc.shape)
    for head in range(2):
        components = Independent(Normal(prior_loc[0, head], prior_scale[0, head]), 1)
        mixture = MixtureSameFamily(Categorical(torch.ones(4)), components)
        marginal = (Normal(loc, scale).log_prob(z).sum(dim=2) - mixture.log_prob(z)).mean(dim=0)
        assert (mixture_kl(loc, scale, probs, prior_loc, prior_scale)[:, head] > marginal - 0.03).all()


def test_divergence_of_equal_components_is_that_of_one() -> None:
    loc, scale, _, prior_loc, prior_scale = parts(K=1)
    same = [part.expand(1, 2, 4, 3) for part in (prior_loc, prior_scale)]
    one = torch.distributions.kl_divergence(Normal(loc, scale), Normal(prior_loc[0, 1, 0], prior_scale[0, 1, 0]))
    kl = mixture_kl(loc, scale, torch.full((5, 2, 4), 0.25), *same)
    torch.testing.assert_close(kl[:, 1], one.sum(dim=1))


def test_agreement_is_the_mutual_information() -> None:
    g = torch.Generator().manual_seed(0)
    first = torch.randint(0, 4, (200,), generator=g)
    second = torch.where(torch.rand(200, generator=g) < 0.7, first, torch.randint(0, 4, (200,), generator=g))
    # Each pair in both orders: IIC makes the joint distribution symmetric.
    both = torch.cat([first, second]), torch.cat([second, first])
    sure = [F.one_hot(classes, 4).float()[:, None] for classes in (first, second)]
    assert class_agreement(*sure, balance=1.0).item() == pytest.approx(-mutual_info_score(*both), abs=1e-4)


def test_agreement_is_least_for_equal_classes_of_equal_sizes() -> None:
    log_k = torch.tensor(4.0).log().item()
    even = F.one_hot(torch.arange(40) % 4, 4).float()[:, None]
    for balance in (1.0, 1.5):
        assert class_agreement(even, even, balance).item() == pytest.approx((1 - 2 * balance) * log_k, abs=1e-4)
    unsure, one = torch.full((40, 1, 4), 0.25), F.one_hot(torch.zeros(40, dtype=torch.int64), 4).float()[:, None]
    assert class_agreement(unsure, unsure, 1.0).item() == pytest.approx(0, abs=1e-4)
    assert class_agreement(one, one, 1.0).item() == pytest.approx(0, abs=1e-4)


def test_the_head_with_the_least_loss_names_the_clusters() -> None:
    torch.manual_seed(0)
    prior = MixturePrior(6, PRIOR).eval()
    z_what = torch.randn(7, 6)
    for best in range(3):
        prior.losses.copy_(-F.one_hot(torch.tensor(best), 3).float())
        assert torch.equal(prior.cluster_probs(z_what), prior(z_what)[:, best])


def mixture_model(**changes: object) -> SSDIR:
    return tiny_model(prior=PRIOR, consistency=CONSISTENCY, **changes)


def test_a_step_trains_every_head_and_keeps_their_losses() -> None:
    torch.manual_seed(0)
    model = mixture_model().train()
    terms = model.loss(noise(3))
    terms["total"].backward()
    assert model.prior is not None
    for name, parameter in model.prior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert -2 * torch.tensor(4.0).log() - 1e-4 <= terms["class_agreement"] <= 3
    losses = model.prior.losses.clone()
    assert len(losses.unique()) == 3
    model.eval().loss(noise(3))
    assert torch.equal(model.prior.losses, losses), "validation chooses nothing"


def test_the_worse_heads_start_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssdir.models.detected.mixture.RESTART", 2)
    torch.manual_seed(0)
    model = mixture_model().train()
    prior = model.prior
    assert prior is not None
    model.loss(noise(3))
    prior.losses.copy_(torch.tensor([-1.0, -2.0, -3.0]))
    before = {name: value.clone() for name, value in prior.named_parameters()}
    model.eval().loss(noise(3))
    assert prior.batches == 1, "validation is not counted"
    model.train().loss(noise(3))
    after = dict(prior.named_parameters())
    for name in ("heads.0.0.weight", "heads.0.3.weight"):
        assert not torch.equal(after[name], before[name])
        assert torch.equal(after[name.replace("s.0", "s.1", 1)], before[name.replace("s.0", "s.1", 1)])
        assert torch.equal(after[name.replace("s.0", "s.2", 1)], before[name.replace("s.0", "s.2", 1)])
    same = [torch.equal(after["loc"][0, head], before["loc"][0, head]) for head in range(3)]
    assert same == [False, True, True]
    assert prior.losses.argmin() == 2


def test_a_head_starts_from_clusters() -> None:
    torch.manual_seed(0)
    prior = MixturePrior(6, PRIOR).train()
    labels = torch.arange(80) % 4
    centers = 3 * torch.eye(4, 6)
    z_what = centers[labels] + 0.1 * torch.randn(80, 6)
    with torch.no_grad():
        prior._start_from_clusters(1, z_what, seed=0)
        probs = prior(z_what)[:, 1]
    classes = probs.argmax(dim=1)
    assert len(classes[:4].unique()) == 4
    assert torch.equal(classes, classes[:4][labels]), "one class for each cluster"
    for cluster in range(4):
        torch.testing.assert_close(prior.loc[0, 1, classes[cluster]], z_what[labels == cluster].mean(dim=0))


def test_terms_are_weighted() -> None:
    torch.manual_seed(0)
    model = mixture_model().train()
    objects, features = model.detector.detect(noise(3))
    torch.manual_seed(1)
    terms = model.loss_of(noise(3), objects, features)
    weights = model.config.loss
    expected = weights.image * terms["nll_image"] + weights.objects * terms["nll_objects"]
    expected += weights.kl_what * terms["kl_what"] + weights.kl_depth * terms["kl_depth"]
    expected += len(objects) / 3 * (terms["consistency"] + 2 * terms["class_agreement"])
    torch.testing.assert_close(terms["total"], expected)


def test_images_without_objects() -> None:
    model = mixture_model().train()
    features = model.detector.read(noise(2))
    terms = model.loss_of(noise(2), Objects.empty(2), features)
    assert terms["kl_what"] == 0
    assert torch.isfinite(terms["total"])
    assert torch.equal(model.prior.losses, torch.zeros(3))  # type: ignore[union-attr]


def test_a_lone_object_counts_in_evaluation() -> None:
    """The divergence of two equal objects of one image is twice that of one."""
    prior = mixture_model().eval().prior
    assert isinstance(prior, MixturePrior)
    prior.agreement = 0  # It would need views.
    one = Objects(torch.zeros(1, dtype=torch.int64), 1, torch.full((1, 4), 0.5))
    z_what = torch.ones(1, prior.loc.shape[-1])
    one = one.replace(z_what=z_what, z_what_scale=0.1 * z_what)
    two = one[torch.tensor([0, 0])]
    once, twice = (prior.terms(objects, [])["kl_what"] for objects in (one, two))
    assert once > 0
    torch.testing.assert_close(twice, 2 * once)


def test_a_saved_model_has_the_same_clusters(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = mixture_model()
    model.train().loss(noise(3))
    save_model(model.eval(), tmp_path)
    loaded = load_model(tmp_path)
    assert isinstance(loaded, SSDIR)
    assert loaded.num_clusters == 4
    objects, again = model.encode(noise(2), 0.1), loaded.encode(noise(2), 0.1)
    assert objects.z_what is not None
    assert again.z_what is not None
    assert len(objects) > 3
    probs = loaded.cluster_probs(again.z_what)
    torch.testing.assert_close(probs, model.cluster_probs(objects.z_what))
    torch.testing.assert_close(probs.sum(dim=1), torch.ones(len(objects)))


def test_a_normal_prior_has_no_clusters() -> None:
    model = tiny_model()
    assert model.num_clusters == 0
    with pytest.raises(ValueError, match="no mixture prior"):
        model.cluster_probs(torch.zeros(1, 6))


def test_agreement_needs_views() -> None:
    values = {"prior": {"kind": "mixture", "agreement": 1}}
    with pytest.raises(InputError, match=r"prior\.agreement compares augmented views"):
        parse(SSDIRConfig, values, source="test")
