"""Tracking metrics: HOTA, CLEAR and identity, of whole clips and pooled over clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torchvision.ops import box_iou

from ssdir.errors import InputError
from ssdir.evaluation.matching import counts_as_wrong, match_greedy
from ssdir.objects import Objects

IOU_THRESHOLD = 0.5
"""Least overlap of a tracked object with a true one, for MOTA and IDF1; HOTA is a mean over thresholds."""

_Ids: TypeAlias = list[NDArray[np.int64]]
_Similarities: TypeAlias = list[NDArray[np.float64]]


def tracking_metrics(
    true: Sequence[Objects],
    tracked: Sequence[Objects],
    ignored: Sequence[Objects] | None = None,
    *,
    prefix: str = "tracking",
) -> dict[str, float]:
    """Compares tracks with true ones, pooled over clips as TrackEval's "COMBINED" does.

    The classes of objects don't count. HOTA: Luiten et al., 2021; CLEAR: Bernardin and Stiefelhagen, 2008;
    identity: Ristani et al., 2016. A single clip is a sequence of one.

    Args:
        true: for each clip, the true objects of its frames, the images of the batch, with their `track_id`.
        tracked: for each clip, the objects that were tracked in the same frames, with their `track_id`.
        ignored: for each clip, the regions of its frames in which a tracked object is neither right nor wrong:
            one that matches no true object, and lies in such a region by half or more, is left out. None for no
            region.
        prefix: first part of the metrics' names.

    Returns:
        `tracking/hota`, and its parts `det_a`, `ass_a` and `loc_a` (accuracy of detection, association and
        localisation), means over the IoU thresholds 0.05 ... 0.95; `mota`, `idf1`, and the numbers `id_switches`
        and `fragmentations`, at an IoU of 0.5. Empty if there is no true object.

    Raises:
        ValueError: if the clips or frames of the arguments differ in number, objects have no `track_id`, or a
            track is twice in a frame.
        InputError: if the `trackers` library is missing.
    """
    regions = [Objects.empty(clip.batch_size) for clip in true] if ignored is None else ignored
    if not len(true) == len(tracked) == len(regions):
        raise ValueError(f"clips must be as many, got {len(true)} true, {len(tracked)} tracked")
    if not sum(map(len, true)):
        return {}
    evaluation = _trackers_eval()
    families: tuple[list[dict[str, Any]], ...] = ([], [], [])
    for clip in zip(true, tracked, regions, strict=True):
        sequence = _sequence(*clip)
        families[0].append(evaluation.compute_hota_metrics(*sequence))
        families[1].append(evaluation.compute_clear_metrics(*sequence, threshold=IOU_THRESHOLD))
        families[2].append(evaluation.compute_identity_metrics(*sequence, threshold=IOU_THRESHOLD))
    hota = evaluation.aggregate_hota_metrics(families[0])
    clear = evaluation.aggregate_clear_metrics(families[1])
    identity = evaluation.aggregate_identity_metrics(families[2])
    values = {
        "hota": hota["HOTA"],
        "det_a": hota["DetA"],
        "ass_a": hota["AssA"],
        "loc_a": hota["LocA"],
        "mota": clear["MOTA"],
        "idf1": identity["IDF1"],
        "id_switches": clear["IDSW"],
        "fragmentations": clear["Frag"],
    }
    return {f"{prefix}/{name}": float(value) for name, value in values.items()}


def _trackers_eval() -> Any:
    try:
        from trackers import eval as evaluation
    except ImportError:
        raise InputError("to measure tracks, trackers is needed: pip install 'ssdir[video]'") from None
    return evaluation


def _sequence(true: Objects, tracked: Objects, ignored: Objects) -> tuple[_Ids, _Ids, _Similarities]:
    """Converts a clip to what `trackers.eval` compares: the ids in each frame, and their IoUs."""
    if not true.batch_size == tracked.batch_size == ignored.batch_size:
        raise ValueError(
            f"frames must be as many, got {true.batch_size} with true and {tracked.batch_size} with tracked "
            "objects"
        )
    if len(ignored):
        match = match_greedy(tracked, true, IOU_THRESHOLD)
        tracked = tracked[counts_as_wrong(tracked, ignored, IOU_THRESHOLD) | (match >= 0)]
    similarities = [
        box_iou(those.boxes.double(), these.boxes.double()).numpy()
        for those, these in zip(true.split(), tracked.split(), strict=True)
    ]
    return _ids(true, "true"), _ids(tracked, "tracked"), similarities


def _ids(clip: Objects, kind: str) -> _Ids:
    if clip.track_id is None:
        if len(clip):
            raise ValueError(f"the {kind} objects of a clip must have a track_id")
        return [np.zeros(0, np.int64) for _ in range(clip.batch_size)]
    frames = [part.numpy() for part in clip.track_id.split(clip.per_image)]
    for number, ids in enumerate(frames):
        if len(np.unique(ids)) < len(ids):
            raise ValueError(f"a {kind} track must be in a frame once, got {ids.tolist()} in frame {number}")
    return frames
