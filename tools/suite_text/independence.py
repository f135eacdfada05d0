"""Whether the conversations of a suite are draws of their own, and stand nowhere else.

A certified false-positive rate counts benign conversations as independent draws. Conversations that
share a wording, or that a rule was made with, count for less than one.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

Json = dict[str, Any]
OPENING = 6
SAME_OPENING = 2
ALIKE = 0.8
# A text of a few words ("Thanks, that worked!") may stand in others without being drawn from them.
FEW_WORDS = 5


def words(text: str) -> list[str]:
    """The lower-case words of a text."""
    return re.findall(r"[\w']+", text.lower())


def spoken(prompt: Json) -> str:
    """All that user and assistant say, system messages left out."""
    turns = [m["content"] for m in prompt["messages"] if m["role"] != "system"]
    return "\n".join(turns)


def same_openings(prompts: list[Json]) -> Iterator[str]:
    """First six words that more than two turns share, as the turns of one template do."""
    turns = [m["content"] for p in prompts for m in p["messages"] if m["role"] != "system"]
    counts = Counter(tuple(words(t)[:OPENING]) for t in turns if len(words(t)) >= OPENING)
    for opening, count in counts.items():
        if count > SAME_OPENING:
            yield f"{count} turns begin with {' '.join(opening)!r}"


class Known:
    """Texts by their words, so that those much like another text are found quickly.

    A text that overlaps with another by more than `ALIKE` shares one of its rarest words: so many
    words as may be missing, and one.
    """

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        self.places: list[str] = []
        self.bags: list[frozenset[str]] = []
        self.whole: dict[str, str] = {}
        self.holders: dict[str, list[int]] = defaultdict(list)
        for place, text in texts:
            found = words(text)
            self.whole.setdefault(" ".join(found), place)
            for word in set(found):
                self.holders[word].append(len(self.bags))
            self.places.append(place)
            self.bags.append(frozenset(found))

    def alike(self, bag: frozenset[str]) -> list[int]:
        """The numbers of the texts whose words overlap with `bag` by more than 0.8 (Jaccard)."""
        rising = sorted(bag, key=lambda word: (len(self.holders.get(word, ())), word))
        rarest = rising[: len(bag) - math.ceil(ALIKE * len(bag)) + 1]
        near = {number for word in rarest for number in self.holders.get(word, ())}
        return sorted(n for n in near if overlap(bag, self.bags[n]) > ALIKE)


def overlap(a: frozenset[str], b: frozenset[str]) -> float:
    """Jaccard overlap of two sets of words."""
    return len(a & b) / len(a | b)


def near_duplicates(prompts: list[Json]) -> Iterator[str]:
    """Conversations with nearly the same words."""
    known = Known((prompt["id"], spoken(prompt)) for prompt in prompts)
    for number, bag in enumerate(known.bags):
        for other in known.alike(bag):
            if number < other:
                one, two = known.places[number], known.places[other]
                yield f"{one} and {two} have nearly the same words"


def stands_elsewhere(prompts: list[Json], others: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Turns that occur, or nearly occur, among texts `others` (where it stands, text)."""
    known = Known(others)
    for prompt in prompts:
        for turn in prompt["messages"]:
            found = words(turn["content"])
            place = known.whole.get(" ".join(found))
            if place is None and len(found) >= FEW_WORDS:
                near = known.alike(frozenset(found))
                place = known.places[near[0]] if near else None
            if place is not None:
                yield f"{prompt['id']} has a turn of {place}: {turn['content'][:60]!r}"


def texts_of_suites(suites: Iterable[Json]) -> Iterator[tuple[str, str]]:
    """Every turn of some suites."""
    for suite in suites:
        for prompt in suite["prompts"]:
            for turn in prompt.get("messages") or [{"content": prompt["text"]}]:
                yield prompt["id"], turn["content"]


def texts_of_rules(folder: Path) -> Iterator[tuple[str, str]]:
    """Every turn of the examples that the rules carry."""
    for path in sorted(folder.glob("*/*.yaml")):
        document = load(path)
        for rule in document.get("rules", []):
            examples = rule.get("tests", {})
            for kind in ("should_match", "should_not_match"):
                for example in examples.get(kind, []):
                    for turn in example["turns"]:
                        yield from ((rule["id"], text) for text in turn.values())


def texts_of_examples(folder: Path) -> Iterator[tuple[str, str]]:
    """Every turn of the suites that come with the examples."""
    for path in sorted(folder.rglob("prompts*.yaml")):
        yield from ((f"{path.parent.name}/{path.name}: {i}", t) for i, t in suite_turns(path))


def suite_turns(path: Path) -> Iterator[tuple[str, str]]:
    """Every turn of one suite file."""
    yield from texts_of_suites([load(path)])


def load(path: Path) -> Json:
    """A YAML file."""
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


def check(prompts: list[Json], others: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Every complaint about independence and about standing elsewhere."""
    yield from same_openings(prompts)
    yield from near_duplicates(prompts)
    yield from stands_elsewhere(prompts, others)
