"""See: what a model finds in a picture, and what it draws from the codes alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from ssdir.studio import components, views
from ssdir.studio.look import appearance_spread
from ssdir.studio.workspace import Studio, Workspace, row_of

_LEGEND = (
    "Each object, from its code alone: **drawn** on its own, its **opacity**, and **where it is uncertain** "
    "(how much each pixel changes when the code is drawn again from the posterior)."
)


class SeeTab:
    """The picture with boxes beside the reconstruction, and a card per object."""

    def __init__(self, studio: Studio, workspace: gr.State) -> None:
        self.studio = studio
        with gr.Row(elem_classes="pair"):
            self.picture = components.stage(views.nothing("Picture", "Loading …"), "see-picture")
            self.drawn = components.stage(views.nothing("Drawn from the codes", ""), "see-drawn")
        gr.Markdown(_LEGEND, elem_classes="legend-line")
        self.cards = components.gallery({"cards": [], "empty": ""}, "see-objects", "wide")
        self.outputs = [self.picture, self.drawn, self.cards]
        for part in self.outputs:
            part.pick(
                components.in_turn(self._pick, self._shown),
                workspace,
                [workspace, *self.outputs],
                show_progress="hidden",
                api_visibility="private",
            )

    def show(self, workspace: Workspace) -> list[Any]:
        """Values of `outputs`."""
        look, row = workspace.look, workspace.seen_row
        names = views.object_names(look.objects, self.studio.predictor.class_names)
        count = f"{len(look.objects)} object{'' if len(look.objects) == 1 else 's'} found"
        drawn = views.pixels(look.scene.reconstructions[0])
        return [
            views.stage("Picture", look.image, look.objects, names, selected=row, note=f"{look.name}: {count}"),
            views.stage(
                "Drawn from the codes",
                drawn,
                look.objects,
                names,
                selected=row,
                proportions=look.image,
                note=f"mean squared error {look.error:.4f}",
            ),
            views.object_cards(
                look,
                self.studio.predictor.class_names,
                appearance_spread(self.studio.predictor, look.objects),
                row,
            ),
        ]

    def _pick(self, workspace: Workspace, event: gr.EventData) -> list[Any]:
        row = row_of(event._data, len(workspace.look.objects))
        return self._shown(replace(workspace, seen_row=row))

    def _shown(self, workspace: Workspace) -> list[Any]:
        return [workspace, *self.show(workspace)]
