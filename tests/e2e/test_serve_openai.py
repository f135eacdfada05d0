"""The real `openai` client, synchronous and not, streamed and not, against a running server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from auditkit.core.prompts import Role
from auditkit.serve.settings import Limits
from auditkit.serve.verdict_report import HEADER
from tests.serving import running
from tests.serving_model import ASKED, MODEL, NAME, bare_reply, on_word, word_app

TOKEN = "a-token-of-some-length"
RULES = (on_word("water", Role.USER), on_word("bomb"), on_word("find", Role.ASSISTANT))
GREEDY: dict[str, Any] = {"model": NAME, "temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    app = word_app(*RULES, token=TOKEN, limits=Limits(new_tokens=32, prompt_tokens=64))
    with running(app) as found:
        yield f"{found}/v1"


@pytest.fixture
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=address, api_key=TOKEN, max_retries=0) as found:
        yield found


def asked(text: str = ASKED) -> Any:
    return [{"role": "user", "content": text}]


def expected(n: int = 12) -> str:
    return MODEL.decode(bare_reply(ASKED, n))


def test_a_reply_is_the_unwatched_models_and_carries_its_verdicts(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(messages=asked(), **GREEDY)
    reply = raw.parse()
    assert reply.choices[0].message.content == expected()
    assert reply.usage is not None
    assert reply.usage.completion_tokens == len(bare_reply(ASKED, 12))
    found: Any = reply.model_extra
    fired = [r["rule"] for r in found["auditkit"]["rules"] if r["truth"] == "true"]
    assert "word.water" in fired
    assert 'fired=("word.water";at=' in raw.headers[HEADER]


def test_a_stream_has_the_same_text_and_verdicts(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(messages=asked(), **GREEDY)
    stream = client.chat.completions.create(messages=asked(), stream=True, **GREEDY)
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks)
    assert text == whole.choices[0].message.content == expected()
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    last: Any = chunks[-1].model_extra
    body: Any = whole.model_extra
    assert last["auditkit"]["rules"] == body["auditkit"]["rules"]


def test_the_asynchronous_client_gets_the_same(address: str) -> None:
    async def ask() -> tuple[str | None, str]:
        async with openai.AsyncOpenAI(base_url=address, api_key=TOKEN, max_retries=0) as client:
            whole = await client.chat.completions.create(messages=asked(), **GREEDY)
            stream = await client.chat.completions.create(messages=asked(), stream=True, **GREEDY)
            parts = [c.choices[0].delta.content or "" async for c in stream]
            return whole.choices[0].message.content, "".join(parts)

    assert asyncio.run(ask()) == (expected(), expected())


def test_a_seed_gives_the_same_reply_again(client: openai.OpenAI) -> None:
    def sampled(seed: int) -> str | None:
        reply = client.chat.completions.create(
            model=NAME, messages=asked(), temperature=1.0, max_tokens=12, seed=seed
        )
        return reply.choices[0].message.content

    assert sampled(3) == sampled(3) == MODEL.decode(bare_reply(ASKED, 12, temperature=1.0, seed=3))
    assert len({sampled(seed) for seed in range(6)}) > 1


def test_a_stop_text_ends_the_reply_before_it(client: openai.OpenAI) -> None:
    words = expected().split(" ")
    stop = words[3]
    reply = client.chat.completions.create(messages=asked(), stop=f" {stop}", **GREEDY)
    assert reply.choices[0].message.content == expected()[: expected().index(f" {stop}")]
    assert reply.choices[0].finish_reason == "stop"


def test_a_reply_that_was_cut_says_so(client: openai.OpenAI) -> None:
    n = len(bare_reply(ASKED, 12)) - 2
    reply = client.chat.completions.create(
        model=NAME, messages=asked(), temperature=0, max_completion_tokens=n
    )
    assert reply.choices[0].finish_reason == "length"
    assert reply.usage is not None
    assert reply.usage.completion_tokens == n


def test_usage_is_streamed_where_asked_for(client: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    stream = client.chat.completions.create(
        messages=asked(), stream=True, stream_options=options, **GREEDY
    )
    *_, last = stream
    assert last.usage is not None
    assert last.usage.prompt_tokens > 0


def test_the_model_is_listed(client: openai.OpenAI) -> None:
    assert [m.id for m in client.models.list()] == [NAME]
    assert client.models.retrieve(NAME).id == NAME


def test_errors_are_the_clients_own(client: openai.OpenAI, address: str) -> None:
    create = client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="does not exist here"):
        create(model="gpt-4", messages=asked())
    tools: Any = [{"type": "function", "function": {"name": "f"}}]
    with pytest.raises(openai.BadRequestError, match="tools is not supported"):
        create(messages=asked(), tools=tools, **GREEDY)
    with pytest.raises(openai.BadRequestError, match="at most 64") as caught:
        create(messages=asked("the cat " * 60), **GREEDY)
    assert caught.value.code == "context_length_exceeded"
    with (
        openai.OpenAI(base_url=address, api_key="wrong", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError, match="needs its token"),
    ):
        stranger.chat.completions.create(messages=asked(), **GREEDY)
