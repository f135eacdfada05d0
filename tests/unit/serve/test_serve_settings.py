"""Settings that would be unsafe or make no sense are refused, and the token is never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from auditkit.core.errors import InvalidInput, RunFailed
from auditkit.serve.credentials import read_token
from auditkit.serve.server import bind
from auditkit.serve.settings import (
    Action,
    FailPolicy,
    Limits,
    Policy,
    ServeSettings,
    is_loopback,
)

SECRET = "correct-horse-battery-staple"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_any_host_but_loopback_needs_a_token(host: str) -> None:
    with pytest.raises(InvalidInput, match="no token is set"):
        ServeSettings(host=host)
    assert ServeSettings(host=host, token=SECRET).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_none(host: str) -> None:
    assert is_loopback(host)
    assert ServeSettings(host=host).token is None


@pytest.mark.parametrize("token", ["short", "", "x" * 20 + "\n", "gehe1mnisgehe1mnis\u00fc"])
def test_a_weak_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidInput, match="at least 16 printable") as caught:
        ServeSettings(token=token)
    assert not token or token not in str(caught.value)


def test_the_token_is_not_shown() -> None:
    assert SECRET not in repr(ServeSettings(token=SECRET))


@pytest.mark.parametrize("name", ["body_bytes", "new_tokens", "concurrency", "request_seconds"])
def test_limits_are_positive(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is at least 1"):
        Limits(**{name: 0})


def test_recording_only_cannot_block() -> None:
    with pytest.raises(InvalidInput, match="the action is to record only"):
        Policy(action=Action.RECORD, fail=FailPolicy.CLOSED)


def test_a_token_is_read_from_a_variable_or_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("A_TOKEN", f" {SECRET}\n")
    (tmp_path / "token").write_text(f"{SECRET}\n")
    assert read_token(variable="A_TOKEN", file=None) == SECRET
    assert read_token(variable=None, file=tmp_path / "token") == SECRET
    assert read_token(variable=None, file=None) is None


def test_a_token_that_is_not_there_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("A_TOKEN", raising=False)
    with pytest.raises(InvalidInput, match="not set, or empty"):
        read_token(variable="A_TOKEN", file=None)
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_token(variable=None, file=tmp_path / "missing")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(InvalidInput, match="holds no token"):
        read_token(variable=None, file=tmp_path / "empty")
    with pytest.raises(InvalidInput, match="both given"):
        read_token(variable="A_TOKEN", file=tmp_path / "empty")


def test_a_port_that_is_taken_is_an_error() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RunFailed, match=f"cannot listen on 127.0.0.1:{port}"):
            bind("127.0.0.1", port)
