"""Rich's bars with a line of figures under them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType
from rich.progress import Progress
from rich.text import Text


class LiveBars(Progress):
    """Bars, and under them `figures` as they stand when the bars are drawn."""

    figures: str = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.figures:
            yield Text(f"  {self.figures}", style="cyan")
