"""Bodies and chunks as OpenAI's clients read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from auditkit.serve.engine import Ended, Finish
from auditkit.serve.verdict_report import verdict_field

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyWriter:
    """Writes everything about one reply: its id, when it began, the model, the lock, the seed."""

    id: str
    created: int
    model: str
    lock: str
    seed: int

    def completion(self, text: str, ended: Ended) -> dict[str, Any]:
        """The body of a reply that is not streamed."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": ended.finish.value,
        }
        verdict = self._verdict(ended)
        head = self._head("chat.completion")
        return {**head, "choices": [choice], "usage": usage(ended), "auditkit": verdict}

    def opening(self) -> bytes:
        """The first chunk: whose turn it is."""
        return self._chunk({"role": "assistant", "content": ""}, None)

    def piece(self, text: str) -> bytes:
        """A chunk of text."""
        return self._chunk({"content": text}, None)

    def closing(self, ended: Ended, *, include_usage: bool) -> bytes:
        """The last chunk (and the usage chunk, where asked for), then [DONE]."""
        tail: dict[str, Any] = {"auditkit": self._verdict(ended)}
        last = self._chunk({}, ended.finish, **tail)
        if include_usage:
            # The usage chunk is then the last before [DONE], so it carries the verdicts as well.
            head = self._head("chat.completion.chunk")
            last += sse({**head, "choices": [], "usage": usage(ended), **tail})
        return last + DONE

    def _verdict(self, ended: Ended) -> dict[str, Any]:
        return verdict_field(ended.conclusion, lock=self.lock, seed=self.seed)

    def _head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"lock-{self.lock[:12]}",
        }

    def _chunk(self, delta: dict[str, Any], finish: Finish | None, **fields: Any) -> bytes:
        reason = None if finish is None else finish.value
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return sse({**self._head("chat.completion.chunk"), "choices": [choice], **fields})


def sse(value: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def usage(ended: Ended) -> dict[str, int]:
    """Tokens of prompt and reply."""
    return {
        "prompt_tokens": ended.prompt_tokens,
        "completion_tokens": ended.reply_tokens,
        "total_tokens": ended.prompt_tokens + ended.reply_tokens,
    }
