"""Whatever a new rule is made from, its file is clean and its tests pass."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auditkit.core.errors import InvalidInput
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.pipeline.series_sql import run_series_sql
from auditkit.rules import Outcome, read_rules, run_unit_tests
from auditkit.rules.documents.scaffold import Contrast, Draft, Latents, quoted, render_rule
from auditkit.rules.trying.atoms import measure_coverage

SPOKEN = [r for r in Role if r is not Role.TEXT]
text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
ids = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,8}){0,2}", fullmatch=True)
messages = st.builds(
    lambda role, content: Message(role=role, content=content), st.sampled_from(SPOKEN), text
)
chats = st.lists(messages, min_size=1, max_size=3).map(tuple)
plain = text.map(lambda t: (Message(role=Role.TEXT, content=t),))
prompts = st.builds(lambda m: Prompt(id="p", messages=m), st.one_of(chats, plain))
few = st.lists(prompts, max_size=2).map(tuple)
references = st.one_of(st.just("builtin/harmful-requests"), text)
contrasts = st.builds(
    lambda p, n, a, b: Contrast(positive=p, negative=n, should_match=a, should_not_match=b),
    references,
    references,
    few,
    few,
)
chosen = st.lists(st.integers(0, 10**6), min_size=1, max_size=5, unique=True).map(tuple)
latents = st.builds(lambda n: Latents(latents=n, sae="0123456789abcdef"), chosen)
drafts = st.builds(
    lambda i, t, w, r, b, x: Draft(id=i, title=t, watches=w, role=r, benign=b, lexicon=x),
    ids,
    text,
    st.one_of(contrasts, latents),
    st.sampled_from([None, *SPOKEN]),
    references,
    st.none() | text,
)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(drafts)
def test_a_new_rule_is_clean_and_passes_its_tests(draft: Draft) -> None:
    file = read_rules(render_rule(draft), "new.yaml")
    assert [d.render() for d in file.diagnostics] == []
    (rule,) = file.rules
    assert (rule.id, rule.title) == (draft.id, draft.title)
    results = run_unit_tests(rule)
    assert {r.outcome for r in results} == {Outcome.PASS}
    assert {str(t.fires) for t in rule.tests.unit} == {"True", "False", "unknown"}
    assert measure_coverage(rule).share == 1.0
    watches = draft.watches
    if isinstance(watches, Contrast):
        copied = 0 if watches.positive.startswith("builtin/") else len(watches.should_match)
        assert len(rule.tests.should_match) == copied
    assert len(rule.confirm) == (draft.lexicon is not None)


@pytest.mark.parametrize("role", [None, Role.USER])
@pytest.mark.parametrize("watches", ["contrast", "latents"])
def test_the_compiled_sql_agrees_with_a_new_rules_tests(watches: str, role: Role | None) -> None:
    made = (
        Contrast(positive="a.yaml", negative="b.yaml")
        if watches == "contrast"
        else Latents(latents=(3,), sae="0123456789abcdef")
    )
    draft = Draft(id="new.rule", title="New", watches=made, role=role)
    (rule,) = read_rules(render_rule(draft), "new.yaml").rules
    results = run_unit_tests(rule, run_sql=run_series_sql)
    assert {r.outcome for r in results} == {Outcome.PASS}


@settings(deadline=None, max_examples=25)
@given(text)
def test_what_is_quoted_reads_back(value: str) -> None:
    draft = Draft(id="a", title=value, watches=Latents(latents=(0,), sae="0123456789ab"))
    assert read_rules(render_rule(draft), "new.yaml").rules[0].title == value
    assert "\n" not in quoted(value)


def test_half_a_character_is_refused() -> None:
    with pytest.raises(InvalidInput, match="is not text"):
        quoted("\ud800")
