"""The command line: the app, and where each command is registered.

Commands live in `ssdir.commands`. Whatever needs torch is imported inside them, so that help is instant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from ssdir.commands.bench import bench
from ssdir.commands.classify import classify_app
from ssdir.commands.cluster import cluster
from ssdir.commands.convert import convert
from ssdir.commands.data import check as data_check
from ssdir.commands.data import convert as data_convert
from ssdir.commands.data import scatter as data_scatter
from ssdir.commands.data import unpack as data_unpack
from ssdir.commands.demo import demo
from ssdir.commands.encode import encode
from ssdir.commands.evaluate import evaluate
from ssdir.commands.export import export
from ssdir.commands.group import PlainCommand, command_group
from ssdir.commands.index import index
from ssdir.commands.models import models
from ssdir.commands.outliers import outliers
from ssdir.commands.reconstruct import reconstruct
from ssdir.commands.reproduce import reproduce
from ssdir.commands.search import search
from ssdir.commands.studio import studio
from ssdir.commands.track import track
from ssdir.commands.train import train
from ssdir.console import end_cleanly_when_terminated, escape_what_streams_lack

app = command_group(
    "Detect the objects of images, and give each an embedding that decodes back to pixels.",
    epilog="Start with: ssdir demo",
)
data_app = command_group("Make, check and convert data sets.")


def main() -> None:
    """Entry point of the command `ssdir`."""
    end_cleanly_when_terminated()
    escape_what_streams_lack()
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


_SECTIONS: dict[str, dict[Callable[..., None], str]] = {
    "Start": {
        demo: "demo --out demo",
        models: "models --json",
        studio: "studio tiny-mnist",
    },
    "Train and measure": {
        train: "train tiny seed=1 --data data/digits --out runs/digits",
        evaluate: "evaluate tiny-digits data/digits --out metrics.json",
        reproduce: "reproduce table2 --scale smoke --dry-run",
        bench: "bench tiny-digits --objects 1,10,50 --out bench.json",
    },
    "Use a model": {
        encode: "encode tiny-digits photos/ 'more/*.jpg' --out objects.parquet",
        track: "track tiny-digits clip.mp4 --out tracks.parquet --video tracks.mp4",
        reconstruct: "reconstruct tiny-digits photo.jpg --out reconstructions.png",
        convert: "convert objects.parquet --to coco --out results.json",
        export: "export tiny-digits --out tiny-digits.onnx",
    },
    "Look into objects": {
        index: "index objects.parquet --out index",
        search: "search index photo.jpg#0 -k 8 --image-grid nearest.png",
        cluster: "cluster objects.parquet --out clusters.csv --image-grid clusters.png",
        outliers: "outliers objects.parquet --out outliers.csv --image-grid outliers.png",
    },
}
"""Sections of the help, with an example of each command; Typer lists groups of commands last."""

_DATA: dict[Callable[..., None], str] = {
    data_scatter.scatter: "scatter --out data/digits --train 2000 --val 200 --test 500",
    data_check.check: "check data/digits --out check",
    data_convert.convert: "convert photos/voc --to coco --out photos/coco",
    data_unpack.unpack: "unpack tetrominoes_train.tfrecords --out data/tetrominoes --train 20000",
}

for _section, _examples in _SECTIONS.items():
    for _command, _example in _examples.items():
        app.command(cls=PlainCommand, rich_help_panel=_section, epilog=f"Example: ssdir {_example}")(_command)
for _command, _example in _DATA.items():
    data_app.command(cls=PlainCommand, epilog=f"Example: ssdir data {_example}")(_command)
app.add_typer(data_app, name="data", rich_help_panel="Train and measure")
app.add_typer(classify_app, name="classify", rich_help_panel="Look into objects")
