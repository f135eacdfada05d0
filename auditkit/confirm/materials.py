"""The prompts and lexica of a causal test, made ready once for all rules that share them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import torch

from auditkit.confirm.ablation import cut
from auditkit.confirm.damage import BenignText, prepare_benign, untouched_log_probs
from auditkit.confirm.outcomes import MIN_WORDS, LexiconTokens, resolve_lexicon
from auditkit.confirm.pool import ControlPool
from auditkit.confirm.prepared import (
    PreparedPrompts,
    dose_zero_change,
    prepare_prompts,
    without_prefixes,
)
from auditkit.confirm.run import ConfirmRun
from auditkit.confirm.settings import GATE, ConfirmInputs, ConfirmSettings
from auditkit.core.errors import InvalidInput
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.core.tokens import TokenizedPrompt
from auditkit.models import LanguageModel
from auditkit.saes import SparseAutoencoder


def resolve_lexica(
    model: LanguageModel, inputs: ConfirmInputs, pool: ControlPool
) -> tuple[tuple[LexiconTokens, ...], int, tuple[str, ...]]:
    """All lexica in the order of their names, the target's place among them, and notes."""
    given = {x.name: x for x in inputs.other_lexicons}
    given[inputs.lexicon.name] = inputs.lexicon
    resolved: list[LexiconTokens] = []
    notes: list[str] = []
    for name in sorted(given):
        key = [name, list(given[name].target), list(given[name].contrast), model.identity.digest]
        tokens = pool.once("lexicon", key, lambda name=name: resolve_lexicon(model, given[name]))
        if name == inputs.lexicon.name:
            if tokens.dropped:
                notes.append(
                    f"words of {name} that are no single token: {list_words(tokens.dropped)}"
                )
        elif not tokens.usable:
            notes.append(f"unrelated lexicon {name} left out: {too_few_words(tokens)}")
            continue
        resolved.append(tokens)
    column = [x.name for x in resolved].index(inputs.lexicon.name)
    return tuple(resolved), column, tuple(notes)


def too_few_words(tokens: LexiconTokens) -> str:
    return (
        f"lexicon {tokens.name}: {tokens.target.numel()} target and {tokens.contrast.numel()} "
        f"contrast words are single tokens of this model, {MIN_WORDS} of each are needed"
    )


def list_words(words: Sequence[str]) -> str:
    return ", ".join(words[:12]) + (f" and {len(words) - 12} more" if len(words) > 12 else "")


def neutral_prompts(
    model: LanguageModel,
    sae: SparseAutoencoder,
    inputs: ConfirmInputs,
    lexica: tuple[LexiconTokens, ...],
    settings: ConfirmSettings,
    pool: ControlPool,
) -> PreparedPrompts:
    chosen = _across_templates(inputs.neutral, settings.prompts)
    names = [[x.name, x.target.tolist(), x.contrast.tolist()] for x in lexica]

    def make() -> PreparedPrompts:
        rendered = [model.render(as_text(p)) for p in chosen]
        prepared = prepare_prompts(model, sae.hook_point, rendered, lexica)
        change, _ = dose_zero_change(model, prepared, torch.zeros(sae.config.d_in))
        # Another order of sums than in the whole pass: where that shows, every trial runs whole.
        return prepared if change <= GATE else without_prefixes(prepared)

    return pool.once("neutral", [chosen, names, model.identity.digest], make)


def benign_text(run: ConfirmRun) -> BenignText | None:
    chosen = run.inputs.benign[: run.settings.damage_texts]
    if not chosen:
        run.notes.append("damage was not measured: there is no benign text")
        return None

    def make() -> tuple[PreparedPrompts, tuple[torch.Tensor, ...]]:
        rendered: list[TokenizedPrompt] = []
        for prompt in chosen:
            tokens = run.model.render(as_text(prompt))
            rendered.append(cut(tokens, min(len(tokens), run.settings.damage_tokens)))
        prepared = prepare_prompts(run.model, run.hook_point, rendered, run.lexica)
        return prepared, untouched_log_probs(run.model, prepared)

    key = [chosen, run.settings.damage_tokens, run.neutral.digest, run.model.identity.digest]
    prepared, log_probs = run.pool.once("benign", key, make)
    return prepare_benign(run.sae, prepared, log_probs, run.target)


def as_text(prompt: Prompt) -> Prompt:
    """A single message as plain text, outside any chat: openings are to be gone on with."""
    if len(prompt.messages) != 1:
        raise InvalidInput(
            f"prompt {prompt.id!r} has {len(prompt.messages)} messages",
            help="openings and benign texts are single messages",
        )
    text = Message(role=Role.TEXT, content=prompt.messages[0].content)
    return replace(prompt, messages=(text,))


def _across_templates(prompts: Sequence[Prompt], n: int) -> tuple[Prompt, ...]:
    """The first prompt of every template, then the second of each, and so on, up to `n`."""
    by_template: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        named = [tag for tag in prompt.tags if tag.startswith("template:")]
        by_template[named[0] if named else ""].append(prompt)
    rounds = max(len(group) for group in by_template.values())
    order = [g[i] for i in range(rounds) for g in by_template.values() if i < len(g)]
    return tuple(order[:n])
