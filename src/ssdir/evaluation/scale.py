"""Measures scale invariance: whether the embedding of an object stays the same at any size (paper's title)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssdir.data.images import Image8, resize
from ssdir.data.scatter.glyphs import INK_THRESHOLD
from ssdir.evaluation.probing import LabelledLatents, Probe, fit_probe, scores_of
from ssdir.evaluation.protocols import EmbedsBoxes, PoolsFeatures, device_of
from ssdir.models.backbones.base import reading_once
from ssdir.objects import Objects

SIZE_BINS = ("small", "medium", "large")
RETRIEVAL_FACTOR = 4
_SAME = 1e-9


def size_probe_metrics(
    train: LabelledLatents, test: LabelledLatents, probe: Probe | None = None
) -> dict[str, float]:
    """Computes probe accuracy by size: of probes of all sizes, and of probes of one third tested on another.

    The terciles of the true box's longer side over `train` separate small, medium and large objects.

    Args:
        train: matched objects of the train split.
        test: matched objects of the test split.
        probe: the probe of all sizes, if it is already fitted.

    Returns:
        `scale/probe/accuracy_small`, `_medium`, `_large`: trained on all sizes, tested on one third.
        `scale/small_to_large/accuracy`: trained on the smallest third, tested on the largest;
        `scale/large_to_small/accuracy`: the reverse. Metrics without objects are left out.
    """
    if not len(train) or not len(test):
        return {}
    terciles = _terciles(train.sizes)
    known, unseen = torch.bucketize(train.sizes, terciles), torch.bucketize(test.sizes, terciles)
    probe = fit_probe(train) if probe is None else probe
    scores = {
        f"scale/probe/accuracy_{name}": scores_of(probe, test[unseen == number])
        for number, name in enumerate(SIZE_BINS)
    }
    for name, source, goal in (("small_to_large", 0, 2), ("large_to_small", 2, 0)):
        scores[f"scale/{name}/accuracy"] = scores_of(fit_probe(train[known == source]), test[unseen == goal])
    return {name: values["accuracy"] for name, values in scores.items() if "accuracy" in values}


def size_error_metrics(object_errors: Tensor, sizes: Tensor) -> dict[str, float]:
    """Computes the mean reconstruction error of small, medium and large objects.

    Args:
        object_errors: float (n,), mean squared error of each matched object, see `ReconstructionMeter`.
        sizes: float (n,), longer side of its true box; the terciles separate small, medium and large.

    Returns:
        `scale/object_mse_small`, `_medium`, `_large`; bins without objects are left out.
    """
    if not len(sizes):
        return {}
    bins = torch.bucketize(sizes, _terciles(sizes))
    chosen = {name: object_errors[bins == number] for number, name in enumerate(SIZE_BINS)}
    return {f"scale/object_mse_{name}": float(errors.mean()) for name, errors in chosen.items() if len(errors)}


def _terciles(sizes: Tensor) -> Tensor:
    return sizes.quantile(sizes.new_tensor([1 / 3, 2 / 3]))


def render_sizes(glyph_images: Sequence[Image8], sizes_px: Sequence[int], canvas: int) -> tuple[Tensor, Objects]:
    """Renders each glyph at each size, alone in the middle of a black image, like the glyphs of generated scenes.

    Args:
        glyph_images: n grey uint8 arrays (h, w), bright on black; margins without ink are cut off.
        sizes_px: k longer sides of the rendered glyph, in pixels.
        canvas: side of the images, in pixels.

    Returns:
        Images float (n * k, 3, canvas, canvas) in [0, 1], all sizes of the first glyph first, and their
        objects, one for each image: the ink's box, source_index the glyph.

    Raises:
        ValueError: if a glyph is blank or not a grey uint8 image, or a size does not fit the canvas.
    """
    if any(not 0 < size <= canvas for size in sizes_px):
        raise ValueError(f"sizes_px must be within 1 ... {canvas}, got {list(sizes_px)}")
    images = torch.zeros(len(glyph_images) * len(sizes_px), 3, canvas, canvas)
    z_where = torch.empty(len(images), 4)
    for number, glyph in enumerate(glyph_images):
        ink = _ink(glyph)
        for step, size in enumerate(sizes_px):
            rendered = _render(ink, size)
            height, width = rendered.shape
            top, left = (canvas - height) // 2, (canvas - width) // 2
            row = number * len(sizes_px) + step
            images[row, :, top : top + height, left : left + width] = rendered
            z_where[row] = torch.tensor([left + width / 2, top + height / 2, width, height]) / canvas
    rows = torch.arange(len(images))
    return images, Objects(rows, len(images), z_where, source_index=rows // max(len(sizes_px), 1))


def default_sizes(image_size: int) -> tuple[int, ...]:
    """Returns five sizes in pixels, from an eighth to half of the image; the last is four times the first."""
    smallest = max(image_size // 8, 2)
    return (smallest, smallest * 3 // 2, smallest * 2, smallest * 3, smallest * 4)


def same_instance_metrics(
    model: EmbedsBoxes,
    glyphs: Sequence[Image8],
    sizes_px: Sequence[int] | None = None,
    *,
    batch_size: int = 32,
) -> dict[str, float]:
    """Compares the embeddings of the same object at several sizes, encoded at its true box.

    Args:
        model: the model; in evaluation mode.
        glyphs: n grey uint8 arrays, n > 1, that it was not trained on.
        sizes_px: k rising sizes, one of them four times the first; by default `default_sizes`.
        batch_size: images encoded at once.

    Returns:
        `scale/drift`, see `latent_drift`; `scale/retrieval_at_1`: the smallest size as the query, the same
        instances at four times that size as the gallery, see `retrieval_at_1`; and
        `scale/pooled_features/retrieval_at_1`. Undefined metrics are left out.

    Raises:
        ValueError: if there are fewer than two glyphs, or no size is four times the first.
    """
    sizes = tuple(sizes_px or default_sizes(model.image_size))
    if len(glyphs) < 2:
        raise ValueError(f"glyphs must be at least two, got {len(glyphs)}")
    if sizes[0] * RETRIEVAL_FACTOR not in sizes:
        raise ValueError(f"sizes_px must hold {RETRIEVAL_FACTOR} times its first size, got {list(sizes)}")
    gallery = sizes.index(sizes[0] * RETRIEVAL_FACTOR)
    latents, pooled = _encode_sizes(model, glyphs, sizes, max(batch_size // len(sizes), 1))
    metrics = {"scale/retrieval_at_1": retrieval_at_1(latents[:, 0], latents[:, gallery])}
    drift = latent_drift(latents)
    if drift is not None:
        metrics["scale/drift"] = drift
    if pooled is not None:
        metrics["scale/pooled_features/retrieval_at_1"] = retrieval_at_1(pooled[:, 0], pooled[:, gallery])
    return metrics


def latent_drift(latents: Tensor) -> float | None:
    """Measures how far size moves an embedding, relative to the distance of different instances.

    (mean over instances and pairs of sizes of 1 − cosine) / (mean over sizes and pairs of instances of
    1 − cosine), after subtracting the mean of all latents, because a large common component would make all cosines
    similar. 0 is invariance; at 1, a change of size moves an embedding as much as a change of instance.

    Args:
        latents: float (n, k, D), n instances at k sizes.

    Returns:
        The ratio, or None where different instances do not differ.
    """
    n, k, _ = latents.shape
    embeddings = F.normalize(latents.double() - latents.double().mean(dim=(0, 1)), dim=-1)
    # The mean cosine over pairs of different embeddings: (|Σ x|² − Σ |x|²) / (count · (count − 1)).
    squares = embeddings.square().sum(dim=-1)
    across_sizes = (embeddings.sum(dim=1).square().sum(dim=-1) - squares.sum(dim=1)) / max(k * (k - 1), 1)
    across_instances = (embeddings.sum(dim=0).square().sum(dim=-1) - squares.sum(dim=0)) / max(n * (n - 1), 1)
    within, between = 1 - float(across_sizes.mean()), 1 - float(across_instances.mean())
    return max(within, 0.0) / between if between > _SAME else None


def retrieval_at_1(queries: Tensor, gallery: Tensor) -> float:
    """Computes the share of queries whose nearest gallery embedding, by cosine, is of the same instance.

    The gallery's mean is subtracted from both, since a search engine knows the gallery beforehand.

    Args:
        queries: float (n, D).
        gallery: float (n, D), row-aligned with the queries.
    """
    center = gallery.double().mean(dim=0)
    embeddings, entries = (F.normalize(latents.double() - center, dim=-1) for latents in (queries, gallery))
    nearest = (embeddings @ entries.T).argmax(dim=1)
    return float((nearest == torch.arange(len(queries))).double().mean())


def _encode_sizes(
    model: EmbedsBoxes,
    glyphs: Sequence[Image8],
    sizes: tuple[int, ...],
    chunk: int,
) -> tuple[Tensor, Tensor | None]:
    """Computes the latents (n, k, D) and pooled features (n, k, F) of each glyph at each size."""
    latents, pooled, device = [], [], device_of(model)
    for start in range(0, len(glyphs), chunk):
        images, boxes = render_sizes(glyphs[start : start + chunk], sizes, model.image_size)
        images, boxes = images.to(device), boxes.to(device)
        with reading_once(model):
            objects = model.embed(images, boxes)
            if objects.z_what is None:
                raise ValueError("the model's objects have no z_what")
            latents.append(objects.z_what.cpu())
            if isinstance(model, PoolsFeatures):
                pooled.append(model.pooled_features(images, boxes).cpu())
    shape = (len(glyphs), len(sizes), -1)
    return torch.cat(latents).view(shape), torch.cat(pooled).view(shape) if pooled else None


def _ink(glyph: Image8) -> Image8:
    """Cuts the blank margins off a glyph, uint8 (h, w)."""
    if glyph.ndim != 2 or glyph.dtype != np.uint8:
        raise ValueError(f"glyphs must be grey uint8 (h, w), got {glyph.dtype} {glyph.shape}")
    ink = glyph >= INK_THRESHOLD
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if not len(rows):
        raise ValueError("a glyph is blank")
    return glyph[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _render(ink: Image8, longer_side: int) -> Tensor:
    """Resizes a glyph without margins to a longer side, keeping its proportions: float (h, w) in [0, 1]."""
    ratio = longer_side / max(ink.shape)
    height, width = (max(round(side * ratio), 1) for side in ink.shape)
    resized = torch.from_numpy(resize(ink[..., None], height, width)[..., 0])
    return torch.where(resized >= INK_THRESHOLD, resized, 0).float() / 255
