"""`ssdir models`."""

from __future__ import annotations

import dataclasses

from ssdir.commands.options import AsJson
from ssdir.console import next_step, print_json, print_table, say


def models(as_json: AsJson = False) -> None:
    """List the models and the training presets that ship with ssdir."""
    from ssdir.config import presets
    from ssdir.models.shipped import list_models

    cards = list_models()
    if as_json:
        listed = [{**dataclasses.asdict(card), "path": str(card.path)} for card in cards]
        print_json({"models": listed, "presets": presets()})
        return
    rows = []
    for card in cards:
        sizes = f"{card.parameters:,}", f"{card.image_size} px", card.latent_dim
        rows.append((card.name, *sizes, ", ".join(card.classes), card.description))
    print_table(["model", "parameters", "image", "z_what", "classes", "description"], rows)
    say(f"presets: {', '.join(presets())}")
    next_step("encode", cards[0].name if cards else "MODEL", "photos/", "--out", "objects.parquet")
