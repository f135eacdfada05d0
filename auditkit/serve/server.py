"""Run an application until a signal: requests in work are finished, then the process goes on."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from auditkit.core.errors import RunFailed
from auditkit.serve.settings import ServeSettings

SPARE_CONNECTIONS = 256
"""Open connections beyond those that can be in work or waiting: idle ones, probes, scrapes."""


class Server(uvicorn.Server):
    """A uvicorn server that says when it listens."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._listening()


def make_server(app: FastAPI, settings: ServeSettings, *, listening: Callable[[], None]) -> Server:
    """A server for `app`; it is run with the socket of `bind`."""
    limits = settings.limits
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=limits.drain_seconds,
        limit_concurrency=limits.concurrency + limits.queue_length + SPARE_CONNECTIONS,
    )
    return Server(config, listening)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket (port 0: a free one); raises RunFailed where there is none to be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise RunFailed(
            f"cannot listen on {host}:{port}: {error.strerror or error}",
            help="another process may have the port: choose one with --port",
        ) from error


def run_until_signal(
    app: FastAPI, settings: ServeSettings, *, announce: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM; returns when the requests in work have had their replies.

    Those that take longer than `drain_seconds` are cancelled. A second SIGINT ends at once.
    """
    sock = bind(settings.host, settings.port)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{host}:{sock.getsockname()[1]}/v1"
    server = make_server(app, settings, listening=lambda: announce(f"listening on {url}"))
    with sock, _signals_end_the_server(), logging_to_stderr():
        server.run(sockets=[sock])


@contextmanager
def _signals_end_the_server() -> Generator[None]:
    # uvicorn raises the signal again when it has drained, for whoever handled it before: a default
    # handler would kill the process, and a clean end would look like a crash.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def logging_to_stderr() -> Generator[None]:
    """One JSON line per request, and uvicorn's warnings, on the error stream."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    levels = {"auditkit.serve": logging.INFO, "uvicorn": logging.WARNING}
    for name, level in levels.items():
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name in levels:
            logging.getLogger(name).removeHandler(handler)
