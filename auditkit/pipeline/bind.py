"""Rules and the recordings they are bound from → `rules.lock.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from auditkit.binding import (
    BindContext,
    bind_rules,
    completions_needed,
    example_sets,
    example_suite,
    fit_directions,
    suites_needed,
)
from auditkit.core.directions import LockedDirection
from auditkit.core.errors import InvalidInput
from auditkit.core.locks import Calibration, Lock, LockedRule, NotCalibrated
from auditkit.core.measured import Measure, Measured
from auditkit.core.progress import Progress
from auditkit.core.prompts import Suite
from auditkit.core.recordings import Provenance, Recording, RecordingPlan
from auditkit.core.tokens import TokenMask
from auditkit.pipeline.robustness import VariantBench, VariantWish, measure_robustness
from auditkit.pipeline.rule_files.files import RuleSet, load_rule_set
from auditkit.report import joint_sentence, robustness_sentence, strata_in_short
from auditkit.rules import (
    LabelSelect,
    LabelTable,
    RuleDocument,
    pinned_table,
    write_lock,
)
from auditkit.store import MASKED_IN_STATS, Store, open_store
from auditkit.suites import load_suite

Complete = Callable[[Recording, Sequence[LockedDirection]], object]
"""Adds the values of directions to a recording."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundSummary:
    """What `rules bind` says."""

    lock: Lock
    path: Path

    def text(self) -> str:
        together = map(joint_sentence, self.lock.joint)
        rules = map(describe_rule, self.lock.rules)
        return "\n".join([*rules, *together, f"written to {self.path}"])

    def json(self) -> str:
        rows = [{"rule": r.id, "says": describe_rule(r)} for r in self.lock.rules]
        together = [{"suite": j.suite, "says": joint_sentence(j)} for j in self.lock.joint]
        plain = {"lock": str(self.path), "rules": rows, "joint": together}
        return json.dumps(plain, indent=1)


def describe_rule(rule: LockedRule) -> str:
    """One rule's standing in a few lines: latents, scores beside baselines, certificate."""
    lines = [f"{rule.id} ({rule.status.value})"]
    for signal in rule.signals:
        what = "a direction" if signal.direction else f"{len(signal.latents)} latents"
        found = signal.unresolved or what
        lines.append(f"  signal {signal.name}: {found}")
    for score in rule.scores:
        lines.append(
            f"  {score.detector}: held-out AUROC {_value(score.auroc)}, recall "
            f"{_value(score.recall)} ({score.positives} against {score.negatives})"
        )
    if rule.scores and rule.scores[0].source:
        lines.append(f"  scored on: {rule.scores[0].source}")
    lines.append(f"  {_calibration(rule.calibration)}")
    varied = robustness_sentence(rule)
    lines += [] if varied is None else [f"  {varied}"]
    return "\n".join(lines + [f"  {note}" for note in rule.notes])


def _value(measure: Measure) -> str:
    if isinstance(measure, Measured):
        return f"{measure.value:.3f}"
    return f"not measured: {measure.reason}"


def _calibration(found: Calibration | NotCalibrated | None) -> str:
    if found is None:
        return "uses no calibrated threshold"
    if isinstance(found, NotCalibrated):
        return found.said
    fresh = (
        f"; on {found.verified.n} fresh benign frames the rate is {found.verified.value:.2%}"
        if isinstance(found.verified, Measured)
        else ""
    )
    return (
        f"threshold {found.threshold:.6g} certified at {found.target_fpr:.1%} false positives "
        f"({found.exceedances} of {found.frames} benign frames, bound {found.bound:.2%}){fresh}"
        f"; by length: {strata_in_short(found)}"
    )


def binding_suites(rules: Sequence[RuleDocument], *, base: Path | None = None) -> dict[str, Suite]:
    """Every suite that has to be recorded before `rules` can be bound, by the name rules use."""
    suites = {ref: load_suite(ref, base=base) for ref in suites_needed(rules)}
    for rule in rules:
        for side in example_sets(rule):
            inline = example_suite(side)
            if inline is not None:
                suites[inline.name] = inline
    return suites


def label_tables(
    rules: Sequence[RuleDocument], *, base: Path | None = None
) -> dict[str, LabelTable]:
    """Every label table that `rules` name, by that name; raises like `pinned_table`."""
    selects = [signal.select for rule in rules for signal in rule.signals.values()]
    return {s.table: pinned_table(s, base=base) for s in selects if isinstance(s, LabelSelect)}


def bind_recorded(
    rules: Sequence[RuleDocument],
    store: Store,
    recordings: Mapping[str, Recording],
    *,
    high_norm: float | None,
    provenance: Provenance,
    masked: TokenMask = MASKED_IN_STATS,
    seed: int = 0,
    tuned: RuleSet | None = None,
    labels: Mapping[str, LabelTable] | None = None,
    complete: Complete | None = None,
    joint_fpr: float | None = None,
    variants: VariantWish | None = None,
    progress: Progress,
) -> tuple[Lock, str]:
    """Measure the latents over the recordings, bind, and keep the lock in the store.

    Directions are fitted first, and `complete` adds their values to the recordings that the rules
    are scored and calibrated on; without it they must be there. `labels`: of `label_tables`.
    `joint_fpr`: the budget of false alarms of all rules on one benign suite together.
    With `variants` the rules' recall is measured on altered examples too.
    Returns the lock and the name of the latents' statistics in the store. The lock carries the
    filters and correlations of `tuned`.
    """
    reference = store.measure_latent_stats(sorted({r.id for r in recordings.values()}))
    context = BindContext(
        store=store,
        recordings=recordings,
        reference=reference,
        masked=masked,
        high_norm=high_norm,
        provenance=provenance,
        seed=seed,
        labels=labels or {},
    )
    context = replace(context, directions=fit_directions(rules, context))
    if complete is not None:
        for needed in completions_needed(rules, context, context.directions):
            complete(needed.recording, needed.directions)
    lock = bind_rules(rules, context, joint_fpr=joint_fpr, progress=progress)
    if variants is not None:
        lock = measure_robustness(rules, lock, context, variants, seed=seed)
    if tuned is not None:
        lock = replace(
            lock, filters=tuned.locked_filters(), correlations=tuned.locked_correlations()
        )
    store.write_lock(lock)
    return lock, reference


def bind_paths(
    paths: Sequence[str],
    *,
    sae: str,
    store: Path,
    out: Path,
    model: str | None = None,
    dtype: str = "float32",
    joint_fpr: float | None = None,
    variant_examples: int = 0,
    progress: Progress,
) -> BoundSummary:
    """Bind rule files from what a store already holds of one SAE.

    A `model` is needed only where a rule selects a direction that the recordings were not
    completed for, and to measure recall on variants of `variant_examples` examples per rule.
    """
    from auditkit.pipeline.provenance import collect_provenance
    from auditkit.saes import load_sae

    if variant_examples and model is None:
        raise InvalidInput("variants of examples have to be recorded", help="name the --model")
    if joint_fpr is not None and not 0 < joint_fpr < 1:
        raise InvalidInput(
            f"--joint-fpr {joint_fpr:g} is no budget", help="a share between 0 and 1, such as 0.05"
        )
    tuned = load_rule_set(paths)
    rules = tuned.rules
    labels = label_tables(rules)
    digest = load_sae(sae).identity.digest
    with open_store(store) as opened:
        known = [r for r in opened.recordings() if r.sae.digest == digest]
        recordings: dict[str, Recording] = {}
        for ref, suite in binding_suites(rules).items():
            wanted = suite.digest
            found = [r for r in known if r.suite_digest == wanted]
            if not found:
                raise InvalidInput(
                    f"{store} holds no recording of {ref!r} with this SAE",
                    help=f"record it: auditkit record {ref} --sae {sae} --store {store} --model …",
                )
            recordings[ref] = found[-1]
        plan = next(iter(recordings.values())).plan
        norm = plan.reference_norm
        bench = _bench(model, sae, dtype, plan, opened, progress) if model else None
        lock, _ = bind_recorded(
            rules,
            opened,
            recordings,
            high_norm=None if norm is None else norm * plan.high_norm_factor,
            provenance=collect_provenance(),
            tuned=tuned,
            labels=labels,
            complete=bench.complete if bench else None,
            joint_fpr=joint_fpr,
            variants=VariantWish(bench=bench, examples=variant_examples)
            if bench and variant_examples
            else None,
            progress=progress,
        )
    write_lock(lock, out)
    return BoundSummary(lock=lock, path=out)


def _bench(
    model: str, sae: str, dtype: str, plan: RecordingPlan, store: Store, progress: Progress
) -> VariantBench:
    """Completes and records with a model that is loaded when the first of them needs it."""
    from auditkit.pipeline.variant_bench import ModelBench
    from auditkit.pipeline.workbench import Workbench

    return ModelBench(
        load=lambda: Workbench.load(model, sae, dtype=dtype, progress=progress),
        store=store,
        plan=plan,
        progress=progress,
    )
