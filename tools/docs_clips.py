"""Tables of clips: tracks, the memory of tracks, and objects that are recognised in another clip."""

from __future__ import annotations

import statistics

from docs_records import content
from docs_writing import generated, table

ASSOCIATIONS = {
    "motion": "motion alone",
    "z_what": "motion and `z_what`",
    "last_view": "the same, by the last view alone",
    "pooled_features": "motion and pooled features of the detector",
    "bytetrack": "ByteTrack",
    "botsort": "BoT-SORT",
    "ocsort": "OC-SORT",
}
"""Ways to associate detections, by their names in `results/video/tracking.json`."""


def tracked(data: str, arm: str, name: str, every: int = 1) -> list[float]:
    """Returns a metric of tracks of each seed, where every `every`-th frame was given."""
    asked = {"data": data, "arm": arm, "every": every}
    records = [each for each in content("video/tracking") if asked.items() <= each.items()]
    if not records:
        raise ValueError(f"results/video/tracking.json has no {asked}")
    return [each["metrics"][name] for each in records]


def spread(values: list[float], digits: int = 3) -> str:
    """Returns the mean of seeds and, of several, their population standard deviation."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.pstdev(values):.{digits}f}" if len(values) > 1 else mean


def above(data: str, name: str, arm: str, other: str) -> list[float]:
    """Returns how much larger a metric is by one association than by another one, of each seed."""
    pairs = zip(tracked(data, arm, name), tracked(data, other, name), strict=True)
    return [mine - theirs for mine, theirs in pairs]


@generated
def video_tracks() -> str:
    """Tracks of moving digits by several associations of the same detections."""
    metrics = [(data, name) for data in ("standard", "hard") for name in ("hota", "idf1", "id_switches")]
    rows = [
        [
            label,
            *(
                spread(tracked(data, arm, f"tracking/{name}"), 0 if name == "id_switches" else 3)
                for data, name in metrics
            ),
        ]
        for arm, label in ASSOCIATIONS.items()
    ]
    names = {"hota": "HOTA", "idf1": "IDF1", "id_switches": "switches"}
    return table(["", *(f"{data}: {names[name]}" for data, name in metrics)], rows)


@generated
def video_people() -> str:
    """Tracks of true boxes in real sequences, at their frame rate and at fewer frames per second."""
    columns = [("TUD-Campus", 1), ("TUD-Campus", 3), ("PETS09-S2L1", 1), ("PETS09-S2L1", 3), ("PETS09-S2L1", 5)]
    columns += [("Fluo-N2DH-GOWT1-01", 1), ("Fluo-N2DH-GOWT1-01", 3)]
    names = {"TUD-Campus": "TUD", "PETS09-S2L1": "PETS", "Fluo-N2DH-GOWT1-01": "cells"}
    rows = [
        [label, *(spread(tracked(data, arm, "tracking/idf1", every)) for data, every in columns)]
        for arm, label in ASSOCIATIONS.items()
    ]
    return table(["IDF1", *(names[data] + (f", 1/{every}" if every > 1 else "") for data, every in columns)], rows)


@generated
def video_memory() -> str:
    """What a memory of tracks adds to embeddings of single frames."""
    arms = {
        "single_frame": "single frame",
        "running_mean": "mean of the views so far, by score and visible share",
        "memory": "memory (`tiny-video`)",
    }
    metrics = (
        "hidden/accuracy",
        "hidden/clear_before/accuracy",
        "hidden/clear/accuracy",
        "identity/retrieval_at_1_gap_10",
    )
    records = content("video/temporal")["records"]
    rows = [
        [
            label,
            *(spread([each["metrics"][name] for each in records if each["arm"] == arm]) for name in metrics),
        ]
        for arm, label in arms.items()
    ]
    heads = ["probe, over half hidden", "of these, clear before", "probe, clear", "retrieval@1 after 10 frames"]
    return table(["", *heads], rows)


@generated
def video_goals() -> str:
    """Goals of tracking, and figures."""
    speed, memory = content("video/speed"), content("video/temporal")["records"]
    hidden = {
        arm: [each["metrics"]["hidden/accuracy"] for each in memory if each["arm"] == arm]
        for arm in ("memory", "single_frame")
    }
    peaks = speed["memory"]["peak_mib_after_frames"]
    idf1 = "tracking/idf1"
    people = {
        every: ", ".join(
            f"{name} {' → '.join(spread(tracked(name, arm, idf1, every)) for arm in ('motion', 'z_what'))}"
            for name in ("TUD-Campus", "PETS09-S2L1")
        )
        for every in (1, 3)
    }
    gained = [after - before for after, before in zip(hidden["memory"], hidden["single_frame"], strict=True)]
    rows = [
        ["standard clips: HOTA", "≥ 0.90", spread(tracked("standard", "z_what", "tracking/hota"))],
        ["standard clips: IDF1", "≥ 0.95", spread(tracked("standard", "z_what", "tracking/idf1"))],
        ["standard clips: IDF1 above motion alone", "> 0", spread(above("standard", idf1, "z_what", "motion"), 4)],
        ["hard clips: IDF1 above motion alone", "≥ 0.15", spread(above("hard", idf1, "z_what", "motion"))],
        [
            "hard clips: IDF1 above pooled features",
            "> 0",
            spread(above("hard", idf1, "z_what", "pooled_features")),
        ],
        ["true boxes of people: IDF1 without → with `z_what`", "not worse, one better", people[1]],
        ["the same, every third frame", "", people[3]],
        [
            "standard clips: retrieval@1 after 10 frames",
            "≥ 0.97",
            spread(tracked("standard", "identity", "identity/retrieval_at_1_gap_10")),
        ],
        [
            "probe of hidden digits, memory above single frame",
            "≥ 0.10",
            spread(gained),
        ],
        [
            "time per frame, `track` over `encode`",
            "≤ 1.15",
            ", ".join(
                f"{speed[name]['ratio']['median']:.2f} ({name})" for name in ("moving digits", "PETS09-S2L1")
            ),
        ],
        [
            "peak memory in MiB after 1,000, 2,000, 5,000 and 10,000 frames",
            "flat",
            ", ".join(f"{peaks[count]:.0f}" for count in ("1000", "2000", "5000", "10000")),
        ],
    ]
    return table(["", "goal", "measured"], rows)


@generated
def reidentification() -> str:
    """Returns how often the nearest track of another clip is the same object, by what stands for a track."""
    arms = {"clear_views": "mean of clear views", "all_views": "mean of all views", "first_view": "first view"}
    rows = []
    for record in content("video/reidentification")["records"]:
        metrics = record["metrics"]
        shares = [f"{metrics[f'rank1/{arm}']:.3f}" for arm in (*arms, "chance")]
        rows.append([f"`{record['model']}`", str(metrics["queries"]), str(metrics["gallery"]), *shares])
    return table(["model", "queries", "tracks searched", *arms.values(), "chance"], rows)
