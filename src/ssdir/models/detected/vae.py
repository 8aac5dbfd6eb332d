"""The common base class of SSDIR and GlimpseVAE: everything except the encoder (eq. 5, 6)."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate, pairwise
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from ssdir.config import Config
from ssdir.errors import InputError
from ssdir.models.base import GenerativeModel, check_batch
from ssdir.models.decoder import DecoderConfig, build_decoder
from ssdir.models.detected.background import LearnedBackground
from ssdir.models.detected.consistency import (
    TEMPERATURE,
    ConsistencyConfig,
    ProjectionHead,
    agreement,
)
from ssdir.models.detected.elbo import elbo_terms
from ssdir.models.detected.encoders import LatentConfig
from ssdir.models.detected.mixture import MixturePrior, MixturePriorConfig, NormalPriorConfig, PriorConfig
from ssdir.models.detected.model import DetectedConfig, DetectedModel
from ssdir.models.detected.views import View, second_view
from ssdir.models.detector.ssd import SSD
from ssdir.models.scenes import composite_scene
from ssdir.objects import Objects, Scene
from ssdir.ops.boxes import with_area
from ssdir.ops.compositing import composite_weighted
from ssdir.ops.distributed import gather_rows, image_mean, normalizer, rows_of, totals
from ssdir.ops.precision import at_least_single


class LossConfig(Config):
    """Coefficients of the loss (eq. 7); the paper's depend on the data set (docs/architecture.md).

    Attributes:
        image: α_obj, coefficient of the image's negative log-likelihood.
        objects: α_rec, coefficient of the objects' negative log-likelihoods, averaged over objects.
        kl_what: α_what, coefficient of the KL of `z_what`.
        kl_depth: α_depth, coefficient of the KL of `z_depth`.
        classes: coefficient, per object, of the cross-entropy of a linear layer that predicts the detector's class
            from `z_what`; 0 leaves it out. The paper has none. It supervises embeddings with the detector's
            classes, so leave it out to study what representations learn without labels.
        details: coefficient of `laplacian_l1`, averaged over objects, which sharpens edges; the paper has none. It
            needs a decoder of 8 pixels or more.
        shared_pixels: weights each pixel in the objects' likelihoods and details by the object's share in it, see
            `pixel_shares`, so that no object has to reconstruct another one that hides it; needs `decoder.alpha`.
    """

    image: float = Field(10.0, ge=0)
    objects: float = Field(10.0, ge=0)
    kl_what: float = Field(1.0, ge=0)
    kl_depth: float = Field(1.0, ge=0)
    classes: float = Field(0.0, ge=0)
    details: float = Field(0.0, ge=0)
    shared_pixels: bool = False


class DetectedVAEConfig(DetectedConfig):
    """A variational autoencoder of the objects of a frozen detector.

    Attributes:
        encoder: encoder of `z_what` and `z_depth`.
        decoder: the what decoder; with `alpha`, objects are composited per pixel, else by the paper's weighted
            sum.
        background: intensity where no object is: `black`, as in the paper, or `learned`, one image for all scenes,
            which needs `decoder.alpha`.
        prior: prior of `z_what`: `normal`, N(0, 1) as in the paper, or `mixture`, whose components are classes.
        loss: coefficients of the loss (eq. 7).
        consistency: a contrastive term of the loss, see `ConsistencyConfig`; the paper has none.
    """

    encoder: LatentConfig
    decoder: DecoderConfig = DecoderConfig()
    background: Literal["black", "learned"] = "black"
    prior: PriorConfig = NormalPriorConfig()
    loss: LossConfig = LossConfig()
    consistency: ConsistencyConfig = ConsistencyConfig()

    @model_validator(mode="after")
    def _some_need_alpha(self) -> Self:
        if self.background != "black" and not self.decoder.alpha:
            raise ValueError("a learned background needs decoder.alpha=true: nothing else says where it is seen")
        if self.loss.shared_pixels and not self.decoder.alpha:
            raise ValueError("loss.shared_pixels needs decoder.alpha=true: nothing else says whose a pixel is")
        if self.loss.details and self.decoder.size < 8:
            raise ValueError(f"loss.details needs objects of 8 pixels, and the decoder's have {self.decoder.size}")
        return self

    @model_validator(mode="after")
    def _agreement_needs_views(self) -> Self:
        if isinstance(self.prior, MixturePriorConfig) and self.prior.agreement and not self.consistency.weight:
            raise ValueError("prior.agreement compares augmented views: it needs consistency.weight > 0")
        return self

    @property
    def latent_dim(self) -> int:
        """Size D of `z_what`."""
        return self.encoder.latent_dim


class DetectedVAE(DetectedModel, GenerativeModel):
    """A variational autoencoder of the objects that a frozen detector detects; subclasses provide the encoder.

    Args:
        config: the model's config; its `kind` names the subclass.
        class_names: the detector's K foreground classes.
        detector: a trained detector to build on; None makes a new one.
    """

    config: DetectedVAEConfig  # type: ignore[assignment]  # the subclasses' configs have `kind`

    def __init__(self, config: DetectedVAEConfig, class_names: list[str], detector: SSD | None = None) -> None:
        super().__init__(config, class_names, detector)
        self.build_encoder()
        self.decoder = build_decoder(self.latent_dim, config.decoder)
        self.background = LearnedBackground() if config.background == "learned" else None
        self.projection = ProjectionHead(self.latent_dim) if config.consistency.weight else None
        self.classifier = nn.Linear(self.latent_dim, len(self.class_names)) if config.loss.classes else None
        self.prior: MixturePrior | None = None
        if isinstance(config.prior, MixturePriorConfig):
            self.prior = MixturePrior(self.latent_dim, config.prior)
        if self.classifier is not None and len(self.class_names) < 2:
            raise InputError(
                "loss.classes needs a detector of several classes: pass classes=all, or loss.classes=0"
            )

    def build_encoder(self) -> None:
        """Builds the modules that `posterior` uses."""
        raise NotImplementedError

    @property
    def reads_detector(self) -> bool:
        """True if `posterior` reads the frozen detector's features."""
        return False

    def infer(self, objects: Objects, images: Tensor, features: list[Tensor]) -> Objects:
        """Adds the posterior of z_what and z_depth to objects (eq. 5, 6).

        Args:
            objects: M objects with anchor_index.
            images: float (B, 3, H, W) in [0, 1].
            features: the detector's feature maps, see `SSD.read`; used only if `reads_detector`.

        Raises:
            ValueError: if the objects have no anchor_index.
        """
        if objects.anchor_index is None:
            raise ValueError("objects need anchor_index: which cell each comes from")
        what_loc, depth_loc = (at_least_single(loc) for loc in self.posterior(objects, images, features))
        what_scale = torch.full_like(what_loc, self.config.encoder.what_scale)
        return objects.replace(z_what=what_loc, z_what_scale=what_scale, z_depth=depth_loc)

    def posterior(self, objects: Objects, images: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Computes the means of `z_what` (M, D) and `z_depth` (M,) of objects; for the arguments see `infer`."""
        raise NotImplementedError

    def decode(self, objects: Objects) -> Scene:
        """Decodes objects that have z_what and z_depth, and composites them into scenes.

        Raises:
            ValueError: if z_what or z_depth is missing.
        """
        if objects.z_what is None or objects.z_depth is None:
            raise ValueError("objects need z_what and z_depth to be decoded")
        size = (self.image_size, self.image_size)
        appearances, alpha = self.decoder(objects.z_what)
        boxes = with_area(objects.boxes, self.image_size)
        place = (boxes, objects.z_depth, objects.image_index, objects.per_image, size)
        if alpha is None:
            return Scene(composite_weighted(appearances, *place), appearances, alpha)
        background = None if self.background is None else self.background(objects.batch_size, size)
        return composite_scene(appearances, alpha, place, background)

    def opacity(self, objects: Objects) -> Tensor | None:
        """Decodes the alpha of objects that have z_what; see the base class."""
        alpha: Tensor | None = self.decoder(objects.z_what)[1]
        return alpha

    def loss(self, images: Tensor, targets: Objects | None = None) -> dict[str, Tensor]:
        """Computes the representation's loss (eq. 7), which is unsupervised.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            targets: not used; part of the interface of `GenerativeModel`.

        Returns:
            See `loss_of`.
        """
        with torch.no_grad():
            objects, features = self.detector.detect(images)
        return self.loss_of(images, objects, features)

    def loss_of(self, images: Tensor, objects: Objects, features: list[Tensor]) -> dict[str, Tensor]:
        """Computes the loss (eq. 7) of given objects and features.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            objects: detections; without anchor_index, each box gets the best-fitting anchor.
            features: the detector's feature maps, see `SSD.read`; used only if `reads_detector`.

        Returns:
            The four terms of eq. 7, in nats per image; `details`, per image; `consistency`, `class_agreement` and
            `classes`, in nats per object; terms without a weight are left out. `total` is their weighted sum,
            `mse` the mean squared error of the reconstructions.
        """
        check_batch(images, objects)
        _ = objects.per_image  # Computed here, before a GPU has much queued work to wait for.
        if objects.anchor_index is None:
            objects = objects.replace(anchor_index=self.detector.assign(objects.z_where))
        latents, views = self.infer_in_views(objects, images, features)
        sampled = self.sample(latents)
        scene = self.decode(sampled)
        weights = self.config.loss
        terms = elbo_terms(images, latents, scene, self.config.encoder, weights.shared_pixels, weights.details > 0)
        if self.prior is not None:
            terms |= self.prior.terms(latents, views)
        total = (
            weights.image * terms["nll_image"]
            + weights.objects * terms["nll_objects"]
            + weights.kl_what * terms["kl_what"]
            + weights.kl_depth * terms["kl_depth"]
        )
        if "details" in terms:
            total = total + weights.details * terms["details"]
        per_image = normalizer(len(latents), images.device) / normalizer(latents.batch_size, images.device)
        if views:
            terms["consistency"] = self.agreement(latents, views)
            total = total + self.config.consistency.weight * per_image * terms["consistency"]
        if "class_agreement" in terms:
            assert isinstance(self.config.prior, MixturePriorConfig)
            total = total + self.config.prior.agreement * per_image * terms["class_agreement"]
        if self.classifier is not None:
            terms["classes"] = self.class_loss(Objects.cat([sampled, *(view.objects for view in views)]))
            total = total + weights.classes * per_image * terms["classes"]
        mse = image_mean((scene.reconstructions.detach() - images).square())
        return {**terms, "total": total, "mse": mse}

    def infer_in_views(
        self, objects: Objects, images: Tensor, features: list[Tensor]
    ) -> tuple[Objects, list[View]]:
        """Embeds objects and, if there is a consistency term, the same objects in augmented views.

        Args:
            objects: see `infer`.
            images: see `infer`.
            features: see `infer`.

        Returns:
            The objects with embeddings; and the augmented views, whose objects have embeddings too.
        """
        if self.projection is None:
            return self.infer(objects, images, features), []
        config = self.config.consistency
        with torch.autocast(images.device.type, enabled=False):  # Half precision would misplace boxes.
            views = [
                second_view(images, objects, config, min_side=6 / self.image_size) for _ in range(config.views)
            ]
        labels = None if objects.labels is None else gather_rows(objects.labels)
        moved = [
            view.objects.replace(
                anchor_index=self.detector.assign(view.objects.z_where),
                labels=None if labels is None else labels[view.rows],
            )
            for view in views
        ]
        seen = torch.cat([view.images for view in views])
        read: list[Tensor] = []
        if self.reads_detector:
            with torch.no_grad():
                again = self.detector.read(seen)
            read = [torch.cat([one, more.to(one)]) for one, more in zip(features, again, strict=True)]
        # All views are encoded at once: batch norm would normalise each view alone differently.
        every = self.infer(Objects.cat([objects, *moved]), torch.cat([images, seen]), read)
        starts = [0, *accumulate(len(each) for each in (objects, *moved))]
        parts = [every[start:end] for start, end in pairwise(starts)]
        first = parts[0]
        latents = objects.replace(z_what=first.z_what, z_what_scale=first.z_what_scale, z_depth=first.z_depth)
        return latents, [replace(view, objects=part) for view, part in zip(views, parts[1:], strict=True)]

    def agreement(self, latents: Objects, views: list[View]) -> Tensor:
        """Computes the contrastive loss between views, see `infer_in_views`, in nats per object."""
        if self.projection is None or latents.z_what is None:
            raise ValueError("the consistency term needs consistency.weight > 0 and objects with z_what")
        counts = [len(latents), *(len(view.objects) for view in views)]
        if min(totals(counts, latents.z_what.device)) < 2:
            return latents.z_what.sum() * 0  # A contrastive loss needs two objects.
        config, again = self.config.consistency, []
        for view in views:
            assert view.objects.z_what is not None
            again.append((self.projection(view.objects.z_what), view.rows))
        return agreement(self.projection(latents.z_what), again, TEMPERATURE, config.decoupled)

    @property
    def num_clusters(self) -> int:
        """Number of components of a mixture prior; 0 with a normal one."""
        return self.config.prior.components if isinstance(self.config.prior, MixturePriorConfig) else 0

    def cluster_probs(self, z_what: Tensor) -> Tensor:
        """Computes the probabilities of the mixture prior's components, float (M, K), without gradients.

        Args:
            z_what: float (M, D), posterior means, as `encode` returns them.

        Raises:
            ValueError: if the prior is no mixture.
        """
        if self.prior is None:
            raise ValueError(
                "this model has no mixture prior: train one with model.prior, see the preset tiny-mixture"
            )
        with torch.no_grad():
            return self.prior.cluster_probs(z_what)

    def class_loss(self, objects: Objects) -> Tensor:
        """Computes the cross-entropy of objects' labels, predicted from `z_what`, in nats per object."""
        if self.classifier is None or objects.z_what is None or objects.labels is None:
            raise ValueError("the class loss needs loss.classes > 0 and objects with z_what and labels")
        logits = at_least_single(self.classifier(objects.z_what))
        return F.cross_entropy(logits, objects.labels, reduction="sum") / normalizer(len(objects), logits.device)

    def sample(self, latents: Objects) -> Objects:
        """Samples z_what and z_depth by the reparametrisation trick."""
        if latents.z_what is None or latents.z_what_scale is None or latents.z_depth is None:
            raise ValueError("objects need z_what, z_what_scale and z_depth to be sampled")
        rows = rows_of(len(latents), latents.device)
        what = latents.z_what + latents.z_what_scale * rows.randn_like(latents.z_what)
        depth = latents.z_depth + self.config.encoder.depth_scale * rows.randn_like(latents.z_depth)
        return latents.replace(z_what=what, z_depth=depth)
