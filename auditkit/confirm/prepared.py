"""Prompts run once up to the hook point: where every trial starts from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from auditkit.confirm.outcomes import LexiconTokens, log_odds
from auditkit.core.fingerprint import fingerprint
from auditkit.core.hook_point import HookPoint
from auditkit.core.tokens import TokenizedPrompt, TokenMask
from auditkit.models import LanguageModel, Prefix, TokenBatch

HIGH_NORM = 10.0
CAPTURE_TOKENS = 2048
GATE_PROMPTS = 8
GATE_ROWS = 16

Editable = Callable[[TokenizedPrompt], Sequence[bool]]
DeltaOf = Callable[[int, Int[Tensor, " row"], Int[Tensor, " row"]], Float[Tensor, "row pos d_in"]]
"""(group, direction of each row, prompt of each row within the group) → Δx."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Prompts of one length with their activations `x` at the hook point.

    `edited` marks the tokens that interventions touch; `places` are the prompts' places in the
    whole set; `prefix` holds the columns that no trial touches, where there are any.
    """

    batch: TokenBatch
    x: Float[Tensor, "prompt pos d_in"]
    edited: Bool[Tensor, "prompt pos"]
    places: tuple[int, ...]
    prefix: Prefix | None = None

    def row(self, row: int) -> Group:
        """One prompt of the group, without a prefix."""
        return Group(
            batch=self.batch.select([row]),
            x=self.x[[row]],
            edited=self.edited[[row]],
            places=(self.places[row],),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPrompts:
    """Prompts grouped by length; `base` [prompt, lexicon] are the untouched outcomes.

    `x_norms` [prompt] is the mean norm of the activations that interventions touch.
    """

    ids: tuple[str, ...]
    digest: str
    hook_point: HookPoint
    groups: tuple[Group, ...]
    lexica: tuple[LexiconTokens, ...]
    base: NDArray[np.float64]
    x_norms: NDArray[np.float64]


def editable_tokens(prompt: TokenizedPrompt) -> list[bool]:
    """Tokens that are content: neither BOS nor template nor special."""
    return [mask == TokenMask.NONE for mask in prompt.masks]


def prepare_prompts(
    model: LanguageModel,
    hook_point: HookPoint,
    prompts: Sequence[TokenizedPrompt],
    lexica: Sequence[LexiconTokens],
    *,
    editable: Editable = editable_tokens,
) -> PreparedPrompts:
    """Capture activations once per prompt and take the untouched outcome after its last token.

    Prompts without a token to edit are left out. Tokens whose norm exceeds 10 times the median
    (attention sinks) are never edited.
    """
    kept = [p for p in prompts if any(editable(p))]
    by_length: dict[int, list[int]] = defaultdict(list)
    for place, prompt in enumerate(kept):
        by_length[len(prompt)].append(place)
    groups: list[Group] = []
    for length, places in sorted(by_length.items()):
        step = max(1, CAPTURE_TOKENS // length)
        for start in range(0, len(places), step):
            groups.append(_capture(model, hook_point, kept, places[start : start + step], editable))
    groups = [
        with_prefix(model, hook_point, g, first_column(g.edited)) for g in _without_sinks(groups)
    ]
    base = np.zeros((len(kept), len(lexica)))
    norms = np.zeros(len(kept))
    for group in groups:
        logits = trial_logits(model, hook_point, group, torch.arange(len(group.places)), group.x)
        base[list(group.places)] = log_odds(logits, lexica)
        size = group.x.norm(dim=2).double()
        touched = group.edited.sum(dim=1).clamp(min=1)
        norms[list(group.places)] = ((size * group.edited).sum(dim=1) / touched).numpy()
    return PreparedPrompts(
        ids=tuple(p.prompt_id for p in kept),
        digest=fingerprint([[list(p.ids), [bool(e) for e in editable(p)]] for p in kept]),
        hook_point=hook_point,
        groups=tuple(groups),
        lexica=tuple(lexica),
        base=base,
        x_norms=norms,
    )


def first_column(touched: Bool[Tensor, "prompt pos"]) -> int:
    """The first column that is touched in any prompt; the last one where none is."""
    columns = touched.any(dim=0).nonzero()
    return int(columns[0]) if len(columns) else touched.shape[1] - 1


def with_prefix(model: LanguageModel, hook_point: HookPoint, group: Group, start: int) -> Group:
    """The group with everything before column `start` run once for all trials.

    Two columns stay at least: for a single one torch takes another way through attention, and the
    logits differ in their last bits.
    """
    columns = min(start, group.x.shape[1] - 2)
    if columns < 1:
        return replace(group, prefix=None)
    prefix = model.share_prefix(group.batch, hook_point, group.x, columns=columns)
    return replace(group, prefix=prefix)


def trial_logits(
    model: LanguageModel,
    hook_point: HookPoint,
    group: Group,
    rows: Int[Tensor, " row"],
    x: Float[Tensor, "row pos d_in"],
) -> Float[Tensor, "row vocab"]:
    """Logits after the last token of the group's prompts `rows`, from activations x.

    The columns of the group's prefix are taken to be untouched, whatever x says there.
    """
    if group.prefix is not None:
        return model.resume_after(group.prefix, rows, x[:, group.prefix.columns :])
    last = torch.full((len(rows),), x.shape[1] - 1, dtype=torch.long)
    return model.resume(group.batch.select(rows.tolist()), hook_point, x, positions=last)


def dose_zero_change(
    model: LanguageModel, prepared: PreparedPrompts, unit: Float[Tensor, " d_in"]
) -> tuple[float, int]:
    """Largest difference between a logit of the whole untouched pass and one of a trial of dose 0.

    Prompts are repeated up to GATE_ROWS rows, for trials run in large batches, and torch sums in
    another order in small ones. Also the number of prompts looked at.
    """
    worst, n = 0.0, 0
    for group in prepared.groups:
        rows = torch.arange(max(len(group.places), GATE_ROWS)) % len(group.places)
        batch = group.batch.select(rows.tolist())
        whole = model.logits(batch, positions=batch.last_positions)
        trial = trial_logits(model, prepared.hook_point, group, rows, group.x[rows] + 0.0 * unit)
        worst = max(worst, float((whole - trial).abs().max()))
        n += len(group.places)
        if n >= GATE_PROMPTS:
            break
    return worst, n


def without_prefixes(prepared: PreparedPrompts) -> PreparedPrompts:
    """The same prompts, every trial to be run from its first column."""
    return replace(prepared, groups=tuple(replace(g, prefix=None) for g in prepared.groups))


def touched_alone(
    model: LanguageModel,
    prepared: PreparedPrompts,
    sizes: Sequence[Float[Tensor, "_prompt _pos"]],
) -> PreparedPrompts:
    """Every prompt a group of its own, run once up to where an intervention first changes it.

    `sizes` are ‖Δx‖ of the intervention, group by group.
    """
    groups = [
        with_prefix(model, prepared.hook_point, group.row(row), first_column(size[[row]] > 0))
        for group, size in zip(prepared.groups, sizes, strict=True)
        for row in range(len(group.places))
    ]
    return replace(prepared, groups=tuple(groups))


def measure_effects(
    model: LanguageModel,
    prepared: PreparedPrompts,
    delta_of: DeltaOf,
    n_directions: int,
    *,
    prompts: int | None = None,
    batch_tokens: int = 2048,
) -> NDArray[np.float64]:
    """Change of every outcome under every direction, [direction, prompt, lexicon].

    Only the layers above the hook point run, only from the first edited column on, the output head
    only at the last token; rows of many directions share a batch. `prompts` limits the run to the
    first so many prompts.
    """
    n_prompts = len(prepared.ids) if prompts is None else min(prompts, len(prepared.ids))
    effects = np.zeros((n_directions, n_prompts, len(prepared.lexica)))
    for g, group in enumerate(prepared.groups):
        inside = [r for r, place in enumerate(group.places) if place < n_prompts]
        if not inside:
            continue
        pairs = torch.cartesian_prod(torch.arange(n_directions), torch.tensor(inside))
        for chunk in pairs.split(max(1, batch_tokens // _columns(group))):
            which, rows = chunk[:, 0], chunk[:, 1]
            x = group.x[rows] + delta_of(g, which, rows)
            logits = trial_logits(model, prepared.hook_point, group, rows, x)
            places = np.asarray(group.places)[rows.numpy()]
            outcome = log_odds(logits, prepared.lexica) - prepared.base[places]
            effects[which.numpy(), places] = outcome
    return effects


def _columns(group: Group) -> int:
    return group.x.shape[1] - (group.prefix.columns if group.prefix else 0)


def constant_push(
    prepared: PreparedPrompts, directions: Float[Tensor, "n d_in"], norm: float
) -> DeltaOf:
    """`norm` along each unit direction at every edited token."""

    def delta(g: int, which: Tensor, rows: Tensor) -> Tensor:
        edited = prepared.groups[g].edited[rows].float() * norm
        return edited[:, :, None] * directions[which][:, None, :]

    return delta


def token_push(
    sizes: Sequence[Float[Tensor, "_prompt _pos"]], directions: Float[Tensor, "n d_in"]
) -> DeltaOf:
    """Each unit direction at the size that another intervention has at that token."""

    def delta(g: int, which: Tensor, rows: Tensor) -> Tensor:
        return sizes[g][rows][:, :, None] * directions[which][:, None, :]

    return delta


def own_push(deltas: Sequence[Float[Tensor, "_prompt _pos d_in"]]) -> DeltaOf:
    """Given changes, token by token."""
    return lambda g, _, rows: deltas[g][rows]


def _capture(
    model: LanguageModel,
    hook_point: HookPoint,
    prompts: Sequence[TokenizedPrompt],
    places: Sequence[int],
    editable: Editable,
) -> Group:
    chosen = [prompts[place] for place in places]
    batch = model.pad(chosen)
    x = model.capture(batch, [hook_point])[hook_point]
    edited = torch.tensor([list(editable(p)) for p in chosen], dtype=torch.bool)
    return Group(batch=batch, x=x, edited=edited, places=tuple(places))


def _without_sinks(groups: Sequence[Group]) -> list[Group]:
    if not groups:
        return []
    norms = torch.cat([g.x.norm(dim=2)[g.edited] for g in groups])
    limit = HIGH_NORM * float(norms.median())
    return [
        Group(
            batch=g.batch,
            x=g.x,
            edited=g.edited & (g.x.norm(dim=2) <= limit),
            places=g.places,
        )
        for g in groups
    ]
