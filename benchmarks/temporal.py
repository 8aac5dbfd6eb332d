"""Measures what a memory of tracks adds to embeddings of single frames, and to a running mean of these.

For each trained model, a memory is trained on clips (`tiny-video`, all else adopted). Then each arm embeds the
true boxes of test clips: each frame alone; the mean of the track's views so far, weighted by score and by the
share that opacity and depth say is visible; and the memory. Tracks come from the tracker, which gets the boxes
without their identities. Measured are linear probes of the digit, fitted on the clear objects of training clips,
on test objects of which over half is hidden; the same where the track was clear before; and retrieval of the same
object in later frames.

The recorded clips: ssdir data scatter --source mnist --frames 30 --difficulty hard --train 80 --val 16 --test 40
--seed 7.

Run: python benchmarks/temporal.py --models runs/seed0 runs/seed1 runs/seed2 --data data/hard --runs runs/video \
    --out results/video/temporal.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssdir.data.dataset import fingerprint
from ssdir.documents import json_text
from ssdir.evaluation.clips import Clips
from ssdir.evaluation.collect import Collector, Split, collect
from ssdir.evaluation.identity import HIDDEN, hidden_metrics, identity_metrics
from ssdir.evaluation.probing import TRUE_BOXES
from ssdir.evaluation.provenance import provenance
from ssdir.models.detected.memory import TrackViews
from ssdir.models.inference_form import inference_form
from ssdir.models.io import find_model, load_model, weights_fingerprint
from ssdir.models.ssdir import SSDIR
from ssdir.objects import Objects
from ssdir.outputs import atomic_file
from ssdir.tracking.options import TrackOptions
from ssdir.tracking.tracker import Tracker
from ssdir.training.fit import train
from ssdir.training.recipe import Recipe, read_recipe
from ssdir.training.run_folder import read_training
from ssdir.training.tracks import views_of

Follow = Callable[[TrackViews], Tensor]
"""Embeds the views (N, T) of tracks, each knowing the earlier ones: float (N, T, D)."""

SEEN_BEFORE = 0.8
"""A track was clear before if an earlier view of it showed such a share of the object."""


def single_frame(views: TrackViews) -> Tensor:
    """Returns each view's own embedding."""
    return views.z_what


def running_mean(views: TrackViews) -> Tensor:
    """Computes the mean of the views so far, weighted by their scores and visible shares."""
    weight = (views.scores * views.visible).clamp(min=1e-6) * views.seen
    total = (weight[..., None] * views.z_what).cumsum(dim=1)
    return total / weight.cumsum(dim=1).clamp(min=1e-9)[..., None]


def remembering(model: SSDIR) -> Follow:
    """Returns the arm of a model's memory."""
    assert model.memory is not None
    memory = model.memory
    return lambda views: memory.follow(views)[..., :-1]


class TrackedSplit:
    """A split of clips at its true boxes, whose tracks are the tracker's.

    Args:
        model: encodes each frame alone.
        data: folder of clips.
        name: of the split.
    """

    def __init__(self, model: SSDIR, data: Path, name: str) -> None:
        recipe = read_recipe("tiny-video")
        self.dataset = recipe.open_data(data, name)
        clips = Clips.of(self.dataset)
        assert clips is not None
        tracked = TrackOptions().thresholds(model.score_threshold)
        collector = Collector(inference_form(model), kept="embeddings", tracked=tracked)
        self.clips, self.split = clips, collect(collector, self.dataset)
        assert self.split.frames is not None
        given = self.split.frames.given
        rows = torch.arange(len(given))
        given = given.replace(scores=torch.ones(len(given)), source_index=rows)
        self.tracked = clips.track(Tracker(TrackOptions(), model), given)

    def embed(self, follow: Follow) -> Tensor:
        """Computes the embeddings (M, D) of all true objects by an arm; objects without a track keep their own."""
        assert self.split.frames is not None
        assert self.split.frames.given.z_what is not None
        z_what = self.split.frames.given.z_what.clone()
        for clip in self.tracked:
            views = views_of(clip.split())
            if views is None:
                continue
            rows = views_of([frame.replace(z_what=_numbered(frame)) for frame in clip.split()])
            assert rows is not None
            place = rows.z_what[views.seen][:, 0].long()
            with torch.no_grad():
                z_what[place] = follow(views)[views.seen]
        return z_what

    def was_clear(self) -> Tensor:
        """Returns bool (M,), whether the object's own track showed it clearly before, see `SEEN_BEFORE`."""
        true = self.split.targets
        assert true.visible is not None
        best: dict[tuple[int, int], float] = {}
        found = torch.zeros(len(true), dtype=torch.bool)
        for number, clip in enumerate(self.tracked):
            for frame in clip.split():
                assert frame.source_index is not None
                assert frame.track_id is not None
                for row, track in zip(frame.source_index.tolist(), frame.track_id.tolist(), strict=True):
                    found[row] = best.get((number, track), 0.0) >= SEEN_BEFORE
                    best[number, track] = max(best.get((number, track), 0.0), float(true.visible[row]))
        return found


def _numbered(frame: Objects) -> Tensor:
    """Returns the numbers of a frame's objects, float64 (M, 1)."""
    assert frame.source_index is not None
    return frame.source_index[:, None].double()


def measure(known: TrackedSplit, unseen: TrackedSplit, follow: Follow) -> dict[str, float]:
    """Measures an arm: probes fitted on one split and scored on the other, and identity."""
    embedded = [split.embed(follow) for split in (known, unseen)]
    learned, measured = (
        replace(each.split.embeddings[TRUE_BOXES], latents=latents)
        for each, latents in zip((known, unseen), embedded, strict=True)
    )
    shares = [_visible(each.split) for each in (known, unseen)]
    hidden, clear_before = shares[1] < HIDDEN, unseen.was_clear()
    groups = {"clear_before": hidden & clear_before, "never_clear": hidden & ~clear_before}
    metrics = hidden_metrics(learned, shares[0], measured, shares[1], groups=groups)
    metrics |= {f"hidden/{name}/objects": float(rows.sum()) for name, rows in groups.items()}
    return metrics | identity_metrics(unseen.clips.cut(unseen.split.targets.replace(z_what=embedded[1])))


def _visible(split: Split) -> Tensor:
    assert split.targets.visible is not None
    return split.targets.visible


def evidence_agreement(model: SSDIR, unseen: TrackedSplit) -> dict[str, float]:
    """Measures the rank correlation of the true visible share with the evidence, and with opacity and depth's."""
    from scipy.stats import spearmanr

    assert model.memory is not None
    assert unseen.split.frames is not None
    given, true = unseen.split.frames.given, _visible(unseen.split).numpy()
    assert given.z_what is not None
    assert given.visible is not None
    with torch.no_grad():
        evidence = model.memory.evidence(given.z_what, torch.ones(len(given)), given.visible)
    return {
        "visible/evidence_correlation": float(spearmanr(true, evidence.numpy()).statistic),
        "visible/opacity_and_depth_correlation": float(spearmanr(true, given.visible.numpy()).statistic),
    }


def settings(recipe: Recipe, source: str, frame_model: SSDIR) -> dict[str, Any]:
    """Returns how a memory was trained, and the model of single frames, with its own training if that is known."""
    values = recipe.model_dump(mode="json")
    return {
        "memory": {**values["model"]["memory"], **values["memory"]},
        "frame_model": weights_fingerprint(frame_model),
        "frame_model_training": read_training(find_model(source)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", required=True, help="models of single frames, one per seed")
    parser.add_argument("--data", type=Path, required=True, help="clips: splits train, val and test")
    parser.add_argument("--runs", type=Path, required=True, help="folder for the runs that train the memories")
    parser.add_argument("--out", type=Path, required=True, help="JSON file of all records")
    arguments = parser.parse_args()
    records: list[dict[str, Any]] = []
    for seed, source in enumerate(arguments.models):
        started, run = time.perf_counter(), arguments.runs / f"seed{seed}"
        recipe = read_recipe("tiny-video", [f"seed={seed}"])
        train(recipe, arguments.data, run, start=source, resume=run.exists())
        frame_model, model = load_model(run / "representation"), load_model(run)
        assert isinstance(frame_model, SSDIR)
        assert isinstance(model, SSDIR)
        known, unseen = (TrackedSplit(frame_model, arguments.data, name) for name in ("train", "test"))
        arms = {"single_frame": single_frame, "running_mean": running_mean, "memory": remembering(model)}
        for arm, follow in arms.items():
            metrics = measure(known, unseen, follow)
            if arm == "memory":
                metrics |= evidence_agreement(model, unseen)
            seconds = time.perf_counter() - started
            record = provenance(
                settings(recipe, source, frame_model), seed, fingerprint(unseen.dataset), "cpu", seconds
            )
            records.append({"arm": arm, "seed": seed, "metrics": metrics, "provenance": record})
            print(
                json.dumps({"seed": seed, "arm": arm, **{k: round(v, 3) for k, v in metrics.items()}}), flush=True
            )
    means = {
        arm: {
            name: float(np.mean([each["metrics"][name] for each in records if each["arm"] == arm]))
            for name in next(each["metrics"] for each in records if each["arm"] == arm)
        }
        for arm in dict.fromkeys(each["arm"] for each in records)
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(arguments.out, force=True) as temporary:
        temporary.write_text(json_text({"means": means, "records": records}, 1), encoding="utf-8")


if __name__ == "__main__":
    main()
