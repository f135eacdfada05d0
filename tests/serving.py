"""A server in a thread, a scripted engine, and requests, for tests of `auditkit serve`."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI

from auditkit.core.locks import Severity
from auditkit.core.measured import Measured, NotMeasured
from auditkit.core.verdicts import Reason, Truth, Verdict
from auditkit.serve.chat_request import ChatRequest
from auditkit.serve.engine import Conclusion, Ended, Event, Finish, Piece, RuleVerdict
from auditkit.serve.server import bind, make_server
from auditkit.serve.settings import ServeSettings

NAME = "scripted"


def verdict(
    rule_id: str,
    truth: Truth,
    *,
    token: int | None = None,
    reason: Reason | None = None,
    severity: Severity = Severity.HIGH,
) -> RuleVerdict:
    """A verdict on frame 0; a true one has a score, others have none."""
    measured = truth is Truth.TRUE
    return RuleVerdict(
        rule_id=rule_id,
        severity=severity,
        frame=0,
        verdict=Verdict(truth=truth, reason=reason),
        token=token,
        score=Measured(value=1.5, n=3) if measured else NotMeasured("not computed"),
    )


@dataclass
class ScriptedEngine:
    """Answers with the last message's words, one a piece; `gate` is waited for before each.

    From word `stuck_at` on it waits until it is cancelled.
    """

    gate: threading.Event | None = None
    fails: Exception | None = None
    stuck_at: int | None = None
    name: str = NAME
    lock_digest: str = "0123456789abcdef"
    rule_ids: tuple[str, ...] = ("planted",)
    working: int = 0
    cancelled: int = 0
    asked: list[ChatRequest] = field(default_factory=list)

    def _waits(self, n: int) -> bool:
        shut = self.gate is not None and not self.gate.is_set()
        return shut or (self.stuck_at is not None and n >= self.stuck_at)

    def chat(self, request: ChatRequest, cancelled: Callable[[], bool]) -> Iterator[Event]:
        self.asked.append(request)
        if self.fails is not None:
            raise self.fails
        words = request.messages[-1].content.split()
        finish, n = Finish.STOP, 0
        self.working += 1
        try:
            for n, word in enumerate(words, 1):
                while self._waits(n) and not cancelled():
                    time.sleep(0.002)
                if cancelled():
                    self.cancelled += 1
                    finish = Finish.CANCELLED
                    break
                yield Piece(text=word if n == 1 else f" {word}")
        finally:
            self.working -= 1
        truth = Truth.TRUE if "fire" in words else Truth.FALSE
        token = words.index("fire") if "fire" in words else None
        found = (verdict("planted", truth, token=token),)
        yield Ended(
            finish=finish,
            prompt_tokens=len(words),
            reply_tokens=n,
            conclusion=Conclusion(verdicts=found),
        )


@contextmanager
def running(app: FastAPI, settings: ServeSettings | None = None) -> Generator[str]:
    """The application behind uvicorn in a thread, at the yielded address."""
    listening = threading.Event()
    server = make_server(app, settings or ServeSettings(), listening=listening.set)
    with bind("127.0.0.1", 0) as sock:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        assert listening.wait(10)
        try:
            yield f"http://127.0.0.1:{sock.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def chat(text: str, **fields: Any) -> dict[str, Any]:
    """The body of a request to the scripted engine."""
    return {"model": NAME, "messages": [{"role": "user", "content": text}], **fields}


def events(body: bytes | str) -> list[Any]:
    """The events of a stream; `[DONE]` as a string."""
    text = body.decode() if isinstance(body, bytes) else body
    parts = [part.removeprefix("data: ") for part in text.split("\n\n") if part]
    return [part if part == "[DONE]" else json.loads(part) for part in parts]


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until `true`; fails where it never is."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


def raw_request(address: str, body: bytes, *headers: str) -> socket.socket:
    """An open connection on which a POST to the chat path has been sent."""
    host, _, port = address.removeprefix("http://").partition(":")
    sock = socket.create_connection((host, int(port)), timeout=10)
    lines = [
        "POST /v1/chat/completions HTTP/1.1",
        f"Host: {host}:{port}",
        "Content-Type: application/json",
        *headers,
    ]
    sock.sendall("\r\n".join([*lines, "", ""]).encode() + body)
    return sock
