"""What observers of a network are told: passes, generations, and what they may answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Int
from torch import Tensor

from auditkit.core.hook_point import HookPoint
from auditkit.core.tokens import TokenizedPrompt


@dataclass(slots=True, kw_only=True, eq=False)
class Pass:
    """A forward pass over `columns` columns of a batch, the first of which is column `start`.

    `ids` are their token ids [row, columns] (None: the model was given embeddings), `attention`
    the mask it was given (None: no padding, or not a plain mask). `paths` [row, start + columns]
    are the rows' whole token ids where rows may have been reordered (beam search). `cache` is
    the KV cache, known before the pass or after it.
    """

    ids: Int[Tensor, "row columns"] | None
    attention: Tensor | None
    rows: int
    columns: int
    start: int
    cache: Any
    paths: Int[Tensor, "row pos"] | None = None
    watches: list[CallWatch] = field(default_factory=list["CallWatch"])


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One generation: the rows it begins with, and how it will go on.

    Row r answers prompt r // `expand`. `mapped`: rows change places (beam search), so only the
    returned sequences say what was generated. `prompts` are given by auditkit's own generate.
    """

    ids: Int[Tensor, "row pos"] | None
    attention: Tensor | None
    rows: int
    columns: int
    expand: int
    mapped: bool
    drafted: bool
    end_ids: frozenset[int]
    pad_id: int
    cache: Any = None
    keeps_cache: bool = False
    prompts: tuple[TokenizedPrompt, ...] | None = None


@runtime_checkable
class CallWatch(Protocol):
    """What an observer does with one generation, or with one plain forward pass."""

    def saw(self, passed: Pass, hook_point: HookPoint, x: Tensor) -> Tensor | None:
        """Activations x [row, columns, d_in]; a returned tensor takes their place."""
        ...

    def passed(self, passed: Pass) -> None:
        """The pass is through. A pass that broke off is not reported."""
        ...

    def accepted(self, ids: Int[Tensor, "row pos"], done: Bool[Tensor, " row"]) -> Sequence[int]:
        """A token was chosen for every row; return the rows that shall end now."""
        ...

    def wants_end(self) -> bool:
        """Shall the whole call end? Asked after every step where rows change places."""
        ...

    def finished(self, sequences: Int[Tensor, "row pos"]) -> Int[Tensor, "row pos"]:
        """The returned sequences, prompt included; what is returned takes their place."""
        ...

    def failed(self, error: BaseException) -> None:
        """The call ended in an exception, which goes on to the caller."""
        ...


@runtime_checkable
class Observer(Protocol):
    """Someone who watches a network."""

    def opened(self, call: Call) -> CallWatch | None:
        """A generation begins."""
        ...

    def passing(self, passed: Pass) -> CallWatch | None:
        """A plain forward pass begins, outside any generation."""
        ...
