"""`auditkit monitor` from its command line: a file, standard input, a chat with a tty or none."""

from __future__ import annotations

import io
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from auditkit.models import load_model
from auditkit.rules import write_lock
from auditkit.saes import write_sae
from tests.small_audit import Ended, run
from tests.tiny import tiny_model
from tests.tiny_sae import tiny_sae
from tests.watched import lock, rule

Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("watched")
    model = tiny_model()
    model.network.save_pretrained(folder / "model")
    model.tokenizer.save_pretrained(folder / "model")
    sae = write_sae(tiny_sae(), folder / "sae", dtype="float32")
    identity = load_model(str(folder / "model")).identity
    bound = lock(
        model, sae, rule("any", "any(s > 0)", *range(64)), rule("never", "max(s) >= 1e6", 3)
    )
    write_lock(replace(bound, model=identity), folder / "rules.lock.json")
    return [
        "--model", str(folder / "model"), "--sae", str(folder / "sae"),
        "--lock", str(folder / "rules.lock.json"), "--max-new-tokens", "4", "--quiet",
    ]  # fmt: skip


@pytest.fixture
def undecided(options: list[str]) -> list[str]:
    """The same with a lock of one rule that is undecided and one that never fires."""
    model, sae = load_model(options[1]), tiny_sae()
    lost = rule("lost", "max(s) >= 1", unresolved="no latents")
    never = rule("never", "max(s) >= 1e6", 3)
    bound = replace(lock(tiny_model(), sae, lost, never), model=model.identity)
    path = Path(options[5]).with_name("undecided.lock.json")
    write_lock(bound, path)
    return [*options[:5], str(path), *options[6:]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def given(*arguments: str, text: str = "") -> Ended:
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return run(monkeypatch, capsys, "monitor", *arguments)

    return given


def test_a_file_and_standard_input_give_the_same_lines(
    command: Run, options: list[str], tmp_path: Path
) -> None:
    (tmp_path / "prompts.txt").write_text("tell me a story\nplease \x1b[31m say\n")
    by_file = command(str(tmp_path / "prompts.txt"), *options)
    by_stdin = command(*options, text="tell me a story\nplease \x1b[31m say\n")
    assert by_file.code == by_stdin.code == 1, by_file.err
    assert by_file.out == by_stdin.out
    lines = [json.loads(line) for line in by_file.out.splitlines()]
    assert [line["prompt"] for line in lines] == ["line-00001", "line-00002"]
    verdicts = {(v["rule"], v["verdict"]) for v in lines[0]["verdicts"]}
    assert {("any", "true"), ("never", "false")} <= verdicts
    assert "\x1b" not in by_file.out


def test_a_chat_without_a_terminal_is_plain_lines(
    command: Run, options: list[str], tmp_path: Path
) -> None:
    kept = tmp_path / "kept.json"
    text = f"tell me \x1b[2J a story\nplease say more\n/save {kept}\n/quit\nnever\n"
    ended = command("--chat", *options, text=text)
    assert ended.code == 1, ended.err
    assert ended.out.count("model: ") >= 2
    assert "rule: any true, score" in ended.out
    assert "rule: never false, score 0, threshold 1e+06" in ended.out
    assert "ended: cut at 4 tokens" in ended.out
    assert "\x1b" not in ended.out + ended.err
    assert "⟨U+001B⟩" in ended.out
    assert len(json.loads(kept.read_text())["turns"]) == 2


def test_what_a_rule_below_the_severity_that_acts_finds_is_reported_and_not_acted_upon(
    command: Run, options: list[str]
) -> None:
    def reply(*more: str) -> tuple[int, dict[str, Any]]:
        ended = command(*options, *more, text="tell me a story\n")
        return ended.code, json.loads(ended.out)

    whole = reply()[1]
    code, told = reply("--stop", "--act-on", "critical")
    assert (code, told) == (1, whole)  # the rule is of high severity
    assert told["ending"] == "completed"
    assert ("any", "true") in {(v["rule"], v["verdict"]) for v in told["verdicts"]}
    code, stopped = reply("--stop")
    assert (code, stopped["ending"], stopped["stopped_by"]) == (1, "stopped", "any")
    assert stopped["why"].startswith("rule any fired at token")
    assert len(stopped["reply"]) < len(whole["reply"])


@pytest.mark.parametrize("chat", [False, True])
def test_an_undecided_rule_lets_the_reply_pass_or_takes_it_back_as_the_user_says(
    command: Run, undecided: list[str], chat: bool
) -> None:
    flags = ("--stop", "--fail-on", "critical", *(("--chat",) if chat else ()))
    passed = command(*undecided, *flags, text="tell me a story\n")
    back = command(*undecided, *flags, "--fail", "closed", text="tell me a story\n")
    assert (passed.code, back.code) == (0, 1), back.err
    why = "rule lost is undecided: unresolved selector"
    assert why not in passed.out
    assert why in back.out
    if chat:
        assert "model: (the reply was taken back)" in back.out
        return
    assert json.loads(passed.out)["reply"] != ""
    assert json.loads(back.out)["reply"] == ""
    assert json.loads(back.out)["ending"] == "withheld"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--fail", "closed"), "is to watch only"),
        (("--stop", "--fail", "shut"), "--fail 'shut' is not known"),
        (("--stop", "--act-on", "grave"), "--act-on 'grave' is not known"),
    ],
)
def test_a_policy_that_makes_no_sense_ends_before_a_model_is_loaded(
    command: Run, flags: tuple[str, ...], said: str
) -> None:
    missing = ("--model", "missing", "--sae", "missing", "--lock", "missing")
    ended = command(*missing, *flags, text="tell me a story\n")
    assert ended.code == 2
    assert said in ended.err


def test_a_chat_takes_no_file_and_bad_options_end_before_a_model_is_loaded(
    command: Run, options: list[str]
) -> None:
    ended = command("prompts.txt", "--chat", *options)
    assert ended.code == 2
    assert "--chat takes no file" in ended.err
    assert command("--chat", "--fail-on", "nonsense", *options).code == 2


def test_in_a_terminal_the_view_is_coloured_and_ctrl_c_ends_the_reply(options: list[str]) -> None:
    arguments = [o if o != "4" else "400" for o in options]
    main, side = pty.openpty()
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "TERM": "xterm-256color",
        "COLORTERM": "truecolor",
        "COLUMNS": "100",
        "LINES": "40",
    }
    started = subprocess.Popen(
        [sys.executable, "-m", "auditkit", "monitor", "--chat", *arguments],
        stdin=side,
        stdout=side,
        stderr=side,
        env=environment,
        start_new_session=True,
    )
    os.close(side)
    try:
        assert "›" in _read_until(main, "›")
        os.write(main, b"tell me a story\n")
        _read_until(main, "replying")
        started.send_signal(signal.SIGINT)
        shown = _read_until(main, "interrupted by the user")
        assert "\x1b[" in shown
        os.write(main, b"/quit\n")
        assert started.wait(timeout=60) == 1
    finally:
        started.kill()
        os.close(main)


def _read_until(source: int, wanted: str, seconds: float = 120.0) -> str:
    shown, end = b"", time.monotonic() + seconds
    while wanted not in shown.decode(errors="replace"):
        left = end - time.monotonic()
        assert left > 0, shown.decode(errors="replace")[-2000:]
        if select.select([source], [], [], left)[0]:
            shown += os.read(source, 65536)
    return shown.decode(errors="replace")
