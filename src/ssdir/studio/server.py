"""The studio's server: it answers this machine only, and serves a page that waits while the studio is opened.

It imports neither Gradio nor torch, which take seconds: the page is there first.
"""

from __future__ import annotations

import asyncio
import errno
import html
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ssdir.errors import InputError

HOST = "127.0.0.1"

Opener = Callable[[Path, Callable[[str], None]], Starlette]
"""Opens the studio's application, given the folder of uploads and a function that is called with each stage."""

_UPLOADS = "GRADIO_TEMP_DIR"
_STAGE_HEADER = "x-studio-stage"
_SECONDS_TO_READ_FAILURE = 2.0

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


def serve(
    open_app: Opener, listener: socket.socket, on_listening: Callable[[str], None], on_stage: Callable[[str], None]
) -> None:
    """Serves until it is interrupted, then deletes the uploads.

    Args:
        open_app: called in a thread of its own once the server answers.
        listener: see `listen`.
        on_listening: called with the address once the server answers.
        on_stage: called with what is being done until the studio is open.

    Raises:
        InputError: if `open_app` does.
    """
    port = listener.getsockname()[1]
    site = _Site()
    # A site whose name resolves to this address must get no answer (DNS rebinding).
    guarded = TrustedHostMiddleware(_Guard(site), allowed_hosts=[HOST, "localhost"])
    config = uvicorn.Config(guarded, log_level="error", timeout_graceful_shutdown=1, lifespan="off")
    with _upload_folder() as folder:
        server = _Server(config, site, lambda on_stage: open_app(folder, on_stage), on_stage)
        server.on_listening = lambda: on_listening(f"http://{HOST}:{port}")
        server.run(sockets=[listener])
    if server.failure is not None:
        raise server.failure


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


class _Site:
    """Answers with a page that waits, and with the studio once it is open."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self.stage = "starting"
        self.is_watched = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.app is not None:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._wait(scope["path"])(scope, receive, send)

    def _wait(self, path: str) -> Response:
        self.is_watched = True
        if path != "/":
            return Response("The studio is still being opened.", 503)
        page = resources.files("ssdir.studio").joinpath("assets", "opening.html").read_text(encoding="utf-8")
        stage = html.escape(self.stage)
        return HTMLResponse(page.replace("STAGE", stage), headers={_STAGE_HEADER: "opening"})


class _Server(uvicorn.Server):
    """A server that opens the studio in a thread once it answers; `failure` is why it could not be opened."""

    def __init__(
        self,
        config: uvicorn.Config,
        site: _Site,
        open_app: Callable[[Callable[[str], None]], Starlette],
        on_stage: Callable[[str], None],
    ) -> None:
        super().__init__(config)
        self._site, self._open_app, self._on_stage = site, open_app, on_stage
        self.on_listening: Callable[[], None] = lambda: None
        self.failure: BaseException | None = None
        self._closing = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.on_listening()
            self._opening = asyncio.create_task(self._open())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._closing.set()
        await super().shutdown(sockets)
        if self._site.app is not None:
            await self._opening

    async def _open(self) -> None:
        began = time.monotonic()
        try:
            app = await self._in_thread()
        except Exception as error:
            self.failure = error
            self._site.stage = f"The studio was not opened: {error}"
            if self._site.is_watched:
                await asyncio.sleep(_SECONDS_TO_READ_FAILURE)
            self.should_exit = True
            return
        async with app.router.lifespan_context(app):
            self._site.app = app
            self._on_stage(f"the studio is open, after {time.monotonic() - began:.0f} s")
            await self._closing.wait()

    async def _in_thread(self) -> Starlette:
        """Opens the studio in a thread that an interrupted process does not wait for."""
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[Starlette] = loop.create_future()

        def on_stage(stage: str) -> None:
            self._site.stage = stage
            self._on_stage(stage)

        def run() -> None:
            try:
                loop.call_soon_threadsafe(opened.set_result, self._open_app(on_stage))
            except Exception as error:
                loop.call_soon_threadsafe(opened.set_exception, error)

        threading.Thread(target=run, daemon=True).start()
        return await opened


class _Guard:
    """Refuses what other sites' pages send, and adds headers that keep the browser from contacting other hosts."""

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

        if scope["type"] == "http" and scope["method"] not in ("GET", "HEAD"):
            headers = Headers(scope=scope)
            # Browsers name the site of the page; the host is known to be this one.
            if headers.get("origin", own := f"http://{headers['host']}") != own:
                await Response("Only the studio's own page may send this.", 403)(scope, receive, send_guarded)
                return
        await self.app(scope, receive, send_guarded)
