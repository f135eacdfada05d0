"""What is done when a rule fires, and when something cannot be decided or fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from monitored import inputs, live, offline, prompts, rendered

from auditkit.core.errors import InvalidInput, MismatchError, NonFiniteActivations
from auditkit.core.locks import Frame, Lock, Severity
from auditkit.core.prompts import Role
from auditkit.core.verdicts import Truth
from auditkit.models import Edit
from auditkit.monitor import (
    Action,
    Alert,
    Call,
    Ending,
    Escalate,
    LogJsonl,
    Monitor,
    Record,
    Replace,
    Request,
    Steer,
    Stop,
    watch_generate,
)
from tests.tiny import tiny_model
from tests.tiny_sae import tiny_sae
from tests.watched import lock, rule

MODEL, SAE = tiny_model(), tiny_sae()
EVERY = range(64)
OPEN = {"on_unknown": "open", "on_error": "open"}
CLOSED = {"on_unknown": "closed", "on_error": "closed"}
IN_REPLY = rule("reply", "any(s > 0)", *EVERY, roles=(Role.ASSISTANT,))
NEVER = rule("never", "max(s) >= 1e6", *EVERY)
AT_END = rule("at-end", "mean(s) >= 0", *EVERY, roles=(Role.ASSISTANT,))
ASKED = rendered(MODEL, [p for p in prompts(8, seed=3) if len(p.messages) == 1])
GIVEN = inputs(MODEL, ASKED)
GREEDY: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False}
FREE = MODEL.network.generate(**GIVEN, **GREEDY)
WIDTH = GIVEN["input_ids"].shape[1]


def run(
    opened: Lock, *actions: Action, more: dict[str, Any] | None = None, **policy: Any
) -> tuple[torch.Tensor, Request]:
    monitor = Monitor(MODEL, [(SAE, opened)], actions=actions, **(policy or OPEN))
    with monitor.request(prompts=ASKED) as request:
        out = MODEL.network.generate(**GIVEN, **GREEDY, **(more or {}))
    return out, request


def test_an_alert_comes_at_the_token_where_a_latching_rule_fires() -> None:
    heard: list[Alert] = []
    _, request = run(lock(MODEL, SAE, IN_REPLY), Call(heard.append))
    assert {a.row for a in heard} == set(range(6))
    for alert in heard:
        assert not alert.final
        assert alert.verdict.truth is Truth.TRUE
        assert alert.token is not None
        assert alert.token >= len(ASKED[alert.row])
        assert alert.request == request.id
    for result in request.results():
        (verdict,) = result.fired
        assert verdict.token == heard[result.row].token


def test_an_action_hears_each_frame_once_and_only_its_rules() -> None:
    everything, grave, named = Record(), Record(at_least=Severity.CRITICAL), Record(rules=("b",))
    rules = (rule("a", "any(s > 0)", *EVERY), rule("b", "mean(s) >= 0", *EVERY))
    _, request = run(lock(MODEL, SAE, *rules), everything, grave, named)
    told = [(a.row, a.rule_id, a.frame) for a in everything.alerts]
    assert len(told) == len(set(told)) == sum(len(r.fired) for r in request.results())
    assert not grave.alerts
    assert {a.rule_id for a in named.alerts} == {"b"}


def test_a_rule_about_the_prompt_alone_is_decided_before_the_reply() -> None:
    asked_for = rule("asked", "mean(s) >= 0", *EVERY, roles=(Role.USER,))
    _, request = run(lock(MODEL, SAE, asked_for), Stop())
    for result in request.results():
        assert result.ending is Ending.STOPPED
        assert len(result.ids) == 1


def test_the_log_holds_a_line_of_json_for_each_alert(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    _, request = run(lock(MODEL, SAE, IN_REPLY), LogJsonl(path))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [x["row"] for x in lines] == list(range(6))
    assert {x["request"] for x in lines} == {request.id}


def test_stop_ends_the_row_at_the_token_and_says_why() -> None:
    out, request = run(lock(MODEL, SAE, IN_REPLY), Stop())
    for result in request.results():
        assert result.ending is Ending.STOPPED
        assert result.why == f"rule reply fired at token {len(ASKED[result.row])}"
        assert result.stopped_by is not None
        free = FREE[result.row, WIDTH:].tolist()
        assert list(result.ids) == free[: len(result.ids)]
        assert len(result.ids) == 2
        assert [a.action for a in result.actions] == ["stop"]
    assert out.shape[1] == WIDTH + 2


def test_stop_ends_no_row_in_which_nothing_fires() -> None:
    out, request = run(lock(MODEL, SAE, NEVER), Stop())
    assert torch.equal(out, FREE)
    assert {r.ending for r in request.results()} == {Ending.COMPLETED}


def test_in_beam_search_the_returned_reply_is_cut_where_a_rule_fires() -> None:
    out, request = run(lock(MODEL, SAE, IN_REPLY), Stop(), more={"num_beams": 3})
    for result in request.results():
        assert result.ending is Ending.STOPPED
        assert len(result.ids) == 1
        assert out[result.row, WIDTH] == result.ids[0]


@pytest.mark.parametrize("more", [{}, {"num_beams": 2}, {"return_dict_in_generate": True}])
def test_replace_returns_a_refusal_in_place_of_the_reply(more: dict[str, Any]) -> None:
    out, request = run(lock(MODEL, SAE, AT_END), Replace("sorry, I cannot help"), more=more)
    sequences = out if isinstance(out, torch.Tensor) else out.sequences
    for result in request.results():
        assert result.ending is Ending.REPLACED
        assert MODEL.decode(result.ids).startswith("sorry")
        row = sequences[result.row]
        assert torch.equal(row[:WIDTH], GIVEN["input_ids"][result.row])
        assert row[WIDTH : WIDTH + len(result.ids)].tolist() == list(result.ids)
        assert int(row[WIDTH + len(result.ids)]) in MODEL.end_ids


def test_replace_works_in_auditkits_own_generate() -> None:
    replies = watch_generate(
        MODEL,
        [(SAE, lock(MODEL, SAE, IN_REPLY))],
        prompts(4, seed=3),
        max_new_tokens=8,
        actions=[Replace("sorry")],
        **OPEN,
    )
    assert {r.text for r in replies} == {"sorry"}
    assert {r.stopped_by for r in replies} == {"reply"}


def test_acting_without_a_policy_is_refused() -> None:
    opened = lock(MODEL, SAE, NEVER)
    with pytest.raises(InvalidInput, match="on_unknown is not given"):
        Monitor(MODEL, [(SAE, opened)], actions=[Stop()])
    with pytest.raises(InvalidInput, match="on_error is not given"):
        Monitor(MODEL, [(SAE, opened)], actions=[Stop()], on_unknown="open")
    with pytest.raises(InvalidInput, match="'open' or 'closed'"):
        Monitor(MODEL, [(SAE, opened)], on_error="shut")


@pytest.mark.parametrize("closed", [False, True])
def test_an_unknown_verdict_goes_on_or_is_withheld_as_the_caller_says(closed: bool) -> None:
    lost = rule("lost", "max(s) >= 0.1", unresolved="no latents")
    out, request = run(lock(MODEL, SAE, lost), Stop(), **(CLOSED if closed else OPEN))
    for result in request.results():
        assert result.unknown == result.verdicts
        if not closed:
            assert result.ending is Ending.COMPLETED
            continue
        assert result.ending is Ending.WITHHELD
        assert result.why == "rule lost is undecided: unresolved selector"
        assert result.ids == ()
    assert torch.equal(out, FREE) is not closed


def test_closed_refuses_a_prompt_whose_roles_cannot_be_told() -> None:
    monitor = Monitor(
        MODEL, [(SAE, lock(MODEL, SAE, IN_REPLY))], actions=[Replace("sorry")], **CLOSED
    )
    with monitor:
        MODEL.network.generate(**GIVEN, **GREEDY)
    assert {r.ending for r in monitor.results()} == {Ending.REPLACED}
    assert "roles" in monitor.result().why


class Breaks:
    """An encoder that fails from its third call on."""

    flops_per_token = 1
    watched_latents = tuple(EVERY)

    def __init__(self) -> None:
        self.calls = 0
        self.whole = Monitor(MODEL, [(SAE, lock(MODEL, SAE, IN_REPLY))]).watches[0].encoder

    def read(self, x: torch.Tensor) -> Any:
        self.calls += 1
        if self.calls >= 3:
            raise NonFiniteActivations("planted")
        return self.whole.read(x)


@pytest.mark.parametrize("closed", [False, True])
def test_a_failing_monitor_never_breaks_generation(closed: bool) -> None:
    opened = lock(MODEL, SAE, rule("any", "max(s) >= 1e6", *EVERY))
    policy = CLOSED if closed else OPEN
    monitor = Monitor(MODEL, [(SAE, opened)], actions=[Stop()], **policy)
    object.__setattr__(monitor.watches[0], "encoder", Breaks())
    with monitor.request(prompts=ASKED) as request:
        out = MODEL.network.generate(**GIVEN, **GREEDY)
    for result in request.results():
        assert any("planted" in error for error in result.errors)
        assert result.verdicts[-1].verdict.truth is Truth.UNKNOWN
        assert result.ending is (Ending.WITHHELD if closed else Ending.COMPLETED)
        if closed:
            assert "planted" in result.why
    assert torch.equal(out, FREE) is not closed


def test_a_callback_that_raises_is_noted_and_generation_goes_on() -> None:
    def broken(_: Alert) -> None:
        raise KeyError("planted")

    out, request = run(lock(MODEL, SAE, IN_REPLY), Call(broken))
    assert torch.equal(out, FREE)
    assert all("KeyError" in r.errors[0] for r in request.results())


def test_prompts_that_are_not_the_batchs_are_noted_as_an_error() -> None:
    monitor = Monitor(MODEL, [(SAE, lock(MODEL, SAE, IN_REPLY))], actions=[Stop()], **CLOSED)
    with monitor.request(prompts=list(reversed(ASKED))) as request:
        MODEL.network.generate(**GIVEN, **GREEDY)
    assert "other tokens" in request.result(0).errors[0]
    assert request.result(0).ending is Ending.WITHHELD


def test_steering_holds_watched_latents_down_and_bounds_the_change() -> None:
    watched = [3, 17, 40]
    high = rule("high", "max(s) >= 0.5", *watched)
    opened = lock(MODEL, SAE, high)
    before, after = [], []
    read = Edit(hook_point=SAE.hook_point, function=lambda x, _: before.append(x.clone()) or x)
    write = Edit(hook_point=SAE.hook_point, function=lambda x, _: after.append(x.clone()) or x)
    steer = Steer(ceiling=0.2, bound=0.25, when="always")
    monitor = Monitor(MODEL, [(SAE, opened)], actions=[steer], **OPEN)
    with MODEL.editing([read]), monitor, MODEL.editing([write]), torch.no_grad():
        MODEL.network(GIVEN["input_ids"], attention_mask=GIVEN["attention_mask"])
    real = GIVEN["attention_mask"].bool()
    x, x_new = before[0][real], after[0][real]
    moved = (x_new - x).norm(dim=1) / x.norm(dim=1)
    assert float(moved.max()) <= 0.25 + 1e-5
    acts = SAE.encode(x).to_dense()
    delta = -((acts[:, watched] - 0.2).clamp(min=0) @ SAE.W_dec[watched])
    free = delta.norm(dim=1) <= 0.25 * x.norm(dim=1)
    assert bool(free.any())
    assert bool((acts[:, watched] > 0.2).any())
    torch.testing.assert_close(x_new[free], (x + delta)[free])


def test_steering_begins_after_the_token_at_which_the_rule_fires() -> None:
    opened = lock(MODEL, SAE, IN_REPLY)
    starts: list[tuple[int, bool]] = []
    before: list[torch.Tensor] = []
    read = Edit(hook_point=SAE.hook_point, function=lambda x, _: before.append(x.clone()) or x)

    def compare(x: torch.Tensor, start: int) -> torch.Tensor:
        starts.append((start, torch.equal(x, before[-1])))
        return x

    monitor = Monitor(MODEL, [(SAE, opened)], actions=[Steer()], **OPEN)
    write = Edit(hook_point=SAE.hook_point, function=compare)
    with MODEL.editing([read]), monitor.request(prompts=ASKED), MODEL.editing([write]):
        MODEL.network.generate(**GIVEN, **GREEDY)
    assert monitor.result().errors == ()
    same = dict(starts[:8])
    assert same[0]
    assert same[WIDTH]
    assert not same[WIDTH + 1]


def test_steering_rules_without_latents_is_refused() -> None:
    with pytest.raises(InvalidInput, match="none of the rules"):
        Monitor(
            MODEL,
            [(SAE, lock(MODEL, SAE, NEVER))],
            actions=[Steer(rules=("another",))],
            **OPEN,
        )


def test_a_cascade_checks_only_the_sequences_that_the_cheap_rule_points_at() -> None:
    _, first = run(lock(MODEL, SAE, rule("x", "max(s) >= 0", 3, 17, 40, frame=Frame.CONVERSATION)))
    scores = sorted(a.score.value for r in first.results() for a in r.verdicts)
    cheap = rule("cheap", f"max(s) >= {scores[3]}", 3, 17, 40, frame=Frame.CONVERSATION)
    dear_sae = tiny_sae(5, layer=2)
    dear = lock(MODEL, dear_sae, rule("dear", "mean(s) >= 0.05", *EVERY))
    told = Record(rules=("dear",))
    _, request = run(lock(MODEL, SAE, cheap), Escalate([(dear_sae, dear)], rules=("cheap",)), told)
    results = request.results()
    gone_on = [r.row for r in results if r.escalated]
    assert 0 < len(gone_on) < len(results)
    assert [r.row for r in results if r.fired and r.fired[0].rule_id == "cheap"] == gone_on
    dears = {
        r.row: [a for a in r.verdicts if a.hook_point == dear_sae.hook_point.name] for r in results
    }
    assert [row for row, verdicts in dears.items() if verdicts] == gone_on
    whole = [MODEL.extend(ASKED[row], list(results[row].ids)) for row in gone_on]
    expected = offline(MODEL, dear_sae, dear, whole)
    own = {
        (gone_on.index(row), rule_id, frame): value
        for (row, rule_id, frame), value in live(results).items()
        if rule_id == "dear"
    }
    assert own == expected
    assert len(told.alerts) == sum(v[0] == "true" for v in expected.values())
    assert request.cost.escalated == len(gone_on)
    assert request.cost.sequences == 6
    assert 0 < request.cost.saved < 1


def test_locks_of_something_else_are_refused() -> None:
    opened = lock(MODEL, SAE, NEVER)
    with pytest.raises(MismatchError, match="the model is"):
        Monitor(tiny_model(1), [(SAE, opened)])
    with pytest.raises(MismatchError, match="for the SAE"):
        Monitor(MODEL, [(tiny_sae(1), opened)])
    with pytest.raises(MismatchError, match="for the SAE"):
        Monitor(MODEL, [(SAE, opened)], actions=[Escalate([(tiny_sae(1), opened)])], **OPEN)
    with pytest.raises(InvalidInput, match="no rules"):
        Monitor(MODEL, [(SAE, lock(MODEL, SAE))])
    with pytest.raises(InvalidInput, match="at least one SAE"):
        Monitor(MODEL, [])


def test_a_malformed_lock_is_refused_before_anything_runs() -> None:
    for wrong in (
        replace(NEVER, condition="max(s) >="),
        replace(NEVER, condition="max(nobody) >= 1"),
        rule("twice", "max(s) > 1", 3, 3),
        rule("outside", "max(s) > 1", 64_000),
    ):
        with pytest.raises(InvalidInput):
            Monitor(MODEL, [(SAE, lock(MODEL, SAE, wrong))])


def test_a_result_is_plain_json() -> None:
    _, request = run(lock(MODEL, SAE, IN_REPLY, NEVER), Stop())
    plain = json.loads(json.dumps(request.result(2).to_plain()))
    assert plain["row"] == 2
    assert plain["ending"] == "stopped"
    assert {v["rule_id"] for v in plain["verdicts"]} == {"reply", "never"}


def test_a_row_that_was_not_returned_is_refused() -> None:
    _, request = run(lock(MODEL, SAE, NEVER))
    with pytest.raises(InvalidInput, match="has 6 rows"):
        request.result(6)
    with pytest.raises(InvalidInput, match="no request"):
        Monitor(MODEL, [(SAE, lock(MODEL, SAE, NEVER))]).result()
