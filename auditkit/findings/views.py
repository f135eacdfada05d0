"""Matches laid out token by token, so that a reader can check them."""

from __future__ import annotations

from collections.abc import Sequence

from auditkit.core.audits import MatchView, SignalOnTokens, TokenView
from auditkit.core.findings import Finding
from auditkit.core.fixed_point import lift
from auditkit.core.locks import LockedRule
from auditkit.core.prompts import Role
from auditkit.core.recordings import Recording
from auditkit.core.tokens import TokenMask
from auditkit.core.verdicts import Match
from auditkit.findings.prompt_rows import read_active, read_tokens
from auditkit.rules import pool_signal
from auditkit.store import Store


def build_views(
    rule: LockedRule,
    finding: Finding,
    store: Store,
    recording: Recording,
    *,
    masked: TokenMask,
    most: int,
) -> list[MatchView]:
    """Views of the `most` strongest true matches that no filter excuses, strongest first."""
    shown = [m for m in finding.matches if m.fired][:most]
    return [_view(rule, match, store, recording, masked) for match in shown]


def _view(
    rule: LockedRule, match: Match, store: Store, recording: Recording, masked: TokenMask
) -> MatchView:
    tokens = read_tokens(store, recording.id, match.prompt_id)
    active = read_active(store, recording.id, tokens, rule.signals)
    signals = tuple(
        SignalOnTokens(
            signal=signal.name,
            values=tuple(
                lift(pool_signal(signal, *active[t["token"]])) if t["covered"] else None
                for t in tokens
            ),
        )
        for signal in rule.signals
        if signal.latents
    )
    strength = _strength(signals, len(tokens))
    places = {t["token"]: i for i, t in enumerate(tokens)}
    return MatchView(
        rule_id=rule.id,
        suite=recording.suite,
        prompt_id=match.prompt_id,
        frame=match.frame,
        truth=match.truth,
        score=match.score,
        fired_at=None if match.token is None else places[match.token],
        tokens=tuple(
            TokenView(
                text=t["text"],
                role=Role(t["role"]),
                masked=bool(t["mask"] & int(masked)),
                generated=t["generated"],
                activation=strength[i],
            )
            for i, t in enumerate(tokens)
        ),
        signals=signals,
    )


def _strength(signals: Sequence[SignalOnTokens], n: int) -> list[float | None]:
    """Largest signal value per token, relative to the conversation's largest (0 to 1)."""
    rows: list[float | None] = []
    for i in range(n):
        values = [s.values[i] for s in signals]
        known = [v for v in values if v is not None]
        rows.append(max(known) if known else None)
    top = max((v for v in rows if v is not None), default=0.0)
    return [None if v is None else max(0.0, v / top) if top > 0 else 0.0 for v in rows]
