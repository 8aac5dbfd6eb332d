"""Computes all metrics that a model and its data allow, in one pass over each split."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch import nn

from ssdir.console import Advance
from ssdir.data.images import Image8
from ssdir.errors import InputError, InputWarning
from ssdir.evaluation.clips import Clips, clip_identity_metrics, clip_tracking_metrics, has_memory, with_memory
from ssdir.evaluation.clusters import cluster_metrics, mixture_metrics
from ssdir.evaluation.collect import Collector, Kept, Split, collect
from ssdir.evaluation.components import project
from ssdir.evaluation.depth import depth_metrics
from ssdir.evaluation.detection import detection_metrics, operating_metrics
from ssdir.evaluation.identity import hidden_metrics
from ssdir.evaluation.probing import LATENTS, TRUE_BOXES, Probe, fit_probe, probe_metrics, property_metrics
from ssdir.evaluation.protocols import Dataset, EmbedsBoxes, Model
from ssdir.evaluation.scale import same_instance_metrics, size_error_metrics, size_probe_metrics
from ssdir.evaluation.uncertainty import uncertainty_metrics
from ssdir.formatting import counted
from ssdir.inference.files import check_threshold
from ssdir.tracking.options import TrackOptions

_OBJECTS_PER_COMPONENT = 2
"""Training objects for each principal component of a floor, with fewer of which its probe tends to chance."""


@dataclass(frozen=True, kw_only=True)
class MeasureOptions:
    """Options of a measurement.

    Attributes:
        max_images: the number of images of the measured split to use, from its first on; None uses all.
        max_train_images: the number of images of the training split whose objects probes learn from.
        score_threshold: the least score of an object at the operating point; None takes the model's.
        sizes_in_px: side of the images in which AP's small, medium and large are counted, so that models of
            different image sizes compare; None takes the model's.
        seed: seed of random samples of objects, and of components.
        floors: whether probes are also fitted on floors: pixels, pooled features, an untrained encoder.
        batch_size: images at once.
        similarity: also measure how similar reconstructed objects look to the image, by SSIM and LPIPS; see
            `ObjectSimilarityMeter`.
        track: options of tracking, if the images are frames of clips.
        true_boxes: whether the tracker takes the true boxes, without their identities, in place of detections.

    Raises:
        InputError: if an option is out of its range.
    """

    max_images: int | None = None
    max_train_images: int = 4000
    score_threshold: float | None = None
    sizes_in_px: int | None = None
    seed: int = 0
    floors: bool = True
    batch_size: int = 32
    similarity: bool = False
    track: TrackOptions = field(default_factory=TrackOptions)
    true_boxes: bool = False

    def __post_init__(self) -> None:
        limits = {"max_images": 1, "max_train_images": 1, "sizes_in_px": 1, "batch_size": 1, "seed": 0}
        for name, least in limits.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, got {value}")
        check_threshold(self.score_threshold)

    def tracking(self) -> TrackOptions:
        """Returns the options of tracking; its threshold is that of the operating point unless it has its own."""
        if self.track.score_threshold is not None:
            return self.track
        return replace(self.track, score_threshold=self.score_threshold)


@dataclass(frozen=True)
class Measurement:
    """The metrics of a model, and the splits that they were measured on.

    Attributes:
        metrics: values by name; metrics that the data or the model don't define are left out.
        test: the measured split.
        train: the split that probes learned from; None where there were no probes.
    """

    metrics: dict[str, float]
    test: Split
    train: Split | None


def measure(
    model: Model,
    test: Dataset,
    train: Dataset | None = None,
    options: MeasureOptions | None = None,
    *,
    glyphs: Sequence[Image8] | None = None,
    random_model: EmbedsBoxes | None = None,
    progress: Advance | None = None,
) -> Measurement:
    """Measures a model on open data sets. Each is read once; the result is deterministic.

    Args:
        model: the model, which runs where its parameters are, in evaluation mode.
        test: the split that is measured.
        train: the split that probes learn from; without it, or for a detector, there are none.
        options: how to measure.
        glyphs: grey uint8 arrays (h, w), of instances unseen in training, for the scale metrics, if the model
            embeds given boxes (`EmbedsBoxes`).
        random_model: `model` with its what encoder re-initialised, a floor of the probes.
        progress: called as batches and probes are done.

    Raises:
        ValueError: if latents are not finite, images are not of the model's size, or there are none.
        InputError: if `train` numbers its categories differently from `test`.
    """
    options = options or MeasureOptions()
    if train is not None and list(train.category_names) != list(test.category_names):
        raise InputError(
            "the splits to learn and to measure probes on number their categories differently "
            f"({', '.join(train.category_names)}; {', '.join(test.category_names)}): give both the same list"
        )
    clips = Clips.of(test, options.max_images)
    read = partial(_read, model, random_model, options)
    with _measuring(model, random_model):
        kept: Kept = "similarity" if options.similarity else "all"
        tested = read(test, kept, options.max_images, _stage(progress, "test images"))
        # Many of the categories that the annotations name may not occur, or not be asked for.
        categories = len(tested.categories.unique())
        trained = None
        if train is not None and tested.embeddings and (categories > 1 or tested.properties):
            trained = read(train, "embeddings", options.max_train_images, _stage(progress, "train images"))
        further = {}
        if glyphs is not None and isinstance(model, EmbedsBoxes):
            further = same_instance_metrics(model, glyphs, batch_size=options.batch_size)
        if categories > 1 and tested.embeddings:
            latents = tested.embeddings[LATENTS]
            further |= mixture_metrics(model, latents.latents, latents.labels)
        if clips is not None:
            further |= _clip_metrics(model, tested, clips, options, _stage(progress, "clips"))
    side = options.sizes_in_px or model.image_size
    # The fits are many and small: threads would gain little, and slow each other down where cores are shared.
    with threadpool_limits(1):
        metrics = _split_metrics(tested, categories, (side, side)) | further
        if trained is not None and trained.embeddings:  # A detector that detects nothing in `test` has none.
            metrics |= _learned_metrics(trained, tested, categories, options.seed, _stage(progress, "probes"))
    return Measurement(metrics, tested, trained)


def _read(
    model: Model,
    random_model: EmbedsBoxes | None,
    options: MeasureOptions,
    dataset: Dataset,
    kept: Kept,
    max_images: int | None,
    progress: Advance | None,
) -> Split:
    """Reads a split; what a tracker takes only of clips, and to learn from only for a model with a memory."""
    clips, track = Clips.of(dataset, max_images), options.tracking()
    if kept == "embeddings" and not has_memory(model):
        clips = None
    tracked = None if clips is None else track.thresholds(model.score_threshold)
    collector = Collector(
        model,
        options.score_threshold,
        random_model,
        kept=kept,
        tracked=tracked,
        floors=options.floors,
        seed=options.seed,
    )
    split = collect(collector, dataset, batch_size=options.batch_size, max_images=max_images, progress=progress)
    return with_memory(model, split, clips, track)


def _stage(progress: Advance | None, stage: str) -> Advance | None:
    """Returns a progress callback that also passes the stage's name; None without progress."""
    return None if progress is None else partial(progress, stage=stage)


def _clip_metrics(
    model: Model, split: Split, clips: Clips, options: MeasureOptions, progress: Advance | None
) -> dict[str, float]:
    """Computes the metrics of tracks and identities; without the `trackers` library, those of identities only."""
    if split.targets.track_id is None:
        return {}
    boxes = options.true_boxes
    try:
        tracks = clip_tracking_metrics(
            model, split, clips, options.tracking(), true_boxes=boxes, progress=progress
        )
    except InputError as error:
        warnings.warn(f"no metrics of tracks: {error}", InputWarning, stacklevel=3)
        tracks = {}
    return tracks | clip_identity_metrics(split, clips)


def _learned_metrics(
    train: Split, test: Split, categories: int, seed: int, progress: Advance | None
) -> dict[str, float]:
    """Computes metrics of classifiers that are fitted on the objects of one split and scored on the other's."""
    metrics = {}
    if categories > 1:
        _warn_of_low_floors(train)
        known, unseen = train.embeddings[LATENTS], test.embeddings[LATENTS]
        reduced = {
            name: replace(test.embeddings[name], latents=project(projection, test.embeddings[name].latents))
            for name, projection in train.projections.items()
            if name in test.embeddings
        }
        probe = fit_probe(known)
        metrics = probe_metrics(train.embeddings, {**test.embeddings, **reduced}, seed, probe, progress)
        metrics |= size_probe_metrics(known, unseen, probe)
        metrics |= _uncertainty(train, test, probe)
        metrics |= _hidden(train, test)
    return metrics | property_metrics(train.properties, test.properties)


def _warn_of_low_floors(train: Split) -> None:
    """Warns once if probes of principal components, each scaled to unit variance, learn from too few objects."""
    shapes = {name: train.embeddings[name].latents.shape for name in train.projections if name in train.embeddings}
    low = {name: size for name, size in shapes.items() if 0 < size[0] < _OBJECTS_PER_COMPONENT * size[1]}
    if low:
        floors = ", ".join(f"probe/{name} ({counted(width, 'component')})" for name, (_, width) in low.items())
        objects = counted(max(number for number, _ in low.values()), "object")
        text = (
            f"too low are the floors {floors}: they learn from {objects}, and tend to chance with fewer than "
            f"{_OBJECTS_PER_COMPONENT} for each component: use more training images"
        )
        warnings.warn(InputWarning(text), stacklevel=3)


def _split_metrics(split: Split, categories: int, image_size: tuple[int, int]) -> dict[str, float]:
    """Computes the metrics of a single split, which need no probes."""
    metrics = {
        **detection_metrics(split.ranked, split.targets, image_size, split.ignored),
        **operating_metrics(split.objects, split.targets, ignored=split.ignored),
        **split.reconstruction,
        **split.masks,
        **depth_metrics(split.objects, split.targets, split.match),
    }
    if len(split.object_errors):
        metrics |= size_error_metrics(split.object_errors[split.match >= 0], split.embeddings[LATENTS].sizes)
    if categories > 1 and split.embeddings:
        latents = split.embeddings[LATENTS]
        metrics |= cluster_metrics(latents.latents, latents.labels, categories)
    return metrics


def _hidden(train: Split, test: Split) -> dict[str, float]:
    """Measures probes of hidden objects at their true boxes, where it is known how much of each is visible.

    The embeddings are those that the model returns: with its memory, if it has one. Then without it too.
    """
    known, unseen = train.targets.visible, test.targets.visible
    if known is None or unseen is None or TRUE_BOXES not in train.embeddings:
        return {}
    learned, measured = train.embeddings[TRUE_BOXES], test.embeddings[TRUE_BOXES]
    single = hidden_metrics(learned, known, measured, unseen)
    memories = [None if split.frames is None else split.frames.remembered for split in (train, test)]
    if memories[0] is None or memories[1] is None:
        return single
    learned, measured = replace(learned, latents=memories[0]), replace(measured, latents=memories[1])
    metrics = hidden_metrics(learned, known, measured, unseen)
    return metrics | {
        name.replace("hidden/", "hidden/single_frame/"): value
        for name, value in single.items()
        if not name.endswith("/objects")
    }


def _uncertainty(train: Split, test: Split, probe: Probe | None) -> dict[str, float]:
    """Measures how well σ, reconstruction error and score predict that a probe misclassifies an object."""
    matched = test.match >= 0
    objects = test.objects[matched]
    predictors = {"sigma": None if objects.z_what_scale is None else objects.z_what_scale.mean(dim=1)}
    predictors["reconstruction"] = test.object_errors[matched] if len(test.object_errors) else None
    predictors["score"] = None if objects.scores is None else -objects.scores
    known = {name: values for name, values in predictors.items() if values is not None}
    return uncertainty_metrics(train.embeddings[LATENTS], test.embeddings[LATENTS], known, probe)


@contextmanager
def _measuring(*models: object) -> Iterator[None]:
    """Puts models into evaluation mode and disables gradients within the block; then restores their modes."""
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
