"""The causal tests of one run: inputs for every rule, trials kept in the store, verdicts last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import pyarrow.compute as pc

from auditkit.config.documents import ConfirmDocument
from auditkit.confirm import (
    ConfirmInputs,
    ConfirmSettings,
    ControlPool,
    LatentTable,
    RawConfirmation,
    confirm_rule,
    confirmation_id,
    finish_verdicts,
    plan_controls,
)
from auditkit.core.confirmations import Confirmation
from auditkit.core.locks import ConfirmPlan, Lock, LockedRule
from auditkit.core.progress import Progress
from auditkit.core.prompts import Message, Prompt, Role, Split, Suite
from auditkit.pipeline.workbench import Workbench
from auditkit.rules import RuleDocument, signal_examples
from auditkit.store import Store
from auditkit.suites import Lexicon, library_root, load_lexicon, load_suite


def run_causal_tests(
    bench: Workbench,
    lock: Lock,
    rules: Sequence[RuleDocument],
    suites: Mapping[str, Suite],
    store: Store,
    reference: str,
    document: ConfirmDocument,
    *,
    seed: int,
    progress: Progress,
) -> list[Confirmation]:
    """Test every confirmation plan of the lock; trials already in the store are not run again."""
    plans = [(rule, plan) for rule in lock.rules for plan in rule.confirm]
    settings = causal_settings(document, [plan for _, plan in plans], seed=seed)
    latents = latent_table(store, reference, bench.sae.config.d_sae)
    pool = ControlPool()
    progress.begin("test causes", len(plans))
    raws: list[RawConfirmation] = []
    for rule, plan in plans:
        inputs = _inputs(rule, plan, rules, suites, document, latents)
        known = confirmation_id(bench.model, bench.sae, rule, plan, inputs, settings)
        raws.append(
            confirm_rule(
                bench.model,
                bench.sae,
                rule,
                plan,
                inputs,
                settings=settings,
                pool=pool,
                progress=progress.note,
                trial_sink=store.write_trials,
                done_trials=store.read_trials(known),
            )
        )
        progress.advance()
    return finish_verdicts(raws)


def latent_table(store: Store, reference: str, d_sae: int) -> LatentTable:
    """How every latent fires on the reference's recordings."""
    table = store.latent_stats(reference)
    table = table.filter(pc.field("fires") > 0)
    names = ("latent", "density", "mean", "q99")
    return LatentTable.from_rows(
        d_sae, {name: table.column(name).to_numpy(zero_copy_only=False) for name in names}
    )


def causal_settings(
    document: ConfirmDocument, plans: Sequence[ConfirmPlan], *, seed: int
) -> ConfirmSettings:
    """With as many controls as a steering and an ablation test of every plan ask for."""
    tests, strictest = max(2 * len(plans), 1), min((plan.q for plan in plans), default=0.05)
    latents, isotropic, covariance = plan_controls(tests, strictest)
    return ConfirmSettings(
        prompts=document.prompts,
        control_prompts=document.control_prompts,
        ablation_prompts=document.ablation_prompts,
        latent_controls=document.latent_controls or latents,
        isotropic_controls=document.direction_controls or isotropic,
        covariance_controls=covariance,
        generation=document.generate,
        seed=seed,
    )


def _inputs(
    rule: LockedRule,
    plan: ConfirmPlan,
    rules: Sequence[RuleDocument],
    suites: Mapping[str, Suite],
    document: ConfirmDocument,
    latents: LatentTable,
) -> ConfirmInputs:
    source = next(r for r in rules if r.id == rule.id)
    examples = signal_examples(source.signals[plan.intervene.signal])
    positive: tuple[Prompt, ...] = ()
    negative: tuple[Prompt, ...] = ()
    if examples is not None:
        positive = _test_part(suites.get(examples.positive.suite or ""))
        negative = _test_part(suites.get(examples.negative.suite or ""))
    return causal_inputs(
        plan, positive=positive, negative=negative, document=document, latents=latents
    )


def causal_inputs(
    plan: ConfirmPlan,
    *,
    positive: tuple[Prompt, ...],
    negative: tuple[Prompt, ...],
    document: ConfirmDocument,
    latents: LatentTable,
    beside: Sequence[str] = (),
) -> ConfirmInputs:
    """Prompts and lexica of one plan; `positive` and `negative` must not have chosen the latents.

    Specificity is measured on the lexica `beside`, without any on all others of the library.
    """
    lexicon = load_lexicon(plan.target)
    if plan.contrast != plan.target:
        lexicon = replace(lexicon, contrast=load_lexicon(plan.contrast).contrast)
    unrelated = [load_lexicon(name) for name in beside] or shipped_lexicons()
    return ConfirmInputs(
        neutral=tuple(map(as_plain_text, load_suite(document.openings).prompts)),
        positive=positive,
        negative=negative,
        benign=tuple(map(as_plain_text, load_suite(document.damage).prompts)),
        lexicon=lexicon,
        other_lexicons=tuple(x for x in unrelated if x.name != lexicon.name),
        latents=latents,
    )


def _test_part(suite: Suite | None) -> tuple[Prompt, ...]:
    """Prompts that chose no latent: only a suite that says which those are can give any."""
    return () if suite is None else tuple(p for p in suite.prompts if p.split is Split.TEST)


def as_plain_text(prompt: Prompt) -> Prompt:
    """The prompt's words outside any chat, to be carried on as text."""
    words = "\n".join(m.content for m in prompt.messages)
    return replace(prompt, messages=(Message(role=Role.TEXT, content=words),))


def shipped_lexicons() -> Iterator[Lexicon]:
    """Every lexicon of the library."""
    for path in sorted((library_root() / "lexicons").glob("*.yaml")):
        yield load_lexicon(f"lexicon/{path.stem}")
