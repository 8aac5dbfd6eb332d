"""`ssdir export`: a model as one file for other runtimes."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from ssdir.commands.options import AsJson, Force, Model
from ssdir.console import next_step, print_json, say
from ssdir.errors import InputError
from ssdir.outputs import atomic_file, claim

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}


def export(
    model: Model,
    out: Annotated[Path, typer.Option(help="File to write: .onnx, or .pt2 for torch.")],
    file_format: Annotated[
        Literal["onnx", "torch"], typer.Option("--format", help="onnx, or torch for a torch.export program.")
    ] = "onnx",
    part: Annotated[
        Literal["encoder", "decoder"], typer.Option(help="Images to objects, or embeddings to decoded objects.")
    ] = "encoder",
    int8: Annotated[
        bool, typer.Option("--int8", help="Convolutions in 8-bit integers; needs --calibrate.")
    ] = False,
    calibrate: Annotated[
        Path | None, typer.Option(help="Folder of images like those to encode, for --int8.")
    ] = None,
    as_json: AsJson = False,
    force: Force = False,
) -> None:
    """Write a model as one file: 8-bit images of any size in, objects with their embeddings out."""
    claim(out, force)
    if out.suffix.lower() != SUFFIXES[file_format]:
        raise InputError(f"output '{out}' must end in {SUFFIXES[file_format]} for --format {file_format}")
    if int8 != (calibrate is not None):
        raise InputError("--int8 and --calibrate go together: name a folder of images like those to encode")
    if int8 and (file_format, part) != ("onnx", "encoder"):
        raise InputError("--int8 is for encoders in ONNX: leave out --format and --part")
    from ssdir.data.image_files import find_images
    from ssdir.export.onnx import export_model
    from ssdir.models.io import load_model, read_description

    images = find_images([calibrate]) if calibrate is not None else []
    loaded, quantized = load_model(model), None
    with atomic_file(out, force) as temporary:
        export_model(loaded, temporary, part, read_description(model), pt2=file_format == "torch")
        if int8:
            from ssdir.export.quantize import quantize_encoder

            quantized = quantize_encoder(temporary, temporary, images)
    if as_json:
        about = {} if quantized is None else dataclasses.asdict(quantized)
        print_json({"part": part, "format": file_format, "bytes": out.stat().st_size, **about, "out": out})
        return
    say(f"{part} of {model}, {out.stat().st_size / 1e6:.1f} MB: {out}")
    if quantized is not None and quantized.in_single:
        say(f"{quantized.in_single} convolutions stay in single precision: int8 would detect other objects")
    if quantized is not None and not quantized.agrees:
        say(f"in '{calibrate}' it detects other objects than in single precision: measure both by ssdir evaluate")
    if file_format == "onnx" and part == "encoder" and loaded.latent_dim:  # encode takes no detector
        next_step("encode", out, "photos/", "--out", "objects.parquet")
