"""The studio's server: it answers this machine only, loads nothing from elsewhere, and serves no other files."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI
from gradio.themes.utils import fonts
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ssdir.errors import InputError
from ssdir.studio.app import build_app
from ssdir.studio.components import asset
from ssdir.studio.studio import Studio

HOST = "127.0.0.1"
MAX_UPLOAD = "25mb"

_UPLOADS = "GRADIO_TEMP_DIR"

# Gradio compiles its components from strings, which needs eval; images are data URIs. All else is this server's.
CONTENT_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "object-src 'none'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
)


def listen(port: int) -> socket.socket:
    """Binds a socket to this machine's own address; port 0 takes any that is free.

    Raises:
        InputError: if the port is taken, or not allowed.
    """
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} is in use: choose another with --port, or 0 for any free one") from None
        if error.errno == errno.EACCES:
            raise InputError(f"port {port} is not allowed: choose one above 1023 with --port") from None
        raise
    return listener


def serve(studio: Studio, listener: socket.socket, on_ready: Callable[[str], None]) -> None:
    """Serves until it is interrupted, then deletes the uploads.

    Args:
        studio: the studio.
        listener: see `listen`.
        on_ready: called with the address once the server answers.
    """
    port = listener.getsockname()[1]
    with _upload_folder() as folder:
        app = build_app(studio)
        _refuse_other_files(app, folder)
        config = uvicorn.Config(guarded(app, port), log_level="error", timeout_graceful_shutdown=1)
        _Server(config, lambda: on_ready(f"http://{HOST}:{port}")).run(sockets=[listener])


@contextmanager
def _upload_folder() -> Iterator[Path]:
    """Creates Gradio's upload folder while the studio runs; components read its name when they are made."""
    before = os.environ.get(_UPLOADS)
    with tempfile.TemporaryDirectory(prefix="ssdir-studio-") as folder:
        os.environ[_UPLOADS] = folder
        try:
            yield Path(folder).resolve()
        finally:
            del os.environ[_UPLOADS]
            if before is not None:
                os.environ[_UPLOADS] = before


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


def guarded(app: gr.Blocks, port: int) -> FastAPI:
    """Wraps the window in a web application that answers to this machine's names only, see `CONTENT_POLICY`."""
    site = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    # A site whose name resolves to this address must get no answer (DNS rebinding).
    site.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    site.add_middleware(_Headers)
    mounted: FastAPI = gr.mount_gradio_app(
        site,
        app,
        path="/",
        server_name=HOST,
        server_port=port,
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


class _Server(uvicorn.Server):
    """A server that calls a function once it has started."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()


class _Headers:
    """Adds headers to every answer that keep the browser from contacting other hosts."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", CONTENT_POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, send_guarded)


def _theme() -> Any:
    """Returns Gradio's plain theme with the system's fonts, so that none has to be downloaded."""
    sans = [fonts.Font("system-ui"), fonts.Font("Segoe UI"), fonts.Font("Roboto"), fonts.Font("sans-serif")]
    mono = [fonts.Font("ui-monospace"), fonts.Font("Menlo"), fonts.Font("monospace")]
    return gr.themes.Default(
        primary_hue="indigo", neutral_hue="slate", radius_size="md", font=sans, font_mono=mono
    )
