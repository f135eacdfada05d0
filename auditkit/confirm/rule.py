"""Test one locked rule causally: prepare, run trials, and sum up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from auditkit.confirm.controls import make_controls
from auditkit.confirm.directions import target_direction
from auditkit.confirm.ledger import TrialLedger, TrialSink
from auditkit.confirm.materials import (
    benign_text,
    neutral_prompts,
    resolve_lexica,
    too_few_words,
)
from auditkit.confirm.necessity import run_ablation
from auditkit.confirm.pool import ControlPool
from auditkit.confirm.prepared import dose_zero_change
from auditkit.confirm.run import ConfirmRun, Dose
from auditkit.confirm.settings import GATE, ConfirmInputs, ConfirmSettings, Progress
from auditkit.confirm.sufficiency import (
    choose_dose,
    difference_of_means,
    run_doses,
    run_positive,
    run_steering_controls,
)
from auditkit.confirm.summary import RunFacts, invalid_result, summarise
from auditkit.confirm.verdicts import RawConfirmation
from auditkit.confirm.writing import run_replies
from auditkit.core.confirmations import Trial
from auditkit.core.errors import InvalidInput
from auditkit.core.fingerprint import fingerprint
from auditkit.core.locks import ConfirmPlan, LockedRule, LockedSignal
from auditkit.core.measured import Measured, NotMeasured
from auditkit.models import LanguageModel
from auditkit.saes import SparseAutoencoder

CEILING = 0.99


def confirm_rule(
    model: LanguageModel,
    sae: SparseAutoencoder,
    rule: LockedRule,
    plan: ConfirmPlan,
    inputs: ConfirmInputs,
    *,
    settings: ConfirmSettings | None = None,
    pool: ControlPool | None = None,
    progress: Progress | None = None,
    trial_sink: TrialSink | None = None,
    done_trials: Iterable[Trial] = (),
) -> RawConfirmation:
    """Run one rule's causal test; `finish_verdicts` makes verdicts of the results of all rules.

    Trials go to `trial_sink` as they are made; those among `done_trials` are not run again. Pass
    one `pool` to all rules of a run, so that they share controls. Raises InvalidInput for a plan
    that names an unknown operation or signal, or without neutral prompts.
    """
    settings = settings or ConfirmSettings()
    pool = pool or ControlPool()
    facts = _facts(model, sae, rule, plan, inputs, settings)
    lexica, column, dropped = resolve_lexica(model, inputs, pool)
    dropped = (what_is_tested(rule, plan), *dropped)
    facts = replace(facts, notes=dropped)
    if not lexica[column].usable:
        return invalid_result(facts, too_few_words(lexica[column]))
    target = target_direction(sae, rule.signal(plan.intervene.signal), inputs.latents)
    if isinstance(target, str):
        return invalid_result(facts, target)
    neutral = neutral_prompts(model, sae, inputs, lexica, settings, pool)
    ledger = TrialLedger(confirmation=facts.id, sink=trial_sink or _drop)
    ledger.restore(done_trials)
    run = ConfirmRun(
        model=model,
        sae=sae,
        rule=rule,
        plan=plan,
        inputs=inputs,
        settings=settings,
        pool=pool,
        ledger=ledger,
        progress=progress or _silent,
        lexica=lexica,
        column=column,
        target=target,
        neutral=neutral,
        notes=list(dropped),
    )
    gate = pool.once("gate", neutral.digest, lambda: identity_gate(run))
    facts = replace(facts, identity_gate=gate, prompts=len(neutral.ids), op=run.op, sign=run.sign)
    invalid = _unfit(run, gate)
    return invalid_result(facts, invalid) if invalid else _run(run, facts)


def confirmation_id(
    model: LanguageModel,
    sae: SparseAutoencoder,
    rule: LockedRule,
    plan: ConfirmPlan,
    inputs: ConfirmInputs,
    settings: ConfirmSettings,
) -> str:
    """Digest of everything that a confirmation's trials depend on.

    How many controls there are is left out: more of them are drawn after those that were, so a
    larger run goes on where a smaller one ended.
    """
    lexica = [
        [x.name, sorted(x.target), sorted(x.contrast)]
        for x in (inputs.lexicon, *inputs.other_lexicons)
    ]
    prompts = [inputs.neutral, inputs.positive, inputs.negative, inputs.benign]
    table = [
        fingerprint(np.round(c, 9).tolist())
        for c in (inputs.latents.density, inputs.latents.mean, inputs.latents.q99)
    ]
    sizes = replace(settings, latent_controls=0, isotropic_controls=0, covariance_controls=0)
    asked = [rule.id, rule.digest, rule.signal(plan.intervene.signal), rule.scope, plan]
    return fingerprint(
        [model.identity.digest, sae.identity.digest, asked, sizes, lexica, prompts, table],
        length=16,
    )


def what_is_tested(rule: LockedRule, plan: ConfirmPlan) -> str:
    """Which signal the test acts on and how many latents it has, beside the rule's others."""
    tested = rule.signal(plan.intervene.signal)
    numbers = ", ".join(str(part.latent) for part in tested.latents[:8])
    more = "" if len(tested.latents) <= 8 else ", …"
    areas = [s.auroc.value for s in tested.scores if isinstance(s.auroc, Measured)]
    score = f", held-out AUROC {areas[0]:.2f}" if areas else ""
    said = f"tested: signal {tested.name}, {_latents(tested)} ({numbers}{more}){score}"
    if tested.direction is not None:
        fit = tested.direction.fit.replace("_", " ")
        said = f"tested: signal {tested.name}, a plain direction ({fit}){score}"
    others = [f"{s.name}, {_latents(s)}" for s in rule.signals if s.name != tested.name]
    return said + (f"; not tested: signal {'; signal '.join(others)}" if others else "")


def _latents(signal: LockedSignal) -> str:
    if signal.direction is not None:
        return "a plain direction"
    return "1 latent" if len(signal.latents) == 1 else f"{len(signal.latents)} latents"


def identity_gate(run: ConfirmRun) -> Measured:
    """Largest change of a logit by a push of dose 0 on the way that trials take.

    The untouched forward pass through all layers against the pass that starts at the hook point.
    """
    worst, n = dose_zero_change(run.model, run.neutral, run.target.unit)
    return Measured(value=worst, n=n)


def _run(run: ConfirmRun, facts: RunFacts) -> RawConfirmation:
    controls = make_controls(run)
    doses = run.doses()
    benign = benign_text(run)
    main = choose_dose(run, benign, controls, doses)
    if main is not doses[-1]:
        run.notes.append(
            f"doses above {main.value:.2f} damage benign text more than 95% of the controls"
        )
        doses = _down_from(run, doses, main)
    run_doses(run, doses, main)
    unit = difference_of_means(run)
    if unit is None:
        run.notes.append("no positive control: it needs positive and negative examples")
    else:
        run_positive(run, main, unit)
    run_steering_controls(run, controls, doses, main)
    run_ablation(run, controls)
    replies = run_replies(run, controls, main) if run.settings.generation else ()
    facts = replace(facts, main_dose=_stored(main), replies=replies, notes=tuple(run.notes))
    return summarise(run.ledger.trials.values(), facts)


def _down_from(run: ConfirmRun, doses: Sequence[Dose], main: Dose) -> list[Dose]:
    """Doses up to `main` for the trend, at least three, and those above it for the plot."""
    below = [d for d in doses if d.value <= main.value]
    while len(below) < 3:
        below.insert(0, run.snapped(below[0].value / 2))
    return [*below, *(d for d in doses if d.value > main.value)]


def _stored(dose: Dose) -> float:
    return round(dose.value, 9)


def _facts(
    model: LanguageModel,
    sae: SparseAutoencoder,
    rule: LockedRule,
    plan: ConfirmPlan,
    inputs: ConfirmInputs,
    settings: ConfirmSettings,
) -> RunFacts:
    where = f"rule {rule.id}, confirm {plan.name}"
    if plan.intervene.op not in ("steer", "clamp", "ablate"):
        raise InvalidInput(
            f"{where}: unknown operation {plan.intervene.op!r}",
            help="expected ablate, clamp or steer",
        )
    if plan.intervene.signal not in {signal.name for signal in rule.signals}:
        raise InvalidInput(
            f"{where}: there is no signal {plan.intervene.signal!r}",
            help="signals of the rule: " + ", ".join(signal.name for signal in rule.signals),
        )
    if not inputs.neutral:
        raise InvalidInput(f"{where}: no neutral prompts", help="builtin/neutral-openings has some")
    return RunFacts(
        id=confirmation_id(model, sae, rule, plan, inputs, settings),
        rule_id=rule.id,
        plan=plan,
        op="steer",
        sign=1,
        main_dose=0.0,
        seed=settings.seed,
        futility_hits=settings.futility_hits,
        prompts=0,
        identity_gate=NotMeasured("not run"),
        invalid=None,
    )


def _unfit(run: ConfirmRun, gate: Measured) -> str | None:
    if gate.value > GATE:
        return (
            f"identity gate: dose 0 moves a logit by {gate.value:.2g}, at most {GATE:g} is allowed"
        )
    share = 1 / (1 + np.exp(-run.sign * run.neutral.base[:, run.column]))
    if float(share.mean()) > CEILING:
        return (
            f"outcome at ceiling: untouched, {share.mean():.1%} of the probability is already "
            "where the claim would move it"
        )
    return None


def _drop(_: list[Trial]) -> None:
    return None


def _silent(_: str) -> None:
    return None
