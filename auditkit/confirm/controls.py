"""Run the controls of one test, kind by kind, and stop where the target has plainly lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from auditkit.confirm.directions import (
    ControlDirections,
    covariance_directions,
    isotropic_directions,
    matched_latents,
)
from auditkit.confirm.ledger import TrialSet
from auditkit.confirm.run import ConfirmRun
from auditkit.core.confirmations import Arm
from auditkit.core.statistics import MOST_CONTROLS, controls_needed

FIRST_DRAW = 20
CONTROL_ARMS = (Arm.LATENT, Arm.ISOTROPIC, Arm.COVARIANCE)

Effects = Callable[[Float[Tensor, "n d_in"]], NDArray[np.float64]]
"""Unit directions → effects [direction, prompt]."""


SHARES = (99, 101, 40)
"""Matched latents, isotropic and covariance directions in a run of twelve tests."""


def plan_controls(tests: int, q: float) -> tuple[int, int, int]:
    """How many controls of each kind let a lone true effect among `tests` tests come below `q`.

    Never fewer than in `SHARES`, nor more than `MOST_CONTROLS`. A test that loses stops early, so
    more controls cost little where there is nothing.
    """
    total = max(min(controls_needed(tests, q), MOST_CONTROLS), sum(SHARES))
    latents, covariance = (round(total * share / sum(SHARES)) for share in (SHARES[0], SHARES[2]))
    return latents, total - latents - covariance, covariance


@dataclass(frozen=True, slots=True, kw_only=True)
class Controls:
    """The control directions of a rule, by arm."""

    by_arm: dict[Arm, Float[Tensor, "_n d_in"]]


def make_controls(run: ConfirmRun) -> Controls:
    """Draw the control directions; those that depend on no rule are shared through the pool.

    For a matched latent that does not exist there is one more isotropic direction, so that their
    number allows the q that the run was planned for.
    """
    s = run.settings
    matched = matched_latents(
        run.sae, run.target, run.inputs.latents, n=s.latent_controls, seed=s.seed
    )
    run.notes.extend(matched.notes)
    d_in = run.sae.W_dec.shape[1]
    even = s.isotropic_controls + s.latent_controls - len(matched.units)

    def isotropic() -> ControlDirections:
        return isotropic_directions(d_in, n=even, seed=s.seed)

    def covariance() -> ControlDirections:
        x = torch.cat([g.x[g.edited] for g in run.neutral.groups])
        return covariance_directions(x, n=s.covariance_controls, seed=s.seed)

    pool = run.pool
    return Controls(
        by_arm={
            Arm.LATENT: matched.units,
            Arm.ISOTROPIC: pool.once("isotropic", [s.seed, even, d_in], isotropic).units,
            Arm.COVARIANCE: pool.once(
                "covariance", [s.seed, s.covariance_controls, run.neutral.digest], covariance
            ).units,
        }
    )


def run_controls(
    run: ConfirmRun,
    controls: Controls,
    wanted: Callable[[Arm], TrialSet],
    effects: Effects,
    own: NDArray[np.float64],
    *,
    sign: int,
) -> None:
    """Run every matched latent, and random directions until the target has plainly lost.

    Lost is where `futility_hits` of one kind have done what the target did. The matched latents
    run to the last even then, and each other kind gets its first draw: a verdict always stands
    beside all three. `own` [prompt] is the target's effect on the same prompts. The p-value of a
    lost test is that of Besag & Clifford (1991), see `analysis.sequential_rank_p`: none could have
    been significant.
    """
    bar = float(sign * own.mean())
    lost: Arm | None = None
    run_so_far = 0
    for arm in CONTROL_ARMS:
        units = controls.by_arm[arm]
        hits = 0
        for numbers in draws(len(units)):
            found = run_arm(run, wanted(arm), numbers, units, effects)
            run_so_far += len(numbers)
            hits += int(np.count_nonzero(sign * found.mean(axis=1) >= bar))
            if lost is None and hits >= run.settings.futility_hits:
                lost = arm
            if lost is not None and arm is not Arm.LATENT:
                break
    total = sum(len(units) for units in controls.by_arm.values())
    if lost is not None and run_so_far < total:
        run.notes.append(
            f"{wanted(lost).op}: at least {run.settings.futility_hits} controls ({lost.value}) did "
            f"as much, so {run_so_far} of {total} controls were run"
        )


def draws(n: int) -> Iterator[list[int]]:
    """The numbers 0 to n in batches that double: a lost test ends early, a close one runs fast."""
    start, size = 0, FIRST_DRAW
    while start < n:
        yield list(range(start, min(start + size, n)))
        start, size = start + size, 2 * size


def run_arm(
    run: ConfirmRun,
    wanted: TrialSet,
    numbers: list[int],
    units: Float[Tensor, "n d_in"],
    effects: Effects,
) -> NDArray[np.float64]:
    """Run the controls `numbers` of one arm; their outcomes [control, prompt] from the ledger."""
    run.ledger.run(wanted, numbers, lambda missing: effects(units[missing])[:, :, None])
    return run.ledger.outcomes(wanted, numbers)
