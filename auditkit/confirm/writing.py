"""The second outcome: how often the lexicon's words come in what the model writes."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from auditkit.confirm.controls import Controls
from auditkit.confirm.ledger import TrialSet
from auditkit.confirm.outcomes import LEXEME_RATE, lexeme_rate
from auditkit.confirm.replies import Replies, write_replies
from auditkit.confirm.run import ConfirmRun, Dose
from auditkit.core.confirmations import Arm, ReplyExample
from auditkit.core.tokens import TokenizedPrompt

EXAMPLES = 4


def run_replies(run: ConfirmRun, controls: Controls, dose: Dose) -> tuple[ReplyExample, ...]:
    """Write from neutral openings untouched, pushed, and under a few controls of equal norm.

    A clamp has no constant push, and is not written with. Only few controls are affordable here, so
    the rank p-value stays large: the rates describe.
    """
    if run.op == "clamp":
        run.notes.append("replies are written for steering only, not for a clamp")
        return ()
    run.progress(f"{run.rule.id}: replies")
    prompts = _openings(run)
    units = controls.by_arm[Arm.LATENT][: run.settings.reply_controls]
    pushes = torch.cat([run.target.unit[None], units]) * dose.norm

    def write(pushes: Float[Tensor, "push d_in"]) -> Replies:
        tokens = run.settings.reply_tokens
        return write_replies(run.model, run.hook_point, prompts, pushes, tokens=tokens)

    key = [run.neutral.digest, len(prompts), run.settings.reply_tokens, run.model.identity.digest]
    base: Replies = run.pool.once("replies", key, lambda: write(torch.zeros_like(pushes[:1])))
    written = Replies(texts=base.texts + write(pushes).texts)
    rates = _rates(run, written)
    wanted = [_trials(run, arm, dose, len(prompts)) for arm in (Arm.TARGET, Arm.LATENT)]
    run.ledger.run(wanted[0], [0], lambda missing: (rates[1:2] - rates[0])[missing][:, :, None])
    run.ledger.run(
        wanted[1],
        list(range(len(units))),
        lambda missing: (rates[2:] - rates[0])[missing][:, :, None],
    )
    return _examples(prompts, written, rates)


def _openings(run: ConfirmRun) -> list[TokenizedPrompt]:
    by_place: dict[int, TokenizedPrompt] = {}
    for group in run.neutral.groups:
        by_place.update(zip(group.places, group.batch.prompts, strict=True))
    return [by_place[p] for p in sorted(by_place)][: run.settings.reply_prompts]


def _rates(run: ConfirmRun, written: Replies) -> NDArray[np.float64]:
    lexicon = run.lexica[run.column]
    return np.array([[lexeme_rate(text, lexicon) for text in row] for row in written.texts])


def _trials(run: ConfirmRun, arm: Arm, dose: Dose, n: int) -> TrialSet:
    return run.trial_set(
        arm,
        dose.value,
        op=run.op,
        prepared=run.neutral,
        relative=run.relative_norms(dose.norm),
        prompts=n,
        metrics=(LEXEME_RATE,),
    )


def _examples(
    prompts: list[TokenizedPrompt], written: Replies, rates: NDArray[np.float64]
) -> tuple[ReplyExample, ...]:
    """The prompts on which the rate rose most, and, so as not to flatter, the last one."""
    order = list(np.argsort(rates[0] - rates[1], kind="stable"))
    chosen = list(dict.fromkeys([*order[: EXAMPLES - 1], order[-1]]))
    base, steered, *others = written.texts
    control = others[0] if others else ("",) * len(prompts)
    return tuple(
        ReplyExample(
            prompt=_shown(prompts[i]), base=base[i], steered=steered[i], control=control[i]
        )
        for i in chosen
    )


def _shown(prompt: TokenizedPrompt) -> str:
    return "".join(t for t, m in zip(prompt.texts, prompt.masks, strict=True) if not m)
