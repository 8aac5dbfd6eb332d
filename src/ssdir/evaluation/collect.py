"""One pass over a split: the model's objects and embeddings are kept, images are not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ssdir.console import Advance
from ssdir.data.dataset import collate
from ssdir.data.letterbox import Letterbox
from ssdir.evaluation.components import Components, Projection
from ssdir.evaluation.detection import RANKING_THRESHOLD
from ssdir.evaluation.frames import FrameCollector, Frames
from ssdir.evaluation.matching import best_target, match_greedy
from ssdir.evaluation.probing import (
    LABELS,
    LARGEST_OVERLAP,
    LATENTS,
    POOLED_FEATURES,
    RANDOM_ENCODER,
    RAW_PIXELS,
    TRUE_BOXES,
    LabelledLatents,
)
from ssdir.evaluation.protocols import (
    Dataset,
    DrawsScenes,
    EmbedsBoxes,
    Model,
    NamesClasses,
    PadsImages,
    PoolsFeatures,
    SegmentsImages,
    device_of,
)
from ssdir.evaluation.reconstruction import ObjectSimilarityMeter, ReconstructionMeter
from ssdir.evaluation.segmentation import MaskMeter
from ssdir.models.backbones.base import reading_once
from ssdir.objects import Objects
from ssdir.ops.glimpses import crop_glimpses
from ssdir.tracking.options import Thresholds

ANY_OVERLAP = 1e-6
CROP_SIZE = 32

Kept: TypeAlias = Literal["embeddings", "all", "similarity"]
"""What to keep of a split: embeddings for probes, everything that is measured, or object similarity too."""


@dataclass(frozen=True)
class Split:
    """The outputs of a model on a split that evaluation needs.

    Attributes:
        ranked: detections at a low score threshold, for average precision.
        objects: detections at the operating threshold, with z_what.
        targets: the T true objects.
        categories: int64 (T,), the category of each true object.
        ignored: regions in which a detection is neither right nor wrong.
        match: int64 (M,), the target of each of `objects`, or -1.
        embeddings: by name, see `probe_metrics`; the latents and floors of the matched objects. Empty for a
            detector, whose objects have no z_what.
        properties: by attribute, the latents of the matched objects, labelled with their value of it.
        projections: by name of a floor, what reduced its features; empty where they are as wide as they were.
        reconstruction: see `ReconstructionMeter` and `ObjectSimilarityMeter`; empty if nothing was decoded.
        object_errors: float (M,), mean squared error of each decoded object; empty if nothing was decoded.
        masks: see `MaskMeter`; empty if nothing was decoded, or the model or the data have no masks.
        frames: what a tracker takes; None unless frames of clips were read.
    """

    ranked: Objects
    objects: Objects
    targets: Objects
    categories: Tensor
    ignored: Objects
    match: Tensor
    embeddings: dict[str, LabelledLatents]
    properties: dict[str, LabelledLatents]
    reconstruction: dict[str, float]
    object_errors: Tensor
    masks: dict[str, float]
    frames: Frames | None = None
    projections: dict[str, Projection] = field(default_factory=dict)


class Collector:
    """Encodes batches and keeps what the metrics need, on the host.

    Args:
        model: the model; in evaluation mode.
        threshold: least score of an object at the operating point; None takes the model's.
        random_model: a copy with an untrained what encoder, which embeds the boxes that `model` detects: a floor.
        kept: with `embeddings`, no detections below the threshold are kept, nothing is reconstructed, and pixels
            and pooled features are reduced to the size of `z_what`, see `Components`. With `all`, reconstructions
            and masks are measured too if the model decodes (`DrawsScenes`), and with `similarity` also how similar
            objects look (`ObjectSimilarityMeter`).
        tracked: if images are frames of clips, the minimum scores of detections in tracking, see `Frames`.
        floors: whether pixels, pooled features and the embeddings of `random_model` are kept.
        seed: seed of the components.
    """

    def __init__(
        self,
        model: Model,
        threshold: float | None = None,
        random_model: EmbedsBoxes | None = None,
        *,
        kept: Kept = "all",
        tracked: Thresholds | None = None,
        floors: bool = True,
        seed: int = 0,
    ) -> None:
        threshold = model.score_threshold if threshold is None else threshold
        self._model, self._threshold = model, threshold
        self._random_model, self._floors = random_model if floors else None, floors
        self._components: dict[str, Components] | None = {} if kept == "embeddings" else None
        self._seed = seed
        self._frames = None if tracked is None else FrameCollector(model, tracked)
        least = threshold if tracked is None else min(threshold, tracked.low)
        self._ranked_from = least if kept == "embeddings" else min(RANKING_THRESHOLD, least)
        self._decoder = model if kept != "embeddings" and isinstance(model, DrawsScenes) else None
        self._similarity = ObjectSimilarityMeter() if kept == "similarity" else None
        self._reconstruction, self._masks = ReconstructionMeter(), MaskMeter()
        self._objects: dict[str, list[Objects]] = defaultdict(list)
        self._embeddings: dict[str, list[Tensor]] = defaultdict(list)
        self._categories: list[Tensor] = []
        self._attributes: dict[str, list[Tensor]] = defaultdict(list)

    @property
    def models(self) -> tuple[Model | None, ...]:
        """The models that read the images."""
        return self._model, self._random_model

    @property
    def decodes(self) -> bool:
        """True if objects are decoded, so that true masks are of use."""
        return self._decoder is not None

    def add(
        self,
        images: Tensor,
        targets: Objects,
        categories: Tensor,
        attributes: Mapping[str, Tensor] | None = None,
        masks: Sequence[Tensor | None] = (),
        ignored: Objects | None = None,
        letterbox: Letterbox | None = None,
    ) -> None:
        """Adds a batch.

        Args:
            images: float (B, 3, H, W) in [0, 1].
            targets: the T true objects; their boxes, like those of `ignored`, are relative to the padded images.
            categories: int64 (T,), category of each true object.
            attributes: by name, int64 (T,), further labels of the true objects; the same names in each batch.
            masks: mask of each image, see `MaskMeter`; empty if there are no masks.
            ignored: see `Split`; None for no such region.
            letterbox: the part of each image that is not padding; None for images without padding.

        Raises:
            ValueError: if images or masks are not of the model's size, or there is not one category and attribute
                for each target.
        """
        labels = {"categories": categories, **(attributes or {})}
        for name, values in labels.items():
            if values.shape != (len(targets),):
                raise ValueError(f"{name} must be ({len(targets)},), got {tuple(values.shape)}")
        side = self._model.image_size
        if images.shape[-2:] != (side, side):
            raise ValueError(f"images must be {side}×{side} px, got {'×'.join(map(str, images.shape[-2:]))}")
        # Suppression goes by score, so detections below the operating point don't change those above it.
        letterbox = letterbox or Letterbox(np.ones((len(images), 2)))
        ranked = letterbox.inside(self._model.encode(images, score_threshold=self._ranked_from))
        objects = ranked if ranked.scores is None else ranked[ranked.scores >= self._threshold]
        if self._decoder is not None:
            shown, seen = letterbox.to_image(objects), letterbox.unpad(images)
            scene = self._decoder.decode(shown)
            self._reconstruction.update(seen, shown, scene)
            in_image = scene
            if isinstance(self._decoder, SegmentsImages) and self._decoder.masks_need_images:
                in_image = self._decoder.reconstruct(seen, shown)
            self._masks.update(shown, in_image, masks)
            if self._similarity is not None:
                self._similarity.update(seen, letterbox.to_image(targets), scene, masks)
        embedded = self._embed(images, targets)
        self._keep_embeddings(images, objects, embedded)
        if self._frames is not None:
            self._frames.add(images, ranked, targets, embedded, letterbox)
        ranked = ranked.replace(z_what=None, z_what_scale=None)
        ignored = Objects.empty(len(images)) if ignored is None else ignored
        if self._components is not None:  # Probes read the embeddings alone.
            objects = objects.replace(z_what=None, z_what_scale=None)
        kept = {"ranked": ranked, "objects": objects, "targets": targets, "ignored": ignored}
        for name, each in kept.items():
            self._objects[name].append(letterbox.to_image(each.detach().to("cpu")))
        self._categories.append(categories.cpu())
        for name, values in (attributes or {}).items():
            self._attributes[name].append(values.cpu())

    def _embed(self, images: Tensor, targets: Objects) -> Objects | None:
        """Embeds the true objects, if the model embeds given boxes."""
        return self._model.embed(images, targets) if isinstance(self._model, EmbedsBoxes) else None

    def _keep_embeddings(self, images: Tensor, objects: Objects, embedded: Objects | None) -> None:
        if len(objects) and objects.z_what is None:  # a detector's
            return
        if embedded is not None:
            self._keep_latents(TRUE_BOXES, embedded)
        self._keep_latents(LATENTS, objects)
        if self._floors and objects.z_what is not None:
            size = objects.z_what.shape[1]
            crops = crop_glimpses(images, objects.boxes, objects.image_index, CROP_SIZE)
            self._keep_features(RAW_PIXELS, crops.mean(dim=1).flatten(1).cpu(), size)
            if isinstance(self._model, PoolsFeatures):
                self._keep_features(POOLED_FEATURES, self._model.pooled_features(images, objects).cpu(), size)
        names = self._model.class_names if isinstance(self._model, NamesClasses) else ()
        if len(names) > 1 and objects.labels is not None:
            self._embeddings[LABELS].append(F.one_hot(objects.labels, len(names)).float().cpu())
        if self._random_model is not None:
            self._keep_latents(RANDOM_ENCODER, self._random_model.embed(images, objects))

    def _keep_latents(self, name: str, objects: Objects) -> None:
        # The key of a detector's latents must not exist; without objects, other models may lack z_what too.
        if objects.z_what is not None:
            self._embeddings[name].append(objects.z_what.cpu())

    def _keep_features(self, name: str, features: Tensor, size: int) -> None:
        """Keeps wide features as they are, or reduced to a size: those of all objects can take gigabytes."""
        if self._components is None:
            self._embeddings[name].append(features)
            return
        if name not in self._components:
            # A pyramid's levels differ in scale; pixels share theirs, and some hardly vary.
            standardise = name == POOLED_FEATURES
            self._components[name] = Components(size, standardise=standardise, seed=self._seed)
        self._components[name].add(features)

    def finish(self) -> Split:
        """Matches the objects of the whole split, and frees the batches.

        Raises:
            ValueError: if a latent or feature is not finite.
        """
        kept = {name: Objects.cat(parts) for name, parts in self._objects.items()}
        targets, objects = kept["targets"], kept["objects"]
        match = match_greedy(objects, targets)
        is_detectors = len(objects) > 0 and LATENTS not in self._embeddings
        projections = {}
        for name, components in (self._components or {}).items():
            features, projection = components.finish()
            self._embeddings[name] = [features]
            if projection is not None:
                projections[name] = projection
        embeddings = {} if is_detectors else self._labelled_embeddings(objects, targets, match)
        return Split(
            ranked=kept["ranked"],
            objects=objects,
            targets=targets,
            categories=torch.cat(self._categories),
            ignored=kept["ignored"],
            match=match,
            embeddings=embeddings,
            properties={
                name: replace(embeddings[LATENTS], labels=torch.cat(values)[match[match >= 0]])
                for name, values in self._attributes.items()
                if embeddings
            },
            reconstruction={
                **self._reconstruction.compute(),
                **({} if self._similarity is None else self._similarity.compute()),
            },
            object_errors=self._reconstruction.object_errors,
            masks=self._masks.compute(),
            frames=None if self._frames is None else self._frames.finish(),
            projections=projections,
        )

    def _labelled_embeddings(
        self, objects: Objects, targets: Objects, match: Tensor
    ) -> dict[str, LabelledLatents]:
        matches = {name: match for name in (LATENTS, RAW_PIXELS, POOLED_FEATURES, LABELS, RANDOM_ENCODER)}
        matches[TRUE_BOXES] = torch.arange(len(targets))
        overlapped = best_target(objects, targets, ANY_OVERLAP)
        embeddings = {LARGEST_OVERLAP: self._labelled(LATENTS, self._embeddings[LATENTS], overlapped, targets)}
        for name, rows in matches.items():
            if name in self._embeddings:
                embeddings[name] = self._labelled(name, self._embeddings.pop(name), rows, targets)
        return embeddings

    def _labelled(self, name: str, parts: list[Tensor], match: Tensor, targets: Objects) -> LabelledLatents:
        parts = [part for part in parts if len(part)]
        broken = sum(int((~part.isfinite()).any(dim=1).sum()) for part in parts)
        if broken:
            raise ValueError(f"{name} must be finite, got NaN or infinity in {broken} of {len(match)} objects")
        latents = torch.cat(parts)[match >= 0] if parts else torch.zeros(0, 0)
        rows = match[match >= 0]
        longer_side = targets.z_where[rows, 2:].amax(dim=1)
        categories = torch.cat(self._categories)
        return LabelledLatents(latents, categories[rows], longer_side, len(targets))


@torch.no_grad()
def collect(
    collector: Collector,
    dataset: Dataset,
    *,
    batch_size: int = 32,
    max_images: int | None = None,
    progress: Advance | None = None,
) -> Split:
    """Adds the first images of a data set to a collector, batch by batch.

    Args:
        collector: a new one, whose models are in evaluation mode.
        dataset: images with true objects and categories.
        batch_size: images at once.
        max_images: the number of images to read; None reads all.
        progress: called after each batch.

    Raises:
        ValueError: if there is no image, or a latent is not finite.
    """
    total = len(dataset) if max_images is None else min(len(dataset), max_images)
    if not total:
        raise ValueError("images must be at least one, got none")
    device = device_of(collector.models[0])
    for start in range(0, total, batch_size):
        rows = range(start, min(start + batch_size, total))
        images, targets = collate([dataset[row] for row in rows])
        categories = torch.cat([dataset.categories(row) for row in rows])
        known = [dataset.attributes(row) for row in rows]
        attributes = {name: torch.cat([values[name] for values in known]) for name in known[0]}
        masks = [dataset.mask(row) for row in rows] if collector.decodes else []
        ignored = Objects.cat([dataset.ignored(row) for row in rows])
        letterbox = dataset.letterbox(rows) if isinstance(dataset, PadsImages) else None
        known_of_each = (categories, attributes, masks, ignored, letterbox)
        with reading_once(*collector.models):
            collector.add(images.to(device), targets.to(device), *known_of_each)
        if progress is not None:
            progress(rows.stop, total)
    return collector.finish()
