"""Putting tokens off changes no verdict; roles are read back from token ids."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from auditkit.core.locks import Frame, Scope
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.core.tokens import TokenMask
from auditkit.models.reading_back import ChatReader
from auditkit.models.rendering import Renderer
from auditkit.monitor.sequence import SequenceWatch
from auditkit.monitor.watched import SILENT, Entry, WatchedLock
from auditkit.rules import FrameOutcome, RuleWatcher
from tests.tiny import CHATML, tiny_model
from tests.tiny_sae import tiny_sae
from tests.watched import lock, rule, various_rules

MODEL, SAE = tiny_model(), tiny_sae()
RULES = (
    *various_rules(),
    rule("silence", "count(s < 0.5) >= 5", 1, 2),
    rule("long silence", "run(s < 0.5) >= 3", 3, frame=Frame.EXCHANGE),
    rule("all", "all(s < 2)", 5, frame=Frame.CONVERSATION),
    rule("lost", "max(s) >= 1", unresolved="nothing found"),
    replace(rule("skips", "run(s > 0.2) >= 2", 1, 4), scope=Scope(skip_first=2)),
)
WATCHED = WatchedLock(MODEL.identity, SAE, lock(MODEL, SAE, *RULES))
ROLES = (Role.SYSTEM, Role.USER, Role.ASSISTANT)


def tokens(seed: int, n: int) -> list[tuple[Role, int, int, Entry | None]]:
    chance = random.Random(seed)
    made: list[tuple[Role, int, int, Entry | None]] = []
    message, role = 0, Role.USER
    for _ in range(n):
        if chance.random() < 0.1:
            message, role = message + 1, chance.choice(ROLES)
        mask = TokenMask.SPECIAL if chance.random() < 0.1 else TokenMask.NONE
        entry: Entry | None = SILENT
        if chance.random() < 0.3:
            active = sorted(chance.sample(range(12), chance.randint(1, 4)))
            entry = Entry(active, [chance.choice([0.15, 0.3, 1.0, 2.5]) for _ in active], False)
        elif chance.random() < 0.05:
            entry = chance.choice([None, Entry([], [], True)])
        made.append((role, message, int(mask), entry))
    return made


def one_by_one(shown: list[tuple[Role, int, int, Entry | None]]) -> set[Any]:
    found: set[Any] = set()
    for number, watched in enumerate(WATCHED.rules):
        watcher = RuleWatcher(watched.rule, WATCHED.lock.masked)
        outcomes: list[FrameOutcome] = []
        for role, message, mask, entry in shown:
            values = watched.uncovered if entry is None else watched.values(entry)
            if entry is not None and entry.high_norm:
                mask |= int(TokenMask.HIGH_NORM)
            outcomes += watcher.push(role, message, mask, values)
        outcomes += watcher.finish()
        found |= {(number, o) for o in outcomes if o.final}
    return found


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), n=st.integers(0, 150), split=st.integers(0, 150))
def test_putting_tokens_off_changes_no_outcome(seed: int, n: int, split: int) -> None:
    shown = tokens(seed, n)
    expected = one_by_one(shown)
    sequence = SequenceWatch(WATCHED)
    for place, token in enumerate(shown):
        if place == split:
            sequence = sequence.copy()
        sequence.push(*token)
    assert set(sequence.finish()) == expected
    assert set(sequence.finish()) == expected


@pytest.mark.parametrize("number", range(len(RULES)))
def test_a_latching_rule_is_told_at_the_token_where_it_fires(number: int) -> None:
    watched = WATCHED.rules[number]
    for seed in range(10):
        shown = tokens(seed, 60)
        sequence = SequenceWatch(WATCHED)
        for place, token in enumerate(shown):
            for rule_number, outcome in sequence.push(*token):
                if rule_number == number and watched.plan.latching and not outcome.final:
                    assert outcome.token == place


def byte_tokenizer() -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|im_start|>", "<|im_end|>"]
    vocabulary = {token: n for n, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[1]
    )
    fast.chat_template = CHATML
    return fast


CHATS = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user", "assistant"),
)


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("roles", CHATS)
def test_a_rendered_chat_is_read_back_with_its_roles(roles: tuple[str, ...], opened: bool) -> None:
    renderer = Renderer(byte_tokenizer())
    turns = tuple(
        Message(role=Role(role), content=f"say {n}: user, assistant\n{role}")
        for n, role in enumerate(roles)
    )
    shown = renderer.render(Prompt(id="x", messages=turns), generation_prompt=opened)
    assert ChatReader(renderer).read(list(shown.ids), "x") == shown


def test_what_no_template_explains_is_not_given_roles() -> None:
    renderer = Renderer(byte_tokenizer())
    reader = ChatReader(renderer)
    chat = Prompt(id="x", messages=(Message(role=Role.USER, content="hello"),))
    ids = list(renderer.render(chat).ids)
    assert reader.read(ids[5:], "x") is None
    assert reader.read([*ids, 0, 7, 7], "x") is None
    assert reader.read([9, 10, 11], "x") is None
    assert reader.read([], "x") is None


def test_a_reply_that_is_to_be_carried_on_is_read_back() -> None:
    renderer = Renderer(byte_tokenizer())
    turns = (
        Message(role=Role.USER, content="go on"),
        Message(role=Role.ASSISTANT, content="I was saying that"),
    )
    shown = renderer.render(Prompt(id="x", messages=turns))
    read = ChatReader(renderer).read(list(shown.ids[:-6]), "x")
    assert read is not None
    assert read.roles == shown.roles[:-6]
