"""`auditkit serve` as a user starts and ends it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from auditkit.rules import write_lock
from auditkit.saes import write_sae
from tests.planted_words import word_sae
from tests.serving import events
from tests.serving_model import on_word
from tests.small_audit import run
from tests.tiny import WORDS, tiny_model
from tests.watched import lock

TOKEN = "a-token-of-some-length"
MODULES = [f"auditkit.serve.{name}" for name in ("run", "app", "server", "metrics")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an SAE and a lock of one rule on disk."""
    found = tmp_path_factory.mktemp("served")
    model = tiny_model()
    model.network.save_pretrained(found / "model")
    model.tokenizer.save_pretrained(found / "model")
    from auditkit.models import load_model

    loaded = load_model(str(found / "model"))
    sae = write_sae(word_sae(loaded, WORDS), found / "sae", dtype="float32")
    write_lock(lock(loaded, sae, on_word("water")), found / "rules.lock.json")
    return found


def arguments(folder: Path, *more: str) -> list[str]:
    files = {"--model": "model", "--sae": "sae", "--lock": "rules.lock.json"}
    given = [part for name, file in files.items() for part in (name, str(folder / file))]
    return ["serve", *given, "--name", "tiny", "--port", "0", *more]


@contextmanager
def started(folder: Path, *more: str) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """The command in a process of its own, its address, and what it has printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "auditkit", *arguments(folder, *more)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "A_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stderr is not None
        lines: list[str] = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"listening on (\S+)", line):
                yield process, found[1], lines
                break
        else:
            pytest.fail("".join(lines))
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_reply_in_work_finish_and_ends_with_0(
    folder: Path, number: signal.Signals
) -> None:
    asked: dict[str, Any] = {
        "model": "tiny",
        "messages": [{"role": "user", "content": "find water"}],
        "stream": True,
        "seed": 1,
        "max_tokens": 64,
    }
    headers = {"authorization": f"Bearer {TOKEN}"}
    with started(folder, "--token-env", "A_TOKEN") as (process, address, lines):
        assert httpx.get(f"{address}/models").status_code == 401
        with httpx.stream(
            "POST", f"{address}/chat/completions", json=asked, headers=headers, timeout=60
        ) as reply:
            text = reply.iter_text()
            first = next(text)
            process.send_signal(number)
            *_, last, done = events(first + "".join(text))
        assert process.wait(30) == 0
        assert process.stderr is not None
        printed = "".join(lines) + process.stderr.read()
    assert done == "[DONE]"
    assert last["auditkit"]["counts"]["true"] == 1
    assert TOKEN not in printed
    assert "find water" not in printed
    assert '"fired": ["word.water"]' in printed


def test_without_its_extra_the_command_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in MODULES:
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    ended = run(monkeypatch, capsys, *arguments(folder))
    assert ended.code == 2
    assert "fastapi" in ended.err
    assert "pip install 'auditkit-sae[serve]'" in ended.err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--host", "0.0.0.0"], "no token is set"),
        (["--token-env", "NO_SUCH_VARIABLE"], "not set, or empty"),
        (["--fail", "closed"], "the action is to record only"),
        (["--lock", "another.json"], "1 SAEs and 2 locks"),
        (["--concurrency", "0"], "concurrency is at least 1"),
        (["--action", "shout"], "one of record, stop, replace"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_is_refused_before_anything_is_loaded(
    folder: Path,
    more: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    ended = run(monkeypatch, capsys, *arguments(folder, *more))
    assert ended.code == 2
    assert message in ended.err


def test_the_help_has_examples(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = run(monkeypatch, capsys, "serve", "--help")
    assert ended.code == 0
    assert "Examples" in ended.out
    assert "--token-env" in ended.out


def test_the_command_line_starts_without_the_servers_packages() -> None:
    script = (
        "import sys, auditkit.cli\n"
        "heavy = {'torch', 'fastapi', 'starlette', 'uvicorn', 'prometheus_client'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
