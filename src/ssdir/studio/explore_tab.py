"""Explore: a map of a data set's objects, and the nearest neighbours of each."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ssdir.studio import components, content
from ssdir.studio.clip import clip_of
from ssdir.studio.studio import Studio
from ssdir.studio.workspace import parse_row

_NUM_NEIGHBOURS = 11
"""Together with the object itself, they make a dozen cards."""

_HELP = (
    "Scroll to zoom, drag to move, click an object. With the keyboard: arrows go from object to object, Enter "
    "opens, + and − zoom."
)


class ExploreTab:
    """The map, and the nearest neighbours of the object that was clicked: `shown`, rows of the collection."""

    def __init__(self, studio: Studio) -> None:
        self.studio, self.clip = studio, clip_of(studio.collection)
        collection, shown = studio.collection, len(studio.objects_map.rows)
        total = len(collection.objects)
        sample = f"{total:,} objects" if shown == total else f"{shown:,} of {total:,} objects, sampled at random"
        about = (
            f"{sample}, from {len(collection.names):,} images. Similar objects are close together (t-SNE of their "
            "embeddings)."
        )
        if collection.num_missing:
            about += (
                f" {collection.num_missing:,} of the images are missing: their objects have a grey crop, and no "
                "reconstruction error. Give the folder of the images with `--images`."
            )
        gr.Markdown(about, elem_classes="legend-line")
        if collection.note:
            gr.Markdown(content.warning(collection.note), elem_classes="warning-line")
        with gr.Row(elem_classes="explore-row"):
            with gr.Column(scale=3, min_width=320):
                self.map = components.object_map(
                    content.map_content(collection, studio.objects_map), "explore-map"
                )
                gr.Markdown(_HELP, elem_classes="note-line")
            with gr.Column(scale=2, min_width=300):
                gr.Markdown("#### Nearest neighbours, by cosine similarity")
                gr.Markdown("Click one to open its image in Inspect and Edit.", elem_classes="note-line")
                empty = content.neighbour_cards(collection, [], [])
                self.cards = components.gallery(empty, "explore-nearest", "medium")
                self.shown = gr.State([])
        self.map.pick(self._pick, None, [self.cards, self.map, self.shown], **components.QUIET)

    def _pick(self, event: gr.EventData) -> list[Any]:
        collection, rows = self.studio.collection, self.studio.objects_map.rows
        point = parse_row(event._data, len(rows))
        if point is None:
            return [gr.skip(), gr.skip(), gr.skip()]
        row = int(rows[point])
        nearest, similarity = collection.nearest(row, _NUM_NEIGHBOURS)
        notes = ["this object", *(f"cosine {cosine:.2f}" for cosine in similarity)]
        shown = [row, *nearest.tolist()]
        cards = content.neighbour_cards(collection, shown, notes)
        point_of = {each: number for number, each in enumerate(rows.tolist())}
        marks = [point_of[each] for each in nearest.tolist() if each in point_of]
        path = [] if self.clip is None else self.clip.path(int(self.clip.track_id[row]) or None, rows)
        return [{**cards, "selected": 0}, gr.update(marks=marks, path=path), shown]
