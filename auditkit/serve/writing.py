"""One reply being written: which text may go, what is held, and how it ends.

A token is shown to the rules before its text is given out: it is passed through the model first,
which the next token needs anyway, so text runs one forward pass behind the choice of its token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from auditkit.core.tokens import TokenizedPrompt
from auditkit.models import LanguageModel
from auditkit.serve.chat_request import ChatRequest
from auditkit.serve.decoding import Sampler, Stepper
from auditkit.serve.engine import Conclusion, Ended, Event, Finish, Outcome, Piece, RuleVerdict
from auditkit.serve.policy import Block, block_by_failure, block_by_rule
from auditkit.serve.reply_text import StopTexts, TextFlow
from auditkit.serve.settings import Action, Hold, Policy
from auditkit.serve.watch import Watch


class Writing:
    """Writes one reply under watch: `pieces` inside the watch, `ending` after it.

    `room` is how many tokens the model's context has left after the prompt.
    """

    def __init__(
        self,
        model: LanguageModel,
        policy: Policy,
        request: ChatRequest,
        prompt: TokenizedPrompt,
        *,
        room: int,
    ) -> None:
        self._model, self._policy, self._prompt = model, policy, prompt
        self._limit = min(request.sampling.max_new_tokens, room)
        self._sampler = Sampler(request.sampling, model.device)
        self._flow = TextFlow(model.decode, model.tokenizer.all_special_ids)
        self._stops = StopTexts(request.sampling.stop)
        self._hold = not request.stream or policy.hold is Hold.REPLY
        self._held: list[tuple[int, str]] = []
        self._sent = False
        self._tokens = 0
        self._finish = Finish.LENGTH
        self._block: Block | None = None

    def pieces(self, watch: Watch, cancelled: Callable[[], bool]) -> Iterator[Piece]:
        """Choose tokens until the reply ends; give out the text that need not be held."""
        stepper = Stepper(self._model)
        logits = stepper.feed(self._prompt.ids)
        while not self._over(watch, cancelled):
            token = self._sampler.choose(logits)
            if token in self._model.end_ids:
                self._finish = Finish.STOP
                return
            logits = stepper.feed([token])
            self._tokens += 1
            if self._blocked(watch):
                return
            yield from self._give(self._stops.push(self._flow.push(token)))
            if self._stops.met:
                self._finish = Finish.STOP
                return

    def ending(self, verdicts: tuple[RuleVerdict, ...], error: str | None) -> Iterator[Event]:
        """What is left to say once every verdict is final, and Ended."""
        block = (
            self._block
            or block_by_rule(self._policy, verdicts)
            or block_by_failure(self._policy, verdicts, error)
        )
        if block is None:
            yield from self._give(self._stops.push(self._flow.finish()))
            yield from self._give(self._stops.finish())
            text = "".join(text for _, text in self._held)
        elif self._policy.action is Action.REPLACE:
            text = f"\n\n{self._policy.refusal}" if self._sent else self._policy.refusal
        else:
            text = "".join(text for place, text in self._held if place < block.token)
        if text:
            yield Piece(text=text)
        yield self._ended(block, verdicts, error)

    def _ended(
        self, block: Block | None, verdicts: tuple[RuleVerdict, ...], error: str | None
    ) -> Ended:
        outcome, finish = Outcome.NONE, self._finish
        if block is not None:
            replaced = self._policy.action is Action.REPLACE
            outcome = Outcome.REPLACED if replaced else Outcome.STOPPED
            finish = Finish.FILTERED
        return Ended(
            finish=finish,
            prompt_tokens=len(self._prompt),
            reply_tokens=self._tokens,
            conclusion=Conclusion(
                verdicts=verdicts,
                outcome=outcome,
                because=None if block is None else block.because,
                monitor_error=error,
            ),
        )

    def _over(self, watch: Watch, cancelled: Callable[[], bool]) -> bool:
        if cancelled():
            self._finish = Finish.CANCELLED
            return True
        return self._tokens >= self._limit or self._blocked(watch)

    def _blocked(self, watch: Watch) -> bool:
        self._block = block_by_rule(self._policy, watch.fired())
        return self._block is not None or watch.broken()

    def _give(self, text: str) -> Iterator[Piece]:
        if not text:
            return
        if self._hold:
            self._held.append((len(self._prompt) + self._tokens - 1, text))
        else:
            self._sent = True
            yield Piece(text=text)
