"""A score as JSON, Markdown and a terminal table, pinned; and read back."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError
from syrupy.assertion import SnapshotAssertion

from auditkit.report.score_document import ScoreDocument
from auditkit.report.score_page import score_html
from auditkit.report.score_table import score_markdown, score_terminal
from tests.score_sample import score_sample


def test_a_score_is_written_as(snapshot: SnapshotAssertion) -> None:
    doc = score_sample()
    assert doc.json_text() == snapshot(name="json")
    assert score_markdown(doc) == snapshot(name="markdown")
    assert score_terminal(doc, width=150) == snapshot(name="terminal")


def test_the_document_reads_back_to_the_same_bytes() -> None:
    text = score_sample().json_text()
    again = ScoreDocument.model_validate_json(text)
    assert again == score_sample()
    assert again.json_text() == text


def test_lists_of_numbers_stand_on_one_line() -> None:
    text = score_sample().json_text()
    assert '"counts": [1, 0, 3, 8, 20, 60, 90, 80, 40, 9, 2, 1]' in text
    assert json.loads(text)["sae"]["name"].endswith("| sae")


def test_an_unknown_key_or_another_format_is_refused() -> None:
    plain = json.loads(score_sample().json_text())
    with pytest.raises(ValidationError, match="extra_forbidden"):
        ScoreDocument.model_validate_json(json.dumps({**plain, "surprise": 1}))
    with pytest.raises(ValidationError, match="auditkit-sae-score/1"):
        ScoreDocument.model_validate_json(json.dumps({**plain, "format": "auditkit-sae-score/9"}))


def test_every_line_of_the_markdown_table_has_its_columns() -> None:
    lines = score_markdown(score_sample()).splitlines()
    header = next(line for line in lines if line.startswith("| measure"))
    end = lines.index("", lines.index(header))
    for line in lines[lines.index(header) : end]:
        assert line.replace("\\|", "").count("|") == header.count("|")


def test_the_page_is_the_same_each_time_and_escapes_names() -> None:
    page = score_html(score_sample())
    assert page == score_html(score_sample())
    assert "<script>" not in page
    assert "tiny &lt;script&gt;" in page
