"""The command line: read the options, call the library, say what came of it.

Whatever needs torch is imported inside the commands, so that help is instant.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Column, Table

from ssdir.commands.export import export
from ssdir.commands.reproduce import reproduce
from ssdir.console import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    FriendlyGroup,
    end_cleanly_when_terminated,
    fail,
    next_step,
    progress,
    say,
    stdout,
    warn,
)
from ssdir.errors import InputError
from ssdir.outputs import atomic_file, claim

if TYPE_CHECKING:
    from ssdir.data.dataset import ObjectDataset
    from ssdir.data.images import Image8
    from ssdir.inference.predictor import Predictor

# The same-object metrics compare every glyph with every other.
MAX_GLYPHS = 500

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


app = typer.Typer(
    cls=FriendlyGroup,
    help="Images in, decodable object embeddings out.",
    epilog="Start with: ssdir demo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Make, check and convert data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="A shipped model's name, or a model's or run's folder.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the best there is.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Images at once.")]
Seed = Annotated[int, typer.Option(min=0, help="Same seed, same result.")]
Boxes = Annotated[str | None, typer.Option(help="CLEVR's boxes: whole or visible.")]
Vocabulary = Annotated[str | None, typer.Option(help="CLEVR's categories: shape, object or full.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def main() -> None:
    """Entry point of the command `ssdir`."""
    end_cleanly_when_terminated()
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        from ssdir import __version__

        typer.echo(f"ssdir {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None: ...


@data_app.command(epilog="Example: ssdir data scatter --out data/digits --train 2000 --val 200 --test 500")
def scatter(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    source: Annotated[str, typer.Option(help="digits, mnist, or a folder with a subfolder per class.")] = "digits",
    root: Annotated[Path | None, typer.Option(help="Folder with MNIST's files; downloaded without.")] = None,
    canvas: Annotated[int, typer.Option(help="Side of the images, in pixels.")] = 128,
    grids: Annotated[str, typer.Option(help="Grid sizes to draw from.")] = "2,3,4,5,6",
    min_size: Annotated[float, typer.Option(help="Smallest object, as a fraction of the side.")] = 0.1875,
    max_size: Annotated[float, typer.Option(help="Largest object, as a fraction of the side.")] = 0.75,
    objects: Annotated[str | None, typer.Option(help="Objects per image, such as 2-6; else by the grid.")] = None,
    position_variance: Annotated[float, typer.Option(help="How far objects leave their cells' centres.")] = 0.7,
    train: Annotated[int, typer.Option(help="Training images.")] = 10_000,
    val: Annotated[int, typer.Option(help="Validation images.")] = 1_000,
    test: Annotated[int, typer.Option(help="Test images.")] = 1_000,
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
    force: Force = False,
) -> None:
    """Scatter digits, or your own cut-outs, over images at many sizes: a COCO data set."""
    from ssdir.config import parse
    from ssdir.data.coco import write_scatter
    from ssdir.data.scatter import ScatterConfig

    values = {
        "canvas": canvas,
        "grids": [part.strip() for part in grids.split(",")],
        "min_size": min_size,
        "max_size": max_size,
        "objects": None if objects is None else [part.strip() for part in objects.split("-")],
        "position_variance": position_variance,
        "train": train,
        "val": val,
        "test": test,
        "seed": seed,
    }
    config = parse(ScatterConfig, values, source="ssdir data scatter")
    with progress("scattering") as advance:
        write_scatter(out, source, config, root=root, workers=workers, progress=advance, force=force)
    say(f"{train + val + test} images in {out}")
    next_step("train", "tiny", "--data", out, "--out", "runs/first")


@data_app.command(epilog="Example: ssdir data check data/digits --out check")
def check(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of a data set, in any known layout.")],
    split: Annotated[str | None, typer.Option(help="Split to look at; by default all, to train on train.")] = None,
    preset: Annotated[str, typer.Option(help="Preset that is to learn it, see ssdir models.")] = "tiny",
    boxes: Boxes = None,
    vocabulary: Vocabulary = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make: all findings, a recipe, a picture.")] = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Say what a data set holds, what is broken in it, and what to train on it with.

    Ends with exit code 1 if training would stop at something.
    """
    if out is not None:
        claim(out, force)
    from ssdir.experiments.doctor import RECOMMENDED_FILE, SHEET_FILE, diagnose, write_diagnosis
    from ssdir.experiments.doctor_screen import screen

    with progress("reading images") as advance:
        diagnosis = diagnose(path, split, preset, advance, boxes=boxes, vocabulary=vocabulary)
    if out is not None:
        write_diagnosis(diagnosis, out, force)
    if as_json:
        typer.echo(json.dumps(diagnosis.as_json(), indent=2))
    else:
        for line in screen(diagnosis):
            say(line)
        if out is None:
            only = [] if split is None else ["--split", split]
            only += [part for name, value in diagnosis.options.items() for part in (f"--{name}", value)]
            next_step("data", "check", path, *only, "--preset", preset, "--out", "check")
        elif diagnosis.trainable:
            say(f"see {out / SHEET_FILE}")
            next_step("train", out / RECOMMENDED_FILE, "--data", path, "--out", "runs/first")
    if not diagnosis.trainable:
        raise typer.Exit(EXIT_FAILED)


@data_app.command(epilog="Example: ssdir data convert photos/voc --to coco --out photos/coco")
def convert(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="Folder of a data set, in any layout.")],
    to: Annotated[Literal["coco", "yolo", "voc"], typer.Option(help="Layout to write.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    boxes: Boxes = None,
    vocabulary: Vocabulary = None,
    force: Force = False,
) -> None:
    """Write a data set in another layout: all splits, the images copied as they are."""
    from ssdir.data.convert import convert as write

    with progress("converting") as advance:
        done = write(path, to, out, force, advance, boxes=boxes, vocabulary=vocabulary)
    for note in done.notes:
        warn(note)
    for split, images in done.images.items():
        say(f"{split}: {images} images, {done.objects[split]} objects")
    say(f"{done.layout} written as {to}: {out}")


@data_app.command(
    epilog="Example: ssdir data unpack tetrominoes_train.tfrecords --out data/tetrominoes --train 20000"
)
def unpack(
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="TFRecord file of a multi-object data set, under its own name.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    train: Annotated[int, typer.Option(min=0, help="Training images: the first of the file.")] = 10_000,
    val: Annotated[int, typer.Option(min=0, help="Validation images: the next ones.")] = 1_000,
    test: Annotated[int, typer.Option(min=0, help="Test images: the next ones.")] = 1_000,
    force: Force = False,
) -> None:
    """Unpack CLEVR with masks, Multi-dSprites, Tetrominoes or Objects Room to images and masks."""
    claim(out, force)
    from ssdir.data.unpack import unpack as write

    counts = {"train": train, "val": val, "test": test}
    with progress("unpacking") as advance:
        objects = write(path, out, counts, force, advance)
    for split, number in objects.items():
        say(f"{split}: {counts[split]} images, {number} objects")
    next_step("data", "check", out, "--split", next(iter(objects)))


@app.command(epilog="Example: ssdir train tiny seed=1 --data data/digits --out runs/digits")
def train(
    recipe: Annotated[str, typer.Argument(metavar="PRESET|FILE.yaml", help="See ssdir models.")],
    data: Annotated[Path, typer.Option(help="Folder of a data set with splits train and val.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Overrides, e.g. detector.lr=1e-3.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    force: Force = False,
) -> None:
    """Train a detector and, on top of it, the representation (stage=detector, representation or all)."""
    from ssdir.training.recipe import read_recipe

    settings = read_recipe(recipe, overrides or [])
    if not data.exists():
        raise InputError(f"data folder '{data}' does not exist: make one with ssdir data scatter")
    from ssdir.data.layouts import find_layout
    from ssdir.training.fit import train as fit

    find_layout(data)

    try:
        summary = fit(settings, data, out, resume=resume, force=force)
    except KeyboardInterrupt:
        fail(f"interrupted: '{out}' is kept; go on with the same command and --resume", EXIT_INTERRUPTED)
    for stage, seconds in summary.seconds.items():
        say(f"{stage}: {seconds:.0f} s")
    next_step("evaluate", summary.model_dir, data, "--out", "metrics.json")


@app.command(epilog="Example: ssdir encode tiny-digits photos/ 'more/*.jpg' --out objects.parquet")
def encode(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A shipped model's name, a model's or run's folder, or a .onnx file."
        ),
    ],
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Images, folders or 'patterns*'.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write, a row per object.")],
    batch_size: BatchSize = 32,
    score_threshold: Annotated[float | None, typer.Option(help="Least score, 0 ... 1.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at an unreadable image.")] = False,
    force: Force = False,
    device: Device = None,
    engine: Annotated[
        Literal["torch", "onnx"] | None, typer.Option(help="What runs the model; by default as MODEL needs.")
    ] = None,
) -> None:
    """Find the objects of images, with boxes, classes, scores, embeddings and depth, as Parquet."""
    claim(out, force)
    from ssdir.data.images import find_images
    from ssdir.inference.files import encode_files, load_encoder
    from ssdir.inference.store import ObjectWriter

    started = time.perf_counter()
    files = find_images(paths)
    encoder = load_encoder(model, engine, device)
    skipped: list[str] = []
    with progress("encoding") as advance, atomic_file(out, force) as temporary:
        batches = encode_files(encoder, files, batch_size, strict, advance, score_threshold=score_threshold)
        with ObjectWriter(temporary, Path(model).name, encoder.class_names, encoder.latent_dim) as writer:
            for batch in batches:
                writer.write(batch.objects, batch.paths, batch.sizes)
                skipped += batch.skipped
                for problem in batch.skipped:
                    warn(f"skipped: {problem}")
        if len(skipped) == len(files):
            raise InputError(f"none of the {len(files)} images could be read; the last: {skipped[-1]}")
    seconds = time.perf_counter() - started
    counts = f"{writer.images_seen} images, {writer.objects_written} objects, {len(skipped)} skipped"
    say(f"{counts}, {seconds:.1f} s: {out}")
    say(f"next: import pandas; pandas.read_parquet({str(out)!r})")


@app.command(epilog="Example: ssdir reconstruct tiny-digits photo.jpg --out sheet.png")
def reconstruct(
    model: Model,
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Images, folders or 'patterns*'.")],
    out: Annotated[Path, typer.Option(help="Picture to write.")],
    score_threshold: Annotated[float | None, typer.Option(help="Least score, 0 ... 1.")] = None,
    force: Force = False,
    device: Device = None,
) -> None:
    """Draw images beside what the model makes of them: boxes, reconstruction, single objects."""
    claim(out, force)
    if out.suffix.lower() not in PICTURE_SUFFIXES:
        raise InputError(f"output '{out}' must end in one of {', '.join(PICTURE_SUFFIXES)}")
    from PIL import Image

    from ssdir.data.images import find_images
    from ssdir.inference.predictor import check_draws, load
    from ssdir.plots import reconstruction_sheet

    files = find_images(images)
    predictor = load(model, device)
    check_draws(predictor.model)
    seen = predictor.prepare(files)
    objects = predictor.encode(seen, score_threshold)
    sheet = reconstruction_sheet(seen, objects, predictor.decode(objects), predictor.class_names)
    with atomic_file(out, force) as temporary:
        Image.fromarray(sheet).save(temporary)
    say(f"{len(files)} images, {len(objects)} objects: {out}")
    next_step("encode", model, *images, "--out", "objects.parquet")


@app.command(epilog="Example: ssdir evaluate tiny-digits data/digits --out metrics.json")
def evaluate(
    model: Model,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder of a COCO data set.")],
    out: Annotated[Path | None, typer.Option(help="JSON file to write: metrics and provenance.")] = None,
    split: Annotated[str, typer.Option(help="Split to measure.")] = "test",
    train_split: Annotated[str, typer.Option(help="Split that probes learn from, or none.")] = "train",
    max_images: Annotated[int | None, typer.Option(min=1, help="Measure the first N images only.")] = None,
    max_train_images: Annotated[int, typer.Option(min=1, help="Probes learn from the first N.")] = 4000,
    score_threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least score of an object; by default the model's.")
    ] = None,
    min_side: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out objects below this share of the image.")
    ] = None,
    drop_empty: Annotated[
        bool | None, typer.Option("--drop-empty/--keep-empty", help="Leave out images without objects.")
    ] = None,
    boxes: Boxes = None,
    vocabulary: Vocabulary = None,
    glyph_root: Annotated[Path | None, typer.Option(help="Folder with MNIST's files.")] = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    as_json: AsJson = False,
    force: Force = False,
    device: Device = None,
) -> None:
    """Measure a model: detection, reconstruction, masks, probes of the embedding, scale invariance.

    What is left out, boxes and vocabulary are by default as in the training of the model.
    """
    if out is not None:
        claim(out, force)
    from ssdir.inference.predictor import load
    from ssdir.models.base import GenerativeModel

    predictor = load(model, device)
    predictor.batch_size = batch_size
    started = time.perf_counter()
    kept = _read_options(
        model,
        data,
        {"min_side": min_side, "drop_empty": drop_empty},
        {"boxes": boxes, "vocabulary": vocabulary},
    )
    test, train = _splits(predictor, data, split, train_split, kept)
    glyphs = _unseen_glyphs(test, glyph_root)
    metrics = _measure(predictor, test, train, glyphs, max_images, max_train_images, seed, score_threshold)
    options: dict[str, Any] = {"split": split, "train_split": train_split, "max_images": max_images}
    options |= {"model": Path(model).name, "max_train_images": max_train_images}
    options |= {"score_threshold": score_threshold, **kept}
    report = {"metrics": metrics, "provenance": _provenance(model, predictor, test, options, seed, started)}
    if out is not None:
        with atomic_file(out, force) as temporary:
            temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    if kept["min_side"] and min_side is None:
        say(f"objects under {kept['min_side']:.0%} of the image are left out, as in training; see --min-side")
    table = Table("metric", Column("value", justify="right"))
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}")
    stdout().print(table)
    if isinstance(predictor.model, GenerativeModel):
        next_step("reconstruct", model, test.image_paths[0], "--out", "sheet.png")
    else:
        next_step("encode", model, test.image_paths[0], "--out", "objects.parquet")


@app.command(epilog="Example: ssdir models --json")
def models(as_json: AsJson = False) -> None:
    """List the models and the training presets that ship with ssdir."""
    from ssdir.config import presets
    from ssdir.models.zoo import list_models

    cards = list_models()
    if as_json:
        listed = [{**dataclasses.asdict(card), "path": str(card.path)} for card in cards]
        typer.echo(json.dumps({"models": listed, "presets": presets()}, indent=2))
        return
    table = Table("model", "parameters", "image", "z_what", "classes", "description")
    for card in cards:
        sizes = (f"{card.parameters:,}", f"{card.image_size} px", str(card.latent_dim))
        table.add_row(card.name, *sizes, escape(", ".join(card.classes)), escape(card.description))
    stdout().print(table)
    say(f"presets: {', '.join(presets())}")
    next_step("encode", cards[0].name if cards else "MODEL", "photos/", "--out", "objects.parquet")


@app.command(epilog="Example: ssdir demo --out demo")
def demo(
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("demo"),
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """See it work: a small model on scattered digits, from data to numbers and pictures."""
    from ssdir.experiments.demo import run_demo

    run_demo(out, seed=seed, force=force)


app.command(epilog="Example: ssdir export tiny-digits --out tiny-digits.onnx")(export)
app.command(epilog="Example: ssdir reproduce table2 --scale smoke --dry-run")(reproduce)


# What the commands share ---------------------------------------------------------------------------------


def _splits(
    predictor: Predictor, data: Path, test: str, train: str, kept: dict[str, Any]
) -> tuple[ObjectDataset, ObjectDataset | None]:
    """The test and the train split as the model sees them: its image size, its classes."""
    from ssdir.data.layouts import open_dataset

    names, size = predictor.class_names, predictor.image_size
    classes: Literal["object"] | list[str] = "object" if names == ["object"] else names
    return (
        open_dataset(data, test, classes, size, **kept),
        None if train == "none" else open_dataset(data, train, classes, size, **kept),
    )


def _read_options(
    model: str, data: Path, kept: Mapping[str, float | None], layout: Mapping[str, str | None]
) -> dict[str, Any]:
    """How to read the data: as told, or else as in the model's training; of the layout's options, those it has."""
    from ssdir.data.layouts import find_layout
    from ssdir.models.zoo import find_model
    from ssdir.training.recipe import read_training

    training = read_training(find_model(model)) or {"recipe": {}}
    trained = {name: training["recipe"].get(name) for name in {**kept, **layout}}
    known = find_layout(data).known({name: trained[name] for name in layout})
    left_out = {"min_side": trained["min_side"] or 0.0, "drop_empty": bool(trained["drop_empty"])}
    chosen = {name: value for name, value in {**kept, **layout}.items() if value is not None}
    return {**left_out, **dict.fromkeys(layout), **known, **chosen}


def _unseen_glyphs(test: ObjectDataset, root: Path | None) -> list[Image8] | None:
    """Glyphs of the test split of the source that the images were scattered from, where it is known."""
    from ssdir.data.glyphs import load_glyphs

    source = test.table.info.get("source")
    if source is None:
        return None
    try:
        images = load_glyphs(str(source), "test", root).images
    except InputError as error:
        warn(f"no metrics of the same object at several sizes: {error}")
        return None
    return images[:: max(1, len(images) // MAX_GLYPHS)][:MAX_GLYPHS]


def _measure(
    predictor: Predictor,
    test: ObjectDataset,
    train: ObjectDataset | None,
    glyphs: list[Image8] | None,
    max_images: int | None,
    max_train_images: int,
    seed: int,
    score_threshold: float | None,
) -> dict[str, float]:
    from ssdir.evaluation.evaluate import evaluate
    from ssdir.models.zoo import random_encoder

    with progress("evaluating") as advance:
        return evaluate(
            predictor.model,
            test,
            train,
            batch_size=predictor.batch_size,
            seeds=(seed, seed + 1, seed + 2),
            max_images=max_images,
            max_train_images=max_train_images,
            glyphs=glyphs,
            random_model=random_encoder(predictor.model, seed),
            score_threshold=score_threshold,
            progress=lambda stage, done, total: advance(done, total, stage),
        ).metrics


def _provenance(
    model: str, predictor: Predictor, test: ObjectDataset, options: Mapping[str, Any], seed: int, started: float
) -> dict[str, Any]:
    import torch

    from ssdir.data.dataset import fingerprint
    from ssdir.evaluation.provenance import provenance
    from ssdir.models.zoo import find_model
    from ssdir.training.recipe import read_training

    training = read_training(find_model(model))
    config = {**options, "model_config": predictor.model.config.model_dump(mode="json")}
    on_gpu = predictor.device.type == "cuda"
    device = torch.cuda.get_device_name(predictor.device) if on_gpu else predictor.device.type
    record = provenance(config, seed, fingerprint(test), device, time.perf_counter() - started)
    return record if training is None else {**record, "training": training}
