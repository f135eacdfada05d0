"""What the hypotheses of a beam search showed, kept by their token ids.

Beams change rows at every step, so what a row showed is looked up by the ids that lead to it. A
hypothesis that is not returned leaves no trace in any verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from auditkit.monitor.row import Entries

Ids = npt.NDArray[np.int64]


@dataclass(slots=True, eq=False)
class _Node:
    """One token of a hypothesis."""

    entries: Entries
    following: dict[int, _Node] = field(default_factory=dict[int, "_Node"])


class Branches:
    """The hypotheses that grew from the prompts of one call."""

    def __init__(self, prompts: int, columns: int) -> None:
        self._columns = columns
        self._roots = [_Node(()) for _ in range(prompts)]
        self._frontier: dict[tuple[int, bytes], _Node] = {}

    def grow(self, paths: Ids, expand: int, entries: Sequence[Entries]) -> None:
        """Every row of `paths` [row, pos] has shown `entries` at its last token."""
        frontier: dict[tuple[int, bytes], _Node] = {}
        last = paths.shape[1] - 1
        for row, path in enumerate(paths):
            prompt, token = row // expand, int(path[last])
            before = path[self._columns : last].tobytes()
            parent = self._frontier.get((prompt, before)) if before else self._roots[prompt]
            if parent is None:
                continue  # its beginning was not seen: completed from the returned ids
            node = parent.following.setdefault(token, _Node(entries[row]))
            frontier[prompt, path[self._columns :].tobytes()] = node
        self._frontier = frontier

    def follow(self, prompt: int, reply: Sequence[int]) -> list[Entries]:
        """What the tokens of a reply showed, as far as they passed through the model."""
        node, found = self._roots[prompt], list[Entries]()
        for token in reply:
            after = node.following.get(token)
            if after is None:
                break
            found.append(after.entries)
            node = after
        return found
