"""The command line: the app, and where each command is registered.

Commands live in `ssdir.commands`. Whatever needs torch is imported inside them, so that help is instant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from ssdir.commands import data
from ssdir.commands.bench import bench
from ssdir.commands.convert import convert
from ssdir.commands.demo import demo
from ssdir.commands.downstream import classify_app, cluster, outliers
from ssdir.commands.encode import encode
from ssdir.commands.evaluate import evaluate
from ssdir.commands.export import export
from ssdir.commands.index import index
from ssdir.commands.models import models
from ssdir.commands.reconstruct import reconstruct
from ssdir.commands.reproduce import reproduce
from ssdir.commands.search import search
from ssdir.commands.studio import studio
from ssdir.commands.train import train
from ssdir.console import PLAIN_HELP, FriendlyGroup, end_cleanly_when_terminated

app = typer.Typer(
    cls=FriendlyGroup,
    help="Images in, decodable object embeddings out.",
    epilog="Start with: ssdir demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=PLAIN_HELP,
)
data_app = typer.Typer(
    cls=FriendlyGroup,
    help="Make, check and convert data sets.",
    no_args_is_help=True,
    rich_markup_mode=PLAIN_HELP,
)


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


data_app.command(epilog="Example: ssdir data scatter --out data/digits --train 2000 --val 200 --test 500")(
    data.scatter
)
data_app.command(epilog="Example: ssdir data check data/digits --out check")(data.check)
data_app.command(epilog="Example: ssdir data convert photos/voc --to coco --out photos/coco")(data.convert)
data_app.command(
    epilog="Example: ssdir data unpack tetrominoes_train.tfrecords --out data/tetrominoes --train 20000"
)(data.unpack)


def _register(section: str, command: Callable[..., None], example: str) -> None:
    """Adds a command to a section of the help, which has them in the order of their registration."""
    app.command(rich_help_panel=section, epilog=f"Example: ssdir {example}")(command)


_START, _TRAIN, _USE, _LOOK = "Start", "Train and measure", "Use a model", "Look into objects"
_register(_START, demo, "demo --out demo")
_register(_START, models, "models --json")
_register(_START, studio, "studio tiny-mnist")
app.add_typer(data_app, name="data", rich_help_panel=_TRAIN)
_register(_TRAIN, train, "train tiny seed=1 --data data/digits --out runs/digits")
_register(_TRAIN, evaluate, "evaluate tiny-digits data/digits --out metrics.json")
_register(_TRAIN, reproduce, "reproduce table2 --scale smoke --dry-run")
_register(_TRAIN, bench, "bench tiny-digits --objects 1,10,50 --out bench.json")
_register(_USE, encode, "encode tiny-digits photos/ 'more/*.jpg' --out objects.parquet")
_register(_USE, reconstruct, "reconstruct tiny-digits photo.jpg --out sheet.png")
_register(_USE, convert, "convert objects.parquet --to coco --out results.json")
_register(_USE, export, "export tiny-digits --out tiny-digits.onnx")
_register(_LOOK, index, "index objects.parquet --out index")
_register(_LOOK, search, "search index photo.jpg#0 -k 8 --sheet nearest.png")
_register(_LOOK, cluster, "cluster objects.parquet --out clusters.csv --sheet clusters.png")
_register(_LOOK, outliers, "outliers objects.parquet --out odd.csv --sheet odd.png")
app.add_typer(classify_app, name="classify", rich_help_panel=_LOOK)
