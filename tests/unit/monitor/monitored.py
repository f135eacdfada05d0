"""Prompts, offline verdicts to compare with, and ways to generate, for the monitor's tests."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch

from auditkit.core.locks import Lock
from auditkit.core.prompts import Message, Prompt, Role, Suite
from auditkit.core.recordings import RecordingPlan
from auditkit.core.tokens import TokenizedPrompt
from auditkit.findings import evaluate_rule
from auditkit.models import LanguageModel
from auditkit.monitor import RowResult
from auditkit.recording import describe_recording
from auditkit.recording.conversations import Conversation
from auditkit.recording.encoding import encode_batch
from auditkit.recording.rows import to_rows
from auditkit.saes import SparseAutoencoder
from auditkit.store import open_store
from tests.tiny import WORDS
from tests.watched import PROVENANCE

Verdicts = dict[tuple[int, str, int], tuple[str, str | None, int | None]]


def prompts(n: int = 24, seed: int = 0) -> tuple[Prompt, ...]:
    """Chats of one to three turns of random words."""
    generator = random.Random(seed)

    def words() -> str:
        return " ".join(generator.choices(WORDS, k=generator.randint(1, 12)))

    made: list[Prompt] = []
    for i in range(n):
        turns = [Message(role=Role.USER, content=words())]
        if i % 4 == 0:
            turns += [
                Message(role=Role.ASSISTANT, content=words()),
                Message(role=Role.USER, content=words()),
            ]
        made.append(Prompt(id=f"p{i:03d}", messages=tuple(turns)))
    return tuple(made)


def rendered(model: LanguageModel, asked: Sequence[Prompt]) -> list[TokenizedPrompt]:
    return [model.render(p, generation_prompt=True) for p in asked]


def inputs(model: LanguageModel, asked: Sequence[TokenizedPrompt]) -> dict[str, Any]:
    """A left-padded batch as the user of transformers would make it."""
    batch = model.pad(asked, side="left")
    return {"input_ids": batch.ids, "attention_mask": batch.attention.long()}


def live(results: Sequence[RowResult]) -> Verdicts:
    """Verdicts of a monitored batch by row, rule and frame."""
    return {
        (result.row, a.rule_id, a.frame): (
            a.verdict.truth.value,
            None if a.verdict.reason is None else a.verdict.reason.value,
            a.token,
        )
        for result in results
        for a in result.verdicts
    }


def offline(
    model: LanguageModel,
    sae: SparseAutoencoder,
    lock: Lock,
    whole: Sequence[TokenizedPrompt],
    *,
    reference_norm: float | None = None,
) -> Verdicts:
    """Record whole conversations from one plain pass each, and evaluate the lock on the store."""
    plan = RecordingPlan(reference_norm=reference_norm, high_norm_factor=1.0)
    shown = tuple(
        Prompt(id=f"row{i:04d}", messages=(Message(role=Role.TEXT, content=str(i)),))
        for i in range(len(whole))
    )
    suite = Suite(name="s", title="s", source="test", licence="none", prompts=shown)
    made: Verdicts = {}
    with open_store(":memory:") as store:
        recording = describe_recording(model, sae, suite, plan, PROVENANCE)
        store.begin_recording(recording)
        conversations = [
            Conversation(ordinal=i, prompt=shown[i], tokens=_named(tokens, shown[i].id))
            for i, tokens in enumerate(whole)
        ]
        store.commit_batch(to_rows(encode_batch(model, sae, conversations), recording))
        store.finish_recording(recording.id)
        places = {t["token"]: t["position"] for t in store.frame_tokens(recording.id).to_pylist()}
        for rule in lock.rules:
            for m in evaluate_rule(rule, lock, store, recording).matches:
                made[int(m.prompt_id[3:]), rule.id, m.frame] = (
                    m.truth.value,
                    None if m.reason is None else m.reason.value,
                    None if m.token is None else places[m.token],
                )
    return made


def _named(tokens: TokenizedPrompt, name: str) -> TokenizedPrompt:
    from dataclasses import replace

    return replace(tokens, prompt_id=name)


def generated(
    model: LanguageModel, asked: Sequence[TokenizedPrompt], results: Sequence[RowResult]
) -> list[TokenizedPrompt]:
    """Each returned row as a whole conversation."""
    share = len(results) // len(asked)
    return [model.extend(asked[r.row // share], list(r.ids)) for r in results]


def n_hooks(model: LanguageModel) -> int:
    """Hooks and wrapped methods on a network."""
    own = ("forward", "generate", "prepare_inputs_for_generation")
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + sum(name in m.__dict__ for name in own)
        for m in model.network.modules()
    )


torch.set_num_threads(1)
