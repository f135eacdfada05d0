"""What a report claims, and what a reader must not take from it."""

from __future__ import annotations

from collections.abc import Iterable

from auditkit.core.audits import AuditRecord, NamedMeasure
from auditkit.core.measured import Measured, NotMeasured
from auditkit.report.figures import percent


def claim_of_the_report(record: AuditRecord) -> str:
    """One paragraph that says what the numbers below are about, before any of them is read."""
    n = len(record.lock.rules)
    rules = "one rule" if n == 1 else f"each of {n} rules"
    return (
        f"This report says three things about {rules} and nothing else: how often the rule's "
        "condition held in the prompts that were recorded; how well the rule tells apart labelled "
        "examples that had no part in making it, beside plain baselines that need no autoencoder; "
        "and, where a causal test was run, whether pushing or removing the rule's latents moves "
        "the model's words further than the same done to matched latents and random directions. "
        "That a rule fired says what its latents responded to, not what the model intends. That "
        "it stayed silent is no absence. Whether the model is safe, this report does not say."
    )


def limits_of_the_claim(record: AuditRecord) -> tuple[str, ...]:
    """What a reader must not take from the report."""
    missed = missed_variance(record)
    blind = f"The SAE misses {missed}" if missed else "How much the SAE misses was not measured"
    weights = record.lock.model.quantisation or record.lock.model.dtype
    return (
        "It does not say that the model is safe. It says where, in the prompts that were recorded, "
        "the conditions of the named rules held.",
        "A rule that did not fire is not absence: its interval bounds the rate only for prompts "
        "like the ones recorded.",
        f"{blind}; what lies there, no rule can see. Nothing is said of other hook points than "
        f"{record.lock.sae.hook_point}.",
        "An unknown verdict is neither yes nor no. It is counted, never dropped.",
        "A rule's title, tags and labels are no evidence. Evidence is the held-out score beside "
        "the baselines, and the causal test.",
        "A causal verdict holds for its outcome, its doses and its prompts, not for every way in "
        "which the concept can matter.",
        f"The weights were audited as they were loaded ({weights}). In another precision it is "
        "another model.",
    )


def missed_variance(record: AuditRecord) -> str | None:
    """How much of the activations' variance the SAE misses on the audited prompts."""
    found = _centred(record.fidelity)
    where = "on the audited prompts"
    if found is None:
        found, where = _centred(record.sae_quality), "on held-out text"
    if found is None or isinstance(found.value, NotMeasured):
        return None
    return f"{percent(1 - found.value.value)} of the variance of the activations {where}"


def _centred(measures: Iterable[NamedMeasure]) -> NamedMeasure | None:
    known = [
        m
        for m in measures
        if "explained variance" in m.name
        and "uncentred" not in m.name
        and isinstance(m.value, Measured)
    ]
    return known[0] if known else None
