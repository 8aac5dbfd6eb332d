"""Errors of reconstructions, accumulated batch by batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from ssdir.objects import Objects, Scene
from ssdir.ops.glimpses import crop_glimpses
from ssdir.ops.precision import widest

_PSNR_LIMIT_DB = 100.0


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
            objects: the M objects that were drawn.
            scene: what the model drew for them.

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
        size = scene.appearances.shape[-1]
        glimpses = crop_glimpses(images, objects.boxes, objects.image_index, size)
        self._object_errors.append(_mse(scene.appearances, glimpses))

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


def _mse(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared error of each image, float64 (B,), on the host."""
    return (first - second).square().flatten(1).mean(dim=1, dtype=widest(first.device)).cpu().double()
