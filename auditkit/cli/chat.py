"""The loop of `auditkit monitor --chat`: read a line, reply under watch, draw."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live

from auditkit.cli.chat_view import (
    COMMANDS,
    colours,
    gauge_table,
    plain_lines,
    talk_rows,
    turn_view,
)
from auditkit.core.errors import AuditkitError
from auditkit.pipeline.monitor_chat import ChatSession, Turn
from auditkit.report.visible import visible


class Face(Protocol):
    """How a chat shows itself."""

    def ask(self) -> str | None:
        """The next line of the user; None at the end of the input."""
        ...

    def reply(self, session: ChatSession, text: str) -> None:
        """Make and show a reply."""
        ...

    def rules(self, session: ChatSession) -> None:
        """Show where every rule stands."""
        ...

    def say(self, text: str) -> None:
        """A word of the program's own."""
        ...


class TerminalFace:
    """A live coloured view; what has ended scrolls away as ordinary output."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def ask(self) -> str | None:
        try:
            return self.console.input("[bold #88c0d0]›[/] ")
        except EOFError:
            return None

    def reply(self, session: ChatSession, text: str) -> None:
        rows = talk_rows(self.console.height, len(session.gauges))
        with Live(console=self.console, transient=True, auto_refresh=False) as live:

            def step(turn: Turn) -> None:
                live.update(turn_view(turn, running=turn.result is None, rows=rows), refresh=True)

            turn = session.say(text, step)
        self.console.print(turn_view(turn, running=False))

    def rules(self, session: ChatSession) -> None:
        self.console.print(gauge_table(session.gauges, colours(session.gauges)))

    def say(self, text: str) -> None:
        self.console.print(visible(text), style="#8892a6", markup=False, highlight=False)


class PlainFace:
    """Plain lines, where there is no terminal."""

    def __init__(self, lines: Iterator[str], emit: Callable[[str], object]) -> None:
        self._lines, self._emit = lines, emit

    def ask(self) -> str | None:
        line = next(self._lines, None)
        if line is None:
            return None
        self._emit(f"you: {visible(line.rstrip(chr(10)))}")
        return line

    def reply(self, session: ChatSession, text: str) -> None:
        for line in plain_lines(session.say(text)):
            self._emit(line)

    def rules(self, session: ChatSession) -> None:
        for gauge in session.gauges:
            self._emit(f"rule: {gauge.rule_id}: {visible(gauge.title)}, {gauge.truth.value}")

    def say(self, text: str) -> None:
        self._emit(visible(text))


def face_for(console: Console) -> Face:
    """The coloured view if both ends are a terminal, else plain lines."""
    if console.is_terminal and sys.stdin.isatty():
        return TerminalFace(console)
    return PlainFace(iter(sys.stdin), lambda line: print(line, flush=True))


def run_chat(session: ChatSession, face: Face) -> None:
    """Talk until /quit or the end of the input. Ctrl-C ends a reply; twice at the prompt, all."""
    face.say(COMMANDS)
    hinted = False
    while True:
        try:
            line = face.ask()
        except KeyboardInterrupt:
            if hinted:
                raise
            hinted = True
            face.say("\n/quit or Ctrl-C again to leave")
            continue
        hinted = False
        if line is None:
            return
        text = line.strip()
        if text.startswith("/"):
            if not _command(text, session, face):
                return
        elif text:
            _reply(session, face, text)


def _reply(session: ChatSession, face: Face, text: str) -> None:
    with _interruptible(session):
        try:
            face.reply(session, text)
        except AuditkitError as error:
            face.say(f"error: {error}")


def _command(text: str, session: ChatSession, face: Face) -> bool:
    """Do what a line beginning with / says; False for /quit."""
    name, _, argument = text.partition(" ")
    match name:
        case "/quit":
            return False
        case "/reset":
            session.reset()
            face.say("the conversation is forgotten")
        case "/rules":
            face.rules(session)
        case "/save" if argument.strip():
            path = Path(argument.strip()).expanduser()
            try:
                session.write(path)
                face.say(f"kept in {path}")
            except AuditkitError as error:
                face.say(f"error: {error}")
        case "/save":
            face.say("error: /save needs the name of a file")
        case _:
            face.say(f"error: no command {name}; there are {COMMANDS}")
    return True


@contextmanager
def _interruptible(session: ChatSession) -> Generator[None]:
    """Ctrl-C ends the reply at its next token; a second one is an ordinary Ctrl-C."""

    def handle(number: int, frame: FrameType | None) -> None:
        del number, frame
        if not session.interrupt():
            raise KeyboardInterrupt

    try:
        before: Any = signal.signal(signal.SIGINT, handle)
    except ValueError:  # not in the main thread, which alone gets signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
