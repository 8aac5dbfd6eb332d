"""The studio's own components: Gradio's `HTML`, with the JavaScript beside this module."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

import gradio as gr

from ssdir.studio.content import Content

if TYPE_CHECKING:
    from ssdir.studio.workspace import Workspace

R = TypeVar("R")

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Options of events: no progress bar, and no function that programs can call."""


@lru_cache
def asset(name: str) -> str:
    """Reads a file of `assets/`."""
    return resources.files("ssdir.studio").joinpath("assets", name).read_text(encoding="utf-8")


def boxed_image(value: Content, elem_id: str) -> Any:
    """Creates an image with boxes; its events are `pick`, `move` and `command`."""
    return _component("boxed_image", value, elem_id)


def gallery(value: Content, elem_id: str, style: str = "") -> Any:
    """Creates a gallery of cards; its event is `pick`."""
    return _component("gallery", value, elem_id, style)


def object_map(value: Content, elem_id: str) -> Any:
    """Creates a zoomable map; its event is `pick`.

    The points of the prop `marks` get a ring, and those of the prop `path` are joined by a line.
    """
    return _component("map", value, elem_id, marks=[], path=[])


def clip_player(elem_id: str) -> Any:
    """Creates a player of a clip; its event is `pick`, and its props `followed` and `seek` say what it shows."""
    return _component("clip_player", {"frames": []}, elem_id, followed=0, seek=None)


def saver(elem_id: str) -> Any:
    """Creates an invisible component that downloads each file that it is given."""
    return _component("saver", {}, elem_id)


def _component(kind: str, value: Content, elem_id: str, style: str = "", **props: Any) -> Any:
    return gr.HTML(
        value,
        html_template=f'<div class="{kind.replace("_", "-")} {style}"></div>',
        js_on_load=asset("common.js") + asset(f"{kind}.js"),
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="studio-part",
        **props,
    )


def when_open(handler: Callable[..., R]) -> Callable[..., R]:
    """Wraps a handler whose first argument is the window's `Workspace`.

    The handler gets the workspace after the window's last edit, even if its event began before that. Until an
    image is open, the user sees a message instead.
    """

    @functools.wraps(handler)
    def handle(workspace: Workspace | None, *args: Any, **kwargs: Any) -> R:
        workspace = _opened(workspace)
        with workspace.window.lock:
            latest = workspace.latest
        return handler(latest, *args, **kwargs)

    return handle


def edit_in_order(
    edit: Callable[..., Workspace], show: Callable[[Workspace, Workspace], dict[Any, Any]]
) -> Callable[..., dict[Any, Any]]:
    """Wraps an edit of the window's workspace: edits run one at a time, each on the result of the one before it.

    A drag sends moves as it goes on; a command that follows at once would otherwise start from an older scene.
    Events of an image that is no longer open change nothing.

    Args:
        edit: takes the workspace and the event's other arguments; returns the workspace after the edit.
        show: takes the workspaces before and after; returns what to update.
    """

    @functools.wraps(edit)
    def handle(workspace: Workspace | None, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        workspace = _opened(workspace)
        with workspace.window.lock:
            before = workspace.latest
            if before.encoded is not workspace.encoded:
                return show(workspace, before)
            after = edit(before, *args, **kwargs)
            updates = show(before, after)
            workspace.window.latest = after
        return updates

    return handle


def _opened(workspace: Workspace | None) -> Workspace:
    if workspace is None:
        raise gr.Error("The image is still being opened: try again, or reload the page.", print_exception=False)
    return workspace
