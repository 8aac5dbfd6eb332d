"""Explore: a data set's objects on a map, and who is most like whom in the whole set."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ssdir.studio import components, views
from ssdir.studio.collection import nearest
from ssdir.studio.workspace import Studio, row_of

_NUM_NEIGHBOURS = 11
"""With the object itself, a dozen cards."""


class ExploreTab:
    """The map, and the neighbours of the point that was clicked."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        collection, shown = studio.collection, len(studio.objects_map.rows)
        total = len(collection.objects)
        of = f"{total:,} objects" if shown == total else f"{shown:,} of {total:,} objects, drawn at random"
        about = (
            f"{of}, from {len(collection.names):,} pictures; alike ones lie close together (t-SNE of their codes)."
        )
        if collection.missing:
            about += f" {collection.missing:,} of the pictures were not found: their objects are grey."
        gr.Markdown(about, elem_classes="legend-line")
        with gr.Row(elem_classes="explore-row"):
            with gr.Column(scale=3, min_width=320):
                self.map = components.object_map(views.map_view(collection, studio.objects_map), "explore-map")
                gr.Markdown(
                    "Scroll to zoom, drag to move, click an object. With the keyboard: arrows go from object to "
                    "object, Enter opens, + and − zoom.",
                    elem_classes="note-line",
                )
            with gr.Column(scale=2, min_width=300):
                self.title = gr.Markdown("#### Most alike")
                empty = views.neighbour_cards(collection, [], [], collection.class_names)
                self.cards = components.gallery(empty, "explore-nearest", "medium")
        self.map.pick(
            self._pick,
            None,
            [self.title, self.cards, self.map],
            show_progress="hidden",
            api_visibility="private",
        )

    def _pick(self, event: gr.EventData) -> list[Any]:
        collection, rows = self.studio.collection, self.studio.objects_map.rows
        point = row_of(event._data, len(rows))
        codes = collection.objects.z_what
        if point is None or codes is None:
            return [gr.skip(), gr.skip(), gr.skip()]
        row = int(rows[point])
        found, cosines = nearest(codes.numpy(), row, _NUM_NEIGHBOURS)
        notes = ["this object", *(f"cosine {cosine:.2f}" for cosine in cosines)]
        cards = views.neighbour_cards(collection, [row, *found.tolist()], notes, collection.class_names)
        place = {number: at for at, number in enumerate(rows.tolist())}
        marks = [place[number] for number in found.tolist() if number in place]
        return ["#### Most alike, in the whole set", {**cards, "selected": 0}, gr.update(marks=marks)]
