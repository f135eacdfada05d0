"""What a run tells its caller while it runs, and the log it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from auditkit.training.activations.buffer import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStart:
    """A run begins, or goes on after `step` of `steps`, on `rows` rows that are kept in `buffer`
    (memory or disk): they need `needed_bytes`, and `memory_bytes` was the budget."""

    step: int
    steps: int
    rows: int
    held_out: int
    buffer: Place
    needed_bytes: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainEvent:
    """Step `step` (counted from 1) of `steps` is done.

    `loss` is the batch's FVU plus what the objective adds to it (AuxK, a penalty on sparsity);
    `explained_variance` (centred) and `l0` are the batch's; `held_out_explained_variance` is given
    every so many steps, else None.
    `seconds_left` is what the steps to come take at the speed of this run so far.
    """

    step: int
    steps: int
    loss: float
    explained_variance: float
    l0: float
    dead: int
    learning_rate: float
    tokens_per_second: float
    held_out_explained_variance: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HarvestEvent:
    """`documents` of `of_documents` are done, with `rows` activations written so far at each of the
    `hook_points` that this pass reads; `tokens_per_second` of this run."""

    documents: int
    of_documents: int
    rows: int
    hook_points: int
    tokens_per_second: float


TrainProgress = Callable[[TrainEvent], None]
HarvestProgress = Callable[[HarvestEvent], None]


class TrainLog:
    """A JSONL file with a line per logged step; lines of steps that will be run again are cut."""

    def __init__(self, path: Path, *, first_step: int) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        kept: list[str] = []
        if first_step and path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    step = json.loads(line)["step"]
                except (json.JSONDecodeError, KeyError):
                    break
                if step <= first_step:
                    kept.append(line)
        path.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")

    def write(self, event: TrainEvent) -> None:
        """Append one line."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(event)) + "\n")

    def start(self, start: TrainStart) -> None:
        """Append a line with `"event": "start"`, which lines of steps do not have."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": "start", **asdict(start)}) + "\n")
