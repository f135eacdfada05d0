"""Roles, messages and masks of a prompt's tokens, sent along with a vLLM request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from auditkit.core.errors import InvalidInput
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenizedPrompt, TokenMask

EXTRA_ARGS_KEY = "auditkit"
"""The key in `SamplingParams.extra_args` under which a layout travels to the worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLayout:
    """What the rules need to know of a prompt's tokens: role, message, mask bits of each.

    vLLM's worker is given token ids alone. The client renders the conversation (so that it knows
    whose words each token is), sends the ids as the prompt and `to_extra_args()` with the request.
    """

    roles: tuple[Role, ...]
    messages: tuple[int, ...]
    masks: tuple[TokenMask, ...]

    @classmethod
    def of(cls, prompt: TokenizedPrompt) -> PromptLayout:
        """The layout of a rendered prompt."""
        return cls(roles=prompt.roles, messages=prompt.messages, masks=prompt.masks)

    @classmethod
    def plain(cls, n: int) -> PromptLayout:
        """`n` tokens of plain text: rules that look at a role find none, and stay unknown."""
        return cls(roles=(Role.TEXT,) * n, messages=(0,) * n, masks=(TokenMask.NONE,) * n)

    def __len__(self) -> int:
        return len(self.roles)

    def reply(self) -> tuple[Role, int]:
        """The role and message that the model's own tokens get after this prompt."""
        last = self.roles[-1] if self.roles else Role.TEXT
        role = last if last in (Role.ASSISTANT, Role.TEXT) else Role.ASSISTANT
        return role, (self.messages[-1] if self.messages else 0) + (role is not last)

    def to_extra_args(self) -> dict[str, Any]:
        """JSON-ready: runs of equal tokens as [role, message, mask, how many]."""
        rows = zip(self.roles, self.messages, self.masks, strict=True)
        runs = [
            [role.value, message, int(mask), len(list(group))]
            for (role, message, mask), group in groupby(rows)
        ]
        return {EXTRA_ARGS_KEY: {"runs": runs}}

    @classmethod
    def from_extra_args(cls, extra: Mapping[str, Any] | None, n: int) -> PromptLayout:
        """Read back what `to_extra_args` wrote; plain text where nothing was sent.

        Raises InvalidInput where it is malformed or does not describe exactly `n` tokens.
        """
        sent = (extra or {}).get(EXTRA_ARGS_KEY)
        if sent is None:
            return cls.plain(n)
        try:
            runs = [(Role(r), int(m), TokenMask(int(b)), int(k)) for r, m, b, k in sent["runs"]]
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"extra_args[{EXTRA_ARGS_KEY!r}] is not a prompt layout: {error}",
                help="send PromptLayout.of(rendered).to_extra_args()",
            ) from None
        layout = cls(
            roles=_repeated([(r, k) for r, _, _, k in runs]),
            messages=_repeated([(m, k) for _, m, _, k in runs]),
            masks=_repeated([(b, k) for _, _, b, k in runs]),
        )
        if len(layout) != n or any(k < 1 for *_, k in runs):
            raise InvalidInput(
                f"the layout sent along describes {len(layout)} tokens, the prompt has {n}",
                help="send the ids of the same rendering as prompt_token_ids",
            )
        return layout


def _repeated(runs: Sequence[tuple[Any, int]]) -> tuple[Any, ...]:
    return tuple(value for value, count in runs for _ in range(count))
