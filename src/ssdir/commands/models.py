"""`ssdir models`: what ships with ssdir."""

from __future__ import annotations

import dataclasses

import typer
from rich.markup import escape
from rich.table import Table

from ssdir.commands.options import AsJson
from ssdir.console import next_step, say, stdout
from ssdir.documents import json_text


def models(as_json: AsJson = False) -> None:
    """List the models and the training presets that ship with ssdir."""
    from ssdir.config import presets
    from ssdir.models.shipped import list_models

    cards = list_models()
    if as_json:
        listed = [{**dataclasses.asdict(card), "path": str(card.path)} for card in cards]
        typer.echo(json_text({"models": listed, "presets": presets()}), nl=False)
        return
    table = Table("model", "parameters", "image", "z_what", "classes", "description")
    for card in cards:
        sizes = (f"{card.parameters:,}", f"{card.image_size} px", str(card.latent_dim))
        table.add_row(card.name, *sizes, escape(", ".join(card.classes)), escape(card.description))
    stdout().print(table)
    say(f"presets: {', '.join(presets())}")
    next_step("encode", cards[0].name if cards else "MODEL", "photos/", "--out", "objects.parquet")
