"""Many requests at a time, requests that break off, and long ones."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from monitored import inputs, live, n_hooks, prompts, rendered
from transformers import StoppingCriteria, StoppingCriteriaList, TextIteratorStreamer

from auditkit.core.hook_point import HookPoint, Site
from auditkit.monitor import Ending, Monitor, Stop
from tests.tiny import tiny_model
from tests.tiny_sae import tiny_sae
from tests.watched import lock, rule, various_rules

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from families_under_test import family_model

MODEL, SAE = tiny_model(), tiny_sae()
LOCK = lock(MODEL, SAE, *various_rules())
GREEDY: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False}
ASKED = rendered(MODEL, prompts(64, seed=2))


def one(monitor: Monitor, number: int) -> Any:
    with monitor.request(id=f"r{number}", prompts=[ASKED[number]]) as request:
        MODEL.network.generate(**inputs(MODEL, [ASKED[number]]), **GREEDY)
    return request.result()


def test_64_requests_at_a_time_are_watched_each_for_itself() -> None:
    monitor = Monitor(MODEL, [(SAE, LOCK)])
    alone = [one(monitor, n) for n in range(64)]
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(lambda n: one(monitor, n), range(64)))
    for n, (a, b) in enumerate(zip(alone, together, strict=True)):
        assert b.errors == ()
        assert (b.request, b.prompt_id) == (f"r{n}", ASKED[n].prompt_id)
        assert b.ids == a.ids
        assert live([b]) == live([a])
    assert n_hooks(MODEL) == n_hooks(tiny_model())


def test_a_thread_that_did_not_ask_is_not_watched() -> None:
    monitor = Monitor(MODEL, [(SAE, LOCK)])
    with monitor, ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: MODEL.network(torch.tensor([ASKED[0].ids]))).result()
    assert monitor.requests == ()


def test_a_monitor_of_all_threads_sees_every_thread() -> None:
    monitor = Monitor(MODEL, [(SAE, LOCK)], threads="all")
    with monitor, ThreadPoolExecutor(4) as pool:
        given = [inputs(MODEL, [a]) for a in ASKED[:12]]
        list(pool.map(lambda g: MODEL.network.generate(**g, **GREEDY), given))
    assert len(monitor.requests) == 12
    assert {len(r.result().ids) for r in monitor.requests} <= set(range(5))


def test_a_streaming_thread_is_watched_through_run() -> None:
    monitor = Monitor(MODEL, [(SAE, LOCK)])
    streamer = TextIteratorStreamer(MODEL.tokenizer)
    arguments = {**inputs(MODEL, ASKED[:1]), **GREEDY, "streamer": streamer}
    thread = threading.Thread(target=monitor.run, args=(MODEL.network.generate,), kwargs=arguments)
    thread.start()
    text = "".join(streamer)
    thread.join()
    assert text
    assert monitor.result().tokens > len(ASKED[0])


def test_a_copied_context_is_watched() -> None:
    monitor = Monitor(MODEL, [(SAE, LOCK)])

    async def serve() -> None:
        with monitor.request(id="asked", prompts=ASKED[:1]):
            await asyncio.to_thread(MODEL.network.generate, **inputs(MODEL, ASKED[:1]), **GREEDY)

    asyncio.run(serve())
    assert monitor.requests[-1].id == "asked"
    assert monitor.requests[-1].result().verdicts
    with monitor:
        context = contextvars.copy_context()
    context.run(MODEL.network, torch.tensor([ASKED[0].ids]))


class EndsAt(StoppingCriteria):
    def __init__(self, length: int, error: Exception | None = None) -> None:
        self.length, self.error = length, error

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        ends = input_ids.shape[1] >= self.length
        if ends and self.error is not None:
            raise self.error
        return torch.full((input_ids.shape[0],), ends)


def test_a_request_that_breaks_off_keeps_what_was_seen_and_leaves_no_hook() -> None:
    monitor = Monitor(MODEL, [(SAE, LOCK)])
    given = inputs(MODEL, ASKED[:1])
    end = EndsAt(len(ASKED[0]) + 3, RuntimeError("planted"))
    before = n_hooks(MODEL)
    with (
        pytest.raises(RuntimeError, match="planted"),
        monitor.request(prompts=ASKED[:1]) as request,
    ):
        MODEL.network.generate(**given, **GREEDY, stopping_criteria=StoppingCriteriaList([end]))
    result = request.result()
    assert result.ending is Ending.CANCELLED
    assert result.why == "RuntimeError: planted"
    assert result.tokens == len(ASKED[0]) + 2
    assert result.verdicts
    assert n_hooks(MODEL) == before
    with monitor:
        MODEL.network.generate(**given, **GREEDY)
    assert monitor.result().ending is Ending.COMPLETED


def test_a_criterion_of_the_callers_ends_the_reply_that_is_watched() -> None:
    end = EndsAt(len(ASKED[1]) + 3)
    with Monitor(MODEL, [(SAE, LOCK)]).request(prompts=ASKED[1:2]) as request:
        MODEL.network.generate(
            **inputs(MODEL, ASKED[1:2]), **GREEDY, stopping_criteria=StoppingCriteriaList([end])
        )
    result = request.result()
    assert len(result.ids) == 3
    assert result.tokens == len(ASKED[1]) + 3


@pytest.mark.parametrize("beams", [1, 2])
def test_a_cancelled_request_ends_at_the_next_token(beams: int) -> None:
    monitor = Monitor(MODEL, [(SAE, LOCK)], actions=[Stop()], on_unknown="open", on_error="open")
    with monitor.request(prompts=ASKED[:4]) as request:
        request.cancel("the client has gone")
        out = MODEL.network.generate(
            **inputs(MODEL, ASKED[:4]), **{**GREEDY, "max_new_tokens": 200}, num_beams=beams
        )
    assert out.shape[1] < max(map(len, ASKED[:4])) + 10
    if beams == 1:
        assert {r.ending for r in request.results()} <= {Ending.CANCELLED, Ending.STOPPED}


def test_requests_that_break_off_at_once_do_not_disturb_others() -> None:
    monitor = Monitor(MODEL, [(SAE, LOCK)])
    alone = [one(monitor, n) for n in range(24)]

    def broken_or_whole(n: int) -> Any:
        if n % 3:
            return one(monitor, n)
        criteria = StoppingCriteriaList([EndsAt(len(ASKED[n]) + 2, KeyError("gone"))])
        with pytest.raises(KeyError), monitor.request(prompts=[ASKED[n]]):
            MODEL.network.generate(
                **inputs(MODEL, [ASKED[n]]), **GREEDY, stopping_criteria=criteria
            )
        return None

    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(broken_or_whole, range(24)))
    for n, result in enumerate(together):
        if n % 3:
            assert result.ids == alone[n].ids
            assert live([result]) == live([alone[n]])


def test_memory_stays_flat_over_10_000_tokens() -> None:
    model = family_model("mistral")  # its cache holds a window of five tokens
    sae = tiny_sae(layer=1)
    assert sae.hook_point == HookPoint(layer=1, site=Site.RESID_POST)
    opened = lock(model, sae, *various_rules()[:2], rule("silent", "max(s) >= 1e6", 1))
    monitor = Monitor(model, [(sae, opened)])
    x = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(0))
    held: list[int] = []
    (asked,) = rendered(model, prompts(1))
    with monitor.request(prompts=[asked]) as request, torch.no_grad():
        model.network(torch.tensor([asked.ids]), use_cache=True)
        (row,) = request._rows
        watched = monitor.watches[0]
        shown = [watched.encode(x[0] * n)[0] for n in range(7)]
        tracemalloc.start()
        for step in range(10_000):
            row.column += 1
            row.push(5, [shown[step % 7]])
            if step in (2_000, 9_999):
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    assert held[1] - held[0] < 64_000
    assert request.result().tokens > 10_000
