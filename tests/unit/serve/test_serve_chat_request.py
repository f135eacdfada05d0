"""What a chat request may say, and what it is told otherwise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.core.prompts import Role
from auditkit.serve.api_errors import ApiError
from auditkit.serve.chat_request import ChatRequest, parse_chat_request

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}


def parse(**fields: Any) -> ChatRequest:
    body = json.dumps({**ASKED, **fields}).encode()
    return parse_chat_request(body, served="m", max_new_tokens=64)


def refused(**fields: Any) -> ApiError:
    with pytest.raises(ApiError, match=r"\w") as caught:
        parse(**fields)
    return caught.value


def test_defaults_are_openais() -> None:
    asked = parse()
    assert (asked.sampling.temperature, asked.sampling.top_p) == (1.0, 1.0)
    assert asked.sampling.max_new_tokens == 64
    assert asked.sampling.stop == ()
    assert not asked.stream


def test_every_supported_field_is_read() -> None:
    asked = parse(
        stream=True,
        stream_options={"include_usage": True},
        temperature=0,
        top_p=0.5,
        max_tokens=7,
        seed=-3,
        stop=["a", "b"],
    )
    sampling = asked.sampling
    assert asked.stream
    assert asked.include_usage
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.0, 0.5, -3)
    assert (sampling.max_new_tokens, sampling.stop) == (7, ("a", "b"))


def test_max_completion_tokens_goes_before_max_tokens() -> None:
    assert parse(max_completion_tokens=5, max_tokens=9).sampling.max_new_tokens == 5


def test_a_seed_is_drawn_where_none_is_given() -> None:
    assert len({parse().sampling.seed for _ in range(8)}) == 8


def test_parts_of_text_are_joined_and_developers_are_the_system() -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    (message,) = parse(messages=[{"role": "developer", "content": parts}]).messages
    assert (message.role, message.content) == (Role.SYSTEM, "one two")


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1},
        {"n": None},
        {"tools": []},
        {"logprobs": False},
        {"presence_penalty": 0.0},
        {"response_format": {"type": "text"}},
        {"user": "someone"},
        {"store": False},
    ],
    ids=str,
)
def test_fields_that_ask_for_nothing_are_accepted(fields: dict[str, Any]) -> None:
    assert parse(**fields).messages[0].content == "hello"


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"n": True},
        {"tools": [{"type": "function"}]},
        {"logprobs": True},
        {"top_logprobs": 3},
        {"presence_penalty": 0.5},
        {"response_format": {"type": "json_object"}},
        {"logit_bias": {"5": 100}},
        {"audio": {"voice": "x"}},
    ],
    ids=str,
)
def test_fields_of_openais_that_are_not_supported_are_named(fields: dict[str, Any]) -> None:
    error = refused(**fields)
    assert (error.status, error.code, error.param) == (
        400,
        "unsupported_parameter",
        next(iter(fields)),
    )


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 2.5}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 65}, "max_tokens"),
        ({"max_completion_tokens": 1000}, "max_completion_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"seed": 2**63}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": "x", "name": "n"}]}, "messages.0.name"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_with_its_place(fields: dict[str, Any], param: str) -> None:
    error = refused(**fields)
    assert (error.status, error.code, error.param) == (400, "invalid_value", param)


@pytest.mark.parametrize("stop", ["", [""], ["a", "b", "c", "d", "e"], 5, "x" * 257])
def test_stop_texts_are_few_and_not_empty(stop: object) -> None:
    error = refused(stop=stop)
    assert (error.status, error.code) == (400, "invalid_value")
    assert str(error.param).startswith("stop")


def test_a_picture_is_refused() -> None:
    part = {"type": "image_url", "image_url": {"url": "x"}}
    error = refused(messages=[{"role": "user", "content": [part]}])
    assert error.status == 400
    assert str(error.param).startswith("messages.0.content")


def test_an_unknown_field_is_refused_by_name() -> None:
    error = refused(temprature=0.5)
    assert (error.status, error.code, error.param) == (400, "unknown_parameter", "temprature")


def test_another_model_is_not_found() -> None:
    error = refused(model="gpt-4")
    assert (error.status, error.code) == (404, "model_not_found")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b'{"model": "m", "messages": NaN}',
        b"\xff\xfe",
        b'{"a": ' + b"[" * 100_000,
        b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError, match="JSON") as caught:
        parse_chat_request(body, served="m", max_new_tokens=64)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


TEXT = st.text("aé😀 ", max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None)
@given(fields=st.dictionaries(st.sampled_from([*ASKED, "n", "stop", "tools", "seed"]), VALUES))
def test_any_json_is_read_or_refused(fields: dict[str, Any]) -> None:
    status = 200
    try:
        parse(**fields)
    except ApiError as error:
        status = error.status
    assert status in (200, 400, 404)
