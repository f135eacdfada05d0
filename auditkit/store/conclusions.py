"""Reading and writing what later stages concluded. Each row names the lock that it stands on."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pyarrow as pa

from auditkit.core.confirmations import Arm, Confirmation, Trial
from auditkit.core.correlations import CorrelationFinding, CorrelationMatch
from auditkit.core.findings import Finding
from auditkit.core.fingerprint import fingerprint
from auditkit.core.locks import Lock
from auditkit.core.measured import Measured, NotMeasured
from auditkit.core.verdicts import Match
from auditkit.store.documents import from_text, to_text
from auditkit.store.schema import MATCH_ROWS, TRIAL_ROWS

Connection = duckdb.DuckDBPyConnection

_TRIAL_KEY = ("confirmation", "arm", "control", "op", "dose", "prompt", "metric")


def write_lock(connection: Connection, lock: Lock) -> str:
    """Insert `lock` unless it is there; return its digest."""
    digest = fingerprint(lock)
    if read_lock(connection, digest) is None:
        connection.execute(
            "INSERT INTO locks VALUES (?, ?, ?, ?)",
            [digest, lock.model.digest, lock.sae.digest, to_text(lock)],
        )
    return digest


def read_lock(connection: Connection, digest: str) -> Lock | None:
    """The lock with this digest, or None."""
    row = connection.execute("SELECT document FROM locks WHERE lock = ?", [digest]).fetchone()
    return None if row is None else from_text(Lock, row[0])


def write_matches(connection: Connection, matches: Sequence[Match], lock: str) -> None:
    """Replace the matches of every (recording, rule) among `matches` under `lock`."""
    for recording, rule in sorted({(m.recording, m.rule_id) for m in matches}):
        connection.execute(
            "DELETE FROM matches WHERE recording = ? AND rule = ? AND lock = ?",
            [recording, rule, lock],
        )
    rows = pa.Table.from_pylist([_match_row(m) for m in matches], schema=MATCH_ROWS)
    connection.register("incoming", rows)
    try:
        connection.execute(
            "INSERT INTO matches SELECT recording, $lock, rule, rule_digest, prompt, frame, truth, "
            "reason, token, score, score_n, score_reason, filtered_by FROM incoming",
            {"lock": lock},
        )
    finally:
        connection.unregister("incoming")


def write_trials(connection: Connection, trials: Sequence[Trial]) -> None:
    """Insert trials; those with the same key are replaced."""
    rows = pa.Table.from_pylist([_trial_row(t) for t in trials], schema=TRIAL_ROWS)
    same = " AND ".join(f"trials.{c} = incoming.{c}" for c in _TRIAL_KEY)
    connection.register("incoming", rows)
    try:
        connection.execute(f"DELETE FROM trials WHERE EXISTS (SELECT 1 FROM incoming WHERE {same})")
        connection.execute("INSERT INTO trials SELECT * FROM incoming")
    finally:
        connection.unregister("incoming")


def read_trials(connection: Connection, confirmation: str) -> list[Trial]:
    """The trials of a confirmation in a fixed order."""
    rows = connection.execute(
        "SELECT confirmation, arm, control, op, dose, prompt, metric, outcome, relative_norm "
        "FROM trials WHERE confirmation = ? ORDER BY arm, control, op, dose, metric, prompt",
        [confirmation],
    ).fetchall()
    return [
        Trial(
            confirmation=row[0],
            arm=Arm(row[1]),
            control=row[2],
            op=row[3],
            dose=row[4],
            prompt_id=row[5],
            metric=row[6],
            outcome=row[7],
            relative_norm=row[8],
        )
        for row in rows
    ]


def write_confirmation(connection: Connection, confirmation: Confirmation, lock: str) -> None:
    """Insert a confirmation in place of one of the same id."""
    connection.execute("DELETE FROM confirmations WHERE confirmation = ?", [confirmation.id])
    connection.execute(
        "INSERT INTO confirmations VALUES (?, ?, ?, ?, ?)",
        [
            confirmation.id,
            lock,
            confirmation.rule_id,
            confirmation.verdict.value,
            to_text(confirmation),
        ],
    )


def read_confirmations(connection: Connection, lock: str) -> list[Confirmation]:
    """The confirmations under `lock` in order of rule and name."""
    rows = connection.execute(
        "SELECT document FROM confirmations WHERE lock = ?", [lock]
    ).fetchall()
    found = [from_text(Confirmation, row[0]) for row in rows]
    return sorted(found, key=lambda c: (c.rule_id, c.name, c.id))


def write_finding(connection: Connection, finding: Finding, recording: str, lock: str) -> None:
    """Insert a finding in place of the same one of this recording and lock."""
    connection.execute(
        "DELETE FROM findings WHERE fp = ? AND recording = ? AND lock = ?",
        [finding.fp, recording, lock],
    )
    connection.execute(
        "INSERT INTO findings VALUES (?, ?, ?, ?, ?, ?)",
        [finding.fp, recording, lock, finding.rule_id, finding.state.value, to_text(finding)],
    )


def read_findings(connection: Connection, recording: str, lock: str) -> list[Finding]:
    """The findings of a recording under `lock` in order of rule."""
    rows = connection.execute(
        "SELECT document FROM findings WHERE recording = ? AND lock = ? ORDER BY rule, fp",
        [recording, lock],
    ).fetchall()
    return [from_text(Finding, row[0]) for row in rows]


def write_correlation(connection: Connection, finding: CorrelationFinding, lock: str) -> None:
    """Replace the verdicts of a correlation on the groups of its suite under `lock`."""
    connection.execute(
        "DELETE FROM correlations WHERE correlation = ? AND suite = ? AND lock = ?",
        [finding.correlation_id, finding.suite, lock],
    )
    for m in finding.matches:
        reason = None if m.reason is None else m.reason.value
        connection.execute(
            "INSERT INTO correlations VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [
                lock,
                m.correlation_id,
                m.correlation_digest,
                m.suite,
                m.group,
                m.truth.value,
                reason,
                to_text(m),
            ],
        )


def read_correlations(connection: Connection, lock: str) -> list[CorrelationMatch]:
    """The verdicts of correlations under `lock` in order of correlation, suite and group."""
    rows = connection.execute(
        "SELECT document FROM correlations WHERE lock = ? "
        "ORDER BY correlation, suite, member_group",
        [lock],
    ).fetchall()
    return [from_text(CorrelationMatch, row[0]) for row in rows]


def _match_row(match: Match) -> dict[str, object]:
    score = match.score
    return {
        "recording": match.recording,
        "rule": match.rule_id,
        "rule_digest": match.rule_digest,
        "prompt": match.prompt_id,
        "frame": match.frame,
        "truth": match.truth.value,
        "reason": None if match.reason is None else match.reason.value,
        "token": match.token,
        "score": score.value if isinstance(score, Measured) else None,
        "score_n": score.n if isinstance(score, Measured) else None,
        "score_reason": score.reason if isinstance(score, NotMeasured) else None,
        "filtered_by": match.filtered_by,
    }


def _trial_row(trial: Trial) -> dict[str, object]:
    return {
        "confirmation": trial.confirmation,
        "arm": trial.arm.value,
        "control": trial.control,
        "op": trial.op,
        "dose": trial.dose,
        "prompt": trial.prompt_id,
        "metric": trial.metric,
        "outcome": trial.outcome,
        "relative_norm": trial.relative_norm,
    }
