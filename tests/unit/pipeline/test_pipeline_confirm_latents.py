"""`auditkit confirm` on planted latents: verdicts, no trial run twice, and what it shows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import duckdb
import pytest
import torch

from auditkit.core.errors import ExitCode, InvalidInput
from auditkit.core.progress import Silent
from auditkit.core.prompts import Prompt
from auditkit.pipeline.confirm_latents import LatentCauses, LatentQuestion, confirm_latents
from auditkit.pipeline.latent_rules import parse_latents
from auditkit.pipeline.workbench import Workbench
from auditkit.saes import write_sae
from auditkit.store import open_store
from auditkit.suites import Lexicon, load_suite
from tests.planted import ANIMALS, CAUSAL, COLOURS, INERT, NATURE, Planted, planted
from tests.small_audit import run

AUDIT = """\
format: auditkit-audit/1
name: planted
title: Planted
model: {source: model}
sae: sae
rules: [rules.yaml]
subject: [{suite: benign.yaml}]
store: store.duckdb
output: out
confirm:
  openings: OPENINGS
  damage: DAMAGE
  prompts: 16
  control_prompts: 16
  ablation_prompts: 16
"""


def _write_suite(path: Path, prompts: Sequence[Prompt]) -> None:
    lines = [
        "format: auditkit-suite/1",
        f"name: {path.stem}",
        f"title: {path.stem}",
        "source: written for a test",
        "licence: Apache-2.0",
        "prompts:",
    ]
    for prompt in prompts:
        tags = "".join(f", tags: [{tag}]" for tag in prompt.tags[:1])
        text = prompt.messages[0].content
        lines.append(f'  - {{id: {prompt.id}, text: "{text}"{tags}}}')
    path.write_text("\n".join(lines) + "\n")


def _write_lexicon(folder: Path, lexicon: Lexicon) -> str:
    path = folder / f"{lexicon.name}.yaml"
    words = {"target": list(lexicon.target), "contrast": list(lexicon.contrast)}
    head = f"format: auditkit-lexicon/1\nname: {lexicon.name}\nsource: test\nlicence: CC0-1.0\n"
    path.write_text(head + "".join(f"{k}: {json.dumps(v)}\n" for k, v in words.items()))
    return str(path)


def _write_world(folder: Path, world: Planted) -> Path:
    world.model.network.save_pretrained(folder / "model")
    world.model.tokenizer.save_pretrained(folder / "model")
    write_sae(world.sae, folder / "sae", dtype="float32")
    i = world.inputs
    suites = {
        "openings": i.neutral,
        "benign": i.benign,
        "positive": i.positive,
        "negative": i.negative,
    }
    for name, prompts in suites.items():
        _write_suite(folder / f"{name}.yaml", prompts)
    for lexicon in (ANIMALS, COLOURS, NATURE):
        _write_lexicon(folder, lexicon)
    text = AUDIT.replace("OPENINGS", str(folder / "openings.yaml"))
    (folder / "audit.yaml").write_text(text.replace("DAMAGE", str(folder / "benign.yaml")))
    return folder / "audit.yaml"


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audit.yaml with a store of what the planted latents fire on."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("planted")
    file = _write_world(folder, planted(0))
    bench = Workbench.load(
        str(folder / "model"), str(folder / "sae"), dtype="float32", progress=Silent()
    )
    with open_store(folder / "store.duckdb") as store:
        for name in ("positive", "negative"):
            suite = load_suite(str(folder / f"{name}.yaml"))
            bench.record(suite, store, bench.plan(max_tokens=64), Silent())
    return file


def _question(audit: Path, latents: str, *, positive: bool = True) -> LatentQuestion:
    folder = audit.parent
    return LatentQuestion(
        latents=latents,
        lexicon=str(folder / "animals.yaml"),
        positive="positive.yaml" if positive else None,
        negative="negative.yaml" if positive else None,
        beside=(str(folder / "colours.yaml"), str(folder / "nature.yaml")),
        replies=False,
    )


def _ask(audit: Path, latents: str, *, positive: bool = True) -> LatentCauses:
    asked = _question(audit, latents, positive=positive)
    return confirm_latents(audit, asked, html=None, progress=Silent())


def _trials(audit: Path) -> int:
    with duckdb.connect(str(audit.parent / "store.duckdb"), read_only=True) as connection:
        row = connection.execute("SELECT count(*) FROM trials").fetchone()
    assert row is not None
    return int(row[0])


def test_a_planted_cause_is_confirmed_and_what_only_fires_with_it_is_not(audit: Path) -> None:
    found = _ask(audit, f"{CAUSAL},{INERT}")
    verdicts = [c.verdict.value for _, c in found.results]
    assert verdicts == ["confirmed", "detector only"]
    assert found.exit_code is ExitCode.CLEAN


def test_asked_again_nothing_is_run_again(audit: Path) -> None:
    first = _ask(audit, str(CAUSAL))
    before = _trials(audit)
    second = _ask(audit, str(CAUSAL))
    assert _trials(audit) == before > 0
    assert second.json() == first.json()


def test_without_examples_nothing_is_ablated(audit: Path) -> None:
    (_, c), *_ = _ask(audit, str(CAUSAL), positive=False).results
    assert c.ablation is None
    assert c.verdict.value == "sufficient only"


def test_the_command_prints_plot_and_texts_and_writes_a_page(
    audit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, page = audit.parent, audit.parent / "page.html"
    options = ["--lexicon", str(folder / "animals.yaml"), "--positive", "positive.yaml"]
    for name in ("colours", "nature"):
        options += ["--beside", str(folder / f"{name}.yaml")]
    ended = run(
        monkeypatch, capsys, "confirm", str(audit), "--latents", str(CAUSAL), *options,
        "--html", str(page), "--quiet",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "Latent 0: " in ended.out
    assert "●" in ended.out
    assert "control of equal norm" in ended.out
    assert f"page: {page}" in ended.out.replace("\n", "")
    text = page.read_text()
    assert "<svg" in text
    assert "<script" not in text
    assert "Latent 0" in text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a", "no latent"),
        ("1,,2", "no latent"),
        ("203", "there is no latent 203"),
        ("5,5:2", "stands twice"),
        ("5:0", "weight 0"),
    ],
)
def test_what_names_no_latents_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        parse_latents(text, d_sae=203, together=False)


def test_latents_are_tested_one_by_one_or_together() -> None:
    each = parse_latents("4, 120:-0.5", d_sae=203, together=False)
    assert [n.parts for n in each] == [((4, 1.0),), ((120, -0.5),)]
    (both,) = parse_latents("4,120:-0.5", d_sae=203, together=True)
    assert both.name == "4+120:-0.5"


def test_a_store_without_recordings_is_refused(audit: Path, tmp_path: Path) -> None:
    text = audit.read_text().replace("store: store.duckdb", "store: none.duckdb")
    other = audit.parent / "other.yaml"
    other.write_text(text)
    with pytest.raises(InvalidInput, match="no store"):
        confirm_latents(other, _question(audit, "0"), html=None, progress=Silent())
