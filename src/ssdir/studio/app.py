"""The studio's window: its header and tabs, and how an image is opened."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from ssdir.errors import InputError
from ssdir.studio import components, content
from ssdir.studio.compare_tab import CompareTab
from ssdir.studio.edit_tab import EditTab
from ssdir.studio.explore_tab import ExploreTab
from ssdir.studio.images import read_upload
from ssdir.studio.inspect_tab import InspectTab
from ssdir.studio.studio import Studio
from ssdir.studio.workspace import Workspace, parse_row

NUM_OFFERED = 6
"""Number of samples in the header."""

_LOADING: dict[str, Any] = {**components.QUIET, "show_progress": "minimal"}


def build_app(studio: Studio) -> gr.Blocks:
    """Builds the window of a studio; `ssdir.studio.server` serves it."""
    samples = studio.samples[:NUM_OFFERED]
    cards = content.image_cards([sample.image for sample in samples], [sample.name for sample in samples])
    with gr.Blocks(title="ssdir studio", analytics_enabled=False, fill_width=True) as app:
        workspace = gr.State(None)
        with gr.Row(elem_id="head"):
            brand = f"<h1>ssdir studio</h1><p>{html.escape(studio.name)}</p>"
            gr.HTML(brand, elem_id="brand", elem_classes="studio-part", js_on_load=None)
            picker = components.gallery(cards, "samples", "thumbs")
            upload = gr.File(
                label="Drop an image here, or click to choose one",
                show_label=False,
                file_types=["image"],
                type="filepath",
                height=76,
                elem_id="upload",
                min_width=200,
            )
        with gr.Tab("Inspect", id="inspect"):
            inspect = InspectTab(studio, workspace)
        with gr.Tab("Edit", id="edit"):
            edit = EditTab(studio, workspace)
        with gr.Tab("Explore", id="explore"):
            ExploreTab(studio)
        with gr.Tab("Compare", id="compare"):
            compare = CompareTab(studio, workspace)
        outputs = [picker, upload, workspace, *inspect.outputs, *edit.outputs, *compare.outputs]

        def show(opened: Workspace, other_model: str | None) -> dict[Any, Any]:
            return {**inspect.show(opened), **edit.show(opened), **compare.show(opened, other_model)}

        def pick(row: int, before: Workspace | None, other_model: str | None) -> dict[Any, Any]:
            opened = Workspace.open(studio.predictor, samples[row].image, samples[row].name, before)
            return {picker: {**cards, "selected": row}, **show(opened, other_model)}

        def on_load(other_model: str | None) -> dict[Any, Any]:
            return pick(0, None, other_model)

        def on_pick(before: Workspace | None, other_model: str | None, event: gr.EventData) -> dict[Any, Any]:
            return pick(parse_row(event._data, len(samples)) or 0, before, other_model)

        def on_upload(path: str | None, before: Workspace | None, other_model: str | None) -> dict[Any, Any]:
            try:
                if not path:
                    raise InputError("no image was uploaded")
                opened = Workspace.open(studio.predictor, read_upload(path), Path(path).name, before)
            except InputError as error:
                raise gr.Error(str(error), title="Not opened", print_exception=False) from None
            return {upload: None, picker: cards, **show(opened, other_model)}

        app.load(on_load, compare.other_model, outputs, **_LOADING)
        picker.pick(on_pick, [workspace, compare.other_model], outputs, **_LOADING)
        upload.upload(on_upload, [upload, workspace, compare.other_model], outputs, **_LOADING)
    return app
