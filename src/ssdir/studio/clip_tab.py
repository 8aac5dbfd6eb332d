"""Clip: a clip is played with its tracks; one of them can be followed, through the frames and on the map."""

from __future__ import annotations

import shlex
import threading
import time
from functools import cached_property
from typing import Any

import gradio as gr

from ssdir.studio import clip_content, components, content
from ssdir.studio.clip import MAX_TRACKS, Clip, clip_of
from ssdir.studio.studio import Studio
from ssdir.studio.workspace import parse_row

_NO_TRACKS = (
    "To play a clip with the tracks of its objects, track it, then open the tracks: "
    "`ssdir track {model} clip.mp4 --out tracks.parquet`, and `ssdir studio {model} --objects tracks.parquet`."
)
_HELP = "Click a box or a track to follow the object; click one of its views to see that frame."


class ClipTab:
    """The player, the tracks, the views of the one that is followed, and its path on the map.

    The content of a clip is megabytes, so it is sent when the tab is opened for the first time.
    """

    def __init__(self, studio: Studio, tab: Any) -> None:
        self.studio, self.clip = studio, clip_of(studio.collection)
        self._lock = threading.Lock()
        if self.clip is None:
            gr.Markdown(_NO_TRACKS.format(model=shlex.quote(studio.model)), elem_classes="empty")
            return
        self.is_loaded, self.followed = gr.State(False), gr.State(None)
        gr.Markdown(clip_content.summary(self.clip), elem_classes="legend-line")
        self.player = components.clip_player("clip-player")
        gr.Markdown(_HELP, elem_classes="note-line")
        with gr.Row(elem_classes="explore-row"):
            with gr.Column(scale=3, min_width=300):
                self.title = gr.Markdown(clip_content.followed_title(self.clip, None), elem_id="clip-followed")
                self.views = components.gallery(
                    clip_content.view_cards(self.clip, studio.predictor, None), "clip-views"
                )
                listed = min(self.clip.num_tracks, MAX_TRACKS)
                some = f"The {listed} longest tracks of {self.clip.num_tracks:,}"
                gr.Markdown(f"#### {some if self.clip.num_tracks > listed else 'Tracks'}")
                self.tracks = components.gallery({"cards": [], "empty": "Loading …"}, "clip-tracks", "scrolled")
            with gr.Column(scale=2, min_width=300):
                gr.Markdown("#### The path of its embedding on the map")
                self.note = gr.Markdown(clip_content.path_note(self.clip, None, 0), elem_classes="note-line")
                self.map = components.object_map(content.EMPTY_MAP, "clip-map")
        loading: dict[str, Any] = {**components.QUIET, "show_progress": "minimal", "show_progress_on": self.player}
        tab.select(self._load, self.is_loaded, [self.is_loaded, self.player, self.tracks, self.map], **loading)
        self.outputs = [self.followed, self.player, self.tracks, self.views, self.title, self.note, self.map]
        for component, pick in (
            (self.player, self._pick_box),
            (self.tracks, self._pick_card),
            (self.map, self._pick_point),
        ):
            component.pick(pick, self.followed, self.outputs, **components.QUIET)
        self.views.pick(self._pick_view, self.followed, self.player, **components.QUIET)

    def _load(self, is_loaded: bool) -> list[Any]:
        if is_loaded:
            return [gr.skip()] * 4
        with self._lock:  # Two windows need not make the same content.
            return [True, self._played, self._cards, self._mapped]

    @cached_property
    def _played(self) -> content.Content:
        return clip_content.player_content(self._opened, self.studio.predictor)

    @cached_property
    def _cards(self) -> content.Content:
        return clip_content.track_cards(self._opened, self.studio.predictor)

    @cached_property
    def _mapped(self) -> content.Content:
        return content.map_content(self.studio.collection, self.studio.objects_map)

    @property
    def _opened(self) -> Clip:
        assert self.clip is not None
        return self.clip

    def _pick_box(self, followed: int | None, event: gr.EventData) -> list[Any]:
        track = event._data.get("track") if isinstance(event._data, dict) else None
        if not isinstance(track, int) or track < 1 or not len(self._opened.rows_of(track)):
            return self._unchanged()
        return self._follow(track, followed)

    def _pick_card(self, followed: int | None, event: gr.EventData) -> list[Any]:
        card = parse_row(event._data, len(self._opened.longest))
        return self._unchanged() if card is None else self._follow(self._opened.longest[card], followed)

    def _pick_point(self, followed: int | None, event: gr.EventData) -> list[Any]:
        rows = self.studio.objects_map.rows
        point = parse_row(event._data, len(rows))
        track = 0 if point is None else int(self._opened.track_id[rows[point]])
        return self._follow(track, None) if track else self._unchanged()

    def _pick_view(self, followed: int | None, event: gr.EventData) -> Any:
        rows = [] if followed is None else self._opened.shown_views(followed).tolist()
        view = parse_row(event._data, len(rows))
        if view is None:
            return gr.skip()
        frame = self._opened.frame_near(int(self._opened.objects.image_index[rows[view]]))
        return gr.update(seek={"frame": frame, "time": time.monotonic()})

    def _follow(self, track: int, followed: int | None) -> list[Any]:
        """Follows a track; one that is followed already is followed no more."""
        clip, now = self._opened, None if track == followed else track
        selected = clip.longest.index(track) if now is not None and track in clip.longest else None
        path = clip.path(now, self.studio.objects_map.rows)
        return [
            now,
            gr.update(followed=now or 0),  # Gradio leaves out what is None.
            {**self._cards, "selected": selected},
            clip_content.view_cards(clip, self.studio.predictor, now),
            clip_content.followed_title(clip, now),
            clip_content.path_note(clip, now, len(path)),
            gr.update(path=path),
        ]

    def _unchanged(self) -> list[Any]:
        return [gr.skip()] * len(self.outputs)
