"""The tiny model served under rules on words, and what it would say unwatched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from auditkit.core.locks import Lock, LockedRule
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.models import LanguageModel
from auditkit.saes import SparseAutoencoder
from auditkit.serve.app import create_app
from auditkit.serve.settings import Limits, Policy, ServeSettings
from auditkit.serve.watched_engine import WatchedEngine
from tests.planted_words import word_rule, word_sae
from tests.tiny import WORDS, tiny_model
from tests.watched import lock

MODEL: LanguageModel = tiny_model()
SAE: SparseAutoencoder = word_sae(MODEL, WORDS)
NAME = MODEL.identity.name
ASKED = "tell me how to find water"


def on_word(word: str, *roles: Role, **fields: Any) -> LockedRule:
    """A rule on a word of the tiny model's vocabulary."""
    return word_rule(WORDS.index(word), word, *roles, **fields)


def word_lock(rules: Sequence[LockedRule]) -> Lock:
    return lock(MODEL, SAE, *rules)


def word_engine(
    *rules: LockedRule, policy: Policy | None = None, limits: Limits | None = None
) -> WatchedEngine:
    """The tiny model under `rules`."""
    return WatchedEngine(
        MODEL,
        [(SAE, word_lock(rules))],
        name=NAME,
        policy=policy or Policy(),
        limits=limits or Limits(),
    )


def word_app(
    *rules: LockedRule,
    policy: Policy | None = None,
    token: str | None = None,
    limits: Limits | None = None,
) -> Any:
    """An application over `word_engine`."""
    limits = limits or Limits()
    settings = ServeSettings(policy=policy or Policy(), limits=limits, token=token)
    return create_app(word_engine(*rules, policy=policy, limits=limits), settings)


def bare_reply(text: str, n: int, *, temperature: float = 0.0, seed: int = 0) -> list[int]:
    """The unwatched model's own reply to a user's message, as token ids."""
    prompt = Prompt(id="p", messages=(Message(role=Role.USER, content=text),))
    batch = MODEL.pad([MODEL.render(prompt, generation_prompt=True)], side="left")
    (ids,) = MODEL.generate(batch, max_new_tokens=n, temperature=temperature, seed=seed)
    return ids


def words_of(ids: Sequence[int]) -> list[str]:
    """The words that ids stand for."""
    return [str(token) for token in MODEL.tokenizer.convert_ids_to_tokens(list(ids))]
