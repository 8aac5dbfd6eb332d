"""Everything that a model and its data allow to be measured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import nn

from ssdir.data.images import Image8
from ssdir.errors import InputError
from ssdir.evaluation.clusters import cluster_metrics
from ssdir.evaluation.collect import Split, collect
from ssdir.evaluation.depth import depth_metrics
from ssdir.evaluation.detection import detection_metrics, operating_metrics
from ssdir.evaluation.probing import LATENTS, Probe, fit_probes, probe_metrics, property_metrics
from ssdir.evaluation.protocols import Dataset, EmbedsBoxes, Model, Progress
from ssdir.evaluation.scale import same_instance_metrics, size_error_metrics, size_probe_metrics
from ssdir.evaluation.uncertainty import uncertainty_metrics


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured, and what of each split it was measured on.

    Attributes:
        metrics: by name; what the data or the model leave undefined is left out, and no value is NaN.
        test: the split that every figure is of.
        train: the split that probes learned from; None where there were no probes.
    """

    metrics: dict[str, float]
    test: Split
    train: Split | None


def evaluate(
    model: Model,
    test: Dataset,
    train: Dataset | None = None,
    *,
    batch_size: int = 32,
    seeds: Sequence[int] = (0, 1, 2),
    max_images: int | None = None,
    max_train_images: int = 4000,
    glyphs: Sequence[Image8] | None = None,
    random_model: EmbedsBoxes | None = None,
    score_threshold: float | None = None,
    sizes_in_px: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measures a model. Each split is passed over once; the result is deterministic.

    Args:
        model: what to measure; it runs where its parameters are, in evaluation mode.
        test: the split that every figure is of.
        train: the split that probes learn from; without it, or for a detector, there are none.
        batch_size: images at once.
        seeds: of the probes' training objects; figures are means over these.
        max_images: measure the first so many images of `test` only.
        max_train_images: probes learn from the first so many images of `train`.
        glyphs: grey uint8 arrays (h, w), of instances unseen in training, for the scale metrics, if the model
            embeds given boxes (`EmbedsBoxes`).
        random_model: `model` with its what encoder re-initialised, for that floor.
        score_threshold: the operating point; by default the model's.
        sizes_in_px: side of the images in which AP's small, medium and large are counted, so that models of
            different image sizes compare; by default the model's.
        progress: called with (stage, done, total).

    Raises:
        ValueError: if latents are not finite, images are not of the model's size, or there are none.
        InputError: if `train` numbers its categories differently from `test`.
    """
    if train is not None and list(train.category_names) != list(test.category_names):
        raise InputError(
            "the splits to learn and to measure probes on number their categories differently "
            f"({', '.join(train.category_names)}; {', '.join(test.category_names)}): give both the same list"
        )
    threshold = model.score_threshold if score_threshold is None else score_threshold
    device = _device(model)
    gather = partial(
        collect,
        model,
        threshold=threshold,
        random_model=random_model,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )
    with _measuring(model, random_model):
        tested = gather(test, max_images=max_images, stage="test images")
        # Of the categories that the annotations name, many may not occur, or not be asked for.
        categories = len(tested.categories.unique())
        trained = None
        if train is not None and tested.codes and (categories > 1 or tested.properties):
            trained = gather(train, codes_only=True, max_images=max_train_images, stage="train images")
        scale = {}
        if glyphs is not None and isinstance(model, EmbedsBoxes):
            scale = same_instance_metrics(model, glyphs, batch_size=batch_size, device=device)
    # The fits are many and small: threads would gain little, and cost much where cores are shared.
    with threadpool_limits(1):
        side = sizes_in_px or model.image_size
        metrics = _split_metrics(tested, categories, (side, side)) | scale
        if trained is not None:
            if categories > 1:
                known, unseen = trained.codes[LATENTS], tested.codes[LATENTS]
                probes = fit_probes(known, seeds)
                told = None if progress is None else partial(progress, "probes")
                metrics |= probe_metrics(trained.codes, tested.codes, seeds, probes, told)
                metrics |= size_probe_metrics(known, unseen, seeds, probes)
                metrics |= _uncertainty(trained, tested, seeds, probes)
            metrics |= property_metrics(trained.properties, tested.properties, seeds)
    return Evaluation(metrics, tested, trained)


def _split_metrics(split: Split, categories: int, image_size: tuple[int, int]) -> dict[str, float]:
    """What one split defines by itself."""
    metrics = {
        **detection_metrics(split.ranked, split.targets, image_size, split.ignored),
        **operating_metrics(split.objects, split.targets, ignored=split.ignored),
        **split.reconstruction,
        **split.masks,
        **depth_metrics(split.objects, split.targets, split.match),
    }
    if len(split.object_errors):
        metrics |= size_error_metrics(split.object_errors[split.match >= 0], split.codes[LATENTS].sizes)
    if categories > 1 and split.codes:
        latents = split.codes[LATENTS]
        metrics |= cluster_metrics(latents.latents, latents.labels, categories)
    return metrics


def _uncertainty(train: Split, test: Split, seeds: Sequence[int], probes: Sequence[Probe]) -> dict[str, float]:
    """Which of a split's objects a probe takes for another category, and what could have told."""
    matched = test.match >= 0
    objects = test.objects[matched]
    predictors = {"sigma": None if objects.z_what_scale is None else objects.z_what_scale.mean(dim=1)}
    predictors["reconstruction"] = test.object_errors[matched] if len(test.object_errors) else None
    predictors["score"] = None if objects.scores is None else -objects.scores
    known = {name: values for name, values in predictors.items() if values is not None}
    return uncertainty_metrics(train.codes[LATENTS], test.codes[LATENTS], known, seeds, probes)


def _device(model: Model) -> torch.device:
    parameter = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device


@contextmanager
def _measuring(*models: object) -> Iterator[None]:
    """Evaluation mode without gradients; training modes come back afterwards."""
    modules = [model for model in models if isinstance(model, nn.Module)]
    modes = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)
