"""What a harvest and a training run show while they go on."""

from __future__ import annotations

from auditkit.core.progress import LiveProgress, Progress
from auditkit.training import HarvestEvent, HarvestProgress, TrainEvent, TrainProgress


def harvest_reporter(progress: Progress) -> HarvestProgress:
    """Tells `progress` how many documents are done, and shows tokens, hook points and speed."""
    before = 0

    def report(event: HarvestEvent) -> None:
        nonlocal before
        progress.advance(event.documents - before)
        before = event.documents
        if isinstance(progress, LiveProgress):
            progress.show(harvest_figures(event))

    return report


def train_reporter(progress: Progress, *, d_sae: int) -> TrainProgress:
    """Tells `progress` the step, shows the batch's measures, and notes those on held-out rows."""
    before = 0
    held_out: float | None = None

    def report(event: TrainEvent) -> None:
        nonlocal before, held_out
        progress.advance(event.step - before)
        before = event.step
        if event.held_out_explained_variance is not None:
            held_out = event.held_out_explained_variance
            progress.note(
                f"step {event.step}: explained variance {held_out:.4f} "
                f"on held-out rows, {event.dead} dead, {event.tokens_per_second:,.0f} tokens/s"
            )
        if isinstance(progress, LiveProgress):
            progress.show(train_figures(event, d_sae=d_sae, held_out=held_out))

    return report


def harvest_figures(event: HarvestEvent) -> str:
    """A line on how a harvest stands."""
    places = "1 hook point" if event.hook_points == 1 else f"{event.hook_points} hook points"
    return f"{event.rows:,} tokens at {places} · {event.tokens_per_second:,.0f} tokens/s"


def train_figures(event: TrainEvent, *, d_sae: int, held_out: float | None) -> str:
    """A line on how training stands; `held_out` is the last explained variance on held-out rows."""
    apart = "" if held_out is None else f" (held out {held_out:.4f})"
    parts = [
        f"explained variance {event.explained_variance:.4f}{apart}",
        f"L0 {event.l0:.1f}",
        f"{event.dead:,} of {d_sae:,} dead",
        f"{event.tokens_per_second:,.0f} tokens/s",
    ]
    if event.seconds_left is not None:
        parts.append(f"{duration(event.seconds_left)} left")
    return " · ".join(parts)


def duration(seconds: float) -> str:
    """A length of time as 42 s, 12 min or 3 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
