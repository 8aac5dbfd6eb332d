"""`ssdir studio`: a model in the browser, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ssdir.console import progress, say
from ssdir.errors import InputError


def studio(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="A shipped model's name, or a model's or run's folder."),
    ] = None,
    objects: Annotated[
        Path | None, typer.Option(help="File of ssdir encode to explore; by default the samples' objects.")
    ] = None,
    compare: Annotated[
        list[str] | None, typer.Option(metavar="MODEL", help="Another model to compare with; may be repeated.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0 for any free one.")] = 7860,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps; by default the best there is.")
    ] = None,
) -> None:
    """Inspect detected objects, edit scenes, explore a data set's objects and compare models in the browser.

    Only this machine can open the studio, and no data leave it.
    """
    try:
        from ssdir.studio.server import listen, serve
    except ImportError as error:
        missing = (error.name or "gradio").split(".")[0]
        raise InputError(f"for the studio, {missing} is missing: pip install 'ssdir[studio]'") from None
    from ssdir.studio.studio import Studio, default_model

    # The port comes first: loading the model would be in vain if it is busy.
    with listen(port) as listener:
        with progress("opening") as advance:
            opened = Studio.open(model or default_model(), objects, compare or [], device, advance)

        def ready(address: str) -> None:
            say(f"studio: {address} (Ctrl-C ends it)")
            if not no_browser:
                import webbrowser

                webbrowser.open(address)

        try:
            serve(opened, listener, ready)
        except KeyboardInterrupt:
            say("the studio is closed")
