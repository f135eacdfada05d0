"""What a report says of the suites, of the SAE, and of what the audit could not see."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from auditkit.core.audits import NamedMeasure, SuiteSummary
from auditkit.core.findings import Finding
from auditkit.core.locks import Lock
from auditkit.core.measured import Interval, Measure, Measured, NotMeasured
from auditkit.core.prompts import Suite
from auditkit.core.recordings import Recording
from auditkit.core.tokens import TokenMask
from auditkit.store import MASKED_IN_STATS, Store

_COUNTS = """
SELECT count(*) AS tokens,
       count(*) FILTER (mask & $masked = 0) AS eligible,
       count(*) FILTER (generated) AS generated,
       count(*) FILTER (EXISTS (
           SELECT 1 FROM coverage c
           WHERE c.recording = $id AND t.token BETWEEN c.first_token AND c.last_token
       )) AS covered,
       (SELECT count(*) FROM activations WHERE recording = $id) AS activations
FROM tokens t WHERE recording = $id
"""


def summarise_suite(store: Store, suite: Suite, recording: Recording, use: str) -> SuiteSummary:
    """How much of a suite was looked at, and why tokens were left out."""
    given = {"id": recording.id, "masked": int(MASKED_IN_STATS)}
    counted = store.query(_COUNTS, given).to_pylist()[0]
    by_mask = store.query(
        "SELECT mask, count(*) AS n FROM tokens WHERE recording = ? AND mask <> 0 GROUP BY mask",
        [recording.id],
    ).to_pylist()
    masked = {
        bit.name or "": sum(row["n"] for row in by_mask if row["mask"] & bit) for bit in TokenMask
    }
    return SuiteSummary(
        name=suite.name,
        title=suite.title,
        source=suite.source,
        licence=suite.licence,
        recording=recording.id,
        use=use,
        prompts=len(suite.prompts),
        tokens=counted["tokens"],
        eligible_tokens=counted["eligible"],
        masked=tuple((name.lower(), n) for name, n in masked.items() if n),
        generated_tokens=counted["generated"],
        covered_tokens=counted["covered"],
        activations=counted["activations"],
    )


def card_measures(metadata: Any) -> tuple[NamedMeasure, ...]:
    """The measures that an SAE's card states, as `auditkit sae score` wrote them."""
    rows = metadata.get("auditkit", {}).get("card", {}).get("measures", [])
    if not rows:
        reason = NotMeasured("the SAE has no card; make one with auditkit sae score")
        return (NamedMeasure(name="quality on held-out text", value=reason, unit=""),)
    return tuple(
        NamedMeasure(
            name=row["name"],
            value=_measure(row),
            unit=row.get("unit", ""),
            note=row.get("note", ""),
        )
        for row in rows
    )


def _measure(row: Any) -> Measure:
    if "value" not in row:
        return NotMeasured(str(row.get("reason", "not stated")))
    interval = None
    if "low" in row:
        interval = Interval(low=float(row["low"]), high=float(row["high"]))
    return Measured(value=float(row["value"]), n=int(row["n"]), interval=interval)


def list_limits(
    lock: Lock, findings: Sequence[Finding], fidelity: Sequence[NamedMeasure]
) -> tuple[str, ...]:
    """What this audit cannot have seen, in sentences."""
    limits: list[str] = []
    for measure in fidelity:
        centred = measure.name == "explained variance (centred)"
        if centred and isinstance(measure.value, Measured):
            limits.append(
                f"On the audited tokens the SAE leaves {1 - measure.value.value:.0%} of the "
                "activations' variance unexplained; whatever lives there is invisible to every "
                "rule."
            )
    limits.append(
        f"One hook point was watched ({lock.sae.hook_point}); what is computed elsewhere and "
        "never written there was not seen."
    )
    for rule in lock.rules:
        for signal in rule.signals:
            if signal.unresolved is not None:
                limits.append(f"Rule {rule.id}: {signal.unresolved}; its verdicts are unknown.")
    limits += _filters_that_did_nothing(lock, findings)
    unknown = sum(f.unknown for f in findings)
    if unknown:
        limits.append(f"{unknown} verdicts are unknown; the table of rules gives the reasons.")
    if lock.model.quantisation:
        limits.append(
            f"The audited weights are quantised ({lock.model.quantisation}); findings need not "
            "hold for the unquantised model."
        )
    limits.append(
        "Rules watch for what they were written for. A silent rule is no evidence of absence."
    )
    return tuple(limits)


def _filters_that_did_nothing(lock: Lock, findings: Sequence[Finding]) -> list[str]:
    excused = {name for f in findings for name, _ in f.filtered}
    said: list[str] = []
    for tuning in lock.filters:
        if tuning.expired(date.today()):
            said.append(f"Filter {tuning.id} expired on {tuning.expires} and was not applied.")
        elif tuning.id not in excused:
            said.append(f"Filter {tuning.id} excused no match: nothing shows that it is needed.")
    return said
