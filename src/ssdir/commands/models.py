"""`ssdir models`."""

from __future__ import annotations

import dataclasses

from ssdir.commands.options import AsJson
from ssdir.console import next_step, print_json, print_table


def models(as_json: AsJson = False) -> None:
    """List the trained models and the presets, which are recipes to train, that ship with ssdir."""
    from ssdir.models.catalogue import list_models
    from ssdir.models.shipped import model_cards

    cards, presets = model_cards(), [entry for entry in list_models() if not entry.trained]
    if as_json:
        listed = [{**dataclasses.asdict(card), "path": str(card.path)} for card in cards]
        described = [
            {key: getattr(each, key) for key in ("name", "description", "image_size")} for each in presets
        ]
        print_json({"models": listed, "presets": described})
        return
    rows = []
    for card in cards:
        sizes = f"{card.parameters:,}", f"{card.image_size} px", card.latent_dim
        rows.append((card.name, *sizes, ", ".join(card.classes), card.description))
    print_table(["model", "parameters", "image", "z_what", "classes", "description"], rows)
    for_training = [(each.name, f"{each.image_size} px", each.description) for each in presets]
    print_table(["preset", "image", "what for"], for_training)
    next_step("encode", cards[0].name if cards else "MODEL", "photos/", "--out", "objects.parquet")
