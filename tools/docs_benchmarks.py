"""Tables of benchmarks: time, memory, many images, few photographs, damaged inputs, the size of the code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from docs_records import content
from docs_writing import figure, generated, table

from ssdir.benchmark.plan import EncodingPlan
from ssdir.benchmark.plan_tables import plan_tables
from ssdir.formatting import rounded

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
