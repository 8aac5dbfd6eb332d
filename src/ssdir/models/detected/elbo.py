"""The terms of the loss of objects of a frozen detector (eq. 7)."""

from __future__ import annotations

from torch import Tensor

from ssdir.models.detected.encoders import LatentConfig
from ssdir.models.losses import bernoulli_nll, laplacian_l1, normal_kl
from ssdir.objects import Objects, Scene
from ssdir.ops.boxes import with_area
from ssdir.ops.compositing import pixel_shares
from ssdir.ops.distributed import normalizer
from ssdir.ops.glimpses import crop_glimpses


def elbo_terms(
    images: Tensor,
    latents: Objects,
    scene: Scene,
    config: LatentConfig,
    shared_pixels: bool = False,
    details: bool = False,
) -> dict[str, Tensor]:
    """Computes the four terms of eq. 7, and details, unweighted, in nats per image, averaged over the batch.

    Args:
        images: float (B, 3, H, W) in [0, 1].
        latents: the posterior's means and scales.
        scene: the scene that was decoded from a sample.
        config: the standard deviations.
        shared_pixels: see `LossConfig`.
        details: whether to compute `details`, see `LossConfig`.

    Returns:
        `nll_image`: summed over pixels. `nll_objects`: the negative log-likelihood of the image cropped at each
        object's box, summed over pixels and averaged over an image's objects (0 for an image without objects).
        `kl_what`, `kl_depth`: summed over objects. `details`: `laplacian_l1`, averaged like `nll_objects`.
    """
    if latents.z_what is None or latents.z_what_scale is None or latents.z_depth is None:
        raise ValueError("latents need z_what, z_what_scale and z_depth")
    B, S = normalizer(latents.batch_size, images.device), scene.appearances.shape[-1]
    crops = crop_glimpses(images, latents.boxes, latents.image_index, S)
    decoded = scene.appearances
    if scene.background is not None and scene.alpha is not None:
        # An object need not reconstruct the background that is visible in its box.
        behind = crop_glimpses(scene.background, latents.boxes, latents.image_index, S)
        decoded = decoded + (1 - scene.alpha) * behind
    per_pixel, shares = bernoulli_nll(decoded, crops), None
    if shared_pixels:
        assert scene.alpha is not None
        size = (images.shape[-2], images.shape[-1])
        boxes = with_area(latents.boxes, size[0])
        place = (boxes, latents.z_depth, latents.image_index, latents.per_image, size)
        shares = pixel_shares(scene.alpha, *place)
        per_pixel = per_pixel * shares
    per_image = 1 / (latents.counts[latents.image_index] * B)
    terms = {
        "nll_image": bernoulli_nll(scene.reconstructions, images).sum() / B,
        "nll_objects": (per_pixel.sum(dim=(1, 2, 3)) * per_image).sum(),
        "kl_what": normal_kl(latents.z_what, latents.z_what_scale).sum() / B,
        "kl_depth": normal_kl(latents.z_depth, config.depth_scale).sum() / B,
    }
    if details:
        terms["details"] = (laplacian_l1(decoded, crops, shares) * per_image).sum()
    return terms
