"""A whole audit on the tiny model in a folder: model, SAE, suite, rules and audit.yaml."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from auditkit.cli import main
from auditkit.saes import write_sae
from tests.tiny import tiny_model
from tests.tiny_sae import tiny_sae

SUITE = """\
format: auditkit-suite/1
name: asked
title: Asked
source: written for a test
licence: Apache-2.0
prompts:
  - {id: one, messages: [{role: user, content: "the cat made a bird happy"}]}
  - {id: two, messages: [{role: user, content: "tell me how to find water"}]}
  - {id: three, messages: [{role: user, content: "please write some code"}]}
"""
RULE = """\
format: auditkit-rules/1
rules:
  - id: test.peak
    rev: 1
    title: A latent is high
    status: experimental
    severity: high
    false_positives: [Unknown]
    signals:
      s:
        select: {by: index, latents: LATENTS, sae: DIGEST}
        pool: sum
        unit: raw
    frame: message
    condition: max(s) >= 0.2
    tests:
      unit:
        - {name: fires, series: {s: "0 0.5"}, fires: true, at: 1}
        - {name: silent, series: {s: "0 0.1"}, fires: false}
"""
AUDIT = """\
format: auditkit-audit/1
name: small
title: Small
model: {source: model}
sae: sae
rules: [rules.yaml]
reference: [asked.yaml]
subject:
  - {suite: asked.yaml, generate: 4}
store: store.duckdb
output: out
confirm: {enabled: false}
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def write_audit(folder: Path) -> Path:
    """Write everything that an audit needs; returns its audit.yaml."""
    model = tiny_model()
    model.network.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    stored = write_sae(tiny_sae(), folder / "sae", dtype="float32")
    rule = RULE.replace("DIGEST", stored.identity.digest[:16])
    (folder / "rules.yaml").write_text(rule.replace("LATENTS", str(list(range(0, 64, 2)))))
    (folder / "asked.yaml").write_text(SUITE)
    (folder / "audit.yaml").write_text(AUDIT)
    return folder / "audit.yaml"


def write_suite_of_words(
    path: Path, words: Sequence[str], prompts: int, draw: Random, *, split: bool = False
) -> None:
    """A suite of short user messages in these words, on both splits or none."""
    lines = [
        "format: auditkit-suite/1",
        f"name: {path.stem}",
        f"title: {path.stem.title()}",
        "source: written for a test",
        "licence: Apache-2.0",
        "prompts:",
    ]
    for i in range(prompts):
        part = f"split: {'select' if i % 2 else 'test'}, " if split else ""
        text = " ".join(draw.choices(words, k=5))
        lines.append(f'  - {{id: p{i}, {part}messages: [{{role: user, content: "{text}"}}]}}')
    path.write_text("\n".join(lines) + "\n")


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> Ended:
    """Run the `auditkit` command in this process."""
    capsys.readouterr()
    monkeypatch.setattr("sys.argv", ["auditkit", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    captured = capsys.readouterr()
    code = ended.value.code
    return Ended(code=code if isinstance(code, int) else 0, out=captured.out, err=captured.err)
