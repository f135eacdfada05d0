"""The workbench on a store whose answers are known."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.core.errors import InvalidInput, MismatchError, NothingEvaluated
from auditkit.core.measured import Measured, NotMeasured
from auditkit.core.statistics import auroc
from auditkit.features import (
    Contrast,
    contrast,
    fires_together,
    open_scope,
    profile_latent,
    search_text,
    select,
    top_latents,
)
from auditkit.features.separation import Statistics, latent_aurocs, pool_prompts
from auditkit.store import open_store
from tests.planted_store import MASKED, NOISE, PARTNER, PROMPTS, SEPARATING, planted_store
from tests.small_audit import run

NONE = NotMeasured("not asked for")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_store(tmp_path_factory.mktemp("planted") / "store.duckdb")


def contrasted(path: Path, **options: object) -> Contrast:
    with open_store(path, read_only=True) as store:
        scope = open_scope(store)
        sides = [(n, select(scope, n)) for n in ("yes", "no")]
        return contrast(store, scope, sides[0], sides[1], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("statistic", ["mean", "max"])
def test_the_planted_latents_separate_and_are_scored_on_the_other_half(
    path: Path, statistic: str
) -> None:
    found = contrasted(path, statistic=statistic)
    assert {found.latents[0].latent, found.latents[1].latent} == {SEPARATING, PARTNER}
    best = found.latents[0]
    assert isinstance(best.held_out, Measured)
    assert best.held_out.value == 1.0
    assert best.held_out.interval is not None
    assert best.held_out.interval.low < 1.0
    assert sum(found.selection) + sum(found.held_out) == PROMPTS
    assert best.held_out.n == sum(found.held_out)
    assert isinstance(best.density_negative, Measured)
    assert best.density_negative.value == 0.0
    assert isinstance(found.difference_of_means, Measured)
    assert found.tried == 3


def test_latents_that_are_higher_on_the_other_side_count_only_with_either(path: Path) -> None:
    with open_store(path, read_only=True) as store:
        scope = open_scope(store)
        no, yes = (("no", select(scope, "no")), ("yes", select(scope, "yes")))
        one = contrast(store, scope, no, yes)
        both = contrast(store, scope, no, yes, either=True)
    assert SEPARATING not in [r.latent for r in one.latents]
    assert both.latents[0].selected == 0.0


def test_the_order_of_commits_changes_no_bit(path: Path, tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(PROMPTS).tolist()
    other = planted_store(tmp_path / "shuffled.duckdb", order=order)
    assert contrasted(other) == contrasted(path) == contrasted(path)


def test_sides_that_overlap_are_refused(path: Path) -> None:
    with open_store(path, read_only=True) as store:
        scope = open_scope(store)
        sides = [(n, select(scope, n)) for n in ("yes", "third")]
        with pytest.raises(InvalidInput, match="prompts in common"):
            contrast(store, scope, sides[0], sides[1])


def test_top_leaves_out_what_fires_on_masked_tokens(path: Path) -> None:
    with open_store(path, read_only=True) as store:
        scope = open_scope(store)
        rows = top_latents(store, scope, None, by="max", most=10)
        dense = top_latents(store, scope, select(scope, "label:yes"), by="density", most=1)
    assert [r.latent for r in rows] == [SEPARATING, NOISE, PARTNER]
    assert MASKED not in [r.latent for r in rows]
    assert rows[0].context.prompt == "p39"
    assert rows[0].max == rows[0].context.value
    assert (rows[0].fires, rows[0].tokens) == (20, 40 * 7)
    assert (dense[0].latent, dense[0].density) == (NOISE, 1.0)


def test_a_profile_counts_every_fire_once(path: Path) -> None:
    with open_store(path, read_only=True) as store:
        scope = open_scope(store)
        found = profile_latent(store, scope, SEPARATING, deciles=True, directions=NONE)
        again = profile_latent(store, scope, SEPARATING, deciles=True, directions=NONE)
    assert found == again
    assert (found.fires, found.prompts) == (20, 20)
    assert sum(b.fires for b in found.histogram) == 20
    assert [d.decile for d in found.deciles] == list(range(10, 0, -1))
    assert found.top[0].tokens[found.top[0].peak].text == " yes"
    assert [c.value for c in found.top] == sorted((c.value for c in found.top), reverse=True)


def test_what_fires_together_is_set_beside_chance(path: Path) -> None:
    with open_store(path, read_only=True) as store:
        scope = open_scope(store)
        found = fires_together(store, scope, SEPARATING)
    best = found.partners[0]
    assert (best.latent, best.both, best.jaccard) == (PARTNER, 20, 1.0)
    assert best.expected == pytest.approx(20 * 20 / 280)
    assert best.lift == pytest.approx(14.0)
    noise = found.partners[1]
    assert (noise.latent, noise.lift, noise.pmi) == (NOISE, 1.0, 0.0)


def test_a_text_across_tokens_finds_the_latent_that_fires_there(path: Path) -> None:
    with open_store(path, read_only=True) as store:
        scope = open_scope(store)
        found = search_text(store, scope, "N YES.")
        assert found.occurrences == found.prompts == 20
        assert found.tokens == 60
        assert {r.latent for r in found.latents[:2]} == {SEPARATING, PARTNER}
        with pytest.raises(NothingEvaluated, match="occurs on no eligible token"):
            search_text(store, scope, "N YES.", ignore_case=False)
        with pytest.raises(NothingEvaluated, match="occurs on no eligible token"):
            search_text(store, scope, "<s>")


def test_unknown_latents_names_and_orders_are_refused(path: Path) -> None:
    with open_store(path, read_only=True) as store:
        scope = open_scope(store)
        with pytest.raises(InvalidInput, match="there is no latent 64"):
            profile_latent(store, scope, 64, directions=NONE)
        with pytest.raises(NothingEvaluated, match="fires on none of 280"):
            profile_latent(store, scope, MASKED, directions=NONE)
        with pytest.raises(InvalidInput, match="nothing in the store is called 'yess'") as wrong:
            select(scope, "yess")
        assert "label:yes" in str(wrong.value)
        with pytest.raises(InvalidInput, match="unknown order 'best'"):
            top_latents(store, scope, None, by="best", most=1)
        with pytest.raises(InvalidInput, match="unknown role 'nobody'"):
            open_scope(store, roles=["nobody"])
        with pytest.raises(InvalidInput, match="has no recording 'zz'"):
            open_scope(store, recordings=["zz"])


def test_an_empty_store_ends_with_nothing_evaluated(tmp_path: Path) -> None:
    with (
        open_store(tmp_path / "empty.duckdb") as store,
        pytest.raises(NothingEvaluated, match="holds no recording"),
    ):
        open_scope(store)


def test_the_page_runs_nothing_and_hides_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "7.html"
    ended = run(
        monkeypatch, capsys, "features", "show", "7", "--store", str(path), "--html", str(page)
    )
    assert ended.code == 0
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "\x1b" not in html + ended.out
    assert "\u202e" not in html + ended.out
    assert "[bold red]" in ended.out
    assert "default-src 'none'" in html
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", html)
    assert "not measured: needs the SAE" in html


@pytest.mark.parametrize(
    "words",
    [
        ("top",),
        ("show", "7"),
        ("contrast", "yes", "no"),
        ("cooccur", "7"),
        ("search", "yes"),
    ],
    ids=" ".join,
)
def test_every_verb_speaks_json_and_text_and_shows_examples(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    ended = run(monkeypatch, capsys, "features", *words, "--store", str(path), "--json")
    assert ended.code == 0
    json.loads(ended.out)
    assert run(monkeypatch, capsys, "features", *words, "--store", str(path)).out
    assert "Examples" in run(monkeypatch, capsys, "features", words[0], "--help").out


def test_another_sae_is_refused(path: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    from auditkit.features import read_decoder

    save_file({"W_dec": np.ones((64, 4), np.float32)}, tmp_path / "sae_weights.safetensors")
    with open_store(path, read_only=True) as store:
        identity = open_scope(store).recordings[0].sae
    with pytest.raises(MismatchError, match="is not the SAE of these recordings"):
        read_decoder(tmp_path, identity)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])),
        min_size=2,
        max_size=20,
    )
)
def test_the_area_of_every_latent_equals_the_plain_one(rows: list[tuple[bool, float]]) -> None:
    positive = np.array([p for p, _ in rows])
    values = np.array([v for _, v in rows])
    if positive.all() or not positive.any():
        return
    at = np.flatnonzero(values)
    found = latent_aurocs(
        Statistics(
            prompts=len(rows), prompt=at, latent=np.ones(len(at), dtype=np.int64), value=values[at]
        ),
        positive,
        3,
    )
    plain = auroc(values[positive], values[~positive])
    assert isinstance(plain, Measured)
    assert found[1] == pytest.approx(plain.value, abs=1e-12)
    assert found[0] == found[2] == 0.5


@pytest.mark.parametrize("statistic", ["mean", "max"])
def test_pooling_does_not_depend_on_the_order_of_rows(statistic: str) -> None:
    draw = np.random.default_rng(0)
    cells = draw.permutation(6 * 5 * 4)[:60]
    prompt, latent = cells // 20, (cells // 4) % 5
    value = draw.normal(size=60).astype(np.float32)
    lengths = np.full(6, 4)
    order = np.argsort(prompt, kind="stable")
    one = pool_prompts(prompt, latent, value, lengths, 5, statistic=statistic)
    two = pool_prompts(prompt[order], latent[order], value[order], lengths, 5, statistic=statistic)
    dense = np.zeros((6, 5, 4))
    dense[prompt, latent, cells % 4] = value
    wanted = dense.mean(axis=2) if statistic == "mean" else dense.max(axis=2)
    assert np.array_equal(one.value, two.value)
    found = np.zeros((6, 5))
    found[one.prompt, one.latent] = one.value
    assert np.allclose(found, wanted, atol=2**-20)
