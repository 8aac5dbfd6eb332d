"""Documents quote committed results, and commands that exist."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from ssdir.config import presets
from ssdir.reproduce.records import read_records

ROOT = Path(__file__).parent.parent
QUOTED = {
    "AP50": ("detection/ap50", 3),
    "latents per true object": ("detection/latents_per_object", 3),
    "reconstruction MSE": ("reconstruction/mse", 4),
    "digit probe, conditional": ("probe/accuracy", 3),
    "digit probe, end to end": ("probe/accuracy_end_to_end", 3),
    "the same probe on the detector's pooled features": ("probe/pooled_features/accuracy", 3),
    "the same probe on pixels": ("probe/raw_pixels/accuracy", 3),
    "same digit found again at 4 times the size": ("scale/retrieval_at_1", 3),
}


@pytest.fixture(scope="module")
def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


COLUMNS = {
    1: "results/demo/metrics.json",
    3: "results/reference/class-agnostic.json",
    5: "results/reference/class-aware.json",
    7: "results/reference/tiny-mnist.json",
}
"""Of the table of results; its other columns are goals."""


@pytest.mark.parametrize("row", QUOTED)
@pytest.mark.parametrize("column", COLUMNS)
def test_readme_quotes_what_was_measured(readme: str, row: str, column: int) -> None:
    metrics = json.loads((ROOT / COLUMNS[column]).read_text(encoding="utf-8"))["metrics"]
    line = re.search(rf"^\| {re.escape(row)} \|.*", readme, re.MULTILINE)
    assert line is not None
    cell = re.match(r"[0-9.]+", line[0].strip("|").split("|")[column].strip())
    assert cell is not None
    name, digits = QUOTED[row]
    assert cell[0] == f"{metrics[name]:.{digits}f}"


def test_readme_says_for_how_long_the_shipped_model_trained(readme: str) -> None:
    content = json.loads((ROOT / "results/reference/tiny-mnist.json").read_text(encoding="utf-8"))
    minutes, seconds = divmod(round(sum(content["provenance"]["training"]["wall_seconds"].values())), 60)
    assert f"| training alone: {minutes} min {seconds} s of an H200 |" in readme


def test_readme_lists_every_preset(readme: str) -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", readme, re.MULTILINE)
    assert sorted(listed) == presets()


@pytest.mark.parametrize(
    ("file", "quote", "name", "digits"),
    [
        ("clevr/clevr-128", r"AP50 ([0-9.]+) \(goal 0\.85\)", "detection/ap50", 3),
        ("clevr/clevr-128", r"([0-9.]+) latents per true object, foreground", "detection/latents_per_object", 2),
        ("clevr/clevr-128", r"foreground ARI of the\s+masks from alpha ([0-9.]+)", "masks/fg_ari", 3),
        ("clevr/clevr-128", r"mIoU ([0-9.]+);", "masks/miou", 3),
        ("clevr/clevr-128", r"overlapping objects ([0-9]\.[0-9]+)", "depth/order_accuracy", 3),
        ("clevr/clevr-128", r"material ([0-9]\.[0-9]+),", "properties/material/accuracy", 3),
        ("clevr/clevr-128", r"size ([0-9]\.[0-9]+),", "properties/size/accuracy", 3),
        ("clevr/clevr-128", r"colour ([0-9]\.[0-9]+),", "properties/colour/accuracy", 3),
        ("clevr/clevr-128", r"\*\*shape ([0-9]\.[0-9]+)\*\*", "properties/shape/accuracy", 3),
        ("clevr/clevr-128", r"pooled features: ([0-9]\.[0-9]+); codes", "probe/pooled_features/accuracy", 3),
        ("clevr/clevr-128", r"codes at the true boxes: ([0-9]\.[0-9]+)\)", "probe/true_boxes/accuracy", 3),
        ("clevr/ssd-boxes-own-level", r"overlaps went from ([0-9.]+) to", "detection/ap", 3),
        ("clevr/clevr-128", r"overlaps went from 0\.776 to ([0-9.]+),", "detection/ap", 3),
        ("widerface/widerface-128", r"\*\*AP50 ([0-9.]+)\*\*", "detection/ap50", 3),
        ("widerface/widerface-128", r"([0-9.]+) AP for small faces", "detection/ap_small", 3),
        ("widerface/widerface-128", r"([0-9.]+) for large\)", "detection/ap_large", 3),
        ("widerface/widerface-128", r"([0-9.]+) of the\s+faces found", "detection/recall", 3),
        ("widerface/widerface-128", r"at a precision of ([0-9]\.[0-9]+)", "detection/precision", 3),
        ("widerface/widerface-128", r"whole image's MSE \(([0-9.]+)\)", "reconstruction/mse", 4),
        ("widerface/widerface-128", r"that of the objects is ([0-9]\.[0-9]+)", "reconstruction/object_mse", 4),
        ("widerface/widerface-128", r"blur ([0-9.]+),", "properties/blur/accuracy", 3),
        ("widerface/widerface-128", r"most frequent\s+([0-9.]+);", "properties/blur/majority", 3),
        ("widerface/widerface-128", r"pose ([0-9.]+),", "properties/pose/accuracy", 3),
        ("widerface/widerface-128", r"pose [0-9.]+, ([0-9.]+)\)", "properties/pose/majority", 3),
        ("widerface/ssd-boxes", r"second look \(`detector\.refiner`\) AP50 was ([0-9.]+),", "detection/ap50", 3),
        ("widerface/ssd-boxes", r"AP50 was 0\.323, and ([0-9.]+) were found", "detection/recall", 3),
        ("single/space", r"11 minutes, AP50 ([0-9.]+)", "detection/ap50", 3),
        ("single/space", r"count error ([0-9.]+) per image \(0\.5\)", "detection/count_error", 3),
        ("single/space", r"digit probe ([0-9.]+) \(0\.85\)", "probe/accuracy", 3),
        ("single/space", r"pixels know more than its codes \(([0-9]\.[0-9]+)\)", "probe/raw_pixels/accuracy", 3),
        ("single/spair", r"on one core, AP50 ([0-9.]+)", "detection/ap50", 3),
        ("single/spair", r"0\.990, count error ([0-9.]+), digit", "detection/count_error", 3),
        ("single/spair", r"digit probe ([0-9]\.[0-9]+)\.\n", "probe/accuracy", 3),
        ("reference/class-agnostic", r"over all overlaps is ([0-9.]+), not 0", "detection/ap", 3),
        ("reference/ssd-boxes", r"over all overlaps is 0\.888, not ([0-9]\.[0-9]+),", "detection/ap", 3),
        ("reference/class-agnostic", r"the same floor is ([0-9]\.[0-9]+)\.", "probe/pooled_features/accuracy", 3),
        ("reference/class-agnostic-all", r"-all\.json`\) gets ([0-9.]+),", "probe/accuracy", 3),
        ("reference/class-agnostic-all", r"and ([0-9.]+), end to end; small", "probe/accuracy_end_to_end", 3),
        (
            "reference/class-agnostic-all",
            r"small digits from large ones ([0-9]\.[0-9]+)\.",
            "scale/large_to_small/accuracy",
            3,
        ),
        ("reference/class-agnostic-muon", r"other work\): conditional ([0-9.]+),", "probe/accuracy", 3),
        ("reference/class-agnostic-muon", r"end to end\n([0-9.]+), at the true", "probe/accuracy_end_to_end", 3),
        ("reference/class-agnostic-muon", r"at the true boxes ([0-9.]+), small", "probe/true_boxes/accuracy", 3),
        (
            "reference/class-agnostic-muon",
            r"small digits from large ones ([0-9.]+);",
            "scale/large_to_small/accuracy",
            3,
        ),
        ("reference/class-agnostic-muon", r"; AP over all overlaps ([0-9.]+), MSE", "detection/ap", 3),
        ("reference/class-agnostic-muon", r"overlaps 0\.922, MSE ([0-9]\.[0-9]+)\.", "reconstruction/mse", 4),
        ("reference/class-agnostic-muon", r"all of them, one training has \[([0-9.]+)\]", "probe/accuracy", 3),
        ("reference/class-aware", r"\*\*Digit probe, conditional: ([0-9.]+), goal", "probe/accuracy", 3),
        ("reference/class-aware", r"End to end ([0-9.]+); AP50", "probe/accuracy_end_to_end", 3),
        ("reference/class-aware", r"over the ten classes ([0-9.]+), of", "detection/ap50", 3),
        ("reference/class-aware", r"of objects of any class ([0-9]\.[0-9]+)", "detection/ap50_class_agnostic", 3),
        ("reference/class-aware", r"know them too, ([0-9]\.[0-9]+) by", "probe/pooled_features/accuracy", 3),
        ("reference/supervised", r"names ([0-9.]+) of the test digits", "accuracy", 3),
        ("reference/supervised", r"test digits: ([0-9.]+) of the small third", "accuracy_small", 3),
        ("reference/supervised", r"([0-9.]+) of the large\. So", "accuracy_large", 3),
    ],
)
def test_experiments_quote_what_was_measured(file: str, quote: str, name: str, digits: int) -> None:
    metrics = json.loads((ROOT / "results" / f"{file}.json").read_text(encoding="utf-8"))["metrics"]
    found = re.search(quote, (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8"))
    assert found is not None
    assert found[1] == f"{metrics[name]:.{digits}f}"


def test_the_time_and_the_miss_of_the_run_by_muon_are_told_as_measured() -> None:
    content = json.loads((ROOT / "results/reference/class-agnostic-muon.json").read_text(encoding="utf-8"))
    minutes = sum(content["provenance"]["training"]["wall_seconds"].values()) / 60
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert f"probes of all 21,000; {minutes:.0f} minutes of training on one core" in text
    assert f": still {0.975 - content['metrics']['probe/accuracy']:.3f} below the goal." in text
    assert content["provenance"]["config"]["measure"]["train_images"] == 21_000


def test_the_time_of_clevr_is_told_as_measured() -> None:
    provenance = json.loads((ROOT / "results/clevr/clevr-128.json").read_text(encoding="utf-8"))["provenance"]
    minutes = sum(provenance["training"]["wall_seconds"].values()) / 60
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    assert f"all levels): {minutes:.0f} minutes on one core" in text


@pytest.mark.parametrize(
    ("quote", "name"), [(r"\(([0-9.]+) × its rate", "preloaded"), (r"([0-9.]+) × where", "files")]
)
def test_data_quotes_what_was_measured(quote: str, name: str) -> None:
    metrics = json.loads((ROOT / "results/bench/loading.json").read_text(encoding="utf-8"))["metrics"]
    found = re.search(quote, (ROOT / "docs" / "data.md").read_text(encoding="utf-8"))
    assert found is not None
    assert found[1] == f"{metrics['times_training'][name]:.2f}"
    assert metrics["epoch_growth_mb"] == 0


def rows_after(heading: str, page: str = "experiments") -> list[list[str]]:
    """Cells of the first table behind a heading of a page, without its head."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8").split(heading)[1]
    table = re.search(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert table is not None
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[0].splitlines()[2:]]


METHODS = {
    "SSDIR, `tiny`": "multi/ssdir",
    "GlimpseVAE, `tiny-glimpses`": "multi/glimpse-vae",
    "PooledFeatures, `tiny-pooled`": "multi/pooled-features",
    "SPACE, at 64×64": "multi/space",
    "SPAIR, at 64×64": "multi/spair",
}
METHOD_COLUMNS = (
    ("detection/ap50", 3),
    ("detection/count_error", 2),
    ("probe/accuracy", 3),
    ("probe/accuracy_end_to_end", 3),
    ("reconstruction/mse", 4),
    ("scale/retrieval_at_1", 3),
    ("scale/small_to_large/accuracy", 3),
)


def test_methods_are_compared_by_what_was_measured() -> None:
    rows = rows_after("## The same digits, every method")
    assert [row[0] for row in rows] == list(METHODS)
    for name, *cells in rows:
        metrics = json.loads((ROOT / "results" / f"{METHODS[name]}.json").read_text(encoding="utf-8"))["metrics"]
        expected = [f"{metrics[key]:.{digits}f}" if key in metrics else "–" for key, digits in METHOD_COLUMNS]
        assert cells == expected


def measured(file: str) -> Any:
    return json.loads((ROOT / "results" / "bench" / f"{file}.json").read_text(encoding="utf-8"))


def test_costs_are_what_was_measured() -> None:
    costs = [cost for cost in measured("models")["costs"] if cost["image_size"] == 128]
    cases = {(cost["model"], cost["objects"]): cost["parameters"] for cost in costs}
    found = {(cost["model"], cost["objects"], cost["stage"]): cost for cost in costs}
    expected = []
    for (model, objects), parameters in cases.items():
        stages = [found.get((model, objects, stage)) for stage in ("encode", "decode", "train", "train_cached")]
        expected.append(
            [
                model,
                "any" if objects is None else str(objects),
                f"{parameters / 1e6:.2f} M",
                *(f"{1000 * stage['seconds']['median']:.1f}" if stage else "–" for stage in stages),
                *(f"{found[model, objects, stage]['memory_mb']:.0f}" for stage in ("encode", "train")),
            ]
        )
    assert rows_after("## What each model costs", "speed") == expected


SPEED = {
    "`encode` / its own backbone and heads alone": ("encode / backbone and heads alone", "median"),
    "`encode` at 50 objects / at 1 object per image": (
        "SSDIR: encode at 50 objects / at 1 object per image",
        "median",
    ),
    "the same with glimpses": ("GlimpseVAE: encode at 50 objects / at 1 object per image", "median"),
    "encode in the published form / best in single precision": (
        "encode in the published form / by the best engine in single precision",
        "median",
    ),
    "the same / best in bfloat16": ("encode in the published form / by the best engine in bfloat16", "median"),
    "the same / in int8": ("encode in the published form / in int8", "median"),
    "encode, best in single precision / in int8": (
        "encode by the best engine in single precision / in int8",
        "median",
    ),
    "compositor on full canvases / in regions, 20 objects, 1 image": (
        "compositor on canvases / as a product, 1 images",
        "median",
    ),
    "the same, 8 images": ("compositor on canvases / as a product, 8 images", "median"),
    "extra memory of the latter, of the former's": (
        "compositor on canvases / as a product, 8 images",
        "peak_memory_ratio",
    ),
    "peak memory of composing 100 objects / 1 object, 1024×1024": (
        "peak memory of composing 100 objects / 1 object, 1024 x 1024",
        "median",
    ),
    "training step with the backbone / on cached features": (
        "training step with the backbone / on cached features",
        "median",
    ),
    "training step with four encoder passes / with one": (
        "training step with four encoder passes / with one",
        "median",
    ),
    "`ssdir --help`, seconds": ("ssdir --help, seconds", "median"),
    "`import ssdir`, seconds": ("import ssdir, seconds", "median"),
    "`ssdir encode MODEL.onnx` of one image, seconds": ("ssdir encode MODEL.onnx, seconds", "median"),
}
"""Rows of the goals, and where each figure is from."""

LIMITS = {"extra memory of the latter, of the former's": "≤ 0.25", "the same, 8 images": "≥ 5"}
"""Where a record has two goals."""


def test_speed_is_what_was_measured() -> None:
    records = {entry["name"]: entry for entry in measured("speed")["records"]}
    expected = []
    for label, (name, key) in SPEED.items():
        value = records[name][key]
        goal = records[name]["goal"].partition(",")[0].replace(">=", "≥").replace("<=", "≤")
        goal = LIMITS.get(label, goal)
        missed = goal and (value < float(goal[2:]) if goal[0] == "≥" else value > float(goal[2:]))
        expected.append([label, goal or "beside", f"{value:.2f}" + (", **missed**" if missed else "")])
    assert rows_after("## Goals", "speed") == expected


def test_engines_are_what_was_measured() -> None:
    name = "encode in the published form / by the best engine in single precision"
    record = next(entry for entry in measured("speed")["records"] if entry["name"] == name)
    seconds = {engine: values["median"] for engine, values in record["seconds_per_image"].items()}
    slowest = seconds["torch, as trained"]
    expected = [[engine, f"{1000 * s:.0f}", f"{slowest / s:.1f}"] for engine, s in seconds.items()]
    assert rows_after("## Engines", "speed") == expected


def test_figures_of_the_gpu_are_what_was_measured() -> None:
    content = measured("gpu")
    shares = ("share_of_products", "share_of_copies", "gpu_busy")
    assert rows_after("## On a GPU", "speed") == [
        [
            record["name"],
            f"{record['images_per_second']['median']:.0f}",
            *(f"{100 * record[share]:.0f} %" for share in shares),
            str(record["launches"]),
        ]
        for record in content["records"]
    ]
    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    products, copies = (content["rates"][name] / 1e12 for name in ("flop_per_second", "bytes_per_second"))
    assert f"{products:.0f} TFLOP/s of products" in text
    assert f"copies {copies:.2f} TB/s" in text
    busy = {record["name"]: record["gpu_busy"] for record in content["records"]}
    assert busy["encode, batch 512"] >= 0.9
    assert f"in batches of 512 images, {100 * busy['encode, batch 512']:.0f} %" in text
    by_32, by_128 = (
        " and ".join(
            f"{100 * busy[f'{stage}, training step, batch {size}']:.0f} %"
            for stage in ("detector", "representation")
        )
        for size in (32, 128)
    )
    assert f"paper's 32 images is {by_32} busy, one of 128 images {by_128}" in " ".join(text.split())


def test_losses_of_precision_are_what_was_measured() -> None:
    names = ("detection/ap", "probe/accuracy", "probe/accuracy_end_to_end")
    expected = []
    for record in measured("precision")["records"]:
        cells = [f"{record['metrics'][name]:.3f}" for name in names]
        loss = f"{record['loss']['probe/accuracy']:.3f}" if record["loss"] else ""
        expected.append([record["engine"], *cells, loss])
    assert rows_after("## What precision costs", "speed") == expected


def test_the_time_of_an_edit_is_what_was_measured() -> None:
    content = measured("studio")
    move, knob = (f"{1000 * record['seconds']['median']:.0f} ms" for record in content["records"])
    scene = f"a scene of {content['objects']} objects"
    sentence = f"{scene} is drawn anew within {move} of a move and {knob} of a knob"
    assert sentence in (ROOT / "docs/studio.md").read_text(encoding="utf-8")


def run_metrics(experiment: str, folder: str = "cpu") -> dict[str, dict[str, float]]:
    """Means over seeds of each run's metrics, as `ssdir reproduce` wrote them into a folder of results."""
    content = json.loads((ROOT / f"results/{folder}/{experiment}.json").read_text(encoding="utf-8"))
    groups: dict[str, list[dict[str, float]]] = {}
    for record in content["records"]:
        groups.setdefault(record["group"], []).append(record["metrics"])
    return {
        group: {name: sum(each[name] for each in seeds) / len(seeds) for name in seeds[0]}
        for group, seeds in groups.items()
    }


def accuracies_of(experiment: str, group: str, folder: str = "cpu") -> list[float]:
    """The probe's accuracy of each training of a run."""
    records = read_records(ROOT / f"results/{folder}/{experiment}.json")[0]
    return [record["metrics"]["probe/accuracy"] for record in records if record["group"] == group]


def test_the_order_of_methods_is_as_measured() -> None:
    table2 = run_metrics("table2")
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8").split("The paper's order of methods")[1]
    groups = {"SSDIR": "ssdir", "GlimpseVAE": "glimpses", "SPAIR": "spair", "SPACE": "space"}
    told = {name: float(value) for name, value in re.findall(r"(SSDIR|GlimpseVAE|SPAIR|SPACE) (0\.\d+)", text)[:4]}
    assert told == {name: round(table2[group]["probe/accuracy"], 3) for name, group in groups.items()}
    ceiling, detector = re.findall(r"boxes get (0\.\d+), so the detector costs (0\.\d+)", text)[0]
    ours = table2["ssdir"]
    assert ceiling == f"{ours['probe/true_boxes/accuracy']:.3f}"
    assert detector == f"{ours['probe/true_boxes/accuracy'] - ours['probe/accuracy']:.3f}"
    spreads = [statistics.pstdev(accuracies_of("table2", group)) for group in ("ssdir", "glimpses")]
    told_spreads = re.findall(r"standard deviations over seeds are (0\.\d+) and (0\.\d+)\.", text)
    assert told_spreads == [tuple(f"{spread:.3f}" for spread in spreads)]
    reference = json.loads((ROOT / "results/reference/class-agnostic.json").read_text(encoding="utf-8"))
    assert re.findall(r"half as many objects again gets (0\.\d+)\.", text) == [
        f"{reference['metrics']['probe/accuracy']:.3f}"
    ]


def test_goals_of_the_cpu_scale_are_held_against_what_was_measured() -> None:
    table2, scale = run_metrics("table2"), run_metrics("scale")["ssdir"]
    masks, properties = run_metrics("masks")["clevr"], run_metrics("properties")["clevr"]
    ours, more = table2["ssdir"], run_metrics("probes")["ssdir-more-all"]
    error_ratio = (1 - ours["probe/accuracy"]) / (1 - ours["probe/pooled_features/accuracy"])
    measured = [
        [(">", 0.985, table2["ssdir-aware"]["probe/accuracy"])],
        [(">", 0.985, run_metrics("probes")["ssdir-aware-all"]["probe/accuracy"])],
        [(">", 0.975, ours["probe/accuracy"])],
        [(">", 0.95, ours["probe/accuracy_end_to_end"])],
        [("<", 0.5, error_ratio)],
        [(">", 0.975, more["probe/accuracy"])],
        [(">", 0.95, more["probe/accuracy_end_to_end"])],
        [(">", 0.93, scale["scale/small_to_large/accuracy"]), (">", 0.93, scale["scale/large_to_small/accuracy"])],
        [(">", 0.8, scale["scale/retrieval_at_1"]), ("", 0.0, scale["scale/pooled_features/retrieval_at_1"])],
        [(">", 0.9, run_metrics("depth")["clevr"]["depth/order_accuracy"])],
        [(">", 0.9, masks["masks/fg_ari"]), (">", 0.7, masks["masks/miou"])],
        [
            (">", goal, properties[f"properties/{name}/accuracy"])
            for name, goal in (("colour", 0.95), ("shape", 0.85), ("material", 0.9), ("size", 0.97))
        ],
    ]
    rows = rows_after("## The scale `cpu`")
    assert len(rows) == len(measured)
    for (name, _, cell, verdict), figures in zip(rows, measured, strict=True):
        digits = 2 if name.startswith("its probe error") else 3
        assert re.findall(r"[0-9.]+", cell) == [f"{value:.{digits}f}" for _, _, value in figures], name
        misses = [
            abs(goal - value)
            for sign, goal, value in figures
            if (sign == ">" and value < goal) or (sign == "<" and value > goal)
        ]
        assert re.findall(r"[0-9.]+", verdict) == [f"{miss:.3f}" for miss in misses], name
        assert ("missed" in verdict) == bool(misses), name


def test_what_muon_buys_is_told_as_measured() -> None:
    names = {
        "digit probe, class-agnostic, conditional": ("ssdir", "probe/accuracy"),
        "the same, end to end": ("ssdir", "probe/accuracy_end_to_end"),
        "the same, codes at the true boxes": ("ssdir", "probe/true_boxes/accuracy"),
        "digits found, of all": ("ssdir", "detection/recall"),
        "a probe of small objects, tested on large ones": ("ssdir", "scale/small_to_large/accuracy"),
        "the reverse": ("ssdir", "scale/large_to_small/accuracy"),
        "drift of a code from size to size": ("ssdir", "scale/drift"),
        "GlimpseVAE, conditional": ("glimpses", "probe/accuracy"),
    }
    scales = [(run_metrics("table2", scale), run_metrics("scale", scale)) for scale in ("adamw", "cpu")]
    expected = [
        [
            row,
            *(f"{(scale if name.startswith('scale/') else table2)[group][name]:.3f}" for table2, scale in scales),
        ]
        for row, (group, name) in names.items()
    ]
    assert rows_after("### What Muon buys") == expected


def test_the_scale_of_the_paper_is_told_as_measured() -> None:
    table2, scale = run_metrics("table2", "paper"), run_metrics("scale", "paper")["better"]
    agnostic, aware = table2["better"], table2["better-taught"]
    few = json.loads((ROOT / "results/paper/probes-of-4000.json").read_text(encoding="utf-8"))
    assert few["provenance"]["config"]["max_train_images"] == 4000
    measured = [
        [aware["probe/accuracy"]],
        [aware["probe/accuracy_end_to_end"]],
        [aware["probe/largest_overlap/accuracy"]],
        [agnostic["probe/accuracy"]],
        [agnostic["probe/accuracy_end_to_end"]],
        [table2["glimpses"]["probe/accuracy"]],
        [aware["probe/labels/accuracy"]],
        [aware["probe/random_encoder/accuracy"]],
        [scale["scale/small_to_large/accuracy"], scale["scale/large_to_small/accuracy"]],
        [scale["scale/retrieval_at_1"]],
    ]
    told = [f"{values[0]:.3f}" for values in (measured[3], measured[4], measured[0])]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.findall(
        r"names (0\.\d+) of the digits that are found, (0\.\d+) of\s+all; class-aware (0\.\d+),", readme
    ) == [tuple(told)]
    records = json.loads((ROOT / "results/paper/table2.json").read_text(encoding="utf-8"))["records"]
    seconds: dict[str, list[float]] = {}
    for record in records:
        training = record["provenance"]["training"]
        seconds.setdefault(record["group"], []).append(sum(training["wall_seconds"].values()))
    assert re.findall(r"in (\w+) minutes of one GPU", readme) == ["four"]
    assert round(statistics.mean(seconds["better"]) / 60) == 4
    rows = rows_after("## The scale `paper`")
    groups = ("better-taught", "better", "glimpses")
    assert [row[4] for row in rows if row[4]] == [f"{statistics.mean(seconds[group]):.0f}" for group in groups]
    assert [row[2] for row in rows] == ["; ".join(f"{value:.3f}" for value in values) for values in measured]
    for (_, goal, _, verdict, _), values in zip(rows, measured, strict=True):
        misses = [float(goal[2:]) - value for value in values if goal and value < float(goal[2:])]
        told_so = "**missed** by " + "; ".join(f"{miss:.3f}" for miss in misses) if misses else "met"
        assert verdict == (told_so if goal else "")
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8").split("## The scale `paper`")[1]
    accuracies = {group: accuracies_of("table2", group, "paper") for group in groups}
    assert [len(accuracies[group]) for group in groups] == [3, 3, 1]
    said = {
        r"three seeds, ± (0\.\d+)": f"{statistics.pstdev(accuracies['better-taught']):.4f}",
        r"class-agnostic three, ± (0\.\d+)": f"{statistics.pstdev(accuracies['better']):.4f}",
        r"GlimpseVAE\*\*, on the class-agnostic detector of one seed, has (0\.\d+):": (
            f"{table2['glimpses']['probe/accuracy']:.3f}"
        ),
        r"\*\*, from (0\.\d+) to": f"{min(accuracies['better']):.4f}",
        r"to (0\.\d+): no label": f"{max(accuracies['better']):.4f}",
        r"Class-aware, (0\.\d+) against": f"{aware['probe/accuracy']:.4f}",
        r"and (0\.\d+) by its way to label": f"{aware['probe/largest_overlap/accuracy']:.4f}",
        r"it names (0\.\d+) of": f"{aware['probe/labels/accuracy']:.3f}",
        r"passes on (0\.\d+)\.": f"{aware['probe/random_encoder/accuracy']:.3f}",
        r"themselves: (0\.\d+) by": f"{aware['probe/knn_accuracy']:.3f}",
        r"Class-agnostic, (0\.\d+)\*\*": f"{agnostic['probe/accuracy']:.3f}",
        r"only (0\.\d+) below": f"{aware['probe/accuracy'] - agnostic['probe/accuracy']:.3f}",
        r"pooled features know (0\.\d+)\.": f"{agnostic['probe/pooled_features/accuracy']:.3f}",
        r"boxes it would be (0\.\d+)\.": f"{agnostic['probe/true_boxes/accuracy']:.3f}",
        r"trainings has (0\.\d+) \(`probes-of-4000": f"{few['metrics']['probe/accuracy']:.3f}",
    }
    assert {pattern: re.findall(pattern, text) for pattern in said} == {k: [v] for k, v in said.items()}


def test_the_papers_own_model_is_told_as_measured() -> None:
    content = json.loads((ROOT / "results/paper/paper-mnist.json").read_text(encoding="utf-8"))
    names = (
        "probe/accuracy",
        "probe/largest_overlap/accuracy",
        "probe/accuracy_end_to_end",
        "probe/true_boxes/accuracy",
        "probe/labels/accuracy",
        "probe/random_encoder/accuracy",
        "probe/pooled_features/accuracy",
        "detection/ap50",
        "detection/recall",
        "detection/latents_per_object",
        "reconstruction/mse",
    )
    rows = rows_after("### The paper's own model")
    assert [row[1] for row in rows] == [f"{content['metrics'][name]:.3f}" for name in names]
    made = content["provenance"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    own = content["metrics"]["probe/largest_overlap/accuracy"]
    assert f"its own model, trained here for six minutes, {own:.3f}." in " ".join(readme.split())
    assert round(sum(made["training"]["wall_seconds"].values()) / 60) == 6
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8").split("### The paper's own model")[1]
    assert f"{sum(made['training']['wall_seconds'].values()):.0f} seconds" in text
    assert f"on {made['config']['max_images']} test images" in text
    assert f"learn from {made['config']['max_train_images']:,} images" in text
    assert f"0.979 is missed, by {0.9789 - content['metrics']['probe/largest_overlap/accuracy']:.3f}**" in text
    assert f"{content['metrics']['probe/pooled_features/accuracy']:.3f}." in text
    assert round(1 / (1 - content["metrics"]["detection/recall"])) == 11


def test_errors_by_sizes_and_grids_are_told_as_measured() -> None:
    content = json.loads((ROOT / "results/cpu/figure4.json").read_text(encoding="utf-8"))
    errors: dict[str, dict[str, str]] = {}
    for record in content["records"]:
        scatter = record["scatter"]
        grids = f"grids {min(scatter['grids'])}–{max(scatter['grids'])}"
        sides = f"{scatter['min_size']:.2f}–{scatter['max_size']:.2f}"
        errors.setdefault(sides, {})[grids] = f"{record['metrics']['reconstruction/mse']:.4f}"
    expected = [[sides, found["grids 2–5"], found["grids 4–6"]] for sides, found in errors.items()]
    assert rows_after("### Which data are hard") == expected


def test_what_other_precisions_cost_the_shipped_model_is_told_as_measured() -> None:
    single, eight, half = (
        json.loads((ROOT / f"results/bench/tiny-mnist-{name}.json").read_text("utf-8"))["metrics"]
        for name in ("float32", "int8", "bf16")
    )
    text = " ".join((ROOT / "docs" / "speed.md").read_text(encoding="utf-8").split())
    assert f"overlaps goes from {single['detection/ap']:.3f} to {eight['detection/ap']:.3f} (" in text
    assert f"the probe from {single['probe/accuracy']:.3f} to {eight['probe/accuracy']:.3f}." in text
    assert f"In bfloat16 it is {half['detection/ap']:.3f} (" in text


def test_departures_are_told_as_measured() -> None:
    content = json.loads((ROOT / "results/cpu/ablation.json").read_text(encoding="utf-8"))
    names = (("probe/accuracy", 3), ("reconstruction/mse", 4), ("scale/retrieval_at_1", 3))
    expected = [
        [record["label"], *(f"{record['metrics'][name]:.{digits}f}" for name, digits in names)]
        for record in content["records"]
    ]
    assert rows_after("### What each departure buys") == expected
    metrics = run_metrics("ablation")
    base = metrics["short"]
    lost = {group: f"{base['probe/accuracy'] - of['probe/accuracy']:.3f}" for group, of in metrics.items()}
    error = {group: of["reconstruction/mse"] / base["reconstruction/mse"] for group, of in metrics.items()}
    text = " ".join((ROOT / "docs" / "experiments.md").read_text(encoding="utf-8").split())
    again, there = (metrics[group]["scale/retrieval_at_1"] for group in ("short", "own-places"))
    for quote in (
        f"at 4 times the size {again:.3f} of the time instead of {there:.3f}, and the error is smaller",
        f"**Consistency** buys {lost['no-consistency']} of the probe",
        f"and the probe {lost['all-detections']} lower.",
        f"buy {lost['paper-weights']} of the probe, and cost pixels",
        f"256 latents instead of 64 buy {lost['small-code']}.",
        f"the merge without it has {error['weighted']:.1f} times the error.",
    ):
        assert quote in text
    assert [round(error[group]) for group in ("cells", "all-detections")] == [5, 4]
    assert 1 < error["one-start"] < 1.1


def test_what_codes_know_of_classes_is_told_as_measured() -> None:
    names = ("probe/accuracy", "probe/knn_accuracy", "clusters/accuracy", "scale/retrieval_at_1")
    folders = [ROOT / "results" / name for name in ("adamw", "cpu")]
    records = [record for folder in folders for record in read_records(folder / "classes.json")[0]]
    expected = [
        [
            record["label"],
            *(f"{record['metrics'][name]:.3f}" for name in names),
            f"{record['metrics']['reconstruction/mse']:.4f}",
        ]
        for record in records
    ]
    heading = "### What codes know of classes"
    assert rows_after(heading) == expected
    before, classes = run_metrics("table2", "adamw"), run_metrics("classes", "adamw")["aware-short"]
    now, every = run_metrics("table2"), run_metrics("probes")["ssdir-aware-all"]
    told = {
        r"detector names (0\.\d+) of": classes["probe/labels/accuracy"],
        r"pooled features know (0\.\d+) of": before["pooled-aware"]["probe/accuracy"],
        r"by AdamW, (0\.\d+) \(`results/adamw": before["ssdir-aware"]["probe/accuracy"],
        r"of the same keeps (0\.\d+),": before["ssdir-aware"]["probe/random_encoder/accuracy"],
        r"by 21,000 images, (0\.\d+)\.": now["ssdir-aware"]["probe/accuracy"],
        r"Their detector names (0\.\d+) of": now["ssdir-aware"]["probe/labels/accuracy"],
        r"features know (0\.\d+), and": now["pooled-aware"]["probe/accuracy"],
        r"reads its second look (0\.\d+)\.": now["ssdir-aware"]["probe/random_encoder/accuracy"],
        r"which names (0\.\d+) here": run_metrics("classes")["aware-muon"]["probe/labels/accuracy"],
        r"here: (0\.\d+) with its second look": run_metrics("classes")["aware-muon"]["probe/accuracy"],
        r"second look, (0\.\d+) without": run_metrics("classes")["aware-muon-taught"]["probe/accuracy"],
        r"end to end (0\.\d+), and 0": every["probe/accuracy_end_to_end"],
        r"and (0\.\d+) by the paper's way": every["probe/largest_overlap/accuracy"],
        r"pooled features to (0\.\d+),": every["probe/pooled_features/accuracy"],
        r"untrained encoder to (0\.\d+)\.": every["probe/random_encoder/accuracy"],
        r"by then, (0\.\d+) against": every["probe/accuracy"],
        r"by then, 0\.985 against (0\.\d+)\.": every["probe/labels/accuracy"],
    }
    whole = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")
    text = whole.split(heading)[1]
    for quote, value in told.items():
        found = re.search(quote, text)
        assert found is not None, quote
        assert found[1] == f"{value:.3f}", quote
    spread = statistics.pstdev(accuracies_of("probes", "ssdir-aware-all"))
    assert f"they have {every['probe/accuracy']:.4f} ± {spread:.4f}, end to end" in text
    fewer = now["ssdir-aware"]["probe/accuracy"]
    assert f"trainings of Table 2 have {every['probe/accuracy']:.4f} instead of {fewer:.4f}." in whole


def test_what_more_of_everything_buys_is_told_as_measured() -> None:
    names = {
        "digit probe, small objects": "scale/probe/accuracy_small",
        "digit probe, medium ones": "scale/probe/accuracy_medium",
        "digit probe, large ones": "scale/probe/accuracy_large",
        "a probe of small objects, tested on large ones": "scale/small_to_large/accuracy",
        "the reverse": "scale/large_to_small/accuracy",
        "the same digit found at 4 times the size": "scale/retrieval_at_1",
        "drift of a code from size to size": "scale/drift",
    }
    scale, heading = run_metrics("scale"), "### What more of everything buys"
    expected = [
        [row, *(f"{scale[group][name]:.3f}" for group in ("ssdir", "ssdir-more"))] for row, name in names.items()
    ]
    assert rows_after(heading) == expected
    accuracies = accuracies_of("probes", "ssdir-more-all")
    assert len(accuracies) == 3
    every, aware = (run_metrics("probes")[group] for group in ("ssdir-more-all", "ssdir-aware-all"))
    spread = statistics.pstdev(accuracies)
    text = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8").split(heading)[1]
    for quote in (
        f"**{every['probe/accuracy']:.4f} ± {spread:.4f}**, conditional",
        f"conditional, and {every['probe/accuracy_end_to_end']:.3f}, end to end",
        f"At the true boxes it would be {every['probe/true_boxes/accuracy']:.3f}",
        f"by the paper's way to label codes {every['probe/largest_overlap/accuracy']:.3f}",
        f"pooled features know {every['probe/pooled_features/accuracy']:.3f}",
        f"an untrained encoder {every['probe/random_encoder/accuracy']:.3f}",
    ):
        assert quote in text, quote
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"from 21,000 images of 128×128: {every['probe/accuracy']:.3f} class-agnostic" in readme
    assert f"resultscpuprobesjson), and {aware['probe/accuracy']:.3f} class-aware." in readme


REFERENCE = {
    "AP50": (("detection/ap50", 3),),
    "latents per true object": (("detection/latents_per_object", 3),),
    "reconstruction MSE": (("reconstruction/mse", 4),),
    "structural similarity (SSIM)": (("reconstruction/ssim", 3),),
    "digit probe, conditional": (("probe/accuracy", 3),),
    "digit probe, end to end": (("probe/accuracy_end_to_end", 3),),
    "digit probe, codes at the true boxes": (("probe/true_boxes/accuracy", 3),),
    "digit probe, small objects; large ones": (
        ("scale/probe/accuracy_small", 3),
        ("scale/probe/accuracy_large", 3),
    ),
    "a probe of small objects, tested on large ones; the reverse": (
        ("scale/small_to_large/accuracy", 3),
        ("scale/large_to_small/accuracy", 3),
    ),
    "the same digit found at 4 times the size": (("scale/retrieval_at_1", 3),),
    "k-means clusters of codes: NMI with the digits": (("clusters/nmi", 3),),
    "drift of a code from size to size": (("scale/drift", 3),),
}


def test_the_reference_run_is_told_as_measured_beside_the_one_before() -> None:
    rows = {row[0]: row for row in rows_after("## MNIST, class-agnostic")}
    assert list(rows) == list(REFERENCE)
    for column, file in ((2, "reference/class-agnostic"), (4, "reference/ssd-boxes")):
        metrics = json.loads((ROOT / "results" / f"{file}.json").read_text(encoding="utf-8"))["metrics"]
        for name, keys in REFERENCE.items():
            assert rows[name][column] == "; ".join(f"{metrics[key]:.{digits}f}" for key, digits in keys)


def assert_told(
    heading: str, groups: dict[str, str], names: list[str], measured: list[dict[str, dict[str, float]]]
) -> None:
    """The table behind a heading has a row for each group of runs, of what any experiment measured of it."""
    expected = []
    for row, group in groups.items():
        metrics = {name: value for experiment in measured for name, value in experiment.get(group, {}).items()}
        expected.append([row, *(f"{metrics[name]:.3f}" if name in metrics else "–" for name in names)])
    assert rows_after(heading) == expected


def test_methods_on_clevr_are_compared_by_what_was_measured() -> None:
    groups = {
        "SSDIR, `clevr-128`": "clevr",
        "the same, objects read from their own level": "clevr-own-level",
        "GlimpseVAE, on the same detector": "clevr-glimpses",
        "SPACE": "clevr-space",
        "SPAIR": "clevr-spair",
    }
    properties = [f"properties/{name}/accuracy_end_to_end" for name in ("colour", "shape", "material", "size")]
    names = ["masks/fg_ari", "masks/miou", "depth/order_accuracy", *properties]
    measured = [run_metrics(experiment) for experiment in ("masks", "properties", "depth")]
    assert_told("### CLEVR, every method", groups, names, measured)


def test_shape_by_boxes_and_samples_is_told_as_measured() -> None:
    measured = []
    for row in ("own-level", "all-levels"):
        runs = [f"ssd-boxes-{row}", "clevr-128" if row == "all-levels" else row]
        metrics = [json.loads((ROOT / f"results/clevr/{run}.json").read_text("utf-8"))["metrics"] for run in runs]
        names = ("properties/shape/accuracy", "probe/true_boxes/accuracy")
        measured.append([f"{each[name]:.3f}" for each in metrics for name in names])
    assert [cells[1:] for cells in rows_after("#### Shape, by boxes and samples")] == measured


def test_methods_on_faces_are_compared_by_what_was_measured() -> None:
    groups = {
        "SSDIR, `widerface-128`": "faces",
        "GlimpseVAE, on the same detector": "faces-glimpses",
        "SPACE": "faces-space",
        "SPAIR": "faces-spair",
    }
    names = ["detection/ap50", "detection/recall"]
    assert_told("### WIDER FACE, every method", groups, names, [run_metrics("figure2")])
