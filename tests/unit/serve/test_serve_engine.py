"""What verdicts do to a reply: recorded, stopped, replaced, held; and when the monitor fails."""

from __future__ import annotations

from typing import Any

import pytest

from auditkit.core.errors import MismatchError
from auditkit.core.locks import LockedRule, Severity
from auditkit.core.prompts import Message, Role
from auditkit.core.verdicts import Truth
from auditkit.serve.api_errors import ApiError
from auditkit.serve.chat_request import ChatRequest, Sampling
from auditkit.serve.engine import Ended, Finish, Outcome, Piece
from auditkit.serve.settings import Action, FailPolicy, Hold, Limits, Policy
from auditkit.serve.watched_engine import WatchedEngine
from tests.serving_model import (
    ASKED,
    MODEL,
    SAE,
    bare_reply,
    on_word,
    word_engine,
    word_lock,
    words_of,
)
from tests.tiny import tiny_model

N = 12
REPLY = bare_reply(ASKED, N)
SPOKEN = words_of(REPLY)
PLACE = next(i for i, w in enumerate(SPOKEN) if i > 1 and w not in SPOKEN[:i] and w.isalpha())
"""A token of the reply, not the first, whose word was not said before it."""
BEFORE = MODEL.decode(REPLY[:PLACE])
SPEAKS = on_word(SPOKEN[PLACE], Role.ASSISTANT)
LATE = on_word(SPOKEN[PLACE], Role.ASSISTANT, condition="mean(s) > 0")
ASKS = on_word("water", Role.USER)
ASKS_ON_AVERAGE = on_word("water", Role.USER, condition="mean(s) > 0")
UNKNOWN = on_word("bomb", unresolved="no latents were found")
SILENT = on_word("bomb")
STOP, REPLACE = Policy(action=Action.STOP), Policy(action=Action.REPLACE)
CLOSED = Policy(action=Action.REPLACE, fail=FailPolicy.CLOSED)


def request(text: str = ASKED, *, stream: bool = False, **sampling: Any) -> ChatRequest:
    fields: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "seed": 0, "max_new_tokens": N}
    return ChatRequest(
        messages=(Message(role=Role.USER, content=text),),
        sampling=Sampling(**{**fields, **sampling}),
        stream=stream,
    )


def chat(
    engine: WatchedEngine, asked: ChatRequest, *, cancel_after: int | None = None
) -> tuple[list[str], Ended]:
    pieces: list[str] = []
    ended: list[Ended] = []

    def cancelled() -> bool:
        return cancel_after is not None and len(pieces) >= cancel_after

    for event in engine.chat(asked, cancelled):
        if isinstance(event, Piece):
            pieces.append(event.text)
        else:
            ended.append(event)
    (last,) = ended
    return pieces, last


def said(rule: LockedRule, policy: Policy, *, stream: bool = False) -> tuple[str, Ended]:
    pieces, ended = chat(word_engine(rule, policy=policy), request(stream=stream))
    return "".join(pieces), ended


@pytest.mark.parametrize("stream", [False, True])
def test_recording_changes_no_word_and_says_what_fired(stream: bool) -> None:
    text, ended = said(SPEAKS, Policy(), stream=stream)
    assert text == MODEL.decode(REPLY)
    assert ended.reply_tokens == len(REPLY)
    conclusion = ended.conclusion
    fired = [v for v in conclusion.verdicts if v.verdict.truth is Truth.TRUE]
    assert [v.token for v in fired] == [ended.prompt_tokens + PLACE]
    assert (conclusion.outcome, conclusion.because) == (Outcome.NONE, None)


def test_a_stream_comes_token_by_token() -> None:
    pieces, _ = chat(word_engine(SILENT), request(stream=True))
    assert len(pieces) > len(REPLY) // 2
    whole, _ = chat(word_engine(SILENT), request())
    assert whole == ["".join(pieces)]


@pytest.mark.parametrize("stream", [False, True])
def test_stop_ends_the_reply_before_the_firing_token(stream: bool) -> None:
    text, ended = said(SPEAKS, STOP, stream=stream)
    assert text == BEFORE
    assert ended.finish is Finish.FILTERED
    assert ended.reply_tokens == PLACE + 1
    assert ended.conclusion.outcome is Outcome.STOPPED
    assert ended.conclusion.because == SPEAKS.id


def test_replace_gives_the_refusal_alone_where_nothing_was_sent() -> None:
    text, ended = said(SPEAKS, REPLACE)
    assert text == REPLACE.refusal
    assert (ended.finish, ended.conclusion.outcome) == (Finish.FILTERED, Outcome.REPLACED)


def test_replace_in_a_stream_adds_the_refusal_to_what_was_sent() -> None:
    text, _ = said(SPEAKS, REPLACE, stream=True)
    assert text == f"{BEFORE}\n\n{REPLACE.refusal}"


@pytest.mark.parametrize("rule", [SPEAKS, LATE], ids=["at its token", "at the end"])
def test_a_held_stream_is_replaced_whole(rule: LockedRule) -> None:
    held = Policy(action=Action.REPLACE, hold=Hold.REPLY)
    text, ended = said(rule, held, stream=True)
    assert text == held.refusal
    assert ended.finish is Finish.FILTERED


def test_a_rule_that_decides_at_the_end_comes_too_late_for_what_a_stream_has_sent() -> None:
    text, ended = said(LATE, REPLACE, stream=True)
    assert text == f"{MODEL.decode(REPLY)}\n\n{REPLACE.refusal}"
    assert ended.finish is Finish.FILTERED
    assert said(LATE, REPLACE)[0] == REPLACE.refusal


@pytest.mark.parametrize("rule", [ASKS, ASKS_ON_AVERAGE], ids=["latching", "average"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_rule_on_the_prompt_refuses_before_a_word_is_written(
    rule: LockedRule, stream: bool
) -> None:
    text, ended = said(rule, REPLACE, stream=stream)
    assert text == REPLACE.refusal
    assert ended.reply_tokens == 0


@pytest.mark.parametrize(
    ("severity", "policy"),
    [
        (Severity.LOW, Policy(action=Action.REPLACE, act_on=Severity.MEDIUM)),
        (Severity.MEDIUM, Policy(action=Action.REPLACE)),
    ],
    ids=["below what was asked", "below high, where nothing was"],
)
def test_rules_below_the_severity_that_acts_are_recorded_only(
    severity: Severity, policy: Policy
) -> None:
    mild = on_word(SPOKEN[PLACE], Role.ASSISTANT, severity=severity)
    text, ended = said(mild, policy)
    assert text == MODEL.decode(REPLY)
    assert ended.conclusion.outcome is Outcome.NONE
    assert [v.verdict.truth for v in ended.conclusion.verdicts if v.token] == [Truth.TRUE]


def test_an_unknown_verdict_passes_open_and_blocks_closed() -> None:
    text, ended = said(UNKNOWN, REPLACE)
    assert text == MODEL.decode(REPLY)
    assert {v.verdict.truth for v in ended.conclusion.verdicts} == {Truth.UNKNOWN}
    text, ended = said(UNKNOWN, CLOSED)
    assert text == CLOSED.refusal
    assert ended.conclusion.because == f"{UNKNOWN.id} is unknown: unresolved selector"


def test_a_rule_that_found_nothing_to_judge_does_not_block() -> None:
    system = on_word("bomb", Role.SYSTEM)
    text, ended = said(system, CLOSED)
    assert text == MODEL.decode(REPLY)
    assert ended.finish is not Finish.FILTERED


def break_the_encoder(monkeypatch: pytest.MonkeyPatch, engine: WatchedEngine) -> None:
    """Make every further encoding of the engine's monitor fail."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the encoder broke on xylophone")

    from auditkit.monitor import watched

    monkeypatch.setattr(watched.WatchedLock, "encode", broken)


@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_monitor_passes_open_with_its_verdicts_unknown(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = word_engine(SILENT, policy=REPLACE)
    break_the_encoder(monkeypatch, engine)
    pieces, ended = chat(engine, request(stream=stream))
    assert "".join(pieces) == MODEL.decode(REPLY)
    assert ended.conclusion.monitor_error == "RuntimeError"
    assert Truth.FALSE not in {v.verdict.truth for v in ended.conclusion.verdicts}


@pytest.mark.parametrize("stream", [False, True])
def test_a_broken_monitor_blocks_closed_before_a_word_is_sent(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = word_engine(SILENT, policy=CLOSED)
    break_the_encoder(monkeypatch, engine)
    pieces, ended = chat(engine, request(stream=stream))
    assert "".join(pieces) == CLOSED.refusal
    assert ended.finish is Finish.FILTERED
    assert ended.conclusion.because == "monitor error: RuntimeError"
    assert ended.reply_tokens == 0


def test_a_cancelled_reply_ends_soon_and_keeps_its_verdicts() -> None:
    pieces, ended = chat(word_engine(ASKS), request(stream=True), cancel_after=2)
    assert len(pieces) <= 3
    assert ended.finish is Finish.CANCELLED
    assert ended.reply_tokens < len(REPLY)
    assert [v.verdict.truth for v in ended.conclusion.verdicts] == [Truth.TRUE]


def test_a_stop_text_is_met_in_the_middle_of_a_reply() -> None:
    word = SPOKEN[PLACE]
    pieces, ended = chat(word_engine(SILENT), request(stream=True, stop=(word,)))
    assert "".join(pieces) == MODEL.decode(REPLY).split(word)[0]
    assert ended.finish is Finish.STOP


def test_messages_that_are_too_long_are_refused() -> None:
    engine = word_engine(SILENT, limits=Limits(prompt_tokens=30))
    with pytest.raises(ApiError, match="this server takes at most 30") as caught:
        chat(engine, request("the cat " * 20))
    assert (caught.value.status, caught.value.code) == (400, "context_length_exceeded")


def test_a_reply_ends_where_the_models_context_does() -> None:
    prompt = "the cat " * 500
    _, ended = chat(word_engine(SILENT), request(prompt, max_new_tokens=512))
    assert ended.prompt_tokens + ended.reply_tokens <= 1024


def test_a_lock_of_another_model_is_refused() -> None:
    with pytest.raises(MismatchError, match="bound for"):
        WatchedEngine(
            tiny_model(1),
            [(SAE, word_lock([SILENT]))],
            name="other",
            policy=Policy(),
            limits=Limits(),
        )


def test_nothing_is_kept_of_an_exchange_that_is_over() -> None:
    engine = word_engine(ASKS)
    for _ in range(3):
        chat(engine, request())
    assert engine._watcher._open == {}
