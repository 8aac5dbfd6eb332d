"""The studio's window: what is on it, and what follows from opening a picture."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import gradio as gr

from ssdir.errors import InputError
from ssdir.studio import components, views
from ssdir.studio.compare_tab import CompareTab
from ssdir.studio.edit_tab import EditTab
from ssdir.studio.explore_tab import ExploreTab
from ssdir.studio.look import open_picture
from ssdir.studio.samples import NUM_SHOWN
from ssdir.studio.see_tab import SeeTab
from ssdir.studio.workspace import Studio, Workspace, row_of

_QUIET: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}


def build_app(studio: Studio) -> gr.Blocks:
    """The window of a studio; nothing is served yet, see `ssdir.studio.server`."""
    samples = studio.samples[:NUM_SHOWN]
    shown = views.picture_cards([sample.image for sample in samples], [sample.name for sample in samples])
    with gr.Blocks(title="ssdir studio", analytics_enabled=False, fill_width=True) as app:
        workspace = gr.State(None)
        with gr.Row(elem_id="head"):
            brand = f"<h1>ssdir studio</h1><p>{html.escape(studio.name)}</p>"
            gr.HTML(brand, elem_id="brand", elem_classes="studio-part", js_on_load=None)
            picker = components.gallery(shown, "samples", "thumbs")
            upload = gr.File(
                label="Drop a picture here, or click to choose one",
                show_label=False,
                file_types=["image"],
                type="filepath",
                height=76,
                elem_id="upload",
                min_width=200,
            )
        with gr.Tab("See", id="see"):
            see = SeeTab(studio, workspace)
        with gr.Tab("Edit", id="edit"):
            edit = EditTab(studio, workspace)
        with gr.Tab("Explore", id="explore"):
            ExploreTab(studio)
        with gr.Tab("Compare", id="compare"):
            compare = CompareTab(studio, workspace)
        everything = [workspace, *see.outputs, *edit.outputs, *compare.outputs]

        def show(now: Workspace, rival: str | None) -> list[Any]:
            return [now, *see.show(now), *edit.show(now), *compare.show(now, rival)]

        def pick(row: int, before: Workspace | None, rival: str | None) -> list[Any]:
            now = Workspace.open(studio.predictor, samples[row].image, samples[row].name, before)
            return [{**shown, "selected": row}, *show(now, rival)]

        def begin(rival: str | None) -> list[Any]:
            return pick(0, None, rival)

        def picked(before: Workspace | None, rival: str | None, event: gr.EventData) -> list[Any]:
            return pick(row_of(event._data, len(samples)) or 0, before, rival)

        def opened(path: str | None, before: Workspace | None, rival: str | None) -> list[Any]:
            try:
                if not path:
                    raise InputError("no picture was uploaded")
                now = Workspace.open(studio.predictor, open_picture(path), Path(path).name, before)
            except InputError as error:
                raise gr.Error(str(error), title="Not opened", print_exception=False) from None
            return [None, shown, *show(now, rival)]

        app.load(begin, compare.rival, [picker, *everything], **_QUIET)
        picker.pick(picked, [workspace, compare.rival], [picker, *everything], **_QUIET)
        upload.upload(opened, [upload, workspace, compare.rival], [upload, picker, *everything], **_QUIET)
    return app
