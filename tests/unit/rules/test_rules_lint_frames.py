"""Linting says where a shipped benign suite cannot reach a rule's target."""

from __future__ import annotations

import pytest

from auditkit.core.prompts import Role
from auditkit.pipeline.rule_files.checks import shipped_roles
from auditkit.rules import PromptRoles, lint_rules, read_rules

U, A = Role.USER, Role.ASSISTANT
RULE = """\
format: auditkit-rules/1
rules:
  - id: t.frames
    rev: 1
    title: A rule
    status: experimental
    severity: low
    false_positives: [Unknown]
    signals:
      s: {select: {by: contrast, positive: {suite: a.yaml}, negative: {suite: b.yaml}}}
    frame: FRAME
    scope: {roles: [ROLES]}
    condition: mean(s) >= calibrated
    calibrate: {suite: SUITE, target_fpr: TARGETEXTRA}
    tests:
      unit:
        - {name: fires, given: {calibrated: 0.3}, series: {s: "0.5*4"}, fires: true}
        - {name: silent, given: {calibrated: 0.3}, series: {s: "0*4"}, fires: false}
"""


def warned(
    prompts: PromptRoles | None,
    *,
    frame: str = "message",
    roles: str = "user",
    target: str = "0.01",
    extra: str = "",
    comment: str = "",
) -> list[str]:
    text = RULE.replace("FRAME", frame).replace("ROLES", roles).replace("TARGET", target)
    text = text.replace("SUITE", "builtin/made").replace("EXTRA}", extra + "}" + comment)
    text = text if not roles or "," in roles else text.replace("{s: ", f"{{s@{roles}: ")
    found = lint_rules([read_rules(text, "rule.yaml")], roles_of=lambda _: prompts)
    assert {d.code for d in found} <= {"AK064", "AK095"}
    return [d.message for d in found if d.code == "AK064"]


@pytest.mark.parametrize(
    ("frame", "roles", "prompt", "each"),
    [
        ("message", "user", (U, A, U), 2),
        ("message", "assistant", (U, A, U), 1),
        ("message", "user, assistant", (U, A, U), 3),
        ("exchange", "user, assistant", (A, U, A, U), 2),
        ("exchange", "assistant", (A,), 1),
        ("conversation", "user, assistant", (U, A, U, A), 1),
    ],
)
def test_frames_are_counted_as_the_rule_would_see_them(
    frame: str, roles: str, prompt: tuple[Role, ...], each: int
) -> None:
    enough = -(-299 // each)
    assert warned([prompt] * enough, frame=frame, roles=roles) == []
    (said,) = warned([prompt] * (enough - 1), frame=frame, roles=roles)
    assert f"at most {(enough - 1) * each} benign frames" in said
    assert "needs 299" in said


def test_frames_by_length_need_as_many_for_each() -> None:
    assert warned([(U,)] * 1196, extra=", stratify: [length]") == []
    (said,) = warned([(U,)] * 1195, extra=", stratify: [length]")
    assert "needs 1,196" in said


def test_suites_that_are_not_shipped_are_not_judged() -> None:
    assert warned(None, target="0.001") == []
    assert shipped_roles()("ours.yaml") is None
    assert shipped_roles()("builtin/there-is-no-such-suite") is None


def test_the_shipped_benign_suite_is_counted_by_what_chooses_thresholds() -> None:
    prompts = shipped_roles()("builtin/benign-chat")
    assert prompts is not None
    assert len(prompts) >= 299
    assert all(U in roles for roles in prompts)


def test_a_comment_silences_it() -> None:
    note = "  # auditkit: ignore=AK064 recorded on our own traffic"
    assert warned([(U,)], comment=note) == []
