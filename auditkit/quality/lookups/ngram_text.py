"""A text as a lookup sees it: each token and the one before, in two halves of whole documents."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from auditkit.core.errors import InvalidInput

NO_TOKEN = -1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NgramText:
    """Tokens in any order, those of one half to fit a lookup on and the others to test it on.

    `previous` is the id of the token before in the same prompt, NO_TOKEN where there is none;
    `document` numbers the documents; `fitted` is true in the half that is fitted on. Raises
    InvalidInput where a half is empty or a document has tokens in both: what a document repeats
    would then be looked up in itself.
    """

    current: Int64[Tensor, " token"]
    previous: Int64[Tensor, " token"]
    document: Int64[Tensor, " token"]
    fitted: Bool[Tensor, " token"]

    def __post_init__(self) -> None:
        sizes = {len(self.current), len(self.previous), len(self.document), len(self.fitted)}
        if len(sizes) != 1:
            raise InvalidInput(f"one entry per token in every column, not lengths {sorted(sizes)}")
        fit, test = self.document[self.fitted].unique(), self.document[~self.fitted].unique()
        if not len(fit) or not len(test):
            raise InvalidInput(
                "one half of the text is empty",
                help="a lookup needs at least two documents: one to fit on, one to be tested on",
            )
        shared = int(torch.isin(fit, test).sum())
        if shared:
            raise InvalidInput(
                f"{shared} documents have tokens in both halves", help="split between documents"
            )

    def __len__(self) -> int:
        return len(self.current)

    @property
    def documents(self) -> tuple[int, int]:
        """Number of documents fitted on and tested on."""
        fit, test = self.document[self.fitted], self.document[~self.fitted]
        return len(fit.unique()), len(test.unique())


def halve_documents(names: Sequence[str], *, seed: int = 0) -> list[bool]:
    """Whether each of the named documents is fitted on: half of the distinct names.

    A document's place depends on its own name and the seed alone up to the median, so that the
    order in which documents are named changes nothing.
    """
    order = sorted(
        set(names), key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
    )
    chosen = set(order[: (len(order) + 1) // 2])
    return [name in chosen for name in names]
