"""Inspect: the objects that a model detects in an image, and its reconstruction from their embeddings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr

from ssdir.formatting import counted
from ssdir.plots import to_pixels
from ssdir.studio import components, content
from ssdir.studio.studio import Studio
from ssdir.studio.workspace import Workspace, parse_row

_LEGEND = (
    "Each object, decoded from its embedding alone: its **appearance**, and its **opacity** (white hides what is "
    "behind)."
)


class InspectTab:
    """The image and its reconstruction, with boxes, and a card per object."""

    def __init__(self, studio: Studio, workspace: gr.State) -> None:
        self.studio, self.workspace = studio, workspace
        self.warning = gr.Markdown("", visible=False, elem_id="inspect-warning", elem_classes="warning-line")
        with gr.Row(elem_classes="pair"):
            self.input = components.boxed_image(content.placeholder("Input", "Loading …"), "inspect-input")
            self.reconstruction = components.boxed_image(content.placeholder("", ""), "inspect-reconstruction")
        gr.Markdown(_LEGEND, elem_classes="legend-line")
        self.cards = components.gallery({"cards": [], "empty": ""}, "inspect-objects", "wide")
        pictures = [self.input, self.reconstruction, self.cards]
        self.outputs = [self.warning, *pictures]
        pick = components.edit_in_order(self._pick, lambda before, after: self.show(after))
        for component in pictures:
            component.pick(pick, workspace, [workspace, *self.outputs], **components.QUIET)

    def show(self, workspace: Workspace) -> dict[Any, Any]:
        """Returns the updates for a workspace."""
        encoded, row = workspace.encoded, workspace.inspected_row
        objects, predictor = encoded.objects, self.studio.predictor
        names = content.object_names(objects, predictor.class_names)
        unlike = encoded.domain.sentence(self.studio.name) if encoded.domain else None
        return {
            self.workspace: workspace,
            self.warning: gr.update(value=content.warning(unlike or ""), visible=unlike is not None),
            self.input: content.image_with_boxes(
                "Input",
                encoded.shown,
                objects,
                names,
                selected=row,
                note=f"{encoded.name}: {counted(len(objects), 'object')} detected",
            ),
            self.reconstruction: content.image_with_boxes(
                "Reconstruction from the embeddings",
                to_pixels(encoded.scene.reconstructions[0]),
                objects,
                names,
                shape_of=encoded.shown,
                selected=row,
                note=f"mean squared error {encoded.error:.4f}",
            ),
            self.cards: content.object_cards(encoded, predictor.class_names, row),
        }

    def _pick(self, workspace: Workspace, event: gr.EventData) -> Workspace:
        return replace(workspace, inspected_row=parse_row(event._data, len(workspace.encoded.objects)))
