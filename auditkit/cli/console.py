"""Progress bars and notes on the error stream; results go to standard output."""

from __future__ import annotations

from types import TracebackType


class Bars:
    """A `core.progress.LiveProgress` drawn with rich; plain lines where there is no terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        from auditkit.cli.live_bars import LiveBars

        self._console = Console(stderr=True, quiet=quiet, highlight=False)
        self._progress = LiveBars(
            SpinnerColumn(),
            TextColumn("{task.description:<46}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=quiet or not self._console.is_terminal,
        )
        self._task: int | None = None
        self._total = 0

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._progress.stop()
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.note("stopped; what was done is kept, run the same command to go on")

    def begin(self, task: str, total: int) -> None:
        self._finish()
        self._total = total
        if self._progress.disable:
            self._console.print(f"· {task} ({total})", markup=False)
            return
        self._task = int(self._progress.add_task(task, total=total))

    def advance(self, steps: int = 1) -> None:
        if self._task is not None:
            self._progress.advance(self._task, steps)  # pyright: ignore[reportArgumentType]

    def show(self, figures: str) -> None:
        """A line of figures under the bars; nothing where the output is no terminal."""
        self._progress.figures = figures

    def note(self, text: str) -> None:
        self._console.print(f"  {text}", markup=False)

    def _finish(self) -> None:
        self._progress.figures = ""
        if self._task is not None:
            self._progress.update(self._task, completed=self._total)  # pyright: ignore[reportArgumentType]
            self._task = None
