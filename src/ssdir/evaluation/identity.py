"""Identity of embeddings through clips: retrieval of an object after a gap, drift, probes of hidden objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import normalize
from torch import Tensor

from ssdir.evaluation.embedded import Array, Integers
from ssdir.evaluation.probing import LabelledLatents, fit_probe, scores_of
from ssdir.objects import Objects

GAPS = (1, 5, 10, 20)
"""Numbers of frames between two views of an object."""
HIDDEN = 0.5
"""An object is hidden if a smaller share of it than this is visible, else clear."""


def identity_metrics(
    clips: Sequence[Objects], gaps: Sequence[int] = GAPS, *, prefix: str = "identity"
) -> dict[str, float]:
    """Measures whether an object's embedding, some frames later, is still nearer to its own than to others.

    An object's embedding in a frame is a view of it. A view of which nothing is visible doesn't count. Nearness is
    the cosine; all means are over pairs of views that are `gap` frames apart, of all clips.

    Args:
        clips: for each clip, the objects of its frames, the images of the batch, with `z_what` and `track_id`.
        gaps: numbers of frames between two views.
        prefix: first part of the metrics' names.

    Returns:
        For each gap, at the end of the name:
        `identity/retrieval_at_1_gap_10`: the share of views whose nearest view in the later frame is of the same
        object, of objects that are in both frames, where there is more than one to choose from;
        `identity/all_clips/retrieval_at_1_gap_10`: the same among the later frames of all clips at once;
        `identity/distance_gap_10`, 1 − cosine of two views of an object; `identity/others/distance_gap_10`, of two
        objects of a clip; `identity/drift_gap_10`, the first distance divided by the second: 0 is invariance, and
        at 1 an object differs from itself as from another; `identity/auroc_gap_10`: the probability that two views
        of an object are nearer than views of two objects. What the clips don't define is left out.

    Raises:
        ValueError: if objects lack `z_what` or `track_id`, or an embedding is NaN or infinite.
    """
    views = [_Views(clip) for clip in clips]
    metrics: dict[str, float] = {}
    for gap in gaps:
        values = _retrieval(views, gap) | _drift(views, gap)
        metrics |= {f"{prefix}/{name}_gap_{gap}": value for name, value in values.items()}
    return metrics


class _Views:
    """The views of a clip by frame: unit embeddings float64 (n, D), and tracks int64 (n,)."""

    def __init__(self, clip: Objects) -> None:
        if not len(clip):
            clip = clip.replace(z_what=torch.zeros(0, 1), track_id=torch.zeros(0, dtype=torch.int64))
        if clip.z_what is None or clip.track_id is None:
            raise ValueError("the objects of a clip must have z_what and track_id")
        if clip.visible is not None:
            clip = clip[clip.visible > 0]
        assert clip.z_what is not None
        assert clip.track_id is not None
        embeddings = clip.z_what.double().numpy()
        if broken := int((~np.isfinite(embeddings)).any(axis=1).sum()):
            raise ValueError(f"z_what must be finite, got NaN or infinity in {broken} of {len(clip)} objects")
        ends = np.cumsum(clip.per_image)[:-1]
        unit = normalize(embeddings) if len(embeddings) else embeddings
        self.embeddings: list[Array] = np.split(unit, ends)
        self.tracks: list[Integers] = np.split(clip.track_id.numpy(), ends)

    def __len__(self) -> int:
        return len(self.tracks)


def _frame_pairs(views: _Views, gap: int) -> Iterator[tuple[Array, NDArray[np.bool_]]]:
    """Yields the cosines of the views of a frame and those of the later one, and which are of the same object."""
    for earlier in range(len(views) - gap):
        later = earlier + gap
        same = views.tracks[earlier][:, None] == views.tracks[later]
        if same.size:
            yield views.embeddings[earlier] @ views.embeddings[later].T, same


def _retrieval(clips: Sequence[_Views], gap: int) -> dict[str, float]:
    """Computes the shares of right answers in the later frame of the own clip, and of all clips."""
    within = [
        right
        for views in clips
        for cosines, same in _frame_pairs(views, gap)
        if same.shape[1] > 1
        for right in _is_right(cosines, same)
    ]
    shares = {"retrieval_at_1": within}
    if len(clips) > 1:
        shares["all_clips/retrieval_at_1"] = _across_clips(clips, gap)
    return {name: float(np.mean(right)) for name, right in shares.items() if right}


def _across_clips(clips: Sequence[_Views], gap: int) -> list[bool]:
    """Returns whether each query's nearest view, among the later frames of all clips, is of its object."""
    answers: list[bool] = []
    for earlier in range(max(map(len, clips)) - gap):
        own = [number for number, views in enumerate(clips) if len(views) > earlier + gap]
        queries = _of_frame(clips, own, earlier)
        gallery = _of_frame(clips, own, earlier + gap)
        if len(queries[0]) and len(gallery[0]) > 1:
            same = (queries[1][:, None] == gallery[1]) & (queries[2][:, None] == gallery[2])
            answers += _is_right(queries[0] @ gallery[0].T, same)
    return answers


def _of_frame(clips: Sequence[_Views], numbers: Sequence[int], frame: int) -> tuple[Array, Integers, Integers]:
    """Returns the embeddings, tracks and clips of all views of a frame in the clips of these numbers."""
    filled = [number for number in numbers if len(clips[number].tracks[frame])] or numbers[:1]
    tracks = [clips[number].tracks[frame] for number in filled]
    return (
        np.concatenate([clips[number].embeddings[frame] for number in filled]),
        np.concatenate(tracks),
        np.repeat(np.array(filled, np.int64), [len(part) for part in tracks]),
    )


def _is_right(cosines: Array, same: NDArray[np.bool_]) -> list[bool]:
    """Returns whether the nearest column of each row is of its object, for objects that are in both frames."""
    both = same.any(axis=1)
    nearest = cosines[both].argmax(axis=1)
    right: list[bool] = same[both][np.arange(len(nearest)), nearest].tolist()
    return right


def _drift(clips: Sequence[_Views], gap: int) -> dict[str, float]:
    pairs = [pair for views in clips for pair in _frame_pairs(views, gap)]
    if not pairs:
        return {}
    distances = 1 - np.concatenate([cosines.ravel() for cosines, _ in pairs])
    same = np.concatenate([each.ravel() for _, each in pairs])
    own, others = distances[same], distances[~same]
    metrics = {}
    if len(own):
        metrics["distance"] = float(own.mean())
    if len(others):
        metrics["others/distance"] = float(others.mean())
    if len(own) and len(others):
        metrics["auroc"] = float(roc_auc_score(same, -distances))
        if others.mean() > 0:
            metrics["drift"] = float(own.mean() / others.mean())
    return metrics


def hidden_metrics(
    train: LabelledLatents,
    train_visible: Tensor,
    test: LabelledLatents,
    test_visible: Tensor,
    *,
    prefix: str = "hidden",
    groups: Mapping[str, Tensor] | None = None,
) -> dict[str, float]:
    """Measures whether the embeddings of objects of which over half is hidden still show their category.

    Args:
        train: objects at their true boxes, to learn from; only the clear ones are used.
        train_visible: float (n,), the visible share of each.
        test: objects of another split.
        test_visible: float (m,), likewise.
        prefix: first part of the metrics' names.
        groups: bool (m,) by name: further groups of test objects to score.

    Returns:
        Accuracies of a linear probe that learned from clear objects: `hidden/accuracy`, of the hidden objects;
        `hidden/clear/accuracy`, of the others; `hidden/all/accuracy`; `hidden/NAME/accuracy` of each group. And
        `hidden/objects`, the number of hidden objects. Accuracies without objects are left out; without hidden
        objects there is nothing.
    """
    clear, hidden = train_visible >= HIDDEN, test_visible < HIDDEN
    if not bool(hidden.any()) or not bool(clear.any()):
        return {}
    probe = fit_probe(train[clear])
    parts = {"accuracy": hidden, "clear/accuracy": ~hidden, "all/accuracy": torch.ones_like(hidden)}
    parts |= {f"{name}/accuracy": rows for name, rows in (groups or {}).items()}
    metrics = {f"{prefix}/objects": float(hidden.sum())}
    for name, rows in parts.items():
        scores = scores_of(probe, test[rows])
        if "accuracy" in scores:
            metrics[f"{prefix}/{name}"] = scores["accuracy"]
    return metrics
