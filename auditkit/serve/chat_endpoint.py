"""`POST /v1/chat/completions`: read, queue, write, and let go when the client does."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from auditkit.serve.accounts import Account
from auditkit.serve.api_errors import ApiError, internal_error
from auditkit.serve.chat_request import ChatRequest, parse_chat_request
from auditkit.serve.engine import Ended, Engine
from auditkit.serve.metrics import Metrics
from auditkit.serve.replies import DONE, ReplyWriter, sse
from auditkit.serve.settings import Limits, ServeSettings
from auditkit.serve.tracing import Tracer
from auditkit.serve.verdict_report import HEADER, PENDING, verdict_header
from auditkit.serve.workers import Exchange, Workers

CLIENT_LEFT = 499
"""nginx's status for a client that closed the connection; it is counted, and never sent."""


class ChatEndpoint:
    """An ASGI application for one path: chat requests in, replies with verdicts out."""

    def __init__(
        self,
        engine: Engine,
        settings: ServeSettings,
        workers: Workers,
        metrics: Metrics,
        tracer: Tracer,
    ) -> None:
        self._engine, self._settings, self._workers = engine, settings, workers
        self._metrics, self._tracer = metrics, tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        account = Account(
            self._metrics,
            self._tracer,
            request.headers,
            log_prompts=self._settings.log_prompts,
        )
        answer = _Answer(send, account.id)
        status = 503  # a task that is cancelled from outside: the server is going down
        try:
            status = await self._serve(request, receive, answer, account)
        except (ClientDisconnect, ClientLeft):
            status = CLIENT_LEFT
        except ApiError as error:
            status = error.status
            await answer.refuse(error)
        except Exception as error:
            account.failed(error)
            status = 500
            await answer.refuse(internal_error())
        finally:
            account.close(status)

    async def _serve(
        self, request: Request, receive: Receive, answer: _Answer, account: Account
    ) -> int:
        limits = self._settings.limits
        asked = parse_chat_request(
            await read_body(request, limits),
            served=self._engine.name,
            max_new_tokens=limits.new_tokens,
        )
        account.asked(asked, self._engine.name)
        reply = self._reply(asked, answer, account)
        await unless_client_leaves(receive, reply, answered=lambda: answer.complete)
        return 200

    async def _reply(self, asked: ChatRequest, answer: _Answer, account: Account) -> None:
        writer = ReplyWriter(
            id=f"chatcmpl-{account.id}",
            created=int(time.time()),
            model=self._engine.name,
            lock=self._engine.lock_digest,
            seed=asked.sampling.seed,
        )
        deadline = account.began + self._settings.limits.request_seconds
        account.stage("queue")
        exchange: Exchange | None = None
        try:
            async with self._workers.exchange(asked, deadline=deadline) as exchange:
                account.stage("generate")
                if asked.stream:
                    usage = asked.include_usage
                    await _stream(exchange, writer, answer, account, include_usage=usage)
                else:
                    await _whole(exchange, writer, answer, account)
        finally:
            if exchange is not None and exchange.ended is not None:
                account.concluded(exchange.ended)


async def _whole(
    exchange: Exchange, writer: ReplyWriter, answer: _Answer, account: Account
) -> None:
    pieces: list[str] = []
    while not isinstance(event := await exchange.next(), Ended):
        pieces.append(event.text)
    text = "".join(pieces)
    account.said(text)
    account.concluded(event)
    header = {HEADER: verdict_header(event.conclusion)}
    await answer.whole(200, writer.completion(text, event), header)


async def _stream(
    exchange: Exchange,
    writer: ReplyWriter,
    answer: _Answer,
    account: Account,
    *,
    include_usage: bool,
) -> None:
    # The first event decides the status: nothing is sent before the engine has taken the request.
    event = await exchange.next()
    known = verdict_header(event.conclusion) if isinstance(event, Ended) else PENDING
    await answer.start(200, "text/event-stream", {HEADER: known, "X-Accel-Buffering": "no"})
    await answer.send(writer.opening())
    while not isinstance(event, Ended):
        account.said(event.text)
        await answer.send(writer.piece(event.text))
        event = await exchange.next()
    account.concluded(event)
    await answer.send(writer.closing(event, include_usage=include_usage), last=True)


class _Answer:
    """The response: knows whether it has begun, and so how an error can still be told.

    `complete` is set as the last of it is sent.
    """

    def __init__(self, send: Send, request_id: str) -> None:
        self._send, self._id = send, request_id
        self._begun = self.complete = False

    async def start(self, status: int, content_type: str, headers: Mapping[str, str]) -> None:
        fields = {
            "content-type": content_type,
            "cache-control": "no-store",
            "x-request-id": self._id,
            **headers,
        }
        self._begun = True
        raw = [(k.lower().encode("ascii"), v.encode("latin-1")) for k, v in fields.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def send(self, body: bytes, *, last: bool = False) -> None:
        self.complete = last
        await self._send({"type": "http.response.body", "body": body, "more_body": not last})

    async def whole(self, status: int, body: dict[str, Any], headers: Mapping[str, str]) -> None:
        text = json.dumps(body).encode()
        length = {"content-length": str(len(text))}
        await self.start(status, "application/json", {**length, **headers})
        await self.send(text, last=True)

    async def refuse(self, error: ApiError) -> None:
        """Tell an error: as the response, or as an event of a stream that has begun."""
        if self._begun:
            await self.send(sse(error.body()) + DONE, last=True)
        else:
            await self.whole(error.status, error.body(), error.headers)


class ClientLeft(Exception):
    """The client closed the connection before its reply was complete."""


async def unless_client_leaves(
    receive: Receive, work: Awaitable[None], *, answered: Callable[[], bool]
) -> None:
    """Do `work`, cancelled as soon as the client has gone; raises ClientLeft then.

    A client that has its whole answer may go: the work is then let finish.
    """
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((doing, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not doing.done() and not answered():
            raise ClientLeft
        await doing
    finally:
        for task in (doing, leaving):
            task.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)


async def _left(receive: Receive) -> None:
    message: Message = {}
    while message.get("type") != "http.disconnect":
        message = await receive()


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body of a JSON request; raises ApiError 413, 415 or 408."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "send Content-Type: application/json", code="unsupported_media_type")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limits.body_bytes:
        raise _too_large(limits)
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for part in request.stream():
                body += part
                if len(body) > limits.body_bytes:
                    raise _too_large(limits)
    except TimeoutError:
        raise ApiError(408, "the body took too long to arrive", code="timeout") from None
    return bytes(body)


def _too_large(limits: Limits) -> ApiError:
    return ApiError(
        413,
        f"the body is larger than {limits.body_bytes} bytes",
        code="request_too_large",
        headers={"Connection": "close"},
    )
