"""The command line: the app, and where each command is registered.

Commands live in `ssdir.commands`. Whatever needs torch is imported inside them, so that help is instant.
"""

from __future__ import annotations

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
from ssdir.console import FriendlyGroup, end_cleanly_when_terminated

app = typer.Typer(
    cls=FriendlyGroup,
    help="Images in, decodable object embeddings out.",
    epilog="Start with: ssdir demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
data_app = typer.Typer(help="Make, check and convert data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")


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
app.command(epilog="Example: ssdir train tiny seed=1 --data data/digits --out runs/digits")(train)
app.command(epilog="Example: ssdir encode tiny-digits photos/ 'more/*.jpg' --out objects.parquet")(encode)
app.command(epilog="Example: ssdir reconstruct tiny-digits photo.jpg --out sheet.png")(reconstruct)
app.command(epilog="Example: ssdir evaluate tiny-digits data/digits --out metrics.json")(evaluate)
app.command(epilog="Example: ssdir convert objects.parquet --to coco --out results.json")(convert)
app.command(epilog="Example: ssdir models --json")(models)
app.command(epilog="Example: ssdir demo --out demo")(demo)
app.command(epilog="Example: ssdir export tiny-digits --out tiny-digits.onnx")(export)
app.command(epilog="Example: ssdir bench tiny-digits --objects 1,10,50 --out bench.json")(bench)
app.command(epilog="Example: ssdir index objects.parquet --out index")(index)
app.command(epilog="Example: ssdir search index photo.jpg#0 -k 8 --sheet nearest.png")(search)
app.add_typer(classify_app, name="classify")
app.command(epilog="Example: ssdir cluster objects.parquet --out clusters.csv --sheet clusters.png")(cluster)
app.command(epilog="Example: ssdir outliers objects.parquet --out odd.csv --sheet odd.png")(outliers)
app.command(epilog="Example: ssdir studio tiny-mnist")(studio)
app.command(epilog="Example: ssdir reproduce table2 --scale smoke --dry-run")(reproduce)
