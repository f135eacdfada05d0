"""The HTTP side over a scripted engine: replies, streams, refusals, limits, clients who leave."""

from __future__ import annotations

import json
import logging
import threading
import time

import httpx
import pytest
from fastapi import FastAPI

from auditkit.serve.app import create_app
from auditkit.serve.settings import Limits, ServeSettings
from auditkit.serve.verdict_report import HEADER
from tests.serving import NAME, ScriptedEngine, chat, events, raw_request, running, until

PATH = "/v1/chat/completions"
TOKEN = "a-token-of-some-length"
SECRET_WORD = "xylophone"


def served(
    engine: ScriptedEngine, *, token: str | None = None, log_prompts: bool = False, **limits: float
) -> FastAPI:
    settings = ServeSettings(token=token, limits=Limits(**limits), log_prompts=log_prompts)
    return create_app(engine, settings)


@pytest.fixture(scope="module")
def address() -> object:
    with running(served(ScriptedEngine(), body_bytes=4096, new_tokens=64)) as found:
        yield found


def test_a_reply_has_its_text_usage_and_verdicts(address: str) -> None:
    reply = httpx.post(address + PATH, json=chat("one fire two"))
    body = reply.json()
    assert reply.status_code == 200
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "one fire two"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert body["auditkit"]["counts"] == {"true": 1, "false": 0, "unknown": 0}
    assert body["auditkit"]["rules"][0]["token"] == 1
    assert reply.headers[HEADER] == (
        'true=1, false=0, unknown=0, action=none, fired=("planted";at=1)'
    )
    assert reply.headers["x-request-id"] in body["id"]


def test_a_stream_ends_with_the_verdicts_and_done(address: str) -> None:
    reply = httpx.post(address + PATH, json=chat("one fire two", stream=True))
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers[HEADER] == "pending"
    *chunks, last, done = events(reply.text)
    assert done == "[DONE]"
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [c["choices"][0]["delta"]["content"] for c in chunks[1:]] == ["one", " fire", " two"]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["auditkit"]["counts"]["true"] == 1
    assert "usage" not in last


def test_usage_comes_in_a_chunk_of_its_own_where_asked_for(address: str) -> None:
    asked = chat("one two", stream=True, stream_options={"include_usage": True})
    *_, last, usage, done = events(httpx.post(address + PATH, json=asked).text)
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["total_tokens"] == 4
    assert usage["auditkit"] == last["auditkit"]


def test_a_reply_without_words_has_its_verdict_in_the_header_of_a_stream(address: str) -> None:
    reply = httpx.post(address + PATH, json=chat(" ", stream=True))
    assert reply.headers[HEADER] == "true=0, false=1, unknown=0, action=none"


def test_the_model_is_listed(address: str) -> None:
    listed = httpx.get(address + "/v1/models").json()
    assert [m["id"] for m in listed["data"]] == [NAME]
    assert httpx.get(f"{address}/v1/models/{NAME}").json() == listed["data"][0]
    assert httpx.get(f"{address}/v1/models/a/b").json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (json.dumps(chat("x", n=3)).encode(), {}, 400, "unsupported_parameter"),
        (b'{"x": "' + b"y" * 5000 + b'"}', {}, 413, "request_too_large"),
        (b"{}", {"content-type": "text/plain"}, 415, "unsupported_media_type"),
    ],
    ids=["malformed", "unsupported", "oversize", "plain text"],
)
def test_what_cannot_be_served_is_told_in_openais_shape(
    address: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    head = {"content-type": "application/json", **headers}
    reply = httpx.post(address + PATH, content=body, headers=head)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert error["code"] == code
    assert set(error) == {"message", "type", "param", "code"}


def test_a_body_that_hides_its_size_is_cut_off(address: str) -> None:
    def parts() -> object:
        for _ in range(10):
            yield b" " * 1000

    head = {"content-type": "application/json"}
    reply = httpx.post(address + PATH, content=parts(), headers=head)
    assert reply.status_code == 413


@pytest.mark.parametrize(("method", "path", "status"), [("GET", PATH, 405), ("GET", "/x", 404)])
def test_other_paths_and_methods_are_errors(
    address: str, method: str, path: str, status: int
) -> None:
    reply = httpx.request(method, address + path)
    assert reply.status_code == status
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_a_page_that_was_resolved_to_this_machine_is_refused(address: str) -> None:
    reply = httpx.post(address + PATH, json=chat("x"), headers={"host": "evil.example:80"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "wrong_host")
    assert httpx.get(address + "/healthz", headers={"host": "probe"}).status_code == 200


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer", f"Bearer {TOKEN}x"]
)
def test_without_the_token_nothing_is_served(header: str | None) -> None:
    engine = ScriptedEngine()
    headers = {} if header is None else {"authorization": header}
    with running(served(engine, token=TOKEN)) as at:
        for path in ("/v1/models", "/metrics", "/v1/nothing"):
            assert httpx.get(at + path, headers=headers).status_code == 401
        reply = httpx.post(at + PATH, json=chat("x"), headers=headers)
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
        assert TOKEN not in reply.text
        assert httpx.get(at + "/healthz").json() == {"status": "ok"}
    assert not engine.asked


def test_with_the_token_any_host_name_will_do() -> None:
    with running(served(ScriptedEngine(), token=TOKEN)) as at:
        headers = {"authorization": f"bearer {TOKEN}", "host": "models.example"}
        assert httpx.post(at + PATH, json=chat("x"), headers=headers).status_code == 200


def test_a_full_queue_is_told_to_come_back() -> None:
    gate = threading.Event()
    engine = ScriptedEngine(gate=gate)
    with running(served(engine, concurrency=1, queue_length=0)) as at:
        first = threading.Thread(target=httpx.post, args=(at + PATH,), kwargs={"json": chat("a")})
        first.start()
        until(lambda: engine.working == 1)
        reply = httpx.post(at + PATH, json=chat("b"))
        gate.set()
        first.join()
    assert reply.status_code == 429
    assert int(reply.headers["retry-after"]) >= 1
    assert reply.json()["error"]["code"] == "queue_full"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slot_and_its_verdict_is_kept(stream: bool) -> None:
    gate = threading.Event()
    engine = ScriptedEngine(gate=gate)
    with running(served(engine, concurrency=1, queue_length=4)) as at:
        body = json.dumps(chat("fire two three", stream=stream)).encode()
        sock = raw_request(at, body, f"Content-Length: {len(body)}")
        until(lambda: engine.working == 1)
        sock.close()
        until(lambda: engine.cancelled == 1)
        gate.set()
        assert httpx.post(at + PATH, json=chat("next")).status_code == 200
        metrics = httpx.get(at + "/metrics").text
    assert 'auditkit_requests_total{status="499"} 1.0' in metrics
    assert 'auditkit_verdicts_total{rule="planted",truth="true"} 1.0' in metrics


def test_a_client_that_leaves_the_queue_is_never_served() -> None:
    gate = threading.Event()
    engine = ScriptedEngine(gate=gate)
    with running(served(engine, concurrency=1, queue_length=4)) as at:
        body = json.dumps(chat("first")).encode()
        length = f"Content-Length: {len(body)}"
        with raw_request(at, body, length):
            until(lambda: engine.working == 1)
            raw_request(at, body, length).close()
            until(lambda: 'status="499"' in httpx.get(at + "/metrics").text)
            gate.set()
            assert httpx.post(at + PATH, json=chat("third")).status_code == 200
    assert len(engine.asked) == 2


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_takes_too_long_is_ended(stream: bool) -> None:
    engine = ScriptedEngine(gate=threading.Event())
    with running(served(engine, request_seconds=1)) as at:
        reply = httpx.post(at + PATH, json=chat("slow", stream=stream))
        until(lambda: engine.cancelled == 1)
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")


def test_an_error_in_the_middle_of_a_stream_is_an_event() -> None:
    with running(served(ScriptedEngine(stuck_at=2), request_seconds=1)) as at:
        reply = httpx.post(at + PATH, json=chat("one two", stream=True))
    assert reply.status_code == 200
    *_, piece, error, done = events(reply.text)
    assert piece["choices"][0]["delta"]["content"] == "one"
    assert error["error"]["code"] == "timeout"
    assert done == "[DONE]"


def test_a_failure_of_the_engine_tells_the_client_nothing_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = ScriptedEngine(fails=RuntimeError(f"bad {SECRET_WORD}"))
    with caplog.at_level(logging.INFO, "auditkit.serve"), running(served(engine)) as at:
        reply = httpx.post(at + PATH, json=chat(SECRET_WORD))
        metrics = httpx.get(at + "/metrics").text
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "internal_error"
    assert SECRET_WORD not in reply.text
    assert SECRET_WORD not in caplog.text
    assert "RuntimeError" in caplog.text
    assert 'auditkit_requests_total{status="500"} 1.0' in metrics


@pytest.mark.parametrize("log_prompts", [False, True])
def test_prompts_are_logged_only_when_asked_for(
    log_prompts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = served(ScriptedEngine(), log_prompts=log_prompts)
    with caplog.at_level(logging.DEBUG), running(app) as at:
        httpx.post(at + PATH, json=chat(f"{SECRET_WORD} fire"))
    lines = [json.loads(r.getMessage()) for r in caplog.records if r.name == "auditkit.serve"]
    assert [(line["status"], line["fired"]) for line in lines] == [(200, ["planted"])]
    assert (SECRET_WORD in caplog.text) == log_prompts
    assert (lines[0].get("reply") == f"{SECRET_WORD} fire") == log_prompts


def test_metrics_count_requests_tokens_verdicts_and_the_load() -> None:
    with running(served(ScriptedEngine())) as at:
        before = httpx.get(at + "/metrics").text
        for text in ("one two", "fire", "three"):
            httpx.post(at + PATH, json=chat(text))
        httpx.post(at + PATH, content=b"{", headers={"content-type": "application/json"})
        until(lambda: 'status="400"' in httpx.get(at + "/metrics").text)
        lines = httpx.get(at + "/metrics").text.splitlines()
    assert 'auditkit_verdicts_total{rule="planted",truth="unknown"} 0.0' in before
    for line in (
        'auditkit_requests_total{status="200"} 3.0',
        'auditkit_requests_total{status="400"} 1.0',
        'auditkit_tokens_total{kind="prompt"} 4.0',
        'auditkit_tokens_total{kind="reply"} 4.0',
        'auditkit_verdicts_total{rule="planted",truth="true"} 1.0',
        'auditkit_verdicts_total{rule="planted",truth="false"} 2.0',
        "auditkit_request_seconds_count 4.0",
        "auditkit_first_text_seconds_count 3.0",
        "auditkit_queue_depth 0.0",
        "auditkit_running 0.0",
        "auditkit_monitor_errors_total 0.0",
    ):
        assert line in lines


def test_the_server_finishes_what_is_in_work_when_it_is_told_to_end() -> None:
    gate = threading.Event()
    engine = ScriptedEngine(gate=gate)
    replies: list[httpx.Response] = []
    with running(served(engine)) as at:
        asking = threading.Thread(
            target=lambda: replies.append(httpx.post(at + PATH, json=chat("last words")))
        )
        asking.start()
        until(lambda: engine.working == 1)
        threading.Timer(0.3, gate.set).start()
        began = time.monotonic()
    asking.join()
    assert time.monotonic() - began >= 0.2
    assert replies[0].json()["choices"][0]["message"]["content"] == "last words"


def test_what_does_not_finish_in_time_is_cancelled_when_the_server_ends() -> None:
    engine = ScriptedEngine(gate=threading.Event())
    limits = Limits(drain_seconds=1)
    app = create_app(engine, ServeSettings(limits=limits))
    with running(app, ServeSettings(limits=limits)) as at:
        body = json.dumps(chat("for ever")).encode()
        sock = raw_request(at, body, f"Content-Length: {len(body)}")
        until(lambda: engine.working == 1)
    sock.close()
    assert (engine.cancelled, engine.working) == (1, 0)
