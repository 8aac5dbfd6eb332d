"""A mixture prior of `z_what`, whose components are classes that need no labels (GMAIR: Zhu et al. 2021).

The paper's prior is N(0, 1). GMAIR's has K components, p(z, y) = p(y) N(z; μ_y, σ_y²) with p(y) = 1/K, and a
categorical posterior q(y|x), so that objects are clustered while their embeddings are learned. Here q(y|x) reads
the posterior's mean of `z_what`, and so also the embeddings in a file.

The divergence alone does not say that two views of an object are of one class, so the loss can also ask for a
large mutual information of the classes of two views (IIC: Ji et al. 2019). Like IIC, the prior has several heads,
each a mixture of its own, and `cluster_probs` uses the one with the least unsupervised loss. A head that has
merged two classes and split another stays so, so the worse half of the heads starts again now and then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from ssdir.config import Config
from ssdir.models.backbones.base import init_xavier
from ssdir.models.detected.consistency import pairs_of_views
from ssdir.models.detected.views import View
from ssdir.objects import Objects
from ssdir.ops.distributed import gather_rows, normalizer, totals
from ssdir.ops.precision import at_least_single, in_full_precision

LOSS_MOMENTUM = 0.98
"""Momentum of the running means of the heads' losses: they span fifty batches."""

RESTART = 500
"""Number of batches after which the worse half of the heads starts again from k-means on a batch's embeddings."""

HIDDEN = 128
"""Width of the hidden layer of q(y|z_what)."""

BALANCE = 1.5
"""Coefficient λ of the marginal entropies in `class_agreement`; more than 1 favours classes of equal sizes."""

LEAST_PROBABILITY = 1e-8
"""Keeps logarithms of probabilities finite."""


class NormalPriorConfig(Config):
    """The paper's prior of `z_what`: N(0, 1)."""

    kind: Literal["normal"] = "normal"


class MixturePriorConfig(Config):
    """A mixture of normal distributions as the prior of `z_what`; see `MixturePrior`.

    Attributes:
        components: number K of components, which are the classes.
        heads: number of mixtures that are learned; the one with the least unsupervised loss names the classes.
        agreement: coefficient, per object, of `class_agreement` of the views of objects; 0 leaves it out. It needs
            the views of a consistency term.
    """

    kind: Literal["mixture"]
    components: int = Field(10, ge=2, le=1000)
    heads: int = Field(20, ge=1, le=100)
    agreement: float = Field(0.0, ge=0)


PriorConfig = Annotated[NormalPriorConfig | MixturePriorConfig, Field(discriminator="kind")]


@in_full_precision
def mixture_kl(loc: Tensor, scale: Tensor, probs: Tensor, prior_loc: Tensor, prior_scale: Tensor) -> Tensor:
    """Computes KL(q(z, y|x) ‖ p(z, y)) of H mixtures with equal weights p(y) = 1/K, in nats.

    It is Σ_y q(y|x) [KL(q(z|x) ‖ N(μ_y, σ_y²)) + log q(y|x) + log K] (GMAIR, Zhu et al. 2021; Jiang et al. 2017),
    which bounds the divergence of q(z|x) from the mixture from above.

    Args:
        loc: float (M, D), the mean of q(z|x).
        scale: float (M, D), its standard deviation.
        probs: float (M, H, K), q(y|x).
        prior_loc: float (1, H, K, D), μ.
        prior_scale: float (1, H, K, D), σ.

    Returns:
        float (M, H).
    """
    precision, log_scales = prior_scale[0] ** -2, scale.log().sum(dim=1)
    # As matrix products: of M × H × K × D values, the divergence takes a CPU several times as long.
    square = torch.einsum("md,hkd->mhk", scale.square() + loc.square(), precision)
    product = torch.einsum("md,hkd->mhk", loc, prior_loc[0] * precision)
    of_priors = (prior_loc[0].square() * precision / 2 + prior_scale[0].log() - 0.5).sum(dim=2)
    of_components = square / 2 - product + of_priors - log_scales[:, None, None]
    log_ratio = (probs.clamp(min=LEAST_PROBABILITY) * probs.shape[2]).log()
    return (probs * (of_components + log_ratio)).sum(dim=2)


@in_full_precision
def class_agreement(first: Tensor, second: Tensor, balance: float) -> Tensor:
    """Computes the negative mutual information of the classes of two views (IIC: Ji et al. 2019, eq. 3 and 5).

    P = Σ_n first_nᵀ second_n / N, made symmetric, is the joint distribution of the classes y and y' of two views
    of one object. The loss is -Σ P_yy' (log P_yy' - λ log P_y - λ log P_y'); λ = 1 is the mutual information.

    Args:
        first: float (N, H, K), q(y|x) of one view of N objects.
        second: float (N, H, K), of another view.
        balance: λ.

    Returns:
        float (H,), in nats: at least (1 - 2 λ) log K, for sure classes of equal sizes.
    """
    joint = torch.einsum("nhk,nhl->hkl", first, second) / len(first)
    joint = ((joint + joint.mT) / 2).clamp(min=LEAST_PROBABILITY)
    log_marginal = joint.sum(dim=2).log()
    ratio = joint.log() - balance * (log_marginal[:, :, None] + log_marginal[:, None, :])
    return -(joint * ratio).sum(dim=(1, 2))


class MixturePrior(nn.Module):
    """The prior p(z, y) of `z_what` and its class, and the posterior q(y|z_what), of several heads.

    Args:
        latent_dim: size D of `z_what`.
        config: see `MixturePriorConfig`.
    """

    def __init__(self, latent_dim: int, config: MixturePriorConfig) -> None:
        super().__init__()
        self.agreement = config.agreement
        self.norm = nn.BatchNorm1d(latent_dim, affine=False)
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.Linear(latent_dim, HIDDEN),
                nn.BatchNorm1d(HIDDEN),
                nn.ReLU(inplace=True),
                nn.Linear(HIDDEN, config.components),
            )
            for _ in range(config.heads)
        )
        self.heads.apply(init_xavier)
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.batches: Tensor
        # Muon leaves parameters whose first dimension is 1 to AdamW: means are no linear map.
        self.loc = nn.Parameter(0.1 * torch.randn(1, config.heads, config.components, latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(1, config.heads, config.components, latent_dim))
        self.register_buffer("losses", torch.zeros(config.heads))
        self.losses: Tensor

    def forward(self, z_what: Tensor) -> Tensor:
        """Computes q(y|z_what) of all heads, float (M, H, K), of embeddings (M, D)."""
        standardized = self.norm(z_what)
        logits = torch.stack([head(standardized) for head in self.heads], dim=1)
        return at_least_single(logits).softmax(dim=2)

    def terms(self, latents: Objects, views: Sequence[View]) -> dict[str, Tensor]:
        """Computes the prior's terms of the loss, and in training updates which head is the best.

        Args:
            latents: objects with z_what and z_what_scale.
            views: augmented views of them, whose objects have z_what.

        Returns:
            `kl_what`, `mixture_kl` summed over objects, in nats per image; and, with `agreement`,
            `class_agreement` over all pairs of views, in nats per object. Both are means over heads.
        """
        embeddings = [objects.z_what for objects in (latents, *(view.objects for view in views))]
        counts = [len(each) for each in embeddings if each is not None]
        assert latents.z_what is not None
        assert latents.z_what_scale is not None
        present = totals(counts, latents.z_what.device)
        if sum(present) < (2 if self.training else 1):
            return {"kl_what": latents.z_what.sum() * 0}  # In training, batch norm needs two rows.
        every = torch.cat([each for each in embeddings if each is not None])
        if self.training:
            self._restart(every.detach())
        probs, *again = self(every).split(counts)
        kl = mixture_kl(latents.z_what, latents.z_what_scale, probs, self.loc, self.log_scale.exp())
        terms = {"kl_what": kl.mean(dim=1).sum() / normalizer(latents.batch_size, kl.device)}
        if min(present) < 1:
            return terms
        losses = gather_rows(kl.detach()).mean(dim=0)
        if self.agreement:
            pairs = pairs_of_views(probs, [(seen, view.rows) for seen, view in zip(again, views, strict=True)])
            first, second = (torch.cat(side) for side in zip(*pairs, strict=True))
            losses = class_agreement(first, second, BALANCE)
            terms["class_agreement"] = losses.mean()
        if self.training:
            self.losses.lerp_(losses.detach().to(self.losses), 1 - LOSS_MOMENTUM)
        return terms

    @torch.no_grad()
    @in_full_precision
    def _restart(self, z_what: Tensor) -> None:
        """Counts a batch of embeddings (M, D); after `RESTART` ones, starts the worse half of the heads again."""
        self.batches += 1
        if len(self.heads) < 2 or int(self.batches) % RESTART:
            return
        z_what = gather_rows(z_what)
        if len(z_what) < self.loc.shape[2]:
            return
        worst = self.losses.argsort()[-(len(self.heads) // 2) :].tolist()
        for number in worst:
            self._start_from_clusters(number, z_what, seed=int(self.batches) + number)
        self.losses[worst] = self.losses.max()

    def _start_from_clusters(self, number: int, z_what: Tensor, seed: int) -> None:
        """Gives a head new weights: an object is of the nearest cluster of k-means on embeddings (M, D)."""
        from sklearn.cluster import KMeans

        components = self.loc.shape[2]
        kmeans = KMeans(components, n_init=3, random_state=seed).fit(z_what.cpu().numpy())
        clusters = torch.from_numpy(kmeans.labels_).to(z_what.device, torch.int64)
        members = F.one_hot(clusters, components).to(z_what)
        members = members / members.sum(dim=0).clamp(min=1)
        head = cast(nn.Sequential, self.heads[number].apply(_start_again))
        last = cast(nn.Linear, head[-1])
        standardized = (z_what - z_what.mean(dim=0)) / z_what.std(dim=0).clamp(min=1e-6)
        centers = members.T @ head[:-1](standardized)
        # Logits of the nearest centre: -|h - c|² / 2 is h · c - |c|² / 2 but for a constant.
        last.weight.copy_(centers)
        last.bias.copy_(-centers.square().sum(dim=1) / 2)
        self.loc[0, number] = members.T @ z_what
        self.log_scale[0, number] = 0

    def cluster_probs(self, z_what: Tensor) -> Tensor:
        """Computes q(y|z_what) of the head with the least loss, float (M, K), of embeddings (M, D)."""
        best: nn.Module = self.heads[int(self.losses.argmin())]
        return at_least_single(best(self.norm(z_what))).softmax(dim=1)


def _start_again(layer: nn.Module) -> None:
    init_xavier(layer)
    if isinstance(layer, nn.BatchNorm1d):
        layer.reset_parameters()
