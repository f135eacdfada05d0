"""Replies of a transformers model with the monitor inside."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence

from auditkit.core.errors import InvalidInput
from auditkit.core.fingerprint import fingerprint
from auditkit.core.locks import Lock
from auditkit.core.prompts import Prompt
from auditkit.core.tokens import TokenizedPrompt
from auditkit.models import LanguageModel
from auditkit.saes import SparseAutoencoder
from auditkit.serve.api_errors import ApiError
from auditkit.serve.chat_request import ChatRequest
from auditkit.serve.engine import Event
from auditkit.serve.settings import Limits, Policy
from auditkit.serve.watch import Watcher
from auditkit.serve.writing import Writing


class WatchedEngine:
    """An `Engine` over one model and the rules of some locks; safe to use from many threads.

    Raises MismatchError for a lock of another model or SAE.
    """

    def __init__(
        self,
        model: LanguageModel,
        watches: Sequence[tuple[SparseAutoencoder, Lock]],
        *,
        name: str,
        policy: Policy,
        limits: Limits,
    ) -> None:
        self.name = name
        self.lock_digest = fingerprint([lock for _, lock in watches])
        self.rule_ids = tuple(dict.fromkeys(rule.id for _, lock in watches for rule in lock.rules))
        self._model, self._policy = model, policy
        self._prompt_limit = limits.prompt_tokens
        self._context = int(getattr(model.network.config, "max_position_embeddings", 1 << 62))
        self._watcher = Watcher(model, watches, policy.fail)
        self._rendering = threading.Lock()

    def chat(self, request: ChatRequest, cancelled: Callable[[], bool]) -> Iterator[Event]:
        """See `Engine.chat`; raises ApiError 400 for messages that are too long or ill-formed."""
        prompt = self._render(request)
        room = self._context - len(prompt)
        writing = Writing(self._model, self._policy, request, prompt, room=room)
        with self._watcher.exchange(uuid.uuid4().hex, prompt) as watch:
            yield from writing.pieces(watch, cancelled)
        yield from writing.ending(watch.verdicts(), watch.error())

    def _render(self, request: ChatRequest) -> TokenizedPrompt:
        asked = Prompt(id="request", messages=request.messages)
        try:
            # A tokenizer's settings belong to all threads.
            with self._rendering:
                prompt = self._model.render(asked, generation_prompt=True)
        except InvalidInput as error:
            raise ApiError(400, error.message, code="invalid_messages", param="messages") from error
        limit = min(self._prompt_limit, self._context - 1)
        if len(prompt) > limit:
            raise ApiError(
                400,
                f"the messages have {len(prompt)} tokens; this server takes at most {limit}",
                code="context_length_exceeded",
                param="messages",
            )
        return prompt
