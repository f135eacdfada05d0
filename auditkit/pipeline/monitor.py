"""`auditkit monitor`: prompts from a file or standard input → verdicts as JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from auditkit.core.errors import ExitCode, InvalidInput
from auditkit.core.fingerprint import to_plain
from auditkit.core.locks import Severity
from auditkit.core.progress import Progress
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.core.verdicts import Truth
from auditkit.monitor import Alert, Ending, RowResult, WatchedReply, watch_generate
from auditkit.pipeline.audit import parse_fail_on
from auditkit.pipeline.monitor_chat import ChatSession, Turn
from auditkit.pipeline.monitor_policy import ReplyPolicy
from auditkit.pipeline.workbench import Workbench
from auditkit.report.visible import escape_hidden
from auditkit.rules import offline_parts, read_lock
from auditkit.suites import load_suite

STDIN = "-"
BATCH = 8


def monitor_prompts(
    source: str,
    *,
    model: str,
    sae: str,
    lock: Path,
    dtype: str,
    max_new_tokens: int,
    policy: ReplyPolicy,
    fail_on: str,
    emit: Callable[[str], None],
    progress: Progress,
) -> ExitCode:
    """Reply to every prompt under watch; one JSON line per prompt with the reply and verdicts.

    FINDINGS: a rule of `fail_on` severity fired, or the fail policy took a reply back;
    NOTHING_EVALUATED: every verdict on every prompt is unknown.
    """
    threshold = parse_fail_on(fail_on)
    suite, prompts = read_prompts(source)
    opened = read_lock(lock)
    bench = Workbench.load(model, sae, dtype=dtype, progress=progress)
    for line in offline_parts(opened):
        progress.note(line)
    progress.begin("reply under watch", len(prompts))
    grave = decided = False
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        replies = watch_generate(
            bench.model,
            [(bench.sae, opened)],
            batch,
            max_new_tokens=max_new_tokens,
            actions=policy.actions,
            on_unknown=policy.on_unknown,
            on_error=policy.on_error,
            suite=suite,
        )
        for reply in replies:
            emit(escape_hidden(json.dumps(_line(reply), ensure_ascii=False)))
            grave |= _is_grave(reply.result, threshold)
            decided |= any(a.verdict.truth is not Truth.UNKNOWN for a in reply.verdicts)
            progress.advance()
    if not decided:
        return ExitCode.NOTHING_EVALUATED
    return ExitCode.FINDINGS if grave else ExitCode.CLEAN


def open_chat(
    *,
    model: str,
    sae: str,
    lock: Path,
    dtype: str,
    max_new_tokens: int,
    policy: ReplyPolicy,
    temperature: float,
    seed: int,
    progress: Progress,
) -> ChatSession:
    """Load a model with its rules for a conversation under watch."""
    opened = read_lock(lock)
    bench = Workbench.load(model, sae, dtype=dtype, progress=progress)
    for line in offline_parts(opened):
        progress.note(line)
    return ChatSession(
        bench.model,
        [(bench.sae, opened)],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        policy=policy,
    )


def chat_outcome(turns: Sequence[Turn], fail_on: str) -> ExitCode:
    """What a conversation comes to, as `monitor_prompts` says of prompts; clean without turns."""
    threshold = parse_fail_on(fail_on)
    results = [turn.result for turn in turns if turn.result is not None]
    alerts = [a for result in results for a in _told(result)]
    if alerts and all(a.verdict.truth is Truth.UNKNOWN for a in alerts):
        return ExitCode.NOTHING_EVALUATED
    grave = any(_is_grave(result, threshold) for result in results)
    return ExitCode.FINDINGS if grave else ExitCode.CLEAN


def _told(result: RowResult) -> tuple[Alert, ...]:
    return (*result.verdicts, *result.correlations)


def read_prompts(source: str) -> tuple[str | None, Sequence[Prompt]]:
    """A suite's name and prompts (.yaml, .jsonl, builtin/…), or those of a text with a prompt a
    line, which is of no suite; `-` reads from stdin."""
    if source != STDIN and (
        source.startswith("builtin/") or Path(source).suffix in (".yaml", ".yml", ".jsonl")
    ):
        suite = load_suite(source)
        return suite.name, suite.prompts
    try:
        text = sys.stdin.read() if source == STDIN else Path(source).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{source}: cannot be read: {error}") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise InvalidInput("no prompts: the input has no text", help="give one prompt a line")
    return None, [
        Prompt(id=f"line-{n:05d}", messages=(Message(role=Role.USER, content=line),))
        for n, line in enumerate(lines, 1)
    ]


def _line(reply: WatchedReply) -> dict[str, Any]:
    return {
        "prompt": reply.prompt_id,
        "reply": reply.text,
        "ending": reply.result.ending.value,
        "why": reply.result.why,
        "stopped_by": reply.stopped_by,
        "errors": list(reply.result.errors),
        "verdicts": [_verdict(alert) for alert in reply.verdicts],
        "correlations": [_combined(alert) for alert in reply.result.correlations],
    }


def _verdict(alert: Alert) -> dict[str, Any]:
    return {
        "rule": alert.rule_id,
        "severity": alert.severity.value,
        "frame": alert.frame,
        "verdict": alert.verdict.truth.value,
        "reason": alert.verdict.reason.value if alert.verdict.reason else None,
        "token": alert.token,
        "score": to_plain(alert.score),
        "filtered_by": alert.filtered_by,
    }


def _combined(alert: Alert) -> dict[str, Any]:
    return {
        "correlation": alert.rule_id,
        "severity": alert.severity.value,
        "verdict": alert.verdict.truth.value,
        "reason": alert.verdict.reason.value if alert.verdict.reason else None,
        "token": alert.token,
        "matches": [{"rule": m.rule_id, "frame": m.frame, "token": m.token} for m in alert.members],
    }


def _is_grave(result: RowResult, threshold: Severity | None) -> bool:
    """Did a rule of the severity fire, or a closed fail policy take the reply back?"""
    if threshold is None:
        return False
    fired = any(a.fired and a.severity.rank >= threshold.rank for a in _told(result))
    return fired or result.ending is Ending.WITHHELD
