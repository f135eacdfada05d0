"""Does pushing the signal's latents bring the words? Doses, damage, controls, and both extremes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from auditkit.confirm.ablation import cut, in_scope, scoped_text
from auditkit.confirm.controls import Controls, run_arm, run_controls
from auditkit.confirm.damage import METRICS, BenignText, measure_damage
from auditkit.confirm.ledger import TrialSet
from auditkit.confirm.outcomes import LOG_ODDS
from auditkit.confirm.prepared import PreparedPrompts
from auditkit.confirm.run import ConfirmRun, Dose
from auditkit.core.confirmations import Arm
from auditkit.core.prompts import Prompt

POSITIVE_TOKENS = 32
DAMAGE_CHUNK = 4


def choose_dose(
    run: ConfirmRun, benign: BenignText | None, controls: Controls, doses: Sequence[Dose]
) -> Dose:
    """The largest dose whose damage is within the 95th percentile of controls of equal norm.

    The largest of all where none is, or where there is no benign text; the verdict looks at the
    damage again.
    """
    if benign is None or not benign.ids:
        return doses[-1]
    units = controls.by_arm[Arm.LATENT][: run.settings.damage_controls]
    for dose in reversed(doses):
        run.progress(f"{run.rule.id}: damage at dose {dose.value:.2f}")
        if len(units) == 0 or _within_budget(run, benign, units, dose):
            return dose
    return doses[-1]


def _within_budget(
    run: ConfirmRun, benign: BenignText, units: Float[Tensor, "n d_in"], dose: Dose
) -> bool:
    """Whether the damage is within the controls' 95%; ends once enough have done as much.

    Of n controls the budget is one of the largest; with as many as lie at or above it found, no
    further control can change the answer.
    """
    own = float(_damage(run, benign, Arm.TARGET, run.target.unit[None], dose, [0]).mean())
    deciding = len(units) - math.ceil(0.95 * (len(units) - 1))
    found: list[float] = []
    for start in range(0, len(units), DAMAGE_CHUNK):
        numbers = list(range(start, min(start + DAMAGE_CHUNK, len(units))))
        found += _damage(run, benign, Arm.LATENT, units, dose, numbers).mean(axis=1).tolist()
        if sum(value >= own for value in found) >= deciding:
            return True
    return own <= damage_budget(np.array(found))


def damage_budget(controls: NDArray[np.float64]) -> float:
    """The 95th percentile of the controls' damage."""
    return float(np.quantile(controls, 0.95, method="higher"))


def run_doses(run: ConfirmRun, doses: Sequence[Dose], main: Dose) -> None:
    """The target at dose 0, at every dose, and turned round at the main dose; all prompts.

    Doses below 0 that the plan names are for the plot.
    """
    others = [f"{LOG_ODDS}:{x.name}" for i, x in enumerate(run.lexica) if i != run.column]
    order = [run.column, *(i for i in range(len(run.lexica)) if i != run.column)]
    for dose in (*run.reversed_doses(), Dose(value=0.0, norm=0.0), *doses):
        if run.op == "clamp" and dose.value == 0.0:
            continue
        run.progress(f"{run.rule.id}: {run.op} at dose {dose.value:.2f}")
        wanted = _on_neutral(run, Arm.TARGET, dose, metrics=(LOG_ODDS, *others))
        run.ledger.run(wanted, [0], lambda _, d=dose: run.own_effects(d)[:, :, order])
    n = len(run.neutral.ids)
    flipped = _on_neutral(run, Arm.SIGN_FLIP, main)
    run.ledger.run(
        flipped, [0], lambda _: run.push(-run.target.unit[None], main, n)[:, :, [run.column]]
    )


def run_positive(run: ConfirmRun, main: Dose, unit: Float[Tensor, " d_in"]) -> None:
    """The difference of means at the main dose's norm."""
    n = len(run.neutral.ids)
    wanted = _on_neutral(run, Arm.POSITIVE, main)
    run.ledger.run(wanted, [0], lambda _: run.push(unit[None], main, n)[:, :, [run.column]])


def run_steering_controls(
    run: ConfirmRun, controls: Controls, doses: Sequence[Dose], main: Dose
) -> None:
    """All controls at the main dose, a few at the others for the band in the plot."""
    n = min(run.settings.control_prompts, len(run.neutral.ids))

    def effects(dose: Dose, units: Float[Tensor, "n d_in"]) -> NDArray[np.float64]:
        return run.push(units, dose, n)[:, :, run.column]

    run.progress(f"{run.rule.id}: controls at dose {main.value:.2f}")
    own = run.ledger.outcomes(_on_neutral(run, Arm.TARGET, main, prompts=n), [0])[0]
    run_controls(
        run,
        controls,
        lambda arm: _on_neutral(run, arm, main, prompts=n),
        lambda units: effects(main, units),
        own,
        sign=run.sign,
    )
    for dose in (*run.reversed_doses(), *doses):
        units = controls.by_arm[Arm.LATENT][: run.settings.band_controls]
        if dose is not main and len(units):
            wanted = _on_neutral(run, Arm.LATENT, dose, prompts=n)
            numbers = list(range(len(units)))
            run_arm(run, wanted, numbers, units, lambda u, d=dose: effects(d, u))


def difference_of_means(run: ConfirmRun) -> Float[Tensor, " d_in"] | None:
    """Unit difference of mean activations, positive less negative examples; None without both.

    Taken over content tokens of the examples as plain text, each example counting once; made once
    for all tests of a run that share the examples.
    """
    examples = [run.inputs.positive, run.inputs.negative, run.settings.prompts]
    key = [examples, run.rule.scope.roles, str(run.hook_point), run.model.identity.digest]
    return run.pool.once("difference", key, lambda: _difference(run))


def _difference(run: ConfirmRun) -> Float[Tensor, " d_in"] | None:
    means = [
        _mean_activation(run, prompts) for prompts in (run.inputs.positive, run.inputs.negative)
    ]
    if means[0] is None or means[1] is None:
        return None
    difference = means[0] - means[1]
    norm = difference.norm()
    return difference / norm if float(norm) > 0 else None


def _mean_activation(run: ConfirmRun, prompts: Sequence[Prompt]) -> Float[Tensor, " d_in"] | None:
    per_prompt: list[Tensor] = []
    for prompt in prompts[: run.settings.prompts]:
        tokens = run.model.render(scoped_text(prompt, run.rule.scope.roles))
        tokens = cut(tokens, min(len(tokens), 2 * POSITIVE_TOKENS))
        places = [i for i, ok in enumerate(in_scope(tokens, run.rule.scope.roles)) if ok]
        if places:
            x = run.model.capture(run.model.pad([tokens]), [run.hook_point])[run.hook_point]
            per_prompt.append(x[0, places[:POSITIVE_TOKENS]].mean(dim=0))
    return torch.stack(per_prompt).mean(dim=0) if per_prompt else None


def _damage(
    run: ConfirmRun,
    benign: BenignText,
    arm: Arm,
    units: Float[Tensor, "n d_in"],
    dose: Dose,
    numbers: list[int],
) -> NDArray[np.float64]:
    wanted = TrialSet(
        arm=arm,
        op=run.op,
        dose=dose.value,
        prompts=benign.ids,
        metrics=METRICS,
        relative_norms=tuple(float(dose.norm / benign.prepared.x_norms[p]) for p in benign.places),
    )
    run.ledger.run(
        wanted,
        numbers,
        lambda missing: measure_damage(run.model, benign, units[missing], dose.norm),
    )
    return run.ledger.outcomes(wanted, numbers)


def _on_neutral(
    run: ConfirmRun,
    arm: Arm,
    dose: Dose,
    *,
    prompts: int | None = None,
    metrics: Sequence[str] = (LOG_ODDS,),
) -> TrialSet:
    prepared: PreparedPrompts = run.neutral
    return run.trial_set(
        arm,
        dose.value,
        op=run.op,
        prepared=prepared,
        relative=run.relative_norms(dose.norm),
        prompts=prompts,
        metrics=metrics,
    )
