"""Label tables: read from what others export, pinned by their content, matched within bounds."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditkit.core.errors import DocumentError, InvalidInput, MismatchError
from auditkit.core.labels import LatentLabel
from auditkit.rules import (
    LabelSelect,
    LabelTable,
    load_label_table,
    make_table,
    pinned_table,
    read_labels,
    render_label_table,
)

NEURONPEDIA: list[dict[str, Any]] = [
    {
        "modelId": "gemma-2-2b",
        "layer": "12-gemmascope-res-16k",
        "index": "17",
        "description": " references to deception ",
        "explanationModelName": "gpt-4o-mini",
        "typeName": "oai_token-act-pair",
        "scores": [{"value": 0.8, "explanationScoreTypeName": "eleuther_recall"}, {"value": 0.6}],
    },
    {
        "modelId": "gemma-2-2b",
        "layer": "12-gemmascope-res-16k",
        "index": 40,
        "description": "Code blocks",
        "explanationModelName": "gpt-4o-mini",
    },
    {"modelId": "gemma-2-2b", "layer": "12-gemmascope-res-16k", "index": "41", "description": None},
]
READ = (
    LatentLabel(latent=17, label="references to deception", score=0.6, source="gpt-4o-mini"),
    LatentLabel(latent=40, label="Code blocks", source="gpt-4o-mini"),
)
HAND = {
    ".csv": "latent,label,score,source\n3,deception,0.9,me\n4,code,,\n",
    ".yaml": "- {latent: 3, label: deception, score: 0.9, source: me}\n"
    "- {latent: 4, label: code}\n",
    ".jsonl": '{"latent": 3, "label": "deception", "score": 0.9, "source": "me"}\n\n'
    '{"latent": 4, "label": "code"}\n',
}
ROWS = (
    LatentLabel(latent=3, label="Deception and lies", score=0.9, source="me"),
    LatentLabel(latent=4, label="deception", score=0.5),
    LatentLabel(latent=4, label="lies", score=0.95),
    LatentLabel(latent=9, label="deception in code"),
)


def table(*rows: LatentLabel) -> LabelTable:
    return make_table(rows or ROWS, sae="0123456789ab", source="test", licence="none")


def select(label: str, **other: Any) -> LabelSelect:
    return LabelSelect.model_validate({"by": "label", "table": "t.json", "label": label, **other})


def chosen(label: str, **other: Any) -> list[int]:
    return [row.latent for row in table().best(select(label, **other))]


def test_an_export_of_explanations_is_read(tmp_path: Path) -> None:
    lines = "\n".join(map(json.dumps, NEURONPEDIA))
    (tmp_path / "batch-0.jsonl").write_text(lines)
    (tmp_path / "batch-0.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "export.json").write_text(json.dumps(NEURONPEDIA))
    for name in ("batch-0.jsonl", "batch-0.jsonl.gz", "export.json"):
        assert read_labels(tmp_path / name) == READ


def test_a_features_own_export_is_read(tmp_path: Path) -> None:
    own = {"modelId": "m", "layer": "l", "index": "17", "explanations": NEURONPEDIA[:1]}
    (tmp_path / "feature.json").write_text(json.dumps(own))
    (tmp_path / "empty.json").write_text("3")
    with pytest.raises(InvalidInput, match="no list of labels"):
        read_labels(tmp_path / "empty.json")
    (tmp_path / "features.jsonl").write_text(json.dumps(own))
    assert read_labels(tmp_path / "features.jsonl") == READ[:1]
    assert read_labels(tmp_path / "feature.json") == READ[:1]


@pytest.mark.parametrize("suffix", HAND)
def test_a_table_written_by_hand_is_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"labels{suffix}"
    path.write_text(HAND[suffix])
    assert read_labels(path) == (
        LatentLabel(latent=3, label="deception", score=0.9, source="me"),
        LatentLabel(latent=4, label="code"),
    )


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.jsonl", '{"latent": "x", "label": "b"}', "row 1: 'x' is no number"),
        ("a.jsonl", '{"latent": -1, "label": "b"}', "is no number"),
        ("a.jsonl", '{"latent": true, "label": "b"}', "is no number"),
        ("a.jsonl", '{"latent": 1, "label": "b", "score": "high"}', "is no score"),
        ("a.jsonl", '{"latent": 1, "label": "b", "score": NaN}', "not finite"),
        ("a.jsonl", "{", "not valid JSON"),
        ("a.jsonl", "[1]", "not a table of names"),
        ("a.jsonl", "", "holds no labels"),
        ("a.csv", "number,word\n1,a\n", "is no number"),
        ("a.txt", "1 a", "ending '.txt'"),
        ("a.json", "{}", "is no number"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    name: str, text: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput, match=says):
        read_labels(tmp_path / name)


def test_an_export_of_two_saes_is_refused(tmp_path: Path) -> None:
    rows = [NEURONPEDIA[0], {**NEURONPEDIA[1], "layer": "13-other"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with pytest.raises(InvalidInput, match="latents of several SAEs"):
        read_labels(tmp_path / "a.json")


def test_a_table_comes_back_and_its_digest_is_that_of_its_content(tmp_path: Path) -> None:
    made = table()
    path = tmp_path / "t.json"
    path.write_text(render_label_table(made))
    assert load_label_table("t.json", base=tmp_path) == made
    assert table(*reversed(ROWS)).digest == made.digest
    assert table(*ROWS[:3]).digest != made.digest
    (tmp_path / "t.yaml").write_text(path.read_text())
    assert load_label_table(str(tmp_path / "t.yaml")).digest == made.digest


def test_a_table_that_is_not_the_pinned_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(render_label_table(table()))
    assert pinned_table(select("a", snapshot=table().digest), base=tmp_path) == table()
    with pytest.raises(MismatchError, match="the rule pins sha256:000"):
        pinned_table(select("a", snapshot="sha256:" + "0" * 64), base=tmp_path)


def test_a_table_with_mistakes_is_refused(tmp_path: Path) -> None:
    text = render_label_table(table()).replace('"licence"', '"license"')
    for name, error in (("t.json", InvalidInput), ("t.yaml", DocumentError)):
        (tmp_path / name).write_text(text)
        with pytest.raises(error, match="licen"):
            load_label_table(str(tmp_path / name))
    with pytest.raises(InvalidInput, match="cannot be read"):
        load_label_table("nothing.json", base=tmp_path)


def test_labels_are_matched_as_the_rule_says() -> None:
    assert chosen("DECEPTION") == [3, 4, 9]
    assert chosen("deception", match="exact") == [4]
    assert chosen("(?i)^deception( in|$)", match="pattern") == [4, 9]
    assert chosen("whales") == []


def test_the_best_scored_come_first_and_no_score_meets_no_least() -> None:
    assert chosen("lies") == [4, 3]
    assert chosen("lies", top_k=1) == [4]
    assert chosen("deception", min_score=0.5) == [3, 4]
    assert chosen("deception", min_score=0.0) == [3, 4]


def test_a_pattern_that_re2_does_not_take_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        table().best(select("(?=a)", match="pattern"))


@given(st.text(min_size=1, max_size=200), st.sampled_from(["contains", "exact", "pattern"]))
def test_whatever_the_label_asked_for_the_answer_is_bounded(text: str, match: str) -> None:
    try:
        found = table().best(select(text, match=match, top_k=2))
    except InvalidInput:
        assert match == "pattern"
        return
    assert len(found) <= 2
    assert len({row.latent for row in found}) == len(found)
