"""The application: its paths, and everything that one server's requests share."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Route

from auditkit.serve.api_errors import ApiError
from auditkit.serve.chat_endpoint import ChatEndpoint
from auditkit.serve.engine import Engine
from auditkit.serve.guard import Guard
from auditkit.serve.metrics import CONTENT_TYPE, Metrics
from auditkit.serve.settings import ServeSettings
from auditkit.serve.slots import Slots
from auditkit.serve.tracing import Tracer, find_tracer
from auditkit.serve.workers import Workers


def create_app(engine: Engine, settings: ServeSettings, *, tracer: Tracer | None = None) -> FastAPI:
    """An ASGI application that serves `engine` under `settings`."""
    limits = settings.limits
    metrics = Metrics(engine)
    slots = Slots(limits.concurrency, limits.queue_length, metrics.load)
    workers = Workers(engine, slots, limits.concurrency)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        await asyncio.to_thread(workers.close)

    app = FastAPI(title="auditkit serve", lifespan=lifespan, openapi_url=None)
    chat = ChatEndpoint(engine, settings, workers, metrics, tracer or find_tracer())
    app.router.routes.append(Route("/v1/chat/completions", chat, methods=["POST"]))
    _add_reading_paths(app, engine, metrics)
    app.add_middleware(Guard, token=settings.token)
    app.add_exception_handler(HTTPException, _http_error)
    return app


def _add_reading_paths(app: FastAPI, engine: Engine, metrics: Metrics) -> None:
    began = int(time.time())

    def card() -> dict[str, Any]:
        return {"id": engine.name, "object": "model", "created": began, "owned_by": "auditkit"}

    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [card()]}

    async def model(name: str) -> Response:
        if name != engine.name:
            error = ApiError(404, "no such model here", code="model_not_found", param="model")
            return JSONResponse(error.body(), 404)
        return JSONResponse(card())

    async def health() -> dict[str, str]:
        return {"status": "ok"}

    async def scrape() -> Response:
        return Response(metrics.render(), headers={"Content-Type": CONTENT_TYPE})

    app.get("/v1/models")(models)
    app.get("/v1/models/{name:path}")(model)
    app.get("/healthz")(health)
    app.get("/metrics")(scrape)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = ApiError(error.status_code, str(error.detail), code="not_found")
    return JSONResponse(told.body(), error.status_code, headers=error.headers)
