"""Writes the tables of README and docs from the committed results.

A page holds a generated table or sentence between two comments:

    <!-- table: NAME -->

    …

    <!-- end -->

`make docs-tables` writes the table of that name between them: one of `docs_tables.yaml`, whose cells are metrics,
or what the function of that name below returns. With `--check` the tool changes nothing, and exits with 1
if a page is stale.
"""

from __future__ import annotations

import argparse
import re
import statistics
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import docs_records
import yaml
from docs_records import content, is_measured, measured, trainings_of

from ssdir.benchmark.plan import EncodingPlan
from ssdir.benchmark.plan_tables import plan_tables
from ssdir.formatting import rounded
from ssdir.models.catalogue import list_models
from ssdir.models.shipped import WEIGHTS_FILE, model_cards
from ssdir.object_table import OBJECT_COLUMNS, TRACK_COLUMNS, ObjectColumn
from ssdir.reports.paper import SURFACE, Generation
from ssdir.reproduce.figures import order_table
from ssdir.reproduce.surface import measured_errors

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^<!-- table: (?P<name>[\w-]+) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)
TABLES: dict[str, Callable[[], str]] = {}
"""Functions that return a table, by the name in its comment."""
WITHOUT_A_MODEL = (
    *("crops-224", "crops-128", "roi-align-384-3x3", "roi-align-256-3x3"),
    *("roi-align-384", "roi-align-320", "roi-align-256", "pixels", "untrained"),
)
"""Rows of the comparison of photographs that need no trained model, in their order."""


def generated(build: Callable[[], str]) -> Callable[[], str]:
    """Registers a table under the name of its function."""
    TABLES[build.__name__.replace("_", "-")] = build
    return build


# Writing tables.


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table; columns of numbers are aligned to the right."""
    columns = list(zip(*rows, strict=True))
    numeric = [all(re.match(r"[-±0-9]|$|–", cell) for cell in column) for column in columns]
    rule = ["---:" if right and index else "---" for index, right in enumerate(numeric)]
    return "\n".join(f"| {' | '.join(cells)} |".replace("  ", " ") for cells in (head, rule, *rows))


def figure(metrics: Mapping[str, float], quoted: str) -> str:
    """Returns a metric as text; a dash where the model does not have it.

    Args:
        metrics: of the model.
        quoted: `NAME`, `NAME .DIGITS`, or either with ` ±`, for the deviation beside it where there is one.
    """
    asked = quoted.removesuffix(" ±")
    name, _, digits = asked.partition(" .")
    if name not in metrics:
        return "–"
    mean = f"{metrics[name]:.{digits or 3}f}"
    if asked == quoted or f"± {name}" not in metrics:
        return mean
    # The space after the sign does not break, so that a narrow column has the deviation on a line of its own.
    return f"{mean} ±\N{NO-BREAK SPACE}{metrics[f'± {name}']:.{digits or 3}f}"


def models_by_metrics(rows: str, models: Mapping[str, Any], metrics: Mapping[str, str]) -> str:
    """Returns a table of metrics of models, and below it which of them are not measured yet."""
    shown = [(label.strip(), measured(source)) for label, source in models.items() if is_measured(source)]
    missing = not_measured(label.strip() for label, source in models.items() if not is_measured(source))
    if not shown:
        return missing
    if rows == "metrics":
        cells = [[label, *(figure(source, quoted) for _, source in shown)] for label, quoted in metrics.items()]
        text = table(["", *(label for label, _ in shown)], cells)
    else:
        cells = [[label, *(figure(source, quoted) for quoted in metrics.values())] for label, source in shown]
        text = table(["", *metrics], cells)
    return f"{text}\n\n{missing}" if missing else text


def not_measured(labels: Iterable[str]) -> str:
    """Returns a sentence that names what is not measured yet; nothing where all is."""
    names = "; ".join(labels)
    return textwrap.fill(f"Not measured yet: {names}.", 120, break_long_words=False) if names else ""


def goals(goals: Mapping[str, str]) -> str:
    """Returns a table of goals, `MODEL METRIC >= GOAL`, each with what was measured and whether it is met."""
    return table(["", "goal", "measured", ""], [[label, *goal_cells(text)] for label, text in goals.items()])


def goal_cells(text: str) -> list[str]:
    """Returns goal, measurement and verdict; for a missed goal, the verdict says by how much.

    The goal is a number, or another record, whose figure of the same metric is to be reached; with ` - ±`, that
    less its standard deviation over trainings.
    """
    source, quoted, sign, limit, less = re.fullmatch(r"(\S+) (.+) ([<>])= (\S+)( - ±)?", text).groups()  # type: ignore[union-attr]
    name, _, digits = quoted.partition(" .")
    ours, digits, symbol = measured(source), digits or "3", "≥" if sign == ">" else "≤"
    if "/" in limit:
        other = measured(limit)
        goal = other[name] - (other.get(f"± {name}", 0.0) if less else 0.0) if name in other else None
        limit = "–" if goal is None else f"{goal:.{digits}f}"
    else:
        goal = float(limit)
    if name not in ours or goal is None:
        return [f"{symbol} {limit}", figure(ours, quoted), "not measured yet"]
    miss = max(0.0, goal - ours[name] if sign == ">" else ours[name] - goal)
    verdict = f"**missed** by {miss:.{digits}f}" if miss else "met"
    return [f"{symbol} {limit}", figure(ours, f"{quoted} ±"), verdict]


def photographs(photographs: str, metrics: Mapping[str, str]) -> str:
    """Returns a table of the rows of `results/photos/` for a data set: trained models, then the others in order.

    Values are means over the seeds of a row.
    """
    rows: dict[str, list[dict[str, float]]] = {}
    for path in sorted((docs_records.RESULTS / "photos").glob(f"{photographs}-*.json")):
        record = content(f"photos/{path.stem}")
        rows.setdefault(record["group"], []).append(record["metrics"])
    order = sorted(rows, key=lambda name: WITHOUT_A_MODEL.index(name) if name in WITHOUT_A_MODEL else -1)
    means = {
        name: {each: statistics.fmean(run[each] for run in runs if each in run) for each in set().union(*runs)}
        for name, runs in rows.items()
    }
    cells = [[name, *(figure(means[name], quoted) for quoted in metrics.values())] for name in order]
    return table(["", *metrics], cells) if cells else "Nothing is measured yet."


def kind(table: Mapping[str, Any]) -> Callable[..., str]:
    """Returns the function that makes a table of `docs_tables.yaml`, chosen by the table's key."""
    return next((make for make in (goals, photographs) if make.__name__ in table), models_by_metrics)


for _name, _table in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")).items():
    TABLES[_name] = partial(kind(_table), **_table)


# Tables of other records.


FIGURES = "../results/cpu/figures"
"""Folder of the pictures of scale `cpu`, from a page."""


def picture(group: str) -> str:
    """Returns Fig. 2's picture of a run of the plan `cpu`."""
    if not trainings_of("cpu/figure2", group):
        return "No picture is rendered yet."
    return f"![Input, boxes, reconstruction and single objects of three images]({FIGURES}/figure2-{group}.png)"


@generated
def clevr_picture() -> str:
    """Scenes of CLEVR by SSDIR."""
    return picture("clevr")


@generated
def faces_picture() -> str:
    """Photographs of faces by SSDIR."""
    return picture("faces")


@generated
def figure4() -> str:
    """Fig. 4's errors, measured here and by the authors, by sides of digits and grids."""
    ours = figure4_errors()
    if not ours:
        return "Not measured yet."
    grids = sorted({point.grids for point in ours})
    rows = []
    for name, errors in (("here", ours), ("the authors", SURFACE)):
        for side in sorted({(point.smallest, point.largest) for point in ours}):
            cells = [errors.get(Generation(each, *side)) for each in grids]
            shown = ["–" if error is None else f"{error:.4f}" for error in cells]
            rows.append([f"{name}, {side[0]:.2f}–{side[1]:.2f}", *shown])
    head = ["sides of digits, of the image's", *(f"grids {first}–{last}" for first, last in grids)]
    return f"{table(head, rows)}\n\n![Both surfaces as colours]({FIGURES}/figure4.png)"


@generated
def figure4_order() -> str:
    """How often harder data have the larger error, and how alike both surfaces are."""
    ours = figure4_errors()
    if not ours:
        return "Not measured yet."
    order = order_table(ours)
    return table(order.header, [[row.label, *row.values] for group in order.groups for row in group.rows])


def figure4_errors() -> dict[Generation, float]:
    return measured_errors(trainings_of("cpu/figure4", "sizes"))


SPEED = {
    "`encode` / its own backbone and heads alone": "encode / backbone and heads alone",
    "`encode` at 50 objects / at 1 object per image": "SSDIR: encode at 50 objects / at 1 object per image",
    "the same with glimpses": "GlimpseVAE: encode at 50 objects / at 1 object per image",
    "encode in the published form / best in single precision": (
        "encode in the published form / by the best engine in single precision"
    ),
    "the same / best in bfloat16": "encode in the published form / by the best engine in bfloat16",
    "the same / in int8": "encode in the published form / in int8",
    "encode, best in single precision / in int8": "encode by the best engine in single precision / in int8",
    "compositor on full canvases / in regions, 20 objects, 1 image": (
        "compositor on canvases / as a product, 1 images"
    ),
    "the same, 8 images": "compositor on canvases / as a product, 8 images",
    "peak memory of composing 100 objects / 1 object, 1024×1024": (
        "peak memory of composing 100 objects / 1 object, 1024 x 1024"
    ),
    "training step with the backbone / on cached features": "training step with the backbone / on cached features",
    "training step with four encoder passes / with one": "training step with four encoder passes / with one",
    "`ssdir --help`, seconds": "ssdir --help, seconds",
    "`import ssdir`, seconds": "import ssdir, seconds",
    "`ssdir encode MODEL.onnx` of one image, seconds": "ssdir encode MODEL.onnx, seconds",
}
"""Rows of the table of goals, and the records that they are from."""


@generated
def speed_goals() -> str:
    by_name = {record["name"]: record for record in content("bench/speed")["records"]}
    rows = []
    for label, name in SPEED.items():
        record = by_name[name]
        goal = record["goal"].partition(",")[0].replace(">=", "≥").replace("<=", "≤")
        missed = ", **missed**" if record["met"] is False else ""
        rows.append([label, goal or "–", f"{record['median']:.2f}{missed}"])
        if name == "compositor on canvases / as a product, 8 images":
            rows.append(
                ["memory in regions / on full canvases, 8 images", "≤ 0.25", f"{record['peak_memory_ratio']:.2f}"]
            )
    return table(["", "goal", "measured"], rows)


@generated
def engines() -> str:
    name = "encode in the published form / by the best engine in single precision"
    record = next(entry for entry in content("bench/speed")["records"] if entry["name"] == name)
    seconds = {engine: values["median"] for engine, values in record["seconds_per_image"].items()}
    as_trained = seconds["torch, as trained"]
    rows = [[engine, f"{1000 * each:.0f}", f"{as_trained / each:.1f}"] for engine, each in seconds.items()]
    return table(["", "ms per image", "times as fast"], rows)


@generated
def precision() -> str:
    columns = ("detection/ap", "probe/accuracy", "probe/accuracy_end_to_end")
    rows = []
    for record in content("bench/precision")["records"]:
        loss = f"{record['loss']['probe/accuracy']:.3f}" if record["loss"] else ""
        rows.append([record["engine"], *(figure(record["metrics"], name) for name in columns), loss])
    return table(["`tiny-digits`", "AP", "probe, conditional", "probe, end to end", "loss of the probe"], rows)


@generated
def training_step() -> str:
    parts = ["network", "data", "matching", "RoIAlign", "pasting", "views", "optimiser"]
    rows = [
        [
            f"`{record['preset']}`, {record['stage']}",
            f"{record['step_over_network']:.2f}",
            *(f"{100 * record['shares'][part]:.0f} %" if part in record["shares"] else "–" for part in parts),
        ]
        for record in content("bench/training-step")["records"]
    ]
    return table(["", "step over network", *parts], rows)


@generated
def gpu() -> str:
    rows = [
        [
            record["name"],
            f"{record['images_per_second']['median']:.0f}",
            *(f"{100 * record[share]:.0f} %" for share in ("share_of_products", "share_of_copies", "gpu_busy")),
            str(record["launches"]),
        ]
        for record in content("bench/gpu")["records"]
    ]
    head = ["", "images/s", "of the rate of products", "of the rate of copies", "GPU busy", "kernels"]
    return table(head, rows)


@generated
def gpu_rates() -> str:
    rates = content("bench/gpu")["rates"]
    products, copies = rates["flop_per_second"] / 1e12, rates["bytes_per_second"] / 1e12
    return f"In the same run, this GPU reaches {products:.0f} TFLOP/s in products and copies {copies:.2f} TB/s."


@generated
def costs() -> str:
    costs = [cost for cost in content("bench/models")["costs"] if cost["image_size"] == 128]
    cases = {(cost["model"], cost["objects"]): cost["parameters"] for cost in costs}
    by_case = {(cost["model"], cost["objects"], cost["stage"]): cost for cost in costs}
    rows = []
    for (model, objects), parameters in cases.items():
        stages = [by_case.get((model, objects, stage)) for stage in ("encode", "decode", "train", "train_cached")]
        rows.append(
            [
                model,
                "any" if objects is None else str(objects),
                f"{parameters / 1e6:.2f} M",
                *(f"{1000 * stage['seconds']['median']:.1f}" if stage else "–" for stage in stages),
                *(f"{by_case[model, objects, stage]['memory_mb']:.0f}" for stage in ("encode", "train")),
            ]
        )
    times = ["encode, ms", "decode, ms", "training step, ms", "on cached features, ms"]
    head = ["", "objects", "parameters", *times, "memory of encoding, MB", "of a step, MB"]
    return table(head, rows)


@generated
def loading() -> str:
    times = content("bench/loading")["metrics"]["times_training"]
    return (
        f"Reading faces for `widerface-128` is {times['preloaded']:.1f} times as fast as training on them with "
        f"the same core, and {times['files']:.1f} times as fast where every epoch reads the files again "
        "(`results/bench/loading.json`)."
    )


@generated
def plans() -> str:
    """Encoding a billion images by two models, as `ssdir bench --plan` prints it."""
    models = {model: content(f"bench/plan-{model}") for model in ("tiny-digits", "photos")}
    parts = [plan_tables(EncodingPlan.model_validate(plan)) for plan in models.values()]
    rows = [
        [one[0].replace(" x ", " × "), one[1], other[1]]
        for tables in zip(*parts, strict=True)
        for one, other in zip(*(each.rows for each in tables), strict=True)
    ]
    return table(["", *(f"`{model}`" for model in models)], rows)


@generated
def plan_example() -> str:
    """The arithmetic of the plan of photographs, in numbers."""
    plan = EncodingPlan.model_validate(content("bench/plan-photos"))
    cores, N = plan.cores, plan.cores.per_machine
    each = cores.images_per_second.value / N
    assert cores.machines is not None
    assert cores.cost is not None
    in_time = int(plan.deadline_hours / cores.part_hours.value)
    return (
        f"For `photos`, *r* / *N* is {rounded(each)} images/s. A part of {plan.images_per_part:,} images takes "
        f"{plan.images_per_part:,} / {rounded(each)} s = {rounded(cores.part_hours.value)} h; a worker encodes "
        f"{in_time} of them in {plan.deadline_hours:g} h, a machine {N * in_time}, and "
        f"{plan.parts:,} / {N * in_time} = {rounded(plan.parts / (N * in_time), 5)}, so that "
        f"{cores.machines.value:,.0f} machines encode all {plan.parts:,} parts in time. The core-hours are "
        f"{plan.images:,} / {rounded(each)} / 3,600 = {rounded(cores.device_hours.value)}, and cost "
        f"{rounded(cores.cost.value)} at 0.04 each."
    )


@generated
def encoding_by_ray() -> str:
    """Goals and figures of encoding by Ray's workers, with those of random kills."""
    ray, kills = content("bench/encoding"), content("bench/encoding-kills")
    starts = [run["start_up_s"] for name in ("1 worker", "2 workers") for run in ray["runs"][name]]
    one = [run["start_up_s"] for run in ray["runs"]["one process, 2 threads"]]
    damaged, count = ray["damaged"], ray["many_images"]["images"]
    wrong = kills["lost"] + kills["doubled"] + kills["different"]
    by_kind = ", ".join(f"{kills['kills'][kind]} of a {kind}" for kind in ("worker", "machine", "command"))
    rows = [
        [
            "throughput of 2 workers of one thread / one process of two",
            "≥ 0.9",
            f"{ray['ray_2_workers_to_one_process']:.2f}",
        ],
        ["throughput of 2 workers / 1 worker", "≥ 1.8", f"{ray['ray_2_workers_to_1']:.2f}"],
        ["start-up with Ray, and of one process", "", f"{max(starts):.0f} s, {max(one):.0f} s"],
        [f"peak memory for {count:,} images / 20,000", "≤ 1.05", f"{ray['memory_of_many_to_few']:.3f}"],
        [
            f"rows of `_skipped` for {damaged['damaged']} damaged images of {damaged['images']:,}",
            str(damaged["damaged"]),
            str(damaged["skipped"]),
        ],
        [
            f"rows lost, doubled or different of {kills['rows']:,}, "
            f"after {kills['kills']['total']} kills ({by_kind})",
            "0",
            str(wrong),
        ],
    ]
    return table(["`tiny-digits`, images of 96 px, two cores", "goal", "measured"], rows)


@generated
def large_index() -> str:
    """Search among ten million objects."""
    sets = {name: value for name, value in content("bench/search")["metrics"].items() if "build" in value}

    def filtered(metrics: dict[str, Any], share: str) -> str:
        search = metrics["search"]
        return f"{search[f'recall_at_10_{share}']:.2f}, {search[f'query_ms_{share}']['median']:.0f} ms"

    def added(metrics: dict[str, Any], name: str) -> str:
        return f"{metrics[name]['seconds']:.0f} s; {metrics[name]['query_ms']['median']:.0f} ms"

    def in_gb(size: float) -> str:
        return f"{size / 1e9:.1f} GB"

    cells: dict[str, Callable[[dict[str, Any]], str]] = {
        "intrinsic dimension": lambda m: f"{m['intrinsic_dimension']:.0f}",
        "making the index": lambda m: f"{m['build']['seconds']:.0f} s",
        "of which until all objects are read": lambda m: f"{m['build']['stages']['making partitions']:.0f} s",
        "memory while making it, files apart": lambda m: in_gb(m["build"]["peak_mb"] * 2**20),
        "disk, and of which partitions": lambda m: f"{in_gb(m['index_bytes'])}, {in_gb(m['partitions_bytes'])}",
        "recall@10": lambda m: f"{m['search']['recall_at_10']:.3f}",
        "query, median and 95th percentile": lambda m: (
            f"{m['search']['query_ms']['median']:.0f} ms, {m['search']['query_ms']['p95']:.0f} ms"
        ),
        "the first query after opening, no file in memory": lambda m: f"{m['cold']['query_ms']['median']:.0f} ms",
        "reading the ten objects themselves": lambda m: f"{m['search']['read_found_ms']['median']:.0f} ms",
        "filter that keeps a half: recall, median": lambda m: filtered(m, "half"),
        "filter that keeps 1 %": lambda m: filtered(m, "hundredth"),
        "filter that keeps 0.01 %": lambda m: filtered(m, "ten_thousandth"),
        "adding 10,000 objects; a query then": lambda m: added(m, "add_few"),
        "adding 60,000 objects, to the partitions; a query then": lambda m: added(m, "add_more"),
    }
    return table(["", *sets], [[name, *map(cell, sets.values())] for name, cell in cells.items()])


@generated
def two_processes() -> str:
    """How far the losses of two processes are from those of one, and how fast their steps are."""
    result = content("bench/devices")
    stages = {name: result[name] for name in ("detector", "representation")}
    lines = {
        "two processes against one: largest relative difference of a loss": "two_processes",
        "one process with two threads against one with one": "threads",
        "steps per second of two processes / one with two threads": "two_processes_over_two_threads",
    }
    rows = [[line, *(rounded(stage[key], 2) for stage in stages.values())] for line, key in lines.items()]
    return table([f"{result['steps']} steps, single precision", *stages], rows)


@generated
def few_photographs() -> str:
    results = content("bench/few-photographs")["results"]
    rows = [
        [
            name.replace("_", " "),
            str(result["epochs"]),
            f"{result['ap50_validation']:.3f}",
            f"{result['ap50_test']:.3f}",
        ]
        for name, result in results.items()
    ]
    return table(["recipe", "epochs", "AP50, validation", "AP50, other photographs"], rows)


@generated
def own_photographs() -> str:
    """Time and quality of the recipe that `ssdir data check` recommends for 200 photographs."""
    result = content("bench/own-photographs")
    counts, times, metrics = result["provenance"]["config"], result["times"]["train"], result["metrics"]
    cores = counts["cores"]
    rows = [
        ["epochs of each stage", str(result["epochs"]["detector"])],
        ["minutes of training by the clock", f"{times['wall_seconds'] / 60:.1f}"],
        [f"minutes of CPU time on each of {cores} cores", f"{times['cpu_seconds'] / 60 / cores:.1f}"],
        ["AP50 on VOC's val list, all objects as one class", f"{metrics['detection/ap50']:.3f}"],
        ["linear probe of 20 classes, detected objects", f"{metrics['probe/accuracy']:.3f}"],
    ]
    return table([f"{counts['learned']} photographs", ""], rows)


# Clips.

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
    """Returns the mean of seeds and, of several, their standard deviation."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


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
def studio_edits() -> str:
    edits = content("bench/studio")
    names = {"move": "moving an object", "slider": "moving a slider"}
    rows = [
        [names[record["act"]], f"≤ {1000 * record['goal']:.0f} ms", f"{1000 * record['seconds']['median']:.0f} ms"]
        for record in edits["records"]
    ]
    return table([f"a scene of {edits['objects']} objects, two cores", "goal", "median"], rows)


@generated
def robustness() -> str:
    results = content("robustness")
    parts = {
        "damaged inputs": results["inputs"],
        "kills": results["kills"],
        "full disks and read-only folders": results["disks"],
        "two commands at once": results["two_at_once"],
    }
    rows = []
    for label, part in parts.items():
        tried, failures = part.get("total", part)["tried"], len(part["failures"])
        rows.append([label, str(tried), str(tried - failures), str(failures)])
    studio = results["studio"]
    wrong = studio["requests"] - studio["answered_right"]
    requests = f"requests to the studio by {studio['clients']} clients at once"
    rows.append([requests, str(studio["requests"]), str(studio["answered_right"]), str(wrong)])
    return table(["part", "tried", "as promised", "failures"], rows)


@generated
def robustness_memory() -> str:
    memory = content("robustness")["memory"]
    peaks = " and ".join(
        f"{peak:,.0f} MiB for {images:,}"
        for peak, images in zip(memory["peak_mib"], memory["images"], strict=True)
    )
    return f"`encode` needs no more memory for many small pictures than for few: at most {peaks}."


@generated
def readme_demo() -> str:
    """What the demo does, and how long it takes."""
    minutes = measured("demo/metrics")["cpu_minutes_per_core"]
    cores = content("demo/metrics")["provenance"]["cpu_count"]
    return (
        f"`make demo` trains a model of digits and writes `demo/report.html`: {minutes:.1f} minutes of CPU time "
        f"on each of {cores} cores, longer by the clock if they are busy."
    )


@generated
def readme_models() -> str:
    """Returns the table of shipped models, with the accuracy on their cards."""
    probe = "probe/accuracy"
    measured_in = {
        "photos": ("photographs, VOC", "detection/voc", "photos/voc-photos-0", f"true_boxes/{probe}"),
        "tiny-mnist": ("scattered MNIST digits", "reference/tiny-mnist", "reference/tiny-mnist", probe),
        "tiny-digits": ("scattered 8×8 digits", "reference/tiny-digits", "reference/tiny-digits", probe),
    }
    rows = []
    for card in model_cards():
        trained_on, detection, embeddings, metric = measured_in[card.name]
        ap50, accuracy = figure(measured(detection), "detection/ap50"), figure(measured(embeddings), metric)
        megabytes = (card.path / WEIGHTS_FILE).stat().st_size / 1e6
        size = f"{card.image_size} px"
        rows.append([f"`{card.name}`", trained_on, size, ap50, accuracy, f"{megabytes:.1f} MB"])
    return table(["", "trained on", "image size", "AP50", "linear probe", "weights"], rows)


@generated
def unlike_images() -> str:
    """Returns the table of shares of images reported as unlike the training data (`tools/measure_domain.py`)."""
    models = content("domain")
    kinds = next(iter(models.values()))["kinds"]
    head = [
        "images",
        *(
            f"`{name}`: reported" if part == "reported" else "AUROC"
            for name in models
            for part in ("reported", "auroc")
        ),
    ]
    rows = []
    for kind in kinds:
        cells = []
        for model in models.values():
            row, own = model["kinds"][kind], kind == model["own"]
            reported = "no objects" if row["reported"] is None else f"{row['reported']:.2f}"
            cells += [
                f"{reported} (its own)" if own else reported,
                "" if row["auroc"] is None else f"{row['auroc']:.3f}",
            ]
        rows.append([kind, *cells])
    return table(head, rows)


@generated
def code_size() -> str:
    """Returns the table of code sizes and their goals (`tools/code_size.py`)."""
    counts = content("code-size")
    lines, commands = counts["lines"], counts["long_commands"]
    code = lines["total"] - lines["blank"] - lines["docstrings"]
    rows = [
        ["lines of `src/`", f"{lines['total']:,} ({code:,} neither blank nor docstring)", "24,000"],
        ["keys of recipes, as each model has them", str(counts["config_keys"]["per_model"]), "220"],
        ["keys of recipes, once by the class that defines them", str(counts["config_keys"]["by_class"]), "220"],
        [
            "command modules of more than 60 lines",
            f"{len(commands)}, the longest has {max(commands.values())}",
            "0",
        ],
    ]
    return table(["", "now", "goal"], rows)


@generated
def clevr_boxes() -> str:
    results = content("clevr/boxes")
    rows = [
        [split, shape, str(iou["objects"]), *(f"{iou[name]:.3f}" for name in ("mean", "p5", "p1"))]
        for split in ("train", "val")
        for shape, iou in results[split]["iou_90_percent_visible"].items()
    ]
    return table(["split", "shape", "objects", "mean", "5th percentile", "1st percentile"], rows)


@generated
def clevr_box_facts() -> str:
    variants = content("clevr/boxes")["train"]["iou_90_percent_visible_of_variants"]
    shapes = ("all", "cube", "sphere", "cylinder")
    rows = [[name, *(f"{iou[shape]['mean']:.3f}" for shape in shapes)] for name, iou in variants.items()]
    return table(["boxes", *shapes], rows)


@generated
def clevr_few_objects() -> str:
    rows = [
        [
            str(number),
            f"{errors['position_median']:.4f}",
            f"{errors['position_max']:.3f}",
            f"{errors['box_iou_mean']:.3f}",
            f"{errors['box_iou_p5']:.3f}",
        ]
        for number, errors in enumerate(content("clevr/boxes")["camera_from_few_objects"].values())
    ]
    head = ["n", "position off, median", "largest", "mean IoU of all the scene's boxes", "5th percentile"]
    return table(head, rows)


@generated
def every_preset() -> str:
    """The presets with the image size of each and what it is for."""
    entries = [entry for entry in list_models() if not entry.trained]
    rows = [[f"`{entry.name}`", f"{entry.image_size} px", entry.description] for entry in entries]
    return table(["preset", "image size", "what for"], rows)


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


@generated
def parquet_columns() -> str:
    """Returns the table of the columns of stored objects, from their definition in the package."""
    return _columns(OBJECT_COLUMNS)


@generated
def track_columns() -> str:
    """Returns the table of the further columns of a clip's objects."""
    return _columns(TRACK_COLUMNS)


def _columns(columns: Sequence[ObjectColumn]) -> str:
    rows = []
    for column in columns:
        kind = f"{column.length} × {column.kind}" if column.length else column.kind
        kind += ", or null" if column.nullable else ""
        rows.append([f"`{column.name}`", kind, column.unit, column.meaning])
    return table(["column", "type", "unit or range", "meaning"], rows)


# The pages.


def rewritten(page: str) -> str:
    """Returns the text of a page with its tables regenerated."""

    def block(match: re.Match[str]) -> str:
        name, text = match["name"], TABLES[match["name"]]()
        text = text if text.startswith("|") else textwrap.fill(text, 120, break_long_words=False)
        return f"<!-- table: {name} -->\n\n{text}\n\n<!-- end -->"

    return BLOCK.sub(block, page)


def main() -> int:
    """Rewrites the pages; with `--check`, prints which are stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where a page is stale")
    check = parser.parse_args().check
    stale = []
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        new = rewritten(text)
        if new != text:
            stale.append(path)
            if not check:
                path.write_text(new, encoding="utf-8")
    for path in stale:
        print(f"{'stale' if check else 'wrote'}: {path.relative_to(ROOT)}")
    return int(check and bool(stale))


if __name__ == "__main__":
    raise SystemExit(main())
