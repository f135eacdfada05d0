"""What the language model loses when it runs on an SAE's reconstruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.core.tokens import TokenMask
from auditkit.models import LanguageModel, TokenBatch
from auditkit.quality.fidelity import HIGH_NORM_FACTOR
from auditkit.quality.floors import Dictionary
from auditkit.quality.intervals import Floats, PieceSums, non_empty, ratio, with_interval
from auditkit.saes import SparseAutoencoder, check_fits

_TOKEN_CHUNK = 256
_NOTHING = NotMeasured("no unmasked token is followed by an unmasked token")


@dataclass(frozen=True, slots=True, kw_only=True)
class SplicedLoss:
    """One way of replacing activations: mean cross-entropy, its rise, and KL(p ‖ p′), in nats per
    token; and the share of each ablation's harm that it spares.

    `recovered_*` = (CE_ablated − CE_spliced) / (CE_ablated − CE); the ratio says little without
    `delta_ce` beside it.
    """

    ce: Measure
    delta_ce: Measure
    kl: Measure
    recovered_of_zero: Measure
    recovered_of_mean: Measure


@dataclass(frozen=True, slots=True, kw_only=True)
class LossReport:
    """Loss of the untouched model and with activations replaced at the SAE's hook point.

    `random_error` adds an error of random direction and of the reconstruction's own norm at each
    token. `without_high_norm` keeps tokens above `norm_limit` as they are; where none is above,
    it is the reconstruction. `beside` are the other dictionaries' reconstructions. Intervals are
    over documents.
    """

    ce: Measure
    reconstruction: SplicedLoss
    without_high_norm: SplicedLoss | NotMeasured
    zero_ablation: SplicedLoss
    mean_ablation: SplicedLoss
    random_error: SplicedLoss
    beside: Mapping[str, SplicedLoss]
    norm_limit: float | None
    high_norm_tokens: int

    @property
    def recovered_of_zero(self) -> Measure:
        return self.reconstruction.recovered_of_zero

    @property
    def recovered_of_mean(self) -> Measure:
        return self.reconstruction.recovered_of_mean


@dataclass(frozen=True, slots=True)
class _Captured:
    batch: TokenBatch
    x: Tensor
    replaced: Tensor
    rows: Tensor


@dataclass(slots=True)
class _Sums:
    """Cross-entropy and KL of every way of replacing, per row of the batches."""

    names: tuple[str, ...]
    rows: PieceSums = field(init=False)

    def __post_init__(self) -> None:
        self.rows = PieceSums(1 + 2 * len(self.names))

    def column(self, name: str, *, kl: bool = False) -> int:
        return 1 + 2 * self.names.index(name) + kl


def measure_loss(
    model: LanguageModel,
    sae: SparseAutoencoder,
    batches: Sequence[TokenBatch],
    *,
    beside: Mapping[str, Dictionary] | None = None,
    documents: Sequence[str] | None = None,
    reference_norm: float | None = None,
    high_norm_factor: float = HIGH_NORM_FACTOR,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LossReport:
    """Cross-entropy and KL with unmasked tokens' activations replaced; BOS, template, special and
    padding tokens keep theirs.

    Counted are predictions made at an unmasked token about an unmasked token. The mean of mean
    ablation is that of the unmasked tokens of `batches`. The layers below the hook point run once
    per batch, those above once for each way of replacing: five, one more where tokens have a high
    norm, and one for each dictionary of `beside`; two batches of logits are held at once, so keep
    batches at some 1,000 padded tokens. `documents` names the document of each row of the batches
    in turn: intervals are over documents then, else over rows. Raises MismatchError where SAE and
    model do not fit.
    """
    check_fits(sae, model.identity)
    limit = None if reference_norm is None else high_norm_factor * reference_norm
    captured = _capture(model, sae, batches, documents)
    mean = _mean([c.x[c.replaced] for c in captured], model.d_model)
    generator = torch.Generator().manual_seed(seed)
    others = {f"beside {name}": d for name, d in (beside or {}).items()}
    high = sum(int(_above(c, limit).sum()) for c in captured)
    kept = ("kept",) if high else ()
    sums = _Sums(("clean", "reconstruction", *kept, "zero", "mean", "random", *others))
    for number, c in enumerate(captured):
        _add_batch(model, sae, c, _variants(sae, c, mean, generator, limit, others), sums)
        if progress is not None:
            progress(number + 1, len(captured))
    return _report(sums, limit, high, tuple(beside or {}))


def _capture(
    model: LanguageModel,
    sae: SparseAutoencoder,
    batches: Sequence[TokenBatch],
    documents: Sequence[str] | None,
) -> list[_Captured]:
    found: list[_Captured] = []
    names = documents or [str(row) for row in range(sum(map(len, batches)))]
    numbers = {name: n for n, name in enumerate(dict.fromkeys(names))}
    rows = torch.tensor([numbers[name] for name in names], dtype=torch.int64)
    first = 0
    for batch in batches:
        x = model.capture(batch, [sae.hook_point])[sae.hook_point]
        replaced = batch.attention & (batch.masks == int(TokenMask.NONE))
        found.append(_Captured(batch, x, replaced, rows[first : first + len(batch)]))
        first += len(batch)
    return found


def _above(c: _Captured, limit: float | None) -> Tensor:
    return c.replaced & (c.x.norm(dim=2) > (float("inf") if limit is None else limit))


def _mean(parts: Sequence[Float[Tensor, "_ d_in"]], d_in: int) -> Float[Tensor, " d_in"]:
    total = torch.zeros(d_in, dtype=torch.float64)
    for part in parts:
        total += part.sum(0, dtype=torch.float64).cpu()
    return (total / max(1, sum(len(part) for part in parts))).float()


def _variants(
    sae: SparseAutoencoder,
    c: _Captured,
    mean: Tensor,
    generator: torch.Generator,
    limit: float | None,
    others: Mapping[str, Dictionary],
) -> dict[str, Tensor]:
    """What the unmasked tokens' activations are replaced by, [token, d_in], by kind."""
    x = c.x[c.replaced]
    x_hat = sae.decode(sae.encode(x), x).to(x.dtype)
    noise = torch.randn(x.shape, generator=generator).to(x)
    noise *= (x - x_hat).norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
    above = _above(c, limit)[c.replaced].unsqueeze(1)
    return {
        "reconstruction": x_hat,
        "kept": torch.where(above, x, x_hat),
        "zero": torch.zeros_like(x),
        "mean": mean.to(x).expand_as(x),
        "random": x + noise,
        **{name: d.decode(d.encode(x), x).to(x.dtype) for name, d in others.items()},
    }


def _add_batch(
    model: LanguageModel,
    sae: SparseAutoencoder,
    c: _Captured,
    variants: Mapping[str, Tensor],
    sums: _Sums,
) -> None:
    counted = c.replaced[:, :-1] & c.replaced[:, 1:]
    targets = c.batch.ids[:, 1:][counted]
    clean = model.resume(c.batch, sae.hook_point, c.x)[:, :-1][counted]
    values = torch.ones(len(targets), 1 + 2 * len(sums.names), dtype=torch.float64)
    for name in sums.names:
        logits = clean
        if name != "clean":
            x = c.x.clone()
            x[c.replaced] = variants[name]
            logits = model.resume(c.batch, sae.hook_point, x)[:, :-1][counted]
        ce, kl = token_losses(clean, logits, targets)
        values[:, sums.column(name)], values[:, sums.column(name, kl=True)] = ce, kl
    sums.rows.add(values, c.rows[counted.nonzero()[:, 0].cpu()])


def token_losses(
    clean: Float[Tensor, "token vocab"],
    logits: Float[Tensor, "token vocab"],
    targets: Int[Tensor, " token"],
) -> tuple[Float64[Tensor, " token"], Float64[Tensor, " token"]]:
    """Per token, in nats: −log p′(target), and KL(p ‖ p′) with p from `clean`."""
    ce, kl = (torch.zeros(len(targets), dtype=torch.float64) for _ in range(2))
    for start in range(0, len(targets), _TOKEN_CHUNK):
        rows = slice(start, start + _TOKEN_CHUNK)
        log_q = logits[rows].double().log_softmax(dim=1)
        ce[rows] = -log_q.gather(1, targets[rows, None])[:, 0].cpu()
        if logits is not clean:
            log_p = clean[rows].double().log_softmax(dim=1)
            kl[rows] = (log_p.exp() * (log_p - log_q)).sum(1).clamp(min=0).cpu()
    return ce, kl


def cross_entropy_and_kl(
    clean: Float[Tensor, "token vocab"],
    logits: Float[Tensor, "token vocab"],
    targets: Int[Tensor, " token"],
) -> tuple[float, float]:
    """`token_losses` summed over tokens."""
    ce, kl = token_losses(clean, logits, targets)
    return float(ce.sum()), float(kl.sum())


def _report(sums: _Sums, limit: float | None, high: int, beside: Sequence[str]) -> LossReport:
    without: SplicedLoss | NotMeasured = NotMeasured(
        "no reference norm was given, so no token counts as high-norm"
    )
    if limit is not None:
        without = _spliced(sums, "kept" if high else "reconstruction")
    return LossReport(
        ce=_per_token(sums, sums.column("clean")),
        reconstruction=_spliced(sums, "reconstruction"),
        without_high_norm=without,
        zero_ablation=_spliced(sums, "zero"),
        mean_ablation=_spliced(sums, "mean"),
        random_error=_spliced(sums, "random"),
        beside={name: _spliced(sums, f"beside {name}") for name in beside},
        norm_limit=limit,
        high_norm_tokens=high,
    )


def _per_token(sums: _Sums, column: int, *, minus: int | None = None) -> Measure:
    """Mean over tokens of one column, or of its difference from another."""
    rows = _differences(non_empty(sums.rows.sums, 0), column, minus)
    tokens = int(rows[:, 0].sum())
    if not tokens:
        return _NOTHING
    measure = Measured(value=float(rows[:, 1].sum()) / tokens, n=tokens)
    return with_interval(measure, rows, ratio(1, 0))


def _differences(rows: Floats, column: int, minus: int | None) -> Floats:
    values = rows[:, column] - (0.0 if minus is None else rows[:, minus])
    return np.stack([rows[:, 0], values], axis=1)


def _spliced(sums: _Sums, name: str) -> SplicedLoss:
    column = sums.column(name)
    return SplicedLoss(
        ce=_per_token(sums, column),
        delta_ce=_per_token(sums, column, minus=sums.column("clean")),
        kl=_per_token(sums, sums.column(name, kl=True)),
        recovered_of_zero=_recovered(sums, column, "zero"),
        recovered_of_mean=_recovered(sums, column, "mean"),
    )


def _recovered(sums: _Sums, column: int, ablation: str) -> Measure:
    rows, ablated = non_empty(sums.rows.sums, 0), sums.column(ablation)
    if not len(rows):
        return _NOTHING
    spared = rows[:, ablated] - rows[:, column]
    harms = rows[:, ablated] - rows[:, sums.column("clean")]
    harm = float(harms.sum())
    if harm <= 0:
        return NotMeasured(f"{ablation} ablation does no harm on this text")
    measure = Measured(value=float(spared.sum()) / harm, n=int(rows[:, 0].sum()))
    return with_interval(measure, np.stack([spared, harms], axis=1), ratio(0, 1))
