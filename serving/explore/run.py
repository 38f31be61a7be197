"""Run the page on this machine until it is interrupted."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from nicegui import app, run, ui
from starlette.middleware.trustedhost import TrustedHostMiddleware

from recsys.export.release import Release
from serving.explore.catalogue import Known
from serving.explore.link import Link
from serving.explore.page import Page
from serving.process import served
from twintower.client import Client
from twintower.errors import SettingError, describe
from twintower.tls import ClientTls

HOST = "127.0.0.1"
START_S = 120.0
CALL_S = 10.0
CHECK_S = 1.0
CLOSE_S = 2
ICON = "🧭"


def explore(
    release: Release,
    *,
    server: str,
    port: int,
    browser: bool,
    say: Callable[[str], None],
    tls: ClientTls | None = None,
    token: str = "",
) -> None:
    """Show a release on a page that only this machine can open, until SIGINT or SIGTERM.

    Args:
        release: what to show.
        server: `host:port` of one that serves it; empty starts one for as long as the page is there.
        port: of the page; 0 takes a free one.
        browser: whether to open the page in a browser.
        say: prints a line.
        tls: how the connection to `server` is encrypted; None for not at all.
        token: that `server` is shown; empty for none.

    Raises:
        SettingError: the port is taken.
        TwintowerError: there is no server, or it serves something else.
    """
    known = Known.read(release)
    with _listening(port) as listening:
        if server:
            link = Link(
                release, f"the server at {server}", lambda: Client(server, timeout_s=CALL_S, tls=tls, token=token)
            )
            _show(link, known, listening, browser, say)
            return
        # Stays where the server does not start: its log is in there.
        scratch = Path(tempfile.mkdtemp(prefix="recsys-explore-"))
        say(f"starting a server of {release.name}")
        link = Link(release, "the page's own server", lambda: served(release.folder, scratch, start_s=START_S))
        _show(link, known, listening, browser, say)
        shutil.rmtree(scratch, ignore_errors=True)


def _listening(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise SettingError(
            describe("--port", port, f"a free port of {HOST}", f"({error.strerror}.) Name another; 0 takes a free one.")
        ) from None
    listening.listen()
    return listening


def _show(link: Link, known: Known, listening: socket.socket, browser: bool, say: Callable[[str], None]) -> None:
    with suppress(KeyboardInterrupt), link:
        url = f"http://{HOST}:{listening.getsockname()[1]}"

        @ui.page("/")
        def page() -> None:
            Page(link, known)

        async def check() -> None:
            await run.io_bound(link.check)

        app.timer(CHECK_S, check)
        site = FastAPI(openapi_url=None)
        # A page of another site must not reach this one under a name of its own.
        site.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
        ui.run_with(site, title=f"{link.release.name} · explore", favicon=ICON, dark=None, show_welcome_message=False)
        settings = uvicorn.Config(
            site, log_level="warning", ws="wsproto", lifespan="on", timeout_graceful_shutdown=CLOSE_S
        )
        say(f"explore {link.release.name}: {url} (ends with Ctrl-C)")
        if browser:
            # Some browsers of a terminal do not return before they are left.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        uvicorn.Server(settings).run(sockets=[listening])
