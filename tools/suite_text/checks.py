"""What must hold of the shipped suites, beyond being reproducible."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import Any

Suite = dict[str, Any]
SHINGLE = 3
NEAR_DUPLICATE = 0.6
LENGTH_CUE = (0.35, 0.65)
SPLIT_FLOORS = {"neutral-openings": (0, 96), "damage-text": (0, 64), "benign-chat": (450, 450)}
DEFAULT_FLOORS = (80, 80)
PROMPT_KEYS = {"id", "messages", "label", "tags", "source", "licence", "split"}
SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def check(suites: list[Suite], pairs: dict[str, str]) -> list[str]:
    """Every complaint about the suites, in words; empty when all is well."""
    complaints: list[str] = []
    for suite in suites:
        complaints += [f"{suite['name']}: {text}" for text in check_suite(suite)]
    complaints += check_disjoint(suites)
    by_name = {suite["name"]: suite for suite in suites}
    for one, other in sorted(pairs.items()):
        if one < other:
            complaints += check_pair(by_name[one], by_name[other])
    return complaints


def check_suite(suite: Suite) -> Iterator[str]:
    """Complaints about one suite by itself."""
    prompts = suite["prompts"]
    ids = [prompt["id"] for prompt in prompts]
    yield from (f"id {name} occurs {n} times" for name, n in Counter(ids).items() if n > 1)
    yield from (f"id {name} is not a slug" for name in ids if not SLUG.fullmatch(name))
    yield from (f"{p['id']}: unknown keys" for p in prompts if set(p) - PROMPT_KEYS)
    yield from (f"{p['id']}: empty turn" for p in prompts if not all(turns(p)))
    floors = SPLIT_FLOORS.get(suite["name"], DEFAULT_FLOORS)
    for split, floor in zip(("select", "test"), floors, strict=True):
        count = sum(prompt["split"] == split for prompt in prompts)
        if count < floor:
            yield f"{count} prompts in {split}, {floor} wanted"
    yield from shared_templates(prompts)
    yield from near_duplicates(prompts)


def shared_templates(prompts: list[dict[str, Any]]) -> Iterator[str]:
    """Templates that occur in both splits."""
    found: dict[str, set[str]] = {}
    for prompt in prompts:
        for tag in prompt["tags"]:
            if tag.startswith(("template:", "wheel:")):
                found.setdefault(tag, set()).add(prompt["split"])
    yield from (f"{tag} is in both splits" for tag, splits in found.items() if len(splits) > 1)


def turns(prompt: dict[str, Any]) -> list[str]:
    """The texts of a prompt's messages."""
    return [message["content"].strip() for message in prompt["messages"]]


def text(prompt: dict[str, Any]) -> str:
    """All turns of a prompt as one lower-case text."""
    return "\n".join(turns(prompt)).lower()


def shingles(prompt: dict[str, Any]) -> frozenset[tuple[str, ...]]:
    """The runs of three words in a prompt."""
    found = re.findall(r"\w+", text(prompt))
    return frozenset(zip(*(found[i:] for i in range(SHINGLE)), strict=False))


def near_duplicates(prompts: list[dict[str, Any]]) -> Iterator[str]:
    """Pairs whose runs of three words overlap too much (Jaccard)."""
    sets = [(prompt["id"], shingles(prompt)) for prompt in prompts]
    for (one, a), (other, b) in combinations(sets, 2):
        if a and b and len(a & b) >= NEAR_DUPLICATE * len(a | b):
            yield f"{one} and {other} are nearly the same"


def check_disjoint(suites: list[Suite]) -> Iterator[str]:
    """No turn's text twice, within a suite or across suites (case and punctuation aside)."""
    seen: dict[str, str] = {}
    for suite in suites:
        for prompt in suite["prompts"]:
            for turn in turns(prompt):
                key = re.sub(r"\W+", " ", turn.lower()).strip()
                if key in seen:
                    yield f"{prompt['id']} repeats a turn of {seen[key]}: {turn[:60]!r}"
                seen[key] = prompt["id"]


def watched(prompt: dict[str, Any]) -> str:
    """The turns that carry the concept: the assistant's, or the user's where there is none."""
    roles = {message["role"] for message in prompt["messages"]}
    role = "assistant" if "assistant" in roles else "user"
    return "\n".join(m["content"] for m in prompt["messages"] if m["role"] == role)


def length(prompt: dict[str, Any]) -> int:
    """About how many tokens the watched turns have: words, single digits, punctuation marks."""
    return len(re.findall(r"[^\W\d_]+|\d|[^\w\s]|_", watched(prompt)))


def length_auroc(positive: list[int], negative: list[int]) -> float:
    """P(a positive is longer) + half P(equal): what a rule on length alone would score."""
    wins = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    return wins / (len(positive) * len(negative))


def matched(prompt: dict[str, Any], split: str) -> bool:
    """Whether a prompt is one of a split's that are matched with the other side."""
    return prompt["split"] == split and "ordinary" not in prompt["tags"]


def check_pair(one: Suite, other: Suite) -> Iterator[str]:
    """The two sides of a rule must not be told apart by length.

    Prompts tagged `ordinary` stand aside: they widen the negatives and match no positive.
    """
    for split in ("select", "test"):
        sides = [[length(p) for p in s["prompts"] if matched(p, split)] for s in (one, other)]
        score = length_auroc(*sides)
        if not LENGTH_CUE[0] <= score <= LENGTH_CUE[1]:
            yield f"{one['name']} / {other['name']}: length alone scores {score:.2f} on {split}"
