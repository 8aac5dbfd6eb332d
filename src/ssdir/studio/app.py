"""The studio's window: its header and tabs, and how images are opened."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr
from torch import Tensor

from ssdir.data.samples import NamedImage
from ssdir.errors import InputError
from ssdir.studio import components, content
from ssdir.studio.clip_tab import ClipTab
from ssdir.studio.compare_tab import CompareTab
from ssdir.studio.edit_tab import EditTab
from ssdir.studio.explore_tab import ExploreTab
from ssdir.studio.images import read_upload
from ssdir.studio.inspect_tab import InspectTab
from ssdir.studio.studio import Studio
from ssdir.studio.workspace import WindowState, Workspace, parse_row

NUM_OFFERED = 6
"""Number of samples in the header."""

_PRIVATE: dict[str, Any] = {"api_visibility": "private"}

Updates = dict[Any, Any]


def build_app(studio: Studio) -> gr.Blocks:
    """Builds the window of a studio; `ssdir.studio.web` serves it."""
    with gr.Blocks(title="ssdir studio", analytics_enabled=False, fill_width=True) as app:
        _Window(studio).listen(app)
    return app


class _Window:
    """The header, the tabs, and the ways to open an image: a sample, an upload, a neighbour in the tab Explore."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.samples = studio, studio.samples.images[:NUM_OFFERED]
        self.workspace = gr.State(None)
        with gr.Row(elem_id="head"):
            brand = f"<h1>ssdir studio</h1><p>{html.escape(studio.name)}</p>"
            gr.HTML(brand, elem_id="brand", elem_classes="studio-part", js_on_load=None)
            self.picker = components.gallery(self._cards(None), "samples", "thumbs")
            # All types: the browser's refusal of one would be a badge that stays.
            self.upload = gr.File(
                label="Drop an image here, or click to choose one",
                show_label=False,
                type="filepath",
                height=76,
                elem_id="upload",
                min_width=200,
            )
        gr.HTML(
            content.introduction(studio.about, studio.samples.about),
            elem_id="introduction",
            elem_classes="studio-part",
            js_on_load=None,
        )
        with gr.Tabs(selected="inspect") as self.tabs:
            with gr.Tab("Inspect", id="inspect"):
                self.inspect = InspectTab(studio, self.workspace)
            with gr.Tab("Edit", id="edit"):
                self.edit = EditTab(studio, self.workspace)
            with gr.Tab("Explore", id="explore"):
                self.explore = ExploreTab(studio)
            with gr.Tab("Clip", id="clip") as clip:
                ClipTab(studio, clip)
            with gr.Tab("Compare", id="compare"):
                self.compare = CompareTab(studio, self.workspace)

    def listen(self, app: gr.Blocks) -> None:
        """Connects the events that open an image; the other model looks at it only while the user compares."""
        outputs = [self.picker, self.upload, self.workspace, self.tabs, *self.inspect.outputs, *self.edit.outputs]
        loading: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": self.picker, **_PRIVATE}
        compare = (self.compare.show, [self.workspace, self.compare.other_model, self.compare.is_open])
        for listen, handler, inputs in (
            (app.load, self._load, []),
            (self.picker.pick, self._pick, [self.workspace]),
            (self.upload.upload, self._upload, [self.upload, self.workspace]),
            (self.explore.cards.pick, self._open_neighbour, [self.explore.shown, self.workspace]),
        ):
            opening = listen(handler, inputs, outputs, **loading)
            opening.then(*compare, self.compare.outputs, **components.QUIET)
        opening = self.tabs.select(_is_compare, None, self.compare.is_open, **components.QUIET)
        opening.then(*compare, self.compare.outputs, **components.QUIET)

    def _show(self, opened: Workspace) -> Updates:
        return {self.picker: self._cards(opened), **self.inspect.show(opened), **self.edit.show(opened)}

    def _offered(self, window: WindowState | None) -> list[tuple[NamedImage, Workspace | None]]:
        """Returns the samples, then the other images that were opened in a window, each with its workspace."""
        opened = {each.encoded.named.key: each for each in window.opened} if window else {}
        samples = [(sample, opened.pop(sample.key, None)) for sample in self.samples]
        return [*samples, *((each.encoded.named, each) for each in opened.values())]

    def _cards(self, opened: Workspace | None) -> content.Content:
        """Returns a card per image that can be picked; those with edits say so."""
        offered = self._offered(opened.window if opened else None)
        images = [named.image for named, _ in offered]
        edited = [workspace is not None and workspace.is_edited for _, workspace in offered]
        here = None if opened is None else opened.encoded
        rows = [row for row, (_, workspace) in enumerate(offered) if workspace and workspace.encoded is here]
        selected = rows[0] if rows else None
        return content.image_cards(images, [named.name for named, _ in offered], edited, selected)

    def _load(self) -> Updates:
        return self._open(self.samples[0], None)

    def _open(self, named: NamedImage, before: Workspace | None, box: Tensor | None = None) -> Updates:
        """Opens an image and, given a box, selects the object there; says so if the image can't be read."""
        try:
            opened = Workspace.open(self.studio.predictor, named, before)
        except InputError as error:
            return self._refuse(str(error))
        return self._show(opened if box is None else opened.select_at(box))

    def _refuse(self, sentence: str) -> Updates:
        # An error would leave a badge on every part of the window, and the drop zone closed.
        gr.Warning(sentence, title="Not opened")
        return {self.upload: None}

    def _pick(self, before: Workspace | None, event: gr.EventData) -> Updates:
        offered = self._offered(before.window if before else None)
        picked = offered[parse_row(event._data, len(offered)) or 0][0]
        return self._open(picked, before)

    def _upload(self, path: str | None, before: Workspace | None) -> Updates:
        if not path:
            return self._refuse("no image was uploaded")
        try:
            named = read_upload(path)
        except InputError as error:
            return self._refuse(str(error))
        return {self.upload: None, **self._open(named, before)}

    def _open_neighbour(self, shown: list[int], before: Workspace | None, event: gr.EventData) -> Updates:
        card, collection = parse_row(event._data, len(shown)), self.studio.collection
        if card is None:
            return {self.upload: None}
        index = int(collection.objects.image_index[shown[card]])
        named = collection.named(index)
        if named is None:
            return self._refuse("The image is missing.")
        opened = self._open(named, before, collection.objects.z_where[shown[card]])
        return {self.tabs: gr.Tabs(selected="inspect"), **opened}


def _is_compare(event: gr.EventData) -> bool:
    """Returns whether the tab that was selected is the one to compare in."""
    return isinstance(event._data, dict) and event._data.get("value") == "Compare"
