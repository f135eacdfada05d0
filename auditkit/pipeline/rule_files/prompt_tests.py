"""`auditkit rules test --prompts`: should_match and should_not_match on a real model.

Examples are recorded into a store in memory and judged by the compiled SQL: the very path of
`record` and `evaluate`, with the audit's model, SAE, token limit and lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from auditkit.binding import example_suite
from auditkit.config import AuditDocument, Located, load_audit
from auditkit.core.errors import InvalidInput
from auditkit.core.locks import Lock, LockedRule
from auditkit.core.measured import Measured
from auditkit.core.progress import Progress
from auditkit.core.prompts import Suite
from auditkit.core.recordings import Recording
from auditkit.core.verdicts import Match, Reason, Truth, Verdict
from auditkit.findings import evaluate_rule
from auditkit.pipeline.rule_files.files import load_rule_documents
from auditkit.pipeline.rule_files.test_results import Kind, RuleTest
from auditkit.pipeline.workbench import Workbench
from auditkit.rules import (
    Example,
    ExampleSet,
    Outcome,
    PromptExample,
    RuleDocument,
    judge_example,
    read_lock,
    rule_digest,
)
from auditkit.store import Store, open_store

_SHOWN = 60
_UNRESOLVED = Verdict(truth=Truth.UNKNOWN, reason=Reason.UNRESOLVED)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    rule: RuleDocument
    kind: Kind
    name: str
    example: Example


def run_prompt_tests(
    audit: Path, paths: Sequence[str], *, lock: Path | None, progress: Progress
) -> list[RuleTest]:
    """Every example of the rules, judged; in the rules' order. None: the rules have no examples.

    Without `paths` the audit's rules are tested; without `lock` its output folder's lock is used.
    Rules that the lock lacks, or holds with another meaning, are unresolved.
    """
    located = load_audit(audit)
    rules = (
        load_rule_documents(paths)
        if paths
        else load_rule_documents(located.document.rules, base=located.folder)
    )
    held = read_lock(lock or _lock_of(located))
    cases = [case for rule in rules for case in _cases(rule)]
    if not cases:
        return []
    bench = Workbench.load(
        located.resolve_source(located.document.model.source),
        located.resolve_source(located.document.sae),
        dtype=located.document.model.dtype,
        device=located.document.model.device,
        progress=progress,
    )
    suite = _suite(cases)
    plan = bench.plan(max_tokens=located.document.record.max_tokens, seed=located.document.seed)
    with open_store(":memory:") as store:
        recording = bench.record(suite, store, plan, progress)
        verdicts = {r.id: _verdicts(r, held, store, recording) for r in rules}
    return [
        _judged(case, verdicts[case.rule.id], prompt.id)
        for case, prompt in zip(cases, suite.prompts, strict=True)
    ]


def _lock_of(located: Located[AuditDocument]) -> Path:
    path = located.resolve(located.document.output) / "rules.lock.json"
    if not path.exists():
        raise InvalidInput(
            f"{path}: there is no such lock",
            help="run the audit, or bind the rules and name the lock with --lock",
        )
    return path


def _cases(rule: RuleDocument) -> list[_Case]:
    sides: tuple[tuple[Kind, Sequence[Example]], ...] = (
        ("should_match", rule.tests.should_match),
        ("should_not_match", rule.tests.should_not_match),
    )
    return [
        _Case(rule=rule, kind=kind, name=example.name or _title(example), example=example)
        for kind, examples in sides
        for example in examples
    ]


def _title(example: Example) -> str:
    words = example.text or " / ".join(t for turn in example.turns or () for t in turn.values())
    line = " ".join(words.split())
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def _suite(cases: Sequence[_Case]) -> Suite:
    """The examples as a suite, in order."""

    def plain(example: Example) -> PromptExample:
        if example.text is not None:
            return PromptExample(text=example.text)
        return PromptExample(turns=example.turns)

    made = example_suite(ExampleSet(examples=tuple(plain(c.example) for c in cases)))
    assert made is not None
    return made


def _verdicts(
    rule: RuleDocument, lock: Lock, store: Store, recording: Recording
) -> dict[str, Sequence[Match]] | str:
    """Per prompt the rule's verdicts on its frames, or why there are none."""
    locked = _locked(rule, lock)
    if isinstance(locked, str):
        return locked
    found: dict[str, list[Match]] = {p: [] for p in store.done_prompts(recording.id)}
    for match in evaluate_rule(locked, lock, store, recording).matches:
        found[match.prompt_id].append(match)
    return dict(found)


def _locked(rule: RuleDocument, lock: Lock) -> LockedRule | str:
    locked = next((r for r in lock.rules if r.id == rule.id), None)
    if locked is None:
        return "the lock does not hold this rule: bind it"
    if locked.digest != rule_digest(rule):
        return "the lock holds this rule with another meaning: bind it again"
    return locked


def _judged(case: _Case, verdicts: dict[str, Sequence[Match]] | str, prompt: str) -> RuleTest:
    if isinstance(verdicts, str):
        verdict, message = _UNRESOLVED, verdicts
    else:
        verdict, message = _any_frame(verdicts[prompt])
    wanted = case.kind == "should_match"
    outcome = judge_example(verdict.truth, should_match=wanted, todo=case.example.todo)
    if outcome is Outcome.PASS:
        message = ""
    elif outcome is Outcome.UNEXPECTED_PASS:
        message = f"passes although marked todo: {case.example.todo}"
    elif outcome is Outcome.EXPECTED_FAILURE:
        message = f"todo: {case.example.todo}"
    return RuleTest(
        rule_id=case.rule.id,
        kind=case.kind,
        name=case.name,
        outcome=outcome,
        verdict=verdict,
        message=message,
    )


def _any_frame(matches: Sequence[Match]) -> tuple[Verdict, str]:
    """Does the rule match in some frame of the prompt? Unknown where none is true and one
    unknown, or where there is none."""
    fired = [m for m in matches if m.truth is Truth.TRUE]
    if fired:
        where = f"the rule matches in frame {fired[0].frame}"
        return Verdict(truth=Truth.TRUE), where + _scores(fired[:1])
    unknown = [m.reason for m in matches if m.reason is not None]
    if unknown or not matches:
        reason = min(unknown, key=lambda r: r.rank) if unknown else Reason.EMPTY_FRAME
        return Verdict(truth=Truth.UNKNOWN, reason=reason), f"unknown ({reason.value})"
    return Verdict(truth=Truth.FALSE), "the rule does not match" + _scores(matches)


def _scores(matches: Sequence[Match]) -> str:
    scores = [m.score.value for m in matches if isinstance(m.score, Measured)]
    return f" (score {max(scores):.6g})" if scores else ""
