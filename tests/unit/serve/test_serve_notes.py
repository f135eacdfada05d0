"""What the server says at its start about settings that may surprise."""

from __future__ import annotations

from auditkit.core.prompts import Role
from auditkit.serve.run import decides_late, notes_on
from auditkit.serve.settings import Action, FailPolicy, Hold, Policy, ServeSettings
from tests.serving_model import SAE, on_word, word_lock

LATCHING = on_word("water")
MEAN = on_word("bomb", Role.ASSISTANT, condition="mean(s) > 0")
MEAN_OF_PROMPT = on_word("poison", Role.USER, condition="mean(s) > 0")


def notes(policy: Policy, *, log_prompts: bool = False) -> str:
    settings = ServeSettings(policy=policy, log_prompts=log_prompts)
    return "\n".join(notes_on(settings, [(SAE, word_lock([LATCHING, MEAN, MEAN_OF_PROMPT]))]))


def test_only_rules_on_the_reply_that_cannot_fire_at_a_token_decide_late() -> None:
    assert [decides_late(r) for r in (LATCHING, MEAN, MEAN_OF_PROMPT)] == [False, True, False]


def test_late_rules_are_named_where_streams_are_not_held() -> None:
    said = notes(Policy(action=Action.REPLACE))
    assert "1 rules decide at the end of a reply (word.bomb)" in said
    assert "closed" not in said
    assert notes(Policy(action=Action.REPLACE, hold=Hold.REPLY)) == ""
    assert notes(Policy()) == ""


def test_a_closed_policy_and_logged_prompts_are_pointed_out() -> None:
    said = notes(Policy(action=Action.STOP, fail=FailPolicy.CLOSED), log_prompts=True)
    assert "--fail closed on streams" in said
    assert "prompts and replies are logged" in said
