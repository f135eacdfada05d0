"""Many requests at once: each gets its own reply and its own verdicts, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import httpx
import openai

from auditkit.core.prompts import Role
from auditkit.serve.settings import Limits
from auditkit.serve.verdict_report import HEADER
from tests.serving import running
from tests.serving_model import MODEL, NAME, bare_reply, on_word, word_app
from tests.tiny import WORDS

REQUESTS, AT_ONCE, LEAVING = 200, 16, 24
PLANTED = WORDS[: REQUESTS // 2]
"""Each word is asked about twice; half of the words have a rule."""
WATCHED = PLANTED[::2]
FILLER = [w for w in WORDS[REQUESTS // 2 :] if w not in PLANTED][:40]
RULES = tuple(on_word(word, Role.USER) for word in WATCHED)
LIMITS = Limits(concurrency=4, queue_length=32, new_tokens=64)


def question(number: int) -> tuple[str, str]:
    """The planted word of a request, and its text."""
    word = PLANTED[number % len(PLANTED)]
    fill = random.Random(number).choices(FILLER, k=6)
    fill.insert(number % 7, word)
    return word, " ".join(fill)


def fired_in(found: Any) -> list[str]:
    assert len(found["rules"]) == len(RULES)
    return [r["rule"] for r in found["rules"] if r["truth"] == "true"]


async def ask(client: openai.AsyncOpenAI, number: int) -> tuple[str | None, list[str]]:
    _, text = question(number)
    fields: Any = {
        "model": NAME,
        "messages": [{"role": "user", "content": text}],
        "temperature": 0,
        "max_tokens": 2 + number % 4,
    }
    if number % 2:
        stream = await client.chat.completions.create(stream=True, **fields)
        chunks = [chunk async for chunk in stream]
        last: Any = chunks[-1].model_extra
        joined = "".join(c.choices[0].delta.content or "" for c in chunks)
        return joined, fired_in(last["auditkit"])
    raw = await client.chat.completions.with_raw_response.create(**fields)
    reply: Any = raw.parse()
    fired = fired_in(reply.model_extra["auditkit"])
    assert f"true={len(fired)}," in raw.headers[HEADER]
    assert all(f'"{rule}"' in raw.headers[HEADER] for rule in fired)
    return reply.choices[0].message.content, fired


async def ask_all(address: str, order: list[int]) -> dict[int, tuple[str | None, list[str]]]:
    gate = asyncio.Semaphore(AT_ONCE)
    answers: dict[int, tuple[str | None, list[str]]] = {}
    async with openai.AsyncOpenAI(
        base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=120
    ) as client:

        async def one(number: int) -> None:
            async with gate:
                answers[number] = await ask(client, number)

        await asyncio.gather(*(one(n) for n in order))
    return answers


async def leave_midway(address: str, number: int) -> None:
    async with httpx.AsyncClient(timeout=60) as client:
        body = {
            "model": NAME,
            "messages": [{"role": "user", "content": question(number)[1]}],
            "stream": True,
        }
        async with client.stream("POST", f"{address}/v1/chat/completions", json=body) as reply:
            async for _ in reply.aiter_lines():
                break


def test_every_request_gets_its_own_reply_and_verdicts_with_others_leaving_midway() -> None:
    order = list(range(REQUESTS))
    random.Random(0).shuffle(order)

    async def everything(address: str) -> dict[int, tuple[str | None, list[str]]]:
        leaving = [leave_midway(address, n) for n in range(LEAVING)]
        answers, *_ = await asyncio.gather(ask_all(address, order), one_by_one(leaving))
        return answers

    with running(word_app(*RULES, limits=LIMITS)) as address:
        answers = asyncio.run(everything(address))
        metrics = httpx.get(f"{address}/metrics").text
    assert sorted(answers) == list(range(REQUESTS))
    for number, (text, fired) in answers.items():
        word, asked = question(number)
        assert fired == ([f"word.{word}"] if word in WATCHED else []), number
        assert text == MODEL.decode(bare_reply(asked, 2 + number % 4)), number
    firing = sum(bool(fired) for _, fired in answers.values())
    assert firing == REQUESTS // 2
    served = count(metrics, 'auditkit_requests_total{status="200"}')
    left = count(metrics, 'auditkit_requests_total{status="499"}')
    assert served + left == REQUESTS + LEAVING
    assert served >= REQUESTS
    assert left > 0
    for gauge in ("auditkit_running", "auditkit_queue_depth", "auditkit_monitor_errors_total"):
        assert count(metrics, gauge) == 0


async def one_by_one(awaitables: list[Any]) -> None:
    for awaitable in awaitables:
        await awaitable


def count(metrics: str, name: str) -> float:
    values = [line.split()[-1] for line in metrics.splitlines() if line.startswith(f"{name} ")]
    return float(values[0]) if values else 0.0
