"""`ssdir classify fit`, `ssdir classify predict`, `ssdir cluster`, `ssdir outliers`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

from ssdir.commands.options import AsJson, Encoder, Force, Seed
from ssdir.console import command_group, next_step, progress, say, stdout, warn
from ssdir.documents import json_text
from ssdir.errors import InputError
from ssdir.outputs import atomic_file, claim

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from ssdir.analysis.crops import Tile
    from ssdir.identity import Identity
    from ssdir.store.tables import Stored

Objects = Annotated[Path, typer.Argument(metavar="OBJECTS", help="File that ssdir encode wrote.")]
Out = Annotated[Path, typer.Option(help="File to write, a row per object: .parquet, .csv or .json.")]
ImageGrid = Annotated[Path | None, typer.Option(help="Picture to write, of the objects in their pictures.")]

ROWS, COLUMNS = 12, 10
"""Maximum rows and columns of an image grid."""

classify_app = command_group("Learn a classifier of objects from a few labelled ones.")


@classify_app.command(epilog="Example: ssdir classify fit objects.parquet --labels labels.csv --out digits.json")
def fit(
    objects: Objects,
    out: Annotated[Path, typer.Option(help="Classifier to write, as JSON.")],
    labels: Annotated[
        Path | None, typer.Option(help="CSV with the columns row, from 0, and label: some of the objects.")
    ] = None,
    column: Annotated[str | None, typer.Option(help="Or a column of OBJECTS that holds the labels.")] = None,
    model: Encoder = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Learn from labelled objects, and say how well it goes on held-out ones."""
    if (labels is None) == (column is None):
        raise InputError("give the labels, as a CSV by --labels or as a column of the objects by --column")
    claim(out, force)
    from ssdir.analysis.classifier import Classifier, read_labels, try_out
    from ssdir.store.tables import read_stored

    stored = read_stored(objects, 2, _identity(model))
    if labels is not None:
        rows, names = read_labels(labels, len(stored.table))
    else:
        assert column is not None
        rows, names = _labels_of(stored.table, column, objects)
    z_what = stored.z_what[rows]
    classifier = Classifier.fit(z_what, names, stored.info.fingerprint)
    trial = try_out(z_what, names, seed)
    classifier.save(out, force)
    if as_json:
        typer.echo(json_text(trial.__dict__), nl=False)
        return
    counted = Table("class", Column("labelled", justify="right"))
    for name, count in trial.counts.items():
        counted.add_row(escape(name), str(count))
    stdout().print(counted)
    if trial.accuracy is None:
        say("a class has one labelled object only, so none could be held out: label more to know how well it goes")
    else:
        say(
            f"accuracy on held-out objects: {trial.accuracy:.3f} ± {trial.spread:.3f} "
            f"(the most frequent class alone: {trial.floor:.3f})"
        )
    next_step("classify", "predict", out, objects, "--out", "predicted.csv", "--image-grid", "predicted.png")


@classify_app.command(
    epilog="Example: ssdir classify predict digits.json objects.parquet --out p.csv --image-grid p.png"
)
def predict(
    classifier: Annotated[Path, typer.Argument(metavar="CLASSIFIER", help="What ssdir classify fit wrote.")],
    objects: Objects,
    out: Out,
    image_grid: ImageGrid = None,
    model: Encoder = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Add each object's class, and how probable it is."""
    _check_outputs(out, image_grid, force)
    import numpy as np

    from ssdir.analysis.classifier import Classifier
    from ssdir.identity import check_comparable
    from ssdir.store.tables import read_stored, write_stored

    loaded, stored = Classifier.load(classifier), read_stored(objects, identity=_identity(model))
    check_comparable(stored.info, f"'{objects}' (model '{stored.info.model}')", loaded, f"'{classifier}'")
    predicted, chances = loaded.predict(stored.z_what)
    names = np.asarray(predicted, dtype=object)
    write_stored(out, stored, {"predicted": names, "probability": chances}, force)
    classes = sorted(set(predicted))
    if image_grid is not None:
        order = {name: np.flatnonzero(names == name) for name in classes}
        best = {name: rows[np.argsort(-chances[rows])] for name, rows in order.items()}
        _write_groups(image_grid, force, objects, stored, best, lambda row: f"{chances[row]:.2f}")
    counts = {name: int((names == name).sum()) for name in classes}
    _show(counts, "class", as_json, out, image_grid, objects)


def cluster(
    objects: Objects,
    out: Out,
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="How many clusters; by default as well separate as can be.")
    ] = None,
    image_grid: ImageGrid = None,
    model: Encoder = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Group objects that look alike."""
    _check_outputs(out, image_grid, force)
    import numpy as np

    from ssdir.analysis.clusters import group
    from ssdir.store.tables import read_stored, write_stored

    stored = read_stored(objects, 2, _identity(model))
    if k is not None and k > len(stored.table):
        raise InputError(f"'{objects}' holds {len(stored.table)} objects, they can't make {k} clusters")
    with progress("clustering") as advance:
        groups = group(stored.z_what, k, seed, advance)
    write_stored(out, stored, {"cluster": groups.group, "distance_to_center": groups.distance}, force)
    members = {f"cluster {number}": np.flatnonzero(groups.group == number) for number in range(groups.count)}
    if image_grid is not None:
        typical = {name: rows[np.argsort(groups.distance[rows])] for name, rows in members.items()}
        _write_groups(image_grid, force, objects, stored, typical, lambda row: f"row {row}")
    _show({name: len(rows) for name, rows in members.items()}, "cluster", as_json, out, image_grid, objects)


def outliers(
    objects: Objects,
    out: Out,
    model: Encoder = None,
    codes_only: Annotated[
        bool, typer.Option("--codes-only", help="Don't look at the pictures: how far from others is all.")
    ] = False,
    image_grid: ImageGrid = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Rank objects by how odd they are: far from all others, and badly drawn by their model."""
    _check_outputs(out, image_grid, force)
    import numpy as np

    from ssdir.analysis.outliers import loneliness, oddness
    from ssdir.store.tables import read_stored, write_stored

    stored = read_stored(objects, 2, _identity(model))
    with progress("comparing") as advance:
        measures = {"distance_to_others": loneliness(stored.z_what, on_progress=advance)}
    if not codes_only:
        errors = _drawing_errors(objects, stored, model)
        if errors is not None:
            measures["drawing_error"] = errors
    oddest = oddness(*measures.values())
    order = np.argsort(-oddest, kind="stable")
    write_stored(out, stored, {"oddness": oddest, **measures}, force)
    if image_grid is not None:
        ranked = {f"oddest {start + 1} …": order[start : start + COLUMNS] for start in range(0, 40, COLUMNS)}
        usual = order[::-1][:COLUMNS]
        shown = {**ranked, "most ordinary": usual}
        _write_groups(image_grid, force, objects, stored, shown, lambda row: f"row {row}")
    top = order[:10].tolist()
    if as_json:
        typer.echo(json_text([{"row": row, "oddness": float(oddest[row])} for row in top]), nl=False)
        return
    listed = Table(*(Column(name, justify="right") for name in ("row", "oddness", *measures)), "image")
    for row in top:
        values = [f"{values[row]:.3f}" for values in (oddest, *measures.values())]
        listed.add_row(str(row), *values, escape(Path(stored.table["image"][row].as_py()).name))
    stdout().print(listed)
    _tell(out, image_grid)
    next_step("index", objects, "--out", "index")


def _identity(model: str | None) -> Identity | None:
    from ssdir.inference.engines import load_identity

    return None if model is None else load_identity(model)


def _drawing_errors(objects: Path, stored: Stored, model: str | None) -> NDArray[np.float64] | None:
    """None, and a warning, where the model or the pictures are not at hand; an error if that model was named."""
    import numpy as np

    from ssdir.analysis.outliers import drawing_errors
    from ssdir.identity import Identity
    from ssdir.inference.predictor import load
    from ssdir.store.columns import numbers
    from ssdir.store.objects_file import read_table, to_objects

    try:
        predictor = load(stored.info.model)
        table, info = read_table(objects, Identity.of(stored.info.model, predictor))
        found, images = to_objects(table, info)
        with progress("drawing") as advance:
            by_image = drawing_errors(predictor, found, [_picture(objects, image) for image in images], advance)
    except InputError as error:
        if model is not None:
            raise
        warn(f"ranked by the embeddings alone: {error}")
        return None
    # The objects were sorted by image: back to the rows that they are of.
    order = np.argsort(numbers(table["image_index"]), kind="stable")
    errors = np.empty_like(by_image)
    errors[order] = by_image
    return errors


def _picture(objects: Path, image: str) -> Path:
    """Where a picture of a file of objects is."""
    from ssdir.store.objects_file import find_picture

    return find_picture(image, ".", objects.parent, beside=objects.parent)


def _labels_of(table: pa.Table, column: str, source: Path) -> tuple[NDArray[np.int64], list[str]]:
    """Rows that have a label, and the labels."""
    import numpy as np

    from ssdir.errors import nearest

    if column not in table.column_names:
        raise InputError(f"'{source}' has no column '{column}'{nearest(column, table.column_names)}")
    values = table[column].to_pylist()
    rows = [row for row, value in enumerate(values) if value not in (None, "") and value == value]  # NaN is not
    if not rows:
        raise InputError(f"the column '{column}' of '{source}' labels nothing")
    return np.asarray(rows, dtype=np.int64), [str(values[row]) for row in rows]


def _check_outputs(out: Path, image_grid: Path | None, force: bool) -> None:
    from ssdir.store.tables import check_writable

    check_writable(out, force)
    if image_grid is not None:
        claim(image_grid, force, (".png",))


def _write_groups(image_grid: Path, force: bool, objects: Path, stored: Stored, groups: Any, caption: Any) -> None:
    """A row for each group: its name, and its first objects."""
    import numpy as np

    from ssdir.analysis.crops import Tile, crop_grid, read_crops
    from ssdir.plots.image_grids import to_png

    rows: list[list[Tile]] = []
    for name, members in [each for each in groups.items() if len(each[1])][:ROWS]:
        shown = np.asarray(members)[:COLUMNS]
        crops = read_crops(stored.table.take(shown), lambda image: _picture(objects, image))
        captions = [caption(row) for row in shown.tolist()]
        captions[0] = f"{name}: {captions[0]}"
        rows.append([Tile(crop, text) for crop, text in zip(crops, captions, strict=True)])
    with atomic_file(image_grid, force) as temporary:
        temporary.write_bytes(to_png(crop_grid(rows, ["object"])))


def _show(
    counts: dict[str, int], what: str, as_json: bool, out: Path, image_grid: Path | None, objects: Path
) -> None:
    if as_json:
        typer.echo(json_text(counts), nl=False)
        return
    table = Table(what, Column("objects", justify="right"))
    for name, count in counts.items():
        table.add_row(escape(name), str(count))
    stdout().print(table)
    _tell(out, image_grid)
    next_step("outliers", objects, "--out", "odd.csv", "--image-grid", "odd.png")


def _tell(out: Path, image_grid: Path | None) -> None:
    say(f"{out}" if image_grid is None else f"{out}; see {image_grid}")
