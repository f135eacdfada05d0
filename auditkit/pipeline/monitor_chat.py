"""A conversation under watch, turn by turn; what it looks like is the caller's business."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditkit.core.errors import InvalidInput
from auditkit.core.fingerprint import to_plain
from auditkit.core.locks import Lock
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.core.tokens import TokenizedPrompt, TokenMask
from auditkit.core.verdicts import Truth
from auditkit.models import LanguageModel
from auditkit.monitor import Ending, Monitor, Request, RowResult, TokenSeen
from auditkit.pipeline.monitor_gauges import Gauge, Heat, RuleGauge, strongest
from auditkit.pipeline.monitor_policy import ReplyPolicy
from auditkit.report.visible import escape_hidden
from auditkit.saes import SparseAutoencoder

Watches = Sequence[tuple[SparseAutoencoder, Lock]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownToken:
    """A token of this turn (the user's words and the reply) with every rule's heat at it."""

    text: str
    role: Role
    generated: bool
    heats: tuple[Heat, ...]

    def heat(self, fired: frozenset[str]) -> Heat | None:
        """The heat to colour the token by."""
        return strongest(self.heats, fired)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One exchange as far as it has come; `result` is there once the reply has ended."""

    said: str
    tokens: tuple[ShownToken, ...]
    gauges: tuple[Gauge, ...]
    reply: str
    length: int
    result: RowResult | None = None

    @property
    def fired(self) -> frozenset[str]:
        """The rules that are true in the frames now open."""
        return frozenset(g.rule_id for g in self.gauges if g.truth is Truth.TRUE)

    @property
    def withheld(self) -> bool:
        """Did a closed fail policy take the reply back?"""
        return self.result is not None and self.result.ending is Ending.WITHHELD

    @property
    def stop_reason(self) -> str:
        """In words: why the reply ended; empty while it goes on."""
        if self.result is None:
            return ""
        cut = len(self.result.ids) >= self.length
        ended = f"cut at {self.length} tokens" if cut else "the model ended its reply"
        return self.result.why or ended


class ChatSession:
    """A chat with one model under watch. Not for several threads, but `interrupt` may come from
    a signal handler.

    Every turn renders the whole conversation anew, so that frames and roles are those of an audit
    of the same conversation. `max_new_tokens` bounds each reply; `policy` says what ends one early,
    and what takes it back: what has been shown of it by then has been said.
    """

    def __init__(
        self,
        model: LanguageModel,
        watches: Watches,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        policy: ReplyPolicy | None = None,
        system: str | None = None,
    ) -> None:
        self.model, self.locks = model, tuple(lock for _, lock in watches)
        policy = policy or ReplyPolicy()
        self._monitor = Monitor(
            model,
            list(watches),
            actions=policy.actions,
            on_unknown=policy.on_unknown,
            on_error=policy.on_error,
        )
        self.max_new_tokens, self._temperature, self._seed = max_new_tokens, temperature, seed
        self._system = system
        self._request: Request | None = None
        self._interrupted = False
        self.reset()

    def reset(self) -> None:
        """Forget the conversation."""
        system = self._system
        self.messages = [] if system is None else [Message(role=Role.SYSTEM, content=system)]
        self.turns: list[Turn] = []
        self.gauges = tuple(RuleGauge(r, k).gauge() for k in self.locks for r in k.rules)

    def say(self, text: str, on_step: Callable[[Turn], object] = lambda _: None) -> Turn:
        """Reply to `text`; `on_step` sees the turn after every token. Interrupted replies count.

        Raises InvalidInput where the chat template refuses the conversation; it stays as it was.
        """
        messages = [*self.messages, Message(role=Role.USER, content=text)]
        prompt = Prompt(id=f"turn-{len(self.turns) + 1:03d}", messages=tuple(messages))
        rendered = self.model.render(prompt, generation_prompt=True)
        live = _LiveTurn(text, rendered, self, on_step)
        result = self._generate(rendered, live)
        turn = live.ended(result)
        self.turns.append(turn)
        self.gauges = turn.gauges
        reply = Message(role=Role.ASSISTANT, content=turn.reply, generated=True)
        self.messages = [*messages, reply] if turn.reply.strip() else messages[:-1]
        return turn

    def interrupt(self) -> bool:
        """End the reply that is being made at its next token; False where there is none."""
        if self._request is None or self._interrupted:
            return False
        self._interrupted = True
        self._request.cancel("interrupted by the user")
        return True

    def _generate(self, rendered: TokenizedPrompt, live: _LiveTurn) -> RowResult:
        batch = self.model.pad([rendered], side="left")
        self._interrupted = False
        try:
            with self._monitor.request(
                id=rendered.prompt_id, prompts=[rendered], on_token=live.see
            ) as request:
                self._request = request
                self.model.generate(
                    batch,
                    max_new_tokens=self.max_new_tokens,
                    temperature=self._temperature,
                    seed=self._seed + len(self.turns),
                )
            return request.result(0)
        finally:
            self._request = None

    def write(self, path: Path) -> None:
        """Keep the conversation as JSON: messages, and every turn's verdicts and ending.

        Raises InvalidInput where the file exists or cannot be written.
        """
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(escape_hidden(json.dumps(self.to_plain(), indent=1, ensure_ascii=False)))
        except FileExistsError:
            raise InvalidInput(f"{path} exists", help="name another file") from None
        except OSError as error:
            raise InvalidInput(f"{path} cannot be written: {error.strerror or error}") from None

    def to_plain(self) -> dict[str, Any]:
        """The conversation as plain JSON values."""
        return {
            "format": "auditkit-chat/1",
            "model": self.model.identity.name,
            "messages": [to_plain(message) for message in self.messages],
            "turns": [
                {
                    "said": turn.said,
                    "reply": turn.reply,
                    "ended": turn.stop_reason,
                    "result": None if turn.result is None else turn.result.to_plain(),
                }
                for turn in self.turns
            ],
        }


class _LiveTurn:
    """A turn while its reply is being made."""

    def __init__(
        self,
        said: str,
        rendered: TokenizedPrompt,
        session: ChatSession,
        on_step: Callable[[Turn], object],
    ) -> None:
        self._said, self._model, self._whole = said, session.model, rendered
        self._message, self._length = len(session.messages), session.max_new_tokens
        self._on_step = on_step
        self._rules = [RuleGauge(rule, lock) for lock in session.locks for rule in lock.rules]
        self._given = len(rendered)
        self._tokens: list[ShownToken] = []

    def see(self, seen: TokenSeen) -> None:
        """Take a token that passed through the model, prompt tokens first."""
        if seen.position >= len(self._whole):
            self._whole = self._model.extend(self._whole, [seen.token_id])
        place = (
            seen.role,
            self._whole.messages[seen.position],
            int(self._whole.masks[seen.position]),
        )
        found = [rule.push(place, seen) for rule in self._rules]
        if self._is_shown(seen.position):
            self._tokens.append(
                ShownToken(
                    text=self._whole.texts[seen.position],
                    role=seen.role,
                    generated=seen.generated,
                    heats=tuple(h for h in found if h is not None),
                )
            )
        if seen.position >= self._given - 1:
            self._on_step(self._turn(None))

    def ended(self, result: RowResult) -> Turn:
        """The turn with the monitor's own verdicts."""
        for rule in self._rules:
            rule.settle(result.verdicts)
        turn = self._turn(result)
        self._on_step(turn)
        return turn

    def _is_shown(self, position: int) -> bool:
        of_turn = self._whole.messages[position] >= self._message
        hidden = TokenMask.TEMPLATE | TokenMask.SPECIAL
        return of_turn and not self._whole.masks[position] & hidden

    def _turn(self, result: RowResult | None) -> Turn:
        ids = result.ids if result is not None else self._whole.ids[self._given :]
        return Turn(
            said=self._said,
            tokens=tuple(self._tokens),
            gauges=tuple(rule.gauge() for rule in self._rules),
            reply=self._model.decode(ids),
            length=self._length,
            result=result,
        )
