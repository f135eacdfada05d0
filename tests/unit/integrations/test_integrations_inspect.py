"""Inspect AI, the real package, offline: our suite as a task, verdicts in its log and read back."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageUser,
    ContentImage,
    ContentText,
    GenerateConfig,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.scorer import includes
from inspect_ai.solver import Generate, TaskState, generate, solver

from auditkit.core.errors import InvalidInput, NotSupportedYet
from auditkit.core.locks import Severity
from auditkit.core.prompts import Message, Prompt, Role, Suite
from auditkit.core.verdicts import Truth
from auditkit.integrations.inspect import suite_dataset, watched_model, watched_rules
from auditkit.integrations.inspect.samples import prompt_of
from auditkit.integrations.inspect.verdicts import truth_by_rule
from auditkit.monitor import Alert, watch_generate
from auditkit.rules import write_lock
from auditkit.saes import write_sae
from auditkit.suites import load_suite
from tests.tiny import tiny_model
from tests.tiny_sae import tiny_sae
from tests.watched import lock, rule, various_rules

MODEL, SAE = tiny_model(), tiny_sae()
LOCK = lock(MODEL, SAE, *various_rules(), rule("lost", "max(s) >= 1", unresolved="no latents"))
WATCHES = [(SAE, LOCK)]
LIMIT = 8
# tenacity, which Inspect retries with, has renamed a parameter that Inspect still uses; and Inspect
# leaves the ends of its in-memory streams to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'initial' parameter:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy, no key, no display, and a socket that refuses: nothing may leave the machine."""
    import socket

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))
    monkeypatch.setenv("INSPECT_DISPLAY", "none")


@pytest.fixture(autouse=True, scope="module")
def collected() -> Iterator[None]:
    """What Inspect leaves behind is collected here, under this module's filters."""
    yield
    gc.collect()


def run(task: Task, tmp_path: Path, model: Any = None, **settings: Any) -> EvalLog:
    (log,) = inspect_eval(
        task,
        model=watched_model(MODEL, WATCHES) if model is None else model,
        log_dir=str(tmp_path / "logs"),
        display="none",
        max_tokens=8,
        **settings,
    )
    return read_eval_log(log.location)


def as_logged(verdicts: tuple[Alert, ...]) -> list[tuple[Any, ...]]:
    return [
        (
            a.rule_id,
            a.frame,
            a.verdict.truth.value,
            None if a.verdict.reason is None else a.verdict.reason.value,
            a.token,
        )
        for a in verdicts
    ]


def logged(call: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (v["rule"], v["frame"], v["verdict"], v["reason"], v["token"]) for v in call["verdicts"]
    ]


def test_one_of_our_suites_runs_as_a_task_and_its_verdicts_are_those_of_the_monitor(
    tmp_path: Path,
) -> None:
    suite = load_suite("builtin/harmful-requests")
    dataset = suite_dataset(suite, limit=LIMIT)
    log = run(Task(dataset=dataset, solver=generate(), scorer=watched_rules()), tmp_path)
    assert log.status == "success", log.error
    assert log.samples is not None
    assert [s.id for s in log.samples] == [p.id for p in suite.prompts[:LIMIT]]
    seen: set[str] = set()
    fired = 0
    for sample, prompt in zip(log.samples, suite.prompts, strict=False):
        (reply,) = watch_generate(MODEL, WATCHES, [prompt], max_new_tokens=8)
        score = (sample.scores or {})["watched_rules"]
        kept = (score.metadata or {})["auditkit"]
        (call,) = kept["calls"]
        assert sample.output.completion == reply.text
        assert logged(call) == as_logged(reply.verdicts)
        truths = truth_by_rule([call])
        assert kept["rules"] == {r: t.value for r, t in truths.items()}
        assert score.value == {
            f"{r}:{name}": int(t.value == word)
            for r, t in truths.items()
            for name, word in (("fired", "true"), ("unknown", "unknown"))
        }
        fired += kept["rules"]["average"] == "true"
        assert sample.target == (prompt.label or "")
        seen |= {t.value for t in truths.values()}
    assert seen == {"true", "false", "unknown"}
    assert log.results is not None
    shares = {s.name: s.metrics["mean"].value for s in log.results.scores}
    assert (shares["lost:fired"], shares["lost:unknown"]) == (0.0, 1.0)
    assert shares["average:fired"] == pytest.approx(fired / LIMIT)


def test_hooks_write_one_event_a_sample_also_where_another_scorer_scores(tmp_path: Path) -> None:
    dataset = suite_dataset(load_suite("builtin/harmful-requests"), limit=3)
    log = run(Task(dataset=dataset, solver=generate(), scorer=includes()), tmp_path)
    assert log.status == "success", log.error
    for sample in log.samples or []:
        events = [e for e in sample.events if e.event == "info" and e.source == "auditkit"]
        (event,) = events
        assert set(event.data["rules"]) == {r.id for r in LOCK.rules}  # type: ignore[index,call-overload]
        assert "unknown: lost" in event.data["summary"]  # type: ignore[index,call-overload]
        assert len(event.data["calls"]) == 1  # type: ignore[index,call-overload]


def test_every_call_of_a_conversation_counts(tmp_path: Path) -> None:
    @solver
    def twice() -> Any:
        async def solve(state: TaskState, generate: Generate) -> TaskState:
            state = await generate(state)
            state.messages.append(ChatMessageUser(content="tell me more"))
            return await generate(state)

        return solve

    dataset = suite_dataset(load_suite("builtin/harmful-requests"), limit=2)
    log = run(Task(dataset=dataset, solver=twice(), scorer=watched_rules()), tmp_path)
    assert log.status == "success", log.error
    for sample in log.samples or []:
        calls = ((sample.scores or {})["watched_rules"].metadata or {})["auditkit"]["calls"]
        assert len(calls) == 2
        assert calls[1]["tokens"] > calls[0]["tokens"]


def test_the_provider_is_found_by_name_with_files(tmp_path: Path) -> None:
    model = tiny_model()
    model.network.save_pretrained(tmp_path / "model")
    model.tokenizer.save_pretrained(tmp_path / "model")
    kept = write_sae(SAE, tmp_path / "sae", dtype="float32")
    from auditkit.models import load_model

    identity = load_model(str(tmp_path / "model")).identity
    from dataclasses import replace

    write_lock(replace(LOCK, model=identity, sae=kept.identity), tmp_path / "rules.lock.json")
    named = get_model(
        f"auditkit/{tmp_path / 'model'}",
        sae=str(tmp_path / "sae"),
        lock=str(tmp_path / "rules.lock.json"),
        memoize=False,
    )
    dataset = suite_dataset(load_suite("builtin/harmful-requests"), limit=1)
    log = run(Task(dataset=dataset, solver=generate(), scorer=watched_rules()), tmp_path, named)
    assert log.status == "success", log.error
    with pytest.raises(InvalidInput, match="nothing to watch with"):
        get_model(f"auditkit/{tmp_path / 'model'}", memoize=False)


def test_a_rule_can_end_a_reply_and_the_log_says_so(tmp_path: Path) -> None:
    asked = rule("asked", "any(s > 0)", *range(64), severity=Severity.MEDIUM)
    reply = rule("reply", "any(s > 0)", *range(64), roles=(Role.ASSISTANT,))
    dataset = suite_dataset(load_suite("builtin/harmful-requests"), limit=2)
    task = Task(dataset=dataset, solver=generate(), scorer=watched_rules())
    always = lock(MODEL, SAE, asked, reply)
    log = run(task, tmp_path, watched_model(MODEL, [(SAE, always)], stop=True))
    for sample in log.samples or []:
        assert sample.output.stop_reason == "content_filter"
        (call,) = ((sample.scores or {})["watched_rules"].metadata or {})["auditkit"]["calls"]
        assert call["stopped_by"] == "reply"
        assert call["ending"] == "stopped"


def test_a_model_that_is_not_watched_is_an_error_and_no_score(tmp_path: Path) -> None:
    dataset = MemoryDataset([Sample(input="hello", id="a")])
    task = Task(dataset=dataset, solver=generate(), scorer=watched_rules())
    usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
    output = ModelOutput.from_content("mockllm/model", "hello")
    output.usage = usage
    log = run(task, tmp_path, get_model("mockllm/model", custom_outputs=[output]))
    assert log.status == "error"
    assert "no watched model call" in str(log.error)


def test_settings_that_cannot_be_honoured_are_refused(tmp_path: Path) -> None:
    dataset = MemoryDataset([Sample(input="hello", id="a")])
    log = run(Task(dataset=dataset, solver=generate()), tmp_path, top_p=0.5)
    assert log.status == "error"
    assert "does not implement top_p" in str(log.error)


def test_temperature_and_seed_are_honoured(tmp_path: Path) -> None:
    dataset = MemoryDataset([Sample(input="tell me a story", id="a")])
    config = GenerateConfig(temperature=1.5, seed=7)
    log = run(Task(dataset=dataset, solver=generate(), config=config), tmp_path)
    asked = Prompt(id="a", messages=(Message(role=Role.USER, content="tell me a story"),))
    settings: Any = {"max_new_tokens": 8, "temperature": 1.5}
    (reply,) = watch_generate(MODEL, WATCHES, [asked], seed=7, **settings)
    (other,) = watch_generate(MODEL, WATCHES, [asked], seed=8, **settings)
    assert (log.samples or [])[0].output.completion == reply.text != other.text


def test_prompts_that_a_model_cannot_reply_to_are_refused() -> None:
    user = Message(role=Role.USER, content="hello")
    said = Message(role=Role.ASSISTANT, content="hello")
    prompts = (Prompt(id="p", messages=(user, said)),)
    suite = Suite(name="s", title="s", source="test", licence="none", prompts=prompts)
    with pytest.raises(NotSupportedYet, match="ends in the assistant"):
        suite_dataset(suite)
    with pytest.raises(InvalidInput, match="ends in the assistant"):
        prompt_of([ChatMessageAssistant(content="hello")])
    with pytest.raises(InvalidInput, match="type image"):
        prompt_of([ChatMessageUser(content=[ContentText(text="a"), ContentImage(image="x.png")])])


def test_plain_text_stays_plain_text() -> None:
    text = Message(role=Role.TEXT, content="once upon a time")
    prompts = (Prompt(id="p", messages=(text,)),)
    suite = Suite(name="s", title="s", source="test", licence="none", prompts=prompts)
    (sample,) = suite_dataset(suite)
    assert not isinstance(sample.input, str)
    assert prompt_of(sample.input).messages == (text,)


def test_a_rule_over_several_calls_is_true_if_it_was_ever_true() -> None:
    def call(*truths: str) -> dict[str, Any]:
        return {"verdicts": [{"rule": "r", "verdict": t} for t in truths]}

    assert truth_by_rule([call("false"), call("unknown")]) == {"r": Truth.UNKNOWN}
    assert truth_by_rule([call("true"), call("unknown", "false")]) == {"r": Truth.TRUE}
    assert truth_by_rule([call("false")]) == {"r": Truth.FALSE}
    excused = {"verdicts": [{"rule": "r", "verdict": "true", "filtered_by": "f"}]}
    assert truth_by_rule([excused]) == {"r": Truth.FALSE}
    assert truth_by_rule([excused, call("unknown")]) == {"r": Truth.UNKNOWN}


def test_importing_the_package_loads_neither_inspect_nor_torch() -> None:
    code = (
        "import auditkit.integrations.inspect, auditkit.integrations, sys\n"
        "print(sorted({'inspect_ai', 'torch', 'vllm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_inspect_the_error_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['inspect_ai'] = None\n"
        "import auditkit.integrations.inspect as i\n"
        "try: i.watched_rules\n"
        "except ImportError as e: print(e)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "auditkit-sae[inspect]" in done.stdout
