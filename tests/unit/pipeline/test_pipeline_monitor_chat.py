"""A conversation under watch: its gauges end in the monitor's verdicts, its text cannot act."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from auditkit.cli.chat import PlainFace, TerminalFace, run_chat
from auditkit.cli.chat_view import gauge_table, plain_lines, talk_rows, turn_view
from auditkit.core.errors import ExitCode, InvalidInput
from auditkit.core.locks import LockedRule, Severity
from auditkit.core.measured import Measured
from auditkit.core.prompts import Role
from auditkit.core.verdicts import Reason, Truth
from auditkit.monitor import OnFail
from auditkit.monitor.watched import WatchedLock
from auditkit.pipeline.monitor import chat_outcome
from auditkit.pipeline.monitor_chat import ChatSession, Turn
from auditkit.pipeline.monitor_gauges import Heat, RuleGauge, strongest
from auditkit.pipeline.monitor_policy import ReplyPolicy
from tests.tiny import tiny_model
from tests.tiny_sae import tiny_sae
from tests.watched import lock, rule, various_rules

MODEL, SAE = tiny_model(), tiny_sae()
EVERY = range(64)
HOSTILE = "tell me \x1b]0;owned\x07 \x1b[2J \x9b31m a \u202estory"


def session(*rules: LockedRule, length: int = 6, **policy: Any) -> ChatSession:
    bound = lock(MODEL, SAE, *(rules or various_rules()))
    return ChatSession(MODEL, [(SAE, bound)], max_new_tokens=length, policy=ReplyPolicy(**policy))


def drawn(turn: Turn, width: int = 100) -> str:
    console = Console(
        file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor"
    )
    console.print(turn_view(turn, running=turn.result is None))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_gauges_end_in_the_verdicts_of_the_monitor() -> None:
    talk = session()
    for text in ("tell me a story", "please say more"):
        turn = talk.say(text)
        assert turn.result is not None
        for gauge in turn.gauges:
            own = [a for a in turn.result.verdicts if a.rule_id == gauge.rule_id]
            last = max(own, key=lambda a: a.frame)
            assert (gauge.truth, gauge.score) == (last.verdict.truth, last.score)
            assert gauge.fired == any(a.verdict.truth is Truth.TRUE for a in own)


def plainly_drawn(turn: Turn, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(turn_view(turn, running=False))
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def test_what_is_shown_before_the_end_is_what_the_verdict_will_be_on_the_tokens_so_far() -> None:
    talk, steps = session(), list[Turn]()
    turn = talk.say("tell me a story", steps.append)
    assert [s.result is None for s in steps] == [True] * (len(steps) - 1) + [False]
    replies = [sum(t.generated for t in s.tokens) for s in steps]
    assert replies == sorted(replies)
    assert replies[0] == 0
    whole = [g for g in steps[-2].gauges if g.rule_id in ("peak", "reply")]
    settled = {g.rule_id: g for g in turn.gauges}
    assert all(g.truth is settled[g.rule_id].truth for g in whole)


def test_tokens_shown_are_the_words_of_this_turn_alone() -> None:
    talk = session()
    talk.say("tell me a story")
    turn = talk.say("please say more")
    assert "".join(t.text for t in turn.tokens if not t.generated).split() == [
        "please",
        "say",
        "more",
    ]
    assert "".join(t.text for t in turn.tokens if t.generated).strip() == turn.reply.strip()
    assert [m.role for m in talk.messages] == [Role.USER, Role.ASSISTANT] * 2


def test_a_reply_that_is_interrupted_ends_and_the_conversation_goes_on() -> None:
    talk = session(length=40)

    def stop_soon(turn: Turn) -> None:
        if sum(t.generated for t in turn.tokens) == 3:
            assert talk.interrupt()
            assert not talk.interrupt()  # a second Ctrl-C is not swallowed

    turn = talk.say("tell me a story", stop_soon)
    assert turn.stop_reason == "interrupted by the user"
    assert turn.result is not None
    assert 0 < len(turn.result.ids) < 10
    assert not talk.interrupt()
    assert len(talk.messages) == 2
    assert talk.say("please say more").result is not None


def test_a_rule_that_stops_a_reply_is_named() -> None:
    talk = session(rule("reply", "any(s > 0)", *EVERY, roles=(Role.ASSISTANT,)), stop=True)
    turn = talk.say("tell me a story")
    assert "reply" in turn.stop_reason
    assert turn.fired == {"reply"}


def test_a_rule_below_the_severity_that_acts_is_told_and_ends_nothing() -> None:
    said = {}
    for act_on in (Severity.HIGH, Severity.LOW):
        mild = rule("mild", "any(s > 0)", *EVERY, roles=(Role.ASSISTANT,), severity=Severity.LOW)
        turn = session(mild, stop=True, act_on=act_on).say("tell me a story")
        assert turn.fired == {"mild"}
        said[act_on] = turn.stop_reason
    assert said[Severity.HIGH] == "cut at 6 tokens"
    assert said[Severity.LOW].startswith("rule mild fired at token")


def test_an_undecided_rule_takes_the_reply_back_only_where_the_user_says_closed() -> None:
    lost = rule("lost", "max(s) >= 1", unresolved="no latents")
    known = rule("known", "max(s) >= 1e6", *EVERY)
    for on_unknown in OnFail:
        talk = session(lost, known, stop=True, on_unknown=on_unknown)
        turn = talk.say("tell me a story")
        closed = on_unknown is OnFail.CLOSED
        assert turn.withheld is closed
        assert bool(turn.reply) is not closed
        assert len(talk.messages) == (0 if closed else 2)
        assert (plain_lines(turn)[0] == "model: (the reply was taken back)") is closed
        assert ("the reply was taken back" in plainly_drawn(turn)) is closed
        told = "rule lost is undecided: unresolved selector" if closed else "cut at 6 tokens"
        assert turn.stop_reason == told
        outcome = ExitCode.FINDINGS if closed else ExitCode.CLEAN
        assert chat_outcome(talk.turns, "critical") is outcome
        assert chat_outcome(talk.turns, "never") is ExitCode.CLEAN


def test_a_failing_monitor_takes_the_reply_back_only_where_the_user_says_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("planted")

    monkeypatch.setattr(WatchedLock, "encode", broken)
    for on_error in OnFail:
        turn = session(stop=True, on_error=on_error).say("tell me a story")
        assert turn.withheld is (on_error is OnFail.CLOSED)
        assert turn.result is not None
        assert any("planted" in error for error in turn.result.errors)


def test_a_closed_policy_without_an_action_is_refused() -> None:
    for closed in ({"on_unknown": OnFail.CLOSED}, {"on_error": OnFail.CLOSED}):
        with pytest.raises(InvalidInput, match="is to watch only"):
            ReplyPolicy(**closed)
        assert ReplyPolicy(stop=True, **closed).actions


def test_what_ended_a_reply_is_told_apart() -> None:
    assert session(length=2).say("tell me a story").stop_reason == "cut at 2 tokens"


def test_escape_sequences_of_a_user_or_a_model_never_reach_the_terminal(tmp_path: Path) -> None:
    talk = session()
    turn = talk.say(HOSTILE)
    hostile = Turn(
        said=turn.said,
        tokens=tuple(
            type(t)(text=HOSTILE, role=t.role, generated=t.generated, heats=t.heats)
            for t in turn.tokens
        ),
        gauges=turn.gauges,
        reply=HOSTILE,
        length=6,
        result=turn.result,
    )
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    console.print(turn_view(hostile, running=False))
    TerminalFace(console).say(HOSTILE)
    console.print("\n".join(plain_lines(hostile)), markup=False)
    told: list[str] = []
    PlainFace(iter([HOSTILE]), told.append).ask()
    shown = console.file.getvalue() + "".join(told)  # type: ignore[attr-defined]
    assert not set(shown) & {"\x1b", "\x07", "\x9b", "\u202e"}
    assert "⟨U+001B⟩" in shown
    coloured = drawn(hostile)
    assert "\x1b]0;" not in coloured
    assert "\x1b[2J" not in coloured
    assert not set(coloured) & {"\x07", "\x9b", "\u202e"}
    talk.write(tmp_path / "kept.json")
    kept = (tmp_path / "kept.json").read_text()
    assert not set(kept) & {"\x1b", "\x9b", "\u202e"}
    assert json.loads(kept)["messages"][0]["content"] == HOSTILE


def test_markup_in_a_message_is_text() -> None:
    assert "[bold" in plainly_drawn(session().say("tell me [bold red] a story"))


def test_a_gauge_is_drawn_on_the_side_of_its_threshold_that_its_score_is_on() -> None:
    turn = session().say("tell me a story")
    for gauge in turn.gauges:
        if isinstance(gauge.score, Measured) and gauge.threshold is not None:
            assert gauge.fill is not None
            over = gauge.score.value - gauge.threshold
            assert (gauge.fill > 0.5) == (over > 0)
            assert 0.0 <= gauge.fill <= 1.0
    console = Console(file=io.StringIO(), width=100)
    console.print(gauge_table(turn.gauges, dict.fromkeys((g.rule_id for g in turn.gauges), "#fff")))


def test_an_unknown_rule_is_shown_with_its_reason_and_without_a_bar() -> None:
    talk = session(rule("lost", "max(s) >= 1", unresolved="no latents"))
    turn = talk.say("tell me a story")
    (gauge,) = turn.gauges
    assert (gauge.truth, gauge.reason, gauge.fill) == (Truth.UNKNOWN, Reason.UNRESOLVED, None)
    assert "unknown · unresolved" in plainly_drawn(turn, width=120)
    assert "rule: lost unknown (unresolved selector), score not measured" in "\n".join(
        plain_lines(turn)
    )
    assert chat_outcome(talk.turns, "high") is ExitCode.NOTHING_EVALUATED


def test_tokens_are_coloured_by_the_strongest_rule_that_fires() -> None:
    weak, strong = Heat(rule_id="a", value=0.2), Heat(rule_id="b", value=0.9)
    assert strongest([weak, strong], frozenset()) == strong
    assert strongest([weak, strong], frozenset({"a"})) == weak
    assert strongest([Heat(rule_id="a", value=-0.5)], frozenset()) is None
    turn = session(rule("any", "any(s > 0)", *EVERY)).say("tell me a story")
    assert "\x1b[1;" in drawn(turn)  # what fires is bold, on its rule's colour
    silent = session(rule("never", "max(s) >= 1e6", *EVERY)).say("tell me a story")
    assert all(t.heat(silent.fired) is None for t in silent.tokens)


def test_the_heat_of_a_token_is_beyond_the_threshold_of_its_own_comparison() -> None:
    bound = lock(MODEL, SAE, rule("often", "count(s > 0.2) >= 2", *EVERY))
    gauge = RuleGauge(bound.rules[0], bound)
    turn = ChatSession(MODEL, [(SAE, bound)], max_new_tokens=6).say("tell me a story")
    assert gauge.gauge().threshold == 2.0
    assert any(h.value > 0 for t in turn.tokens for h in t.heats)


def test_saving_never_overwrites(tmp_path: Path) -> None:
    talk = session()
    talk.say("tell me a story")
    talk.write(tmp_path / "kept.json")
    with pytest.raises(InvalidInput, match="exists"):
        talk.write(tmp_path / "kept.json")
    with pytest.raises(InvalidInput, match="cannot be written"):
        talk.write(tmp_path / "missing" / "kept.json")
    plain = json.loads((tmp_path / "kept.json").read_text())
    assert plain["turns"][0]["result"]["verdicts"]
    talk.reset()
    assert talk.messages == []
    assert talk.turns == []


class ScriptedFace(PlainFace):
    """Says its lines; one of them is a Ctrl-C at the prompt."""

    def ask(self) -> str | None:
        line = super().ask()
        if line == "^C":
            raise KeyboardInterrupt
        return line


def test_the_loop_obeys_its_commands_and_outlives_their_errors(tmp_path: Path) -> None:
    told: list[str] = []
    kept = tmp_path / "kept.json"
    lines = ["tell me a story", "/rules", f"/save {kept}", f"/save {kept}", "/save", "/what", "^C"]
    lines += ["/reset", "", "/quit", "never said"]
    talk = session()
    run_chat(talk, ScriptedFace(iter(lines), told.append))
    shown = "\n".join(told)
    assert kept.exists()
    for part in ("exists", "needs the name", "no command /what", "Ctrl-C again", "is forgotten"):
        assert part in shown
    assert "never said" not in shown
    assert talk.turns == []


def test_ctrl_c_twice_at_the_prompt_leaves() -> None:
    with pytest.raises(KeyboardInterrupt):
        run_chat(session(), ScriptedFace(iter(["^C", "^C", "tell me"]), lambda _: None))


def test_the_live_view_draws_and_leaves_the_whole_exchange() -> None:
    console = Console(file=io.StringIO(), width=100, height=30, force_terminal=True)
    face = TerminalFace(console)
    talk = session()
    face.reply(talk, "tell me a story")
    face.rules(talk)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "replying…" in shown
    assert "cut at 6 tokens" in shown
    assert talk_rows(30, 8) < 30 - 8


def test_a_conversation_has_the_exit_code_of_its_gravest_rule() -> None:
    talk = session(rule("any", "any(s > 0)", *EVERY))
    assert chat_outcome(talk.turns, "high") is ExitCode.CLEAN
    talk.say("tell me a story")
    assert chat_outcome(talk.turns, "high") is ExitCode.FINDINGS
    assert chat_outcome(talk.turns, "never") is ExitCode.CLEAN
