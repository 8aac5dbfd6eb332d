"""Writes the tables of README and docs from the committed results.

A page holds a generated table or sentence between two comments:

    <!-- table: NAME -->

    …

    <!-- end -->

`make docs-tables` writes the table of that name between them: one of `docs_tables.yaml`, whose cells are metrics,
or what the function of that name returns. With `--check` the tool changes nothing, and exits with 1
if a page is stale.
"""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import docs_benchmarks
import docs_clips
import yaml
from docs_records import content, measured, trainings_of
from docs_writing import TABLES, figure, generated, goals, models_by_metrics, photographs, table

from ssdir.models.catalogue import list_models
from ssdir.models.shipped import WEIGHTS_FILE, model_cards
from ssdir.object_table import OBJECT_COLUMNS, TRACK_COLUMNS, ObjectColumn
from ssdir.reports.paper import SURFACE, Generation
from ssdir.reproduce.figures import order_table
from ssdir.reproduce.surface import measured_errors

WITH_TABLES = (docs_benchmarks, docs_clips)
"""Modules that register tables where they are imported."""
ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(r"^<!-- table: (?P<name>[\w-]+) -->\n.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)


def kind(table: Mapping[str, Any]) -> Callable[..., str]:
    """Returns the function that makes a table of `docs_tables.yaml`, chosen by the table's key."""
    return next((make for make in (goals, photographs) if make.__name__ in table), models_by_metrics)


for _name, _table in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8")).items():
    TABLES[_name] = partial(kind(_table), **_table)


# Tables of other records.


SIZE_PRIORS = {"spair": "table2", "space": "table2", "clevr-spair": "masks", "clevr-space": "masks"}
"""Runs of the plan `cpu` whose size prior is chosen, each with an experiment that has its records."""
PICTURES = ("clevr", "spair-one-size", "space-one-size")
"""Runs of the plan `cpu` whose picture of Fig. 2 is on a page."""
FIGURES = "../results/cpu/figures"
"""Folder of the pictures of scale `cpu`, from a page."""


def picture(group: str) -> str:
    """Returns Fig. 2's picture of a run of the plan `cpu`."""
    if not trainings_of("cpu/figure2", group):
        return "No picture is rendered yet."
    return f"![Input, boxes, reconstruction and single objects of three images]({FIGURES}/figure2-{group}.png)"


for _group in PICTURES:
    TABLES[f"{_group}-picture"] = partial(picture, _group)


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


@generated
def size_priors() -> str:
    """The size priors of SPAIR and SPACE that were compared on validation images, and the chosen ones."""
    rows = []
    for run, experiment in SIZE_PRIORS.items():
        for training in trainings_of(f"cpu/{experiment}", run)[:1]:
            choice = training["provenance"]["config"]["choice"]
            for number, candidate in enumerate(choice["among"]):
                settings = "; ".join(f"`{each}`" for each in candidate["overrides"]) or "the preset's"
                value = "–" if candidate["value"] is None else f"{candidate['value']:.3f}"
                chosen = f"**{value}**" if number == choice["chosen"] else value
                rows.append([f"{training['label']}, {training['data']}", settings, chosen])
    return table(["", "size prior", "on validation images"], rows) if rows else "Not measured yet."


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
