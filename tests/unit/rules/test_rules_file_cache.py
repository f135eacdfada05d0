"""Rule files that were read before: the same answer, from what was kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from auditkit.rules import RuleFileCache, lint_rules, read_rules
from auditkit.rules.checking import file_cache as module
from tests.fuzzed_rules import inputs

RULE = """\
format: auditkit-rules/1
rules:
  - id: test.peak
    rev: 1
    title: "T"
    status: test
    severity: low
    false_positives: ["None known"]
    signals:
      s: {select: {by: index, latents: [1], sae: 0123456789ab}, unit: raw}
    frame: message
    condition: max(s) >= 0.5 or max(x) >= 1
"""


def test_a_file_read_again_is_the_same_file(tmp_path: Path) -> None:
    for text in (RULE, RULE.replace(" or max(x) >= 1", ""), "rules: {", "", "a: [1, {b: c}]\n"):
        first, second = RuleFileCache(tmp_path), RuleFileCache(tmp_path)
        assert first.read(text, "one.yaml") == read_rules(text, "one.yaml")
        assert second.read(text, "two.yaml") == read_rules(text, "two.yaml")
        assert (first.hits, first.written) == (0, 1)
        assert (second.hits, second.written) == (1, 0)


def test_diagnostics_of_random_files_survive(tmp_path: Path) -> None:
    texts = [i.text for i in inputs(11, 900) if i.kind in ("text", "document")]
    for _ in range(2):
        cache = RuleFileCache(tmp_path)
        for text in texts:
            kept, read = cache.read(text, "f.yaml"), read_rules(text, "f.yaml")
            assert kept == read, text
            assert [d.render() for d in lint_rules([kept])] == [
                d.render() for d in lint_rules([read])
            ]
    assert cache.hits >= len(texts) - 5


@pytest.mark.parametrize("body", [b"", b"{}", b"x\n{}", b"\xff\xfe", None, b"0" * 64 + b"\n{}"])
def test_an_entry_that_cannot_be_used_is_read_anew(tmp_path: Path, body: bytes | None) -> None:
    RuleFileCache(tmp_path).read(RULE, "r.yaml")
    (entry,) = tmp_path.iterdir()
    entry.write_bytes(entry.read_bytes().replace(b"0.5", b"0.9") if body is None else body)
    cache = RuleFileCache(tmp_path)
    assert cache.read(RULE, "r.yaml") == read_rules(RULE, "r.yaml")
    assert (cache.hits, cache.written) == (0, 1)


def test_a_folder_that_cannot_be_written_to_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    cache = RuleFileCache(tmp_path / "taken")
    assert cache.read(RULE, "r.yaml") == read_rules(RULE, "r.yaml")
    cache.prune()
    assert (cache.hits, cache.written) == (0, 0)


def test_other_code_reads_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    RuleFileCache(tmp_path).read(RULE, "r.yaml")
    monkeypatch.setattr(module, "_reader", lambda: b"another version")
    cache = RuleFileCache(tmp_path)
    cache.read(RULE, "r.yaml")
    assert cache.hits == 0


def test_the_oldest_entries_go_when_the_folder_is_full(tmp_path: Path) -> None:
    cache = RuleFileCache(tmp_path, most_bytes=6000)
    for number in range(6):
        before = set(tmp_path.iterdir())
        cache.read(RULE.replace("rev: 1", f"rev: {number + 1}"), "r.yaml")
        (entry,) = set(tmp_path.iterdir()) - before
        os.utime(entry, (number, number))
    cache.prune()
    left = list(tmp_path.iterdir())
    assert sum(p.stat().st_size for p in left) <= 6000
    assert left
    assert min(p.stat().st_mtime for p in left) == 6 - len(left)
    assert RuleFileCache(tmp_path).read(RULE.replace("rev: 1", "rev: 6"), "r").path == "r"
