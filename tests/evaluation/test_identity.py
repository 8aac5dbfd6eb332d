"""Identity metrics of clips equal loops over all pairs and scipy's distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import accuracy_score

from ssdir.evaluation.identity import hidden_metrics, identity_metrics
from ssdir.evaluation.probing import LabelledLatents, fit_probe
from ssdir.objects import Objects

DIM = 6


def random_clip(seed: int, frames: int = 9, tracks: int = 4, noise: float = 1.0, hidden: float = 0.1) -> Objects:
    """Returns a clip of tracks that are in most frames; embeddings of a track vary around its own direction."""
    g = np.random.default_rng(seed)
    directions = g.normal(size=(tracks, DIM))
    rows = [
        (frame, track)
        for frame in range(frames)
        for track in g.permutation(tracks)
        if g.random() < 0.8 and frame != 3
    ]
    index = torch.tensor([frame for frame, _ in rows], dtype=torch.int64)
    numbers = np.array([track for _, track in rows], dtype=np.int64)
    z_what = directions[numbers] + noise * g.normal(size=(len(rows), DIM))
    visible = np.where(g.random(len(rows)) < hidden, 0.0, g.uniform(0.1, 1, len(rows)))
    return Objects(
        index,
        frames,
        torch.full((len(rows), 4), 0.5),
        z_what=torch.from_numpy(z_what),
        track_id=torch.from_numpy(numbers + 1),
        visible=torch.from_numpy(visible),
    )


def views_of(clips: list[Objects]) -> list[tuple[int, int, int, np.ndarray]]:
    """Lists (clip, frame, track, embedding) of all views, one by one."""
    return [
        (number, int(clip.image_index[row]), int(clip.track_id[row]), clip.z_what[row].numpy())
        for number, clip in enumerate(clips)
        for row in range(len(clip))
        if clip.visible is None or clip.visible[row] > 0
    ]


def naive_retrieval(clips: list[Objects], gap: int, everywhere: bool) -> float | None:
    views, answers = views_of(clips), []
    for clip, frame, track, query in views:
        gallery = [v for v in views if v[1] == frame + gap and (everywhere or v[0] == clip)]
        if len(gallery) < 2 or not any(v[0] == clip and v[2] == track for v in gallery):
            continue
        distances = cdist(query[None], np.stack([v[3] for v in gallery]), "cosine")[0]
        nearest = gallery[int(distances.argmin())]
        answers.append(nearest[0] == clip and nearest[2] == track)
    return float(np.mean(answers)) if answers else None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.sampled_from([1, 2, 5]), st.sampled_from([0.1, 1.0, 3.0]))
def test_retrieval_is_the_naive_loops(seed: int, count: int, gap: int, noise: float) -> None:
    clips = [random_clip(seed + number, frames=9 - number, noise=noise) for number in range(count)]
    metrics = identity_metrics(clips, [gap])
    assert metrics.get(f"identity/retrieval_at_1_gap_{gap}") == naive_retrieval(clips, gap, everywhere=False)
    if count > 1:
        everywhere = metrics.get(f"identity/all_clips/retrieval_at_1_gap_{gap}")
        assert everywhere == naive_retrieval(clips, gap, everywhere=True)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 2, 5]))
def test_drift_is_scipys_distances(seed: int, gap: int) -> None:
    clips = [random_clip(seed), random_clip(seed + 1)]
    views = views_of(clips)
    same, other = [], []
    for clip, frame, track, query in views:
        for its, later, of, view in views:
            if its == clip and later == frame + gap:
                (same if of == track else other).append(float(cdist(query[None], view[None], "cosine")[0, 0]))
    metrics = identity_metrics(clips, [gap])
    assert metrics[f"identity/distance_gap_{gap}"] == pytest.approx(np.mean(same))
    assert metrics[f"identity/others/distance_gap_{gap}"] == pytest.approx(np.mean(other))
    assert metrics[f"identity/drift_gap_{gap}"] == pytest.approx(np.mean(same) / np.mean(other))
    nearer = [(a < b) + (a == b) / 2 for a in same for b in other]
    assert metrics[f"identity/auroc_gap_{gap}"] == pytest.approx(np.mean(nearer))


def test_embeddings_that_never_change_are_perfect() -> None:
    metrics = identity_metrics([random_clip(0, noise=0), random_clip(1, noise=0)], [1, 5])
    for gap in (1, 5):
        assert metrics[f"identity/retrieval_at_1_gap_{gap}"] == 1
        assert metrics[f"identity/all_clips/retrieval_at_1_gap_{gap}"] == 1
        assert metrics[f"identity/drift_gap_{gap}"] == pytest.approx(0, abs=1e-12)
        assert metrics[f"identity/auroc_gap_{gap}"] == 1


def test_what_clips_do_not_define_is_left_out() -> None:
    assert identity_metrics([]) == {}
    assert identity_metrics([Objects.empty(30)]) == {}
    clip = random_clip(0)
    assert identity_metrics([clip], [9, 20]) == {}  # of nine frames, none are nine apart
    # With a single object there is nothing to confuse it with.
    alone = clip[clip.track_id == 1]
    assert set(identity_metrics([alone], [1])) == {"identity/distance_gap_1"}
    apart = clip[(clip.image_index < 1) & (clip.track_id == 1) | (clip.image_index > 3) & (clip.track_id == 2)]
    assert set(identity_metrics([apart], [5], prefix="x")) <= {"x/others/distance_gap_5"}


def test_embeddings_that_do_not_serve() -> None:
    clip = random_clip(0)
    with pytest.raises(ValueError, match="must have z_what and track_id"):
        identity_metrics([clip.replace(z_what=None)])
    with pytest.raises(ValueError, match="must have z_what and track_id"):
        identity_metrics([clip.replace(track_id=None)])
    broken = clip.z_what.clone()
    broken[clip.visible.argmax()] = float("nan")
    with pytest.raises(ValueError, match="NaN or infinity in 1 of"):
        identity_metrics([clip.replace(z_what=broken)])


def labelled(seed: int, count: int) -> tuple[LabelledLatents, torch.Tensor]:
    """Returns latents of two categories, which are well separated for clear objects only, and visible shares."""
    g = torch.Generator().manual_seed(seed)
    labels, visible = torch.randint(0, 2, (count,), generator=g), torch.rand(count, generator=g)
    shift = torch.where(visible >= 0.5, labels * 8.0 - 4, labels - 0.5)
    latents = torch.randn(count, DIM, generator=g)
    latents[:, 0] += shift
    return LabelledLatents(latents, labels, torch.ones(count), count), visible


def test_hidden_objects_are_probed_apart_from_clear_ones() -> None:
    (train, known), (test, unseen) = labelled(0, 400), labelled(1, 300)
    train.latents[known < 0.5] = -train.latents[known < 0.5] * 9  # what nothing may be learned from
    first = torch.arange(300) < 90
    metrics = hidden_metrics(train, known, test, unseen, groups={"first": first})
    clear = known >= 0.5
    probe = fit_probe(train[clear])
    assert probe is not None
    for name, rows in {"": unseen < 0.5, "clear/": unseen >= 0.5, "all/": unseen >= 0, "first/": first}.items():
        predicted = probe.predict(test.latents[rows].double().numpy())
        assert metrics[f"hidden/{name}accuracy"] == accuracy_score(test.labels[rows], predicted)
    assert metrics["hidden/objects"] == int((unseen < 0.5).sum())
    assert metrics["hidden/accuracy"] < 0.65 < 0.99 < metrics["hidden/clear/accuracy"]


def test_without_hidden_objects_there_is_nothing_to_probe() -> None:
    (train, known), (test, unseen) = labelled(0, 50), labelled(1, 50)
    assert hidden_metrics(train, known, test, torch.ones(50)) == {}
    assert hidden_metrics(train, torch.zeros(50), test, unseen) == {}
    assert "hidden/clear/accuracy" not in hidden_metrics(train, known, test, torch.zeros(50))
