"""How a long stage tells whoever called it how far it is."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class Progress(Protocol):
    """A place to report progress to; stages call it, the command line draws it."""

    def begin(self, task: str, total: int) -> None:
        """Start a task of `total` steps; ends the one before."""
        ...

    def advance(self, steps: int = 1) -> None:
        """Report that `steps` more steps are done."""
        ...

    def note(self, text: str) -> None:
        """Say something that the user should read."""
        ...


@runtime_checkable
class LiveProgress(Progress, Protocol):
    """A place that can also show figures which change all the time."""

    def show(self, figures: str) -> None:
        """Show the task's latest figures, a line, in place of those before."""
        ...


class Silent:
    """Reports nothing."""

    def begin(self, task: str, total: int) -> None:
        del task, total

    def advance(self, steps: int = 1) -> None:
        del steps

    def note(self, text: str) -> None:
        del text
