"""`ssdir studio`: a model in the browser, on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ssdir.commands.options import Device
from ssdir.console import say
from ssdir.errors import InputError

if TYPE_CHECKING:
    from starlette.applications import Starlette


def studio(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A shipped model's name, or a model's or run's folder; by default that of --objects.",
        ),
    ] = None,
    objects: Annotated[
        Path | None,
        typer.Option(help="File or folder of ssdir encode or track to explore; by default the samples' objects."),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images to show; with --objects, where its images are now.")
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Another model to compare with; may be repeated.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 for any free one.")] = 7860,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    device: Device = None,
) -> None:
    """Inspect objects, edit scenes, explore a data set, play tracked clips and compare models in the browser.

    Only this machine can open the studio, and no data leave it.
    """
    try:
        from ssdir.studio.server import listen, serve
    except ImportError as error:
        raise _missing(error) from None

    def open_app(uploads: Path, on_stage: Callable[[str], None]) -> Starlette:
        on_stage("loading Python packages")
        try:
            from ssdir.studio.web import web_application
        except ImportError as error:
            raise _missing(error) from None
        from ssdir.studio.studio import Studio, default_model

        opened = Studio.open(
            model or default_model(objects, images), objects, images, compare or [], device, on_stage
        )
        return web_application(opened, uploads)

    def listening(address: str) -> None:
        say(f"studio: {address} (Ctrl-C ends it)")
        if not no_browser:
            import threading
            import webbrowser

            # A browser in the terminal returns at its end, and waits for the server until then.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    with listen(port) as listener:
        try:
            serve(open_app, listener, listening, say)
        except KeyboardInterrupt:
            say("the studio is closed")


def _missing(error: ImportError) -> InputError:
    package = (error.name or "gradio").split(".")[0]
    return InputError(f"for the studio, {package} is missing: pip install 'ssdir[studio]'")
