"""Spans, through OpenTelemetry's own SDK, and without it."""

from __future__ import annotations

import builtins
import json
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from auditkit.serve.app import create_app
from auditkit.serve.settings import ServeSettings
from auditkit.serve.tracing import NoTracer, OtelTracer, find_tracer
from tests.serving import ScriptedEngine, chat, running

PATH = "/v1/chat/completions"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def spans_of(*requests: dict[str, Any]) -> dict[str, Any]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = create_app(ScriptedEngine(), ServeSettings(), tracer=OtelTracer(provider))
    with running(app) as address:
        for request in requests:
            httpx.post(address + PATH, json=request, headers={"traceparent": PARENT})
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_is_a_span_with_its_stages_and_verdicts() -> None:
    spans = spans_of(chat("xylophone fire"))
    assert set(spans) == {"chat", "queue", "generate"}
    whole = spans["chat"]
    found = dict(whole.attributes)
    assert found["gen_ai.usage.output_tokens"] == 2
    assert found["auditkit.verdicts.true"] == 1
    assert found["auditkit.fired"] == ("planted",)
    assert found["http.response.status_code"] == 200
    assert format(whole.context.trace_id, "032x") in PARENT
    assert format(whole.parent.span_id, "016x") in PARENT
    assert {spans[n].parent.span_id for n in ("queue", "generate")} == {whole.context.span_id}
    assert "xylophone" not in json.dumps([json.loads(s.to_json()) for s in spans.values()])


def test_a_refused_request_is_a_span_with_an_error() -> None:
    (span,) = spans_of(chat("x", n=2)).values()
    assert span.status.status_code is StatusCode.ERROR
    assert dict(span.attributes)["http.response.status_code"] == 400


def test_without_opentelemetry_there_are_no_spans_and_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith("opentelemetry"):
            raise ModuleNotFoundError(name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    tracer = find_tracer()
    assert isinstance(tracer, NoTracer)
    span = tracer.begin("chat", {})
    span.child("queue").end()
    span.set("a", 1)
    span.end("HTTP 500")
