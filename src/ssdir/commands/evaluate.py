"""`ssdir evaluate`: a model in numbers, with their provenance."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Column, Table

from ssdir.commands.options import (
    AsJson,
    BatchSize,
    Boxes,
    Device,
    Force,
    Outside,
    Precision,
    ScoreThreshold,
    Seed,
    Vocabulary,
)
from ssdir.console import next_step, progress, say, stdout, warn
from ssdir.documents import json_text
from ssdir.errors import InputError, MissingSplitError
from ssdir.outputs import atomic_file, claim

if TYPE_CHECKING:
    from ssdir.data.dataset import ObjectDataset
    from ssdir.data.images import Image8
    from ssdir.evaluation.protocols import EmbedsBoxes, Model


# The same-object metrics compare every glyph with every other.
MAX_GLYPHS = 500


@dataclass(frozen=True)
class _Subject:
    """What is measured, and what is known of it.

    Attributes:
        model: what encodes.
        class_names: its classes.
        config: its parts, for the provenance.
        training: of the folder that it comes from, see `read_training`; None where there is none.
        random_model: the floor of an untrained encoder; None where there can't be one.
        device: what it runs on.
    """

    model: Model
    class_names: list[str]
    config: dict[str, Any]
    training: dict[str, Any] | None = None
    random_model: EmbedsBoxes | None = None
    device: str = "cpu"


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A shipped model's name, a model's or run's folder, or a .onnx file."
        ),
    ],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder of a data set, in any layout.")],
    out: Annotated[Path | None, typer.Option(help="JSON file to write: metrics and provenance.")] = None,
    split: Annotated[str, typer.Option(help="Split to measure.")] = "test",
    train_split: Annotated[
        str, typer.Option(help="Split that probes learn from: another one, or none.")
    ] = "train",
    max_images: Annotated[int | None, typer.Option(min=1, help="Measure the first N images only.")] = None,
    max_train_images: Annotated[int, typer.Option(min=1, help="Probes learn from the first N.")] = 4000,
    score_threshold: ScoreThreshold = None,
    min_side: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out objects below this share of the image.")
    ] = None,
    drop_empty: Annotated[
        bool | None, typer.Option("--drop-empty/--keep-empty", help="Leave out images without objects.")
    ] = None,
    boxes: Boxes = None,
    vocabulary: Vocabulary = None,
    outside: Outside = None,
    glyph_root: Annotated[Path | None, typer.Option(help="Folder with MNIST's files.")] = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    as_json: AsJson = False,
    force: Force = False,
    device: Device = None,
    precision: Precision = None,
) -> None:
    """Measure a model: detection, reconstruction, masks, probes of the embedding, scale invariance.

    What is left out, boxes, vocabulary and outside are by default as in the training of the model.
    """
    if out is not None:
        claim(out, force)
    from ssdir.evaluation.evaluate import evaluate as measure
    from ssdir.evaluation.protocols import DrawsScenes
    from ssdir.evaluation.provenance import with_undefined_as_null

    subject = _load(model, device, precision, seed)
    started = time.perf_counter()
    kept = _read_options(
        subject.training,
        data,
        {"min_side": min_side, "drop_empty": drop_empty},
        {"boxes": boxes, "vocabulary": vocabulary, "outside": outside},
    )
    test, train = _splits(subject, data, split, train_split, kept)
    with progress("evaluating") as advance:
        metrics = measure(
            subject.model,
            test,
            train,
            batch_size=batch_size,
            seeds=(seed, seed + 1, seed + 2),
            glyphs=_unseen_glyphs(test, glyph_root),
            random_model=subject.random_model,
            score_threshold=score_threshold,
            progress=lambda stage, done, total: advance(done, total, stage),
            max_images=max_images,
            max_train_images=max_train_images,
        ).metrics
    learned_from = "none" if train is None else train_split
    options: dict[str, Any] = {"split": split, "train_split": learned_from, "max_images": max_images}
    options |= {"model": Path(model).name, "max_train_images": max_train_images, "precision": precision}
    options |= {"score_threshold": score_threshold, **kept}
    report = {
        "metrics": with_undefined_as_null(metrics),
        "provenance": _provenance(subject, test, options, seed, started),
    }
    if out is not None:
        with atomic_file(out, force) as temporary:
            temporary.write_text(json_text(report), encoding="utf-8")
    if as_json:
        typer.echo(json_text(report), nl=False)
        return
    if kept["min_side"] and min_side is None:
        say(f"objects under {kept['min_side']:.0%} of the image are left out, as in training; see --min-side")
    table = Table("metric", Column("value", justify="right"))
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}" if math.isfinite(value) else "undefined")
    stdout().print(table)
    if isinstance(subject.model, DrawsScenes):
        next_step("reconstruct", model, test.image_paths[0], "--out", "reconstructions.png")
    else:
        next_step("encode", model, test.image_paths[0], "--out", "objects.parquet")


def _load(model: str, device: str | None, precision: Literal["single", "bf16"] | None, seed: int) -> _Subject:
    from ssdir.inference.engines import load_encoder
    from ssdir.inference.predictor import Predictor

    encoder = load_encoder(model, None, device, precision)
    if not isinstance(encoder, Predictor):
        from ssdir.export.model import OnnxModel
        from ssdir.export.runtime import OnnxEncoder

        assert isinstance(encoder, OnnxEncoder)
        config = {"exported": encoder.exported.model_dump()}
        return _Subject(OnnxModel(encoder), encoder.class_names, config, device=encoder.device)
    from ssdir.device import device_name
    from ssdir.models.io import find_model, random_encoder
    from ssdir.training.run_folder import read_training

    return _Subject(
        encoder.encoder,
        encoder.class_names,
        {"model_config": encoder.model.config.model_dump(mode="json")},
        read_training(find_model(model)),
        random_encoder(encoder.encoder, seed),  # on the same detector: what it reads is read once
        device_name(encoder.device),
    )


def _splits(
    subject: _Subject, data: Path, test: str, train: str, kept: dict[str, Any]
) -> tuple[ObjectDataset, ObjectDataset | None]:
    """The test and the train split as the model sees them: its image size, its classes.

    There is no train split where it has images of the test split: probes would be told what they are asked.
    """
    from ssdir.data.readers.registry import open_dataset

    names, size = subject.class_names, subject.model.image_size
    classes: Literal["object"] | list[str] = "object" if names == ["object"] else names

    def opened(split: str, otherwise: str) -> ObjectDataset:
        # Where training held out val, that is what to measure on, and nothing may be learned from it.
        try:
            return open_dataset(data, split, classes, size, for_training=test == "val", **kept)
        except MissingSplitError as error:
            raise InputError(f"{error}; {otherwise}") from None

    measured = opened(test, "tell by --split which one to measure")
    learned = None if train == "none" else opened(train, "tell by --train-split what probes learn from, or none")
    if learned is None or set(learned.image_paths).isdisjoint(measured.image_paths):
        return measured, learned
    warn(f"no probes: they would learn from images of '{test}', which are measured; see --split and --train-split")
    return measured, None


def _read_options(
    training: Mapping[str, Any] | None,
    data: Path,
    kept: Mapping[str, float | None],
    layout: Mapping[str, str | None],
) -> dict[str, Any]:
    """How to read the data: as told, or else as in the model's training; of the layout's options, those it has."""
    from ssdir.data.readers.registry import find_layout

    recipe = (training or {"recipe": {}})["recipe"]
    trained = {name: recipe.get(name) for name in {**kept, **layout}}
    known = find_layout(data).known({name: trained[name] for name in layout})
    left_out = {"min_side": trained["min_side"] or 0.0, "drop_empty": bool(trained["drop_empty"])}
    chosen = {name: value for name, value in {**kept, **layout}.items() if value is not None}
    return {**left_out, **dict.fromkeys(layout), **known, **chosen}


def _unseen_glyphs(test: ObjectDataset, root: Path | None) -> list[Image8] | None:
    """Glyphs of the test split of the source that the images were scattered from, where it is known."""
    from ssdir.data.scatter.glyphs import load_glyphs

    source = test.table.info.get("source")
    if source is None:
        return None
    try:
        images = load_glyphs(str(source), "test", root).images
    except InputError as error:
        warn(f"no metrics of the same object at several sizes: {error}")
        return None
    return images[:: max(1, len(images) // MAX_GLYPHS)][:MAX_GLYPHS]


def _provenance(
    subject: _Subject, test: ObjectDataset, options: Mapping[str, Any], seed: int, started: float
) -> dict[str, Any]:
    from ssdir.data.dataset import fingerprint
    from ssdir.evaluation.provenance import provenance

    config = {**options, **subject.config}
    record = provenance(config, seed, fingerprint(test), subject.device, time.perf_counter() - started)
    return record if subject.training is None else {**record, "training": subject.training}
