"""`auditkit rules explain ID --finding F`: one verdict of a store, and what would turn it over."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditkit.core.errors import InvalidInput
from auditkit.core.findings import finding_fingerprint
from auditkit.core.locks import Lock, LockedRule
from auditkit.core.measured import Measured, NotMeasured
from auditkit.core.recordings import Recording
from auditkit.core.verdicts import Match, Truth
from auditkit.findings import evaluate_rule
from auditkit.findings.explanation import ExplainedFrame, explain_recorded
from auditkit.report.visible import escape_hidden
from auditkit.rules import read_lock
from auditkit.rules.explaining.flip import Move
from auditkit.rules.explaining.verdict_tree import VerdictNode
from auditkit.store import Store, open_store

_PLACE = re.compile(r"(?P<prompt>.+):(?P<frame>\d+)")
FINGERPRINT = "fp1:"


@dataclass(frozen=True, slots=True, kw_only=True)
class FindingExplanation:
    """A match with its explanation; `rank` of `matches` frames of the finding it is, from 1."""

    fp: str
    match: Match
    rank: int
    matches: int
    frame: ExplainedFrame

    @property
    def truth(self) -> Truth:
        return self.match.truth

    def json(self) -> str:
        return escape_hidden(json.dumps(_document(self), indent=1, ensure_ascii=False))


def explain_finding(
    rule: str,
    finding: str,
    *,
    store: Path,
    lock: Path | None = None,
    suite: str | None = None,
    number: int = 1,
) -> FindingExplanation:
    """Explain a match of a rule: the `number`-th strongest of the finding with a fingerprint, or
    the one on `PROMPT` or `PROMPT:FRAME`. Without `lock` the last lock in the store that holds
    the rule is taken. Raises InvalidInput where one of these is not there."""
    with open_store(store, read_only=True) as opened:
        held = read_lock(lock) if lock is not None else _last_lock(opened, rule)
        locked = named_rule(rule, held)
        recordings = _recordings(opened, held, suite)
        if finding.startswith(FINGERPRINT):
            recording, match, matches = _by_fingerprint(
                finding, locked, held, opened, recordings, number
            )
        else:
            recording, match, matches = _by_prompt(finding, locked, held, opened, recordings)
        explained = explain_recorded(locked, held, opened, recording, match.prompt_id, match.frame)
    told = explained.explanation.verdict
    if explained.same and (told.truth, told.reason) != (match.truth, match.reason):
        raise AssertionError(f"the evaluators disagree: stream {told}, SQL {match}")
    return FindingExplanation(
        fp=finding_fingerprint(locked.id, recording.model.name, recording.suite),
        match=match,
        rank=matches.index(match) + 1,
        matches=len(matches),
        frame=explained,
    )


def named_rule(name: str, lock: Lock) -> LockedRule:
    """The rule of a lock with this id, or whose id alone ends so."""
    found = [r for r in lock.rules if r.id == name] or [
        r for r in lock.rules if r.id.endswith(name)
    ]
    if len(found) != 1:
        raise InvalidInput(
            f"{'no' if not found else 'more than one'} rule of the lock is called {name!r}",
            help="rules: " + ", ".join(sorted(r.id for r in lock.rules)),
        )
    return found[0]


def _last_lock(store: Store, rule: str) -> Lock:
    digests = store.query("SELECT lock FROM locks ORDER BY rowid DESC").column("lock").to_pylist()
    for digest in digests:
        lock = store.read_lock(digest)
        if lock is not None and any(r.id.endswith(rule) for r in lock.rules):
            return lock
    raise InvalidInput(
        f"{store.path} keeps no lock with a rule called {rule!r}",
        help="bind it first (auditkit rules bind), or name a lock with --lock",
    )


def _recordings(store: Store, lock: Lock, suite: str | None) -> list[Recording]:
    """Recordings of the suite, those of the lock's model and SAE first."""
    found = [r for r in store.recordings() if suite in (None, r.suite)]
    if not found:
        known = ", ".join(sorted({r.suite for r in store.recordings()})) or "none"
        raise InvalidInput(f"{store.path} has no recording of {suite!r}", help=f"suites: {known}")

    def other(recording: Recording) -> bool:
        same = lock.model.digest == recording.model.digest
        return not (same and lock.sae.digest == recording.sae.digest)

    return sorted(found, key=other)


def _by_fingerprint(
    fp: str,
    rule: LockedRule,
    lock: Lock,
    store: Store,
    recordings: Sequence[Recording],
    number: int,
) -> tuple[Recording, Match, list[Match]]:
    prints = {finding_fingerprint(rule.id, r.model.name, r.suite): r for r in reversed(recordings)}
    recording = prints.get(fp)
    if recording is None:
        raise InvalidInput(
            f"no finding of {rule.id} has the fingerprint {fp}",
            help="its findings: " + ", ".join(f"{k} ({r.suite})" for k, r in prints.items()),
        )
    matches = list(evaluate_rule(rule, lock, store, recording).matches)
    if not 1 <= number <= len(matches):
        raise InvalidInput(f"the finding has {len(matches)} frames, and no match {number}")
    return recording, matches[number - 1], matches


def _by_prompt(
    finding: str, rule: LockedRule, lock: Lock, store: Store, recordings: Sequence[Recording]
) -> tuple[Recording, Match, list[Match]]:
    place = _PLACE.fullmatch(finding)
    wanted = [(finding, None)] + ([(place["prompt"], int(place["frame"]))] if place else [])
    for prompt, frame in wanted:
        holding = [r for r in recordings if prompt in store.done_prompts(r.id)]
        if len({r.suite for r in holding}) > 1:
            suites = ", ".join(sorted({r.suite for r in holding}))
            raise InvalidInput(
                f"prompts called {prompt!r} are in several suites: {suites}",
                help="say which with --suite",
            )
        if holding:
            matches = list(evaluate_rule(rule, lock, store, holding[0]).matches)
            own = [m for m in matches if m.prompt_id == prompt and frame in (None, m.frame)]
            if not own:
                raise InvalidInput(f"the rule has no such frame in {prompt!r}: {finding}")
            return holding[0], own[0], matches
    raise InvalidInput(
        f"no recording of {store.path} has a prompt {finding!r}",
        help="FINDING is a fingerprint (fp1:…), PROMPT, or PROMPT:FRAME",
    )


def _document(found: FindingExplanation) -> dict[str, Any]:
    frame, explained = found.frame, found.frame.explanation
    flip = explained.flip
    return {
        "rule": frame.rule.id,
        "finding": found.fp,
        "suite": frame.recording.suite,
        "recording": frame.recording.id,
        "prompt": frame.prompt_id,
        "frame": frame.frame,
        "verdict": found.truth.value,
        "reason": found.match.reason.value if found.match.reason else None,
        "filtered_by": found.match.filtered_by,
        "at": explained.verdict.at if frame.same else None,
        "score": explained.score.value if isinstance(explained.score, Measured) else None,
        "tree": _node(explained.root),
        "flip": {"reason": flip.reason}
        if isinstance(flip, NotMeasured)
        else {
            "to": "true" if flip.truth else "false",
            "cost": flip.cost,
            "changes": [_move(m, explained.statistics) for m in flip.moves],
        },
        "missing": [
            {
                "part": m.text,
                "reason": m.reason.value,
                "if_true": m.if_true.value,
                "if_false": m.if_false.value,
                "decides": m.decides,
            }
            for m in explained.missing
        ],
        "tokens": [
            {
                "token": t.token,
                "text": t.text,
                "role": t.role.value,
                "place": t.place,
                "values": dict(zip(frame.signals, t.values, strict=True)),
            }
            for t in frame.tokens
        ],
    }


def _node(node: VerdictNode) -> dict[str, Any]:
    row: dict[str, Any] = {
        "kind": node.kind,
        "text": node.text,
        "let": node.name,
        "truth": node.truth.value,
        "reason": node.reason.value if node.reason else None,
    }
    if node.k is not None:
        row["k"] = node.k
    comparison = node.comparison
    if comparison is not None:
        row |= {
            "statistic": comparison.statistic,
            "low": finite(comparison.low),
            "high": finite(comparison.high),
            "twin": finite(comparison.twin),
            "op": comparison.op,
            "threshold": comparison.threshold,
            "calibrated": comparison.calibrated,
            "flips_at": None if comparison.move is None else finite(comparison.move.after),
            "cost": None if comparison.move is None else comparison.move.cost,
            "tokens": list(node.tokens),
        }
    return row | {"operands": [_node(o) for o in node.operands]}


def _move(move: Move, statistics: Sequence[str]) -> dict[str, Any]:
    return {
        "statistic": statistics[move.aggregate],
        "from": finite(move.before),
        "to": finite(move.after),
        "cost": move.cost,
    }


def finite(value: float | None) -> float | None:
    """A number; None where there is none (the place of no token)."""
    return None if value is None or not math.isfinite(value) else value
