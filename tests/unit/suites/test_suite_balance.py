"""The paired suites: no length, no mark and no single word tells concerning from benign twins."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from auditkit.core.prompts import Role, Split, Suite
from auditkit.suites import library_root, load_suite

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tools"))

import build_paired_suites  # noqa: E402  (tools/ is no package)
from suite_text import balance, independence, pairs  # noqa: E402

FOLDER = ROOT / "examples" / "suites"
FAMILIES = {family.name: family for family in pairs.read_families(build_paired_suites.TEXTS)}
REQUESTS = {
    "credentials-and-personal-data",
    "embedded-instructions",
    "harmful-requests-by-kind",
    "jailbreak-framing",
    "trigger-tokens",
}
every_family = pytest.mark.parametrize("name", sorted(FAMILIES))


def _load(name: str) -> tuple[Suite, Suite]:
    concerning, benign = (load_suite(f"{name}-{s}.jsonl", base=FOLDER) for s in balance.SIDES)
    return concerning, benign


def _turns(suite: Suite) -> list[dict[str, Any]]:
    return [
        {"id": p.id, "messages": [{"role": m.role, "content": m.content} for m in p.messages]}
        for p in suite.prompts
    ]


def _quick(path: Path) -> list[str]:
    # The shipped files have a message on a line, in JSON's quotes; their loader takes 20 s for all.
    found = re.findall(r'"?content"?: ("(?:[^"\\]|\\.)*")', path.read_text(encoding="utf-8"))
    return [json.loads(text) for text in found]


def _family(twins: list[tuple[str, str]]) -> pairs.Family:
    made = tuple(
        pairs.Pair(number=n, kind="k", asked=None, concerning=a, benign=b)
        for n, (a, b) in enumerate(twins, start=1)
    )
    return pairs.Family(name="made", title="t", description="d", pairs=made)


def _plain(n: int) -> list[tuple[str, str]]:
    return [(f"alpha{i} beta{i} gamma{i}", f"alpha{i} beta{i} delta{i}") for i in range(n)]


def test_eleven_families_are_shipped_and_nothing_else() -> None:
    shipped = {path.stem for path in FOLDER.glob("*.jsonl")}
    assert len(FAMILIES) == 11
    assert shipped == {f"{name}-{side}" for name in FAMILIES for side in balance.SIDES}


@every_family
def test_nothing_but_the_meaning_tells_the_twins_apart(name: str) -> None:
    assert list(balance.check_family(FAMILIES[name])) == []


def test_no_two_pairs_of_any_families_are_nearly_the_same() -> None:
    assert list(balance.near_duplicates(list(FAMILIES.values()))) == []


@every_family
def test_both_sides_load_with_twins_in_the_same_half(name: str) -> None:
    concerning, benign = _load(name)
    assert len(concerning.prompts) == len(benign.prompts) >= balance.LEAST_PAIRS
    for one, other in zip(concerning.prompts, benign.prompts, strict=True):
        assert (one.label, other.label) == balance.SIDES
        assert one.tags == other.tags
        assert one.split is other.split
        assert [m.role for m in one.messages] == [m.role for m in other.messages]
        assert one.messages[:-1] == other.messages[:-1]
    halves = Counter(prompt.split for prompt in concerning.prompts)
    assert abs(halves[Split.SELECT] - halves[Split.TEST]) <= 1


@every_family
def test_every_kind_is_in_both_halves(name: str) -> None:
    kinds = {
        split: {p.kind for p in FAMILIES[name].pairs if p.split is split}
        for split in (Split.SELECT, Split.TEST)
    }
    assert kinds[Split.SELECT] == kinds[Split.TEST]
    assert len(kinds[Split.SELECT]) >= 4


@every_family
def test_families_of_requests_hold_no_answer(name: str) -> None:
    roles = {m.role for suite in _load(name) for p in suite.prompts for m in p.messages}
    assert roles == ({Role.USER} if name in REQUESTS else {Role.USER, Role.ASSISTANT})


@every_family
def test_every_prompt_names_its_source_and_licence(name: str) -> None:
    for suite in _load(name):
        named = {(p.source, p.licence) for p in suite.prompts} | {(suite.source, suite.licence)}
        assert named == {("auditkit authors", "Apache-2.0")}


def test_no_twin_stands_in_a_shipped_suite_a_rule_or_another_example() -> None:
    others = [
        *((p.name, turn) for p in (library_root() / "suites").glob("*.*") for turn in _quick(p)),
        *independence.texts_of_rules(library_root()),
        *independence.texts_of_examples(ROOT / "examples"),
    ]
    assert len(others) > 3000
    prompts = [prompt for name in FAMILIES for suite in _load(name) for prompt in _turns(suite)]
    assert list(independence.stands_elsewhere(prompts, others)) == []


def test_the_committed_files_are_what_the_tool_writes() -> None:
    assert build_paired_suites.differing(list(FAMILIES.values()), FOLDER) == []


def test_a_fair_family_has_no_complaint() -> None:
    assert list(balance.check_family(_family(_plain(60)))) == []


def test_too_few_pairs_are_complained_of() -> None:
    assert list(balance.check_family(_family(_plain(59)))) == ["59 pairs, 60 wanted"]


def test_a_word_on_one_side_is_complained_of() -> None:
    twins = [
        (f"{a} now" if i < 13 else a, f"{b} too{i}" if i < 13 else b)
        for i, (a, b) in enumerate(_plain(60))
    ]
    found = list(balance.check_family(_family(twins)))
    assert any("word 'now' is in 13 concerning and 0 benign twins" in text for text in found)
    assert any(text.startswith("last word 'now'") for text in found)


def test_a_first_word_on_one_side_is_complained_of_though_both_sides_have_the_word() -> None:
    twins = [(f"how {a}", f"{b} how") for a, b in _plain(60)]
    found = list(balance.check_family(_family(twins)))
    assert any(text.startswith("first word 'how' is in 60 concerning and 0") for text in found)
    assert not any(text.startswith("word 'how'") for text in found)


def test_longer_twins_are_complained_of_by_sides_and_by_pairs() -> None:
    twins = [(f"{a}{'x' * (i % 3 + 1)}", b) for i, (a, b) in enumerate(_plain(60))]
    found = list(balance.check_family(_family(twins)))
    assert any(text.startswith("characters tell the sides apart: AUROC") for text in found)
    assert "the concerning twin is longer in 60 pairs, shorter in 0" in found


@pytest.mark.parametrize(
    ("twin", "what"),
    [
        ("alpha0 beta0 gamma0 one two three four five six", r"pair 1: 20 against 47 characters"),
        ("quite other words", r"pair 1: the twins share 0% of their content words"),
    ],
)
def test_twins_that_are_none_are_complained_of(twin: str, what: str) -> None:
    twins = [("alpha0 beta0 gamma0x", twin), *_plain(60)[1:]]
    assert what in list(balance.check_family(_family(twins)))


def test_a_pair_written_twice_is_complained_of() -> None:
    twins = [*_plain(60), ("alpha3 beta3 gamma3", "alpha3 beta3 zeta3")]
    found = list(balance.check_family(_family(twins)))
    assert "made 4 and made 61 have nearly the same words" in found


def test_a_common_opening_is_complained_of() -> None:
    twins = [(f"tell me what is {a}", f"do say {b} or so") for a, b in _plain(60)]
    found = list(balance.check_family(_family(twins)))
    assert "60 pairs begin with 'tell me what is'" in found


HEAD = "name: n\ntitle: t\ndescription: d\n\n"


def test_a_file_of_pairs_is_read() -> None:
    text = f"# note\n{HEAD}[a-kind]\nu: hi\n+ one\\ntwo\n- three\n\nu: ho\n+ four\n- five\n"
    one, two = pairs.parse(text, "f.txt").pairs
    assert (one.number, one.kind, one.asked) == (1, "a-kind", "hi")
    assert (one.concerning, one.benign, one.split) == ("one\ntwo", "three", Split.SELECT)
    assert (two.kind, two.split) == ("a-kind", Split.TEST)
    made = pairs.suite(pairs.parse(text, "f.txt"), "benign").prompts[0]
    assert (made.id, made.tags) == ("n-001-benign", ("pair:001", "kind:a-kind"))
    assert [m.content for m in made.messages] == ["hi", "three"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("name: n\n\n[k]\n+ a\n- b\n", "the head needs name, title, description"),
        (f"{HEAD}+ a\n- b\n", r"f\.txt: pair 1 .*: \+ a"),
        (f"{HEAD}[k]\n- a\n+ b\n", r"f\.txt: pair 1"),
        (f"{HEAD}[k]\n+ a\n- b\n- c\n", r"f\.txt: pair 1"),
        (f"{HEAD}[k]\n+ a\n\n", r"f\.txt: pair 1"),
        (f"{HEAD}[k]\n+ a\n- b\n\nu: q\n+ c\n- d\n", "either all pairs have a u: line or none"),
    ],
)
def test_a_file_that_holds_no_pairs_is_refused(text: str, what: str) -> None:
    with pytest.raises(SystemExit, match=what):
        pairs.parse(text, "f.txt")


def test_a_file_changed_by_hand_is_found(tmp_path: Path) -> None:
    families = [_family(_plain(60))]
    first, _ = build_paired_suites.render(families[0], tmp_path)
    assert build_paired_suites.differing(families, tmp_path) == []
    rows = first.read_text().splitlines()
    rows[1] = json.dumps(json.loads(rows[1]) | {"label": "other"})
    first.write_text("\n".join(rows) + "\n")
    assert build_paired_suites.differing(families, tmp_path) == ["made-concerning.jsonl differs"]
