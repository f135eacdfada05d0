"""Ablation sparsity: on how many of the next logits a latent acts (Gao et al. 2024, §4.5)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import normalize

from auditkit.core.measured import Interval, Measure, Measured, NotMeasured
from auditkit.core.statistics import measure_mean
from auditkit.core.tokens import TokenizedPrompt
from auditkit.models import LanguageModel, TokenBatch
from auditkit.quality.fires import CapturedText, Fire, capture_text, draw_fires
from auditkit.saes import SparseAutoencoder, check_fits

LATENTS, FIRES = 96, 4
_NO_FIRES = NotMeasured("no latent fires on an unmasked token after the first")
_UNMOVED = NotMeasured("no fire that was drawn moves a logit")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitEffect:
    """What some directions do to the next token's logits; Δ is their change [vocab].

    `effective_logits` is (‖Δ‖₁/‖Δ‖₂)²: 1 where one logit moves, the vocabulary where all move
    alike. `without_shift` takes the same of Δ − median Δ, which leaves out what softmax does not
    see. `size` is ‖Δ‖₂. Means over fires, then over latents (n), BCa intervals over latents.
    `by_latent` are the latents' own mean effective logits, `unmoved` the fires whose Δ is zero and
    has no effective number.
    """

    effective_logits: Measure
    without_shift: Measure
    size: Measure
    by_latent: tuple[float, ...]
    unmoved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationSparsity:
    """Latents' effect on logits, and that of other directions added at the same tokens with the
    same norm, either way round.

    `relative_to` are geometric means over latents of their effective logits over a control's.
    """

    latents: LogitEffect
    controls: Mapping[str, LogitEffect]
    relative_to: Mapping[str, Measure]
    fires: int
    live: int


def effective_number(
    delta: Float[Tensor, "row vocab"],
) -> Float64[Tensor, " row"]:
    """(‖Δ‖₁/‖Δ‖₂)² of each row; 0 for a row of zeros."""
    exact = delta.double().abs()
    squares = exact.square().sum(1)
    found = exact.sum(1).square() / torch.where(squares > 0, squares, 1.0)
    return torch.where(squares > 0, found, 0.0)


def measure_ablation_sparsity(
    model: LanguageModel,
    sae: SparseAutoencoder,
    prompts: Sequence[TokenizedPrompt],
    *,
    controls: Mapping[str, Float[Tensor, "_ d_in"]] | None = None,
    latents: int = LATENTS,
    fires: int = FIRES,
    norm_limit: float | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> AblationSparsity:
    """Ablate single latents where they fire: x′ = x − f_j d_j at that token, the SAE's error kept.

    `latents` live ones are drawn, with up to `fires` of the unmasked tokens each on which they
    fire (norm at most `norm_limit`, after a prompt's first token). At the same tokens a row of
    each of `controls`, drawn at random with a random sign, is added at the same ‖δ‖. A fire costs
    one pass over its prefix and one column for each arm. Raises MismatchError where SAE and model
    do not fit.
    """
    check_fits(sae, model.identity)
    text = capture_text(model, sae, prompts, norm_limit=norm_limit)
    drawn = draw_fires(text, latents=latents, fires=fires, seed=seed)
    arms = {name: normalize(rows.float(), dim=1) for name, rows in (controls or {}).items()}
    rng = np.random.default_rng((seed, 0xAB1A7E))
    found: list[Float64[Tensor, "arm 3"]] = []
    for number, fire in enumerate(drawn):
        deltas = _deltas(sae, text.x[fire.prompt][fire.position], fire, arms, rng)
        found.append(_effects(model, sae, text, fire, deltas))
        if progress is not None:
            progress(number + 1, len(drawn))
    return _report(drawn, found, tuple(arms), text)


def _deltas(
    sae: SparseAutoencoder,
    x: Tensor,
    fire: Fire,
    arms: Mapping[str, Tensor],
    rng: np.random.Generator,
) -> Float[Tensor, "arm d_in"]:
    """What each arm adds to x: the latent's ablation, then the controls at its norm."""
    direction = sae.normalised_directions(torch.tensor([fire.latent]))[0]
    delta = -fire.value * sae.token_scales(x.unsqueeze(0))[0] * direction
    rows = [delta]
    for directions in arms.values():
        sign = 1.0 if rng.random() < 0.5 else -1.0
        rows.append(sign * delta.norm() * directions[int(rng.integers(len(directions)))])
    return torch.stack(rows)


def _effects(
    model: LanguageModel,
    sae: SparseAutoencoder,
    text: CapturedText,
    fire: Fire,
    deltas: Float[Tensor, "arm d_in"],
) -> Float64[Tensor, "arm 3"]:
    """Effective logits, the same without a common shift, and ‖Δ‖₂ of each arm."""
    end = fire.position + 1
    batch = model.pad([text.prompts[fire.prompt]])
    cut = TokenBatch(
        ids=batch.ids[:, :end],
        attention=batch.attention[:, :end],
        masks=batch.masks[:, :end],
        prompts=batch.prompts,
    )
    x = text.x[fire.prompt][:end].unsqueeze(0)
    prefix = model.share_prefix(cut, sae.hook_point, x, columns=fire.position)
    last = x[:, -1] + torch.cat([deltas.new_zeros(1, x.shape[2]), deltas]).to(x)
    rows = torch.zeros(len(last), dtype=torch.int64, device=x.device)
    logits = model.resume_after(prefix, rows, last.unsqueeze(1)).double().cpu()
    change = logits[1:] - logits[0]
    centred = change - change.median(dim=1, keepdim=True).values
    return torch.stack(
        [effective_number(change), effective_number(centred), change.norm(dim=1)], dim=1
    )


def _report(
    drawn: Sequence[Fire],
    found: Sequence[Tensor],
    names: tuple[str, ...],
    text: CapturedText,
) -> AblationSparsity:
    by_arm = [_by_latent(drawn, [f[arm] for f in found]) for arm in range(1 + len(names))]
    effects = [_effect(means) for means in by_arm]
    return AblationSparsity(
        latents=effects[0],
        controls=dict(zip(names, effects[1:], strict=True)),
        relative_to={
            name: _relative(by_arm[0], means) for name, means in zip(names, by_arm[1:], strict=True)
        },
        fires=len(drawn),
        live=text.live,
    )


@dataclass(frozen=True, slots=True)
class _Means:
    """Per latent the mean of each quantity over the fires that moved a logit."""

    rows: Float64[Tensor, "latent 3"]
    latents: tuple[int, ...]
    unmoved: int


def _by_latent(drawn: Sequence[Fire], values: Sequence[Tensor]) -> _Means:
    gathered: dict[int, list[Tensor]] = {}
    unmoved = 0
    for fire, value in zip(drawn, values, strict=True):
        if float(value[2]) == 0:
            unmoved += 1
        else:
            gathered.setdefault(fire.latent, []).append(value)
    rows = [torch.stack(gathered[latent]).mean(0) for latent in sorted(gathered)]
    stacked = torch.stack(rows) if rows else torch.zeros(0, 3, dtype=torch.float64)
    return _Means(stacked, tuple(sorted(gathered)), unmoved)


def _effect(means: _Means) -> LogitEffect:
    if not len(means.rows):
        reason = _UNMOVED if means.unmoved else _NO_FIRES
        return LogitEffect(
            effective_logits=reason,
            without_shift=reason,
            size=reason,
            by_latent=(),
            unmoved=means.unmoved,
        )
    effective, centred, size = (column.numpy() for column in means.rows.unbind(1))
    return LogitEffect(
        effective_logits=measure_mean(effective),
        without_shift=measure_mean(centred),
        size=measure_mean(size),
        by_latent=tuple(float(v) for v in effective),
        unmoved=means.unmoved,
    )


def _relative(own: _Means, control: _Means) -> Measure:
    """exp of the mean over latents of log(own / control), with its interval."""
    other = dict(zip(control.latents, control.rows[:, 0].tolist(), strict=True))
    logs = [
        math.log(float(row[0]) / other[latent])
        for latent, row in zip(own.latents, own.rows, strict=True)
        if latent in other
    ]
    mean = measure_mean(logs)
    if isinstance(mean, NotMeasured):
        return _UNMOVED if own.unmoved or control.unmoved else _NO_FIRES
    ends = mean.interval
    return Measured(
        value=math.exp(mean.value),
        n=mean.n,
        interval=None
        if ends is None
        else Interval(low=math.exp(ends.low), high=math.exp(ends.high)),
    )
