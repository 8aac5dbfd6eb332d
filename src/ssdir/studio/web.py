"""The studio's web application: Gradio's window, which loads nothing from elsewhere and serves no other files."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import gradio as gr
from fastapi import FastAPI
from gradio.themes.utils import fonts

from ssdir.studio.app import build_app
from ssdir.studio.components import asset
from ssdir.studio.server import HOST
from ssdir.studio.studio import Studio

MAX_UPLOAD = "25mb"


def web_application(studio: Studio, folder: Path) -> FastAPI:
    """Returns the window of a studio as a web application, with uploads in `folder`."""
    app = build_app(studio)
    _refuse_other_files(app, folder)
    mounted: FastAPI = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        app,
        path="/",
        server_name=HOST,
        footer_links=[],
        run_history=False,
        app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
        allowed_paths=[],
        max_file_size=MAX_UPLOAD,
        show_error=True,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=_theme(),
        css=asset("studio.css"),
    )
    return mounted


def _refuse_other_files(app: gr.Blocks, folder: Path) -> None:
    """Lets every component refuse files that were not uploaded into `folder`, and addresses to download.

    Any value that a browser sends may claim to be a file; Gradio copies or downloads it before the component reads
    it. Gradio's own check is skipped for mounted applications, and never covers addresses.
    """

    def guard(take: Callable[[Any], Awaitable[Any]]) -> Callable[[Any], Awaitable[Any]]:
        async def take_uploaded(path: Any) -> Any:
            if path is not None and not Path(str(path)).resolve().is_relative_to(folder):
                raise gr.Error("Only uploaded images can be opened.", print_exception=False)
            return await take(path)

        return take_uploaded

    for block in app.blocks.values():
        block.async_move_resource_to_block_cache = guard(block.async_move_resource_to_block_cache)
    app.has_launched = True


def _theme() -> Any:
    """Returns Gradio's plain theme with the system's fonts, so that none has to be downloaded."""
    sans = [fonts.Font("system-ui"), fonts.Font("Segoe UI"), fonts.Font("Roboto"), fonts.Font("sans-serif")]
    mono = [fonts.Font("ui-monospace"), fonts.Font("Menlo"), fonts.Font("monospace")]
    return gr.themes.Default(
        primary_hue="indigo", neutral_hue="slate", radius_size="md", font=sans, font_mono=mono
    )
