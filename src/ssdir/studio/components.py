"""The studio's own components: Gradio's `HTML`, with the JavaScript beside this module."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import lru_cache
from importlib import resources
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from ssdir.studio.views import View

P = ParamSpec("P")
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


def once_open(handler: Callable[P, R]) -> Callable[P, R]:
    """A handler whose first argument is the window's `Workspace`: until there is one, a sentence says so."""

    @functools.wraps(handler)
    def handle(*args: P.args, **kwargs: P.kwargs) -> R:
        if args[0] is None:
            problem = "The picture is still being opened: try again, or load the page anew."
            raise gr.Error(problem, print_exception=False)
        return handler(*args, **kwargs)

    return handle
