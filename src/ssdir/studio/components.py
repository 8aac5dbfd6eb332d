"""The studio's own components: Gradio's `HTML`, with the JavaScript beside this module."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeVar

import gradio as gr

from ssdir.studio.views import View

if TYPE_CHECKING:
    from ssdir.studio.workspace import Workspace

R = TypeVar("R")


@lru_cache
def asset(name: str) -> str:
    """The text of a file in `assets/`."""
    return resources.files("ssdir.studio").joinpath("assets", name).read_text(encoding="utf-8")


def stage(value: View, elem_id: str) -> Any:
    """A picture with boxes; events `pick`, `place` and `command`."""
    return _component("stage", value, elem_id)


def gallery(value: View, elem_id: str, look: str = "") -> Any:
    """Cards with pictures; event `pick`."""
    return _component("gallery", value, elem_id, look)


def object_map(value: View, elem_id: str) -> Any:
    """A zoomable map; event `pick`; the prop `marks` rings points."""
    return _component("map", value, elem_id, marks=[])


def saver(elem_id: str) -> Any:
    """Nothing to see: hands a file over to the browser whenever it is given one, {name, source}."""
    return _component("saver", {}, elem_id)


def _component(kind: str, value: View, elem_id: str, look: str = "", **props: Any) -> Any:
    return gr.HTML(
        value,
        html_template=f'<div class="{kind} {look}"></div>',
        js_on_load=asset(f"{kind}.js"),
        apply_default_css=False,
        elem_id=elem_id,
        elem_classes="studio-part",
        **props,
    )


def once_open(handler: Callable[..., R]) -> Callable[..., R]:
    """A handler whose first argument is the window's `Workspace`: until there is one, a sentence says so.

    It gets the window as the last edit left it, whatever it was when the event began.
    """

    @functools.wraps(handler)
    def handle(workspace: Workspace | None, *args: Any, **kwargs: Any) -> R:
        window = _opened(workspace)
        with window.turn.lock:
            now = window.latest
        return handler(now, *args, **kwargs)

    return handle


def in_turn(handler: Callable[..., list[Any]], show: Callable[[Workspace], list[Any]]) -> Callable[..., list[Any]]:
    """`once_open` for what changes the window, and returns it first: one at a time, so that no change is lost.

    A drag sends places as it goes; a command that follows at once would else start from the scene before the last.

    Args:
        handler: makes the change.
        show: the same outputs of a window as it is, for events of a picture that is no longer open.
    """

    @functools.wraps(handler)
    def handle(workspace: Workspace | None, *args: Any, **kwargs: Any) -> list[Any]:
        window = _opened(workspace)
        with window.turn.lock:
            now = window.latest
            if now.look is not window.look:
                return show(now)
            outputs = handler(now, *args, **kwargs)
            window.turn.latest = outputs[0]
        return outputs

    return handle


def _opened(workspace: Workspace | None) -> Workspace:
    if workspace is None:
        problem = "The picture is still being opened: try again, or load the page anew."
        raise gr.Error(problem, print_exception=False)
    return workspace
