"""Inspect's model provider `auditkit`: our model with the monitor inside, offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread
from anyio import CapacityLimiter
from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from auditkit.core.errors import InvalidInput, NotSupportedYet
from auditkit.core.locks import Lock, Severity
from auditkit.core.prompts import Prompt
from auditkit.integrations.inspect.samples import prompt_of
from auditkit.integrations.inspect.verdicts import metadata_of
from auditkit.models import LanguageModel, load_model
from auditkit.monitor import Ending, Stop, WatchedReply, watch_generate
from auditkit.rules import read_lock
from auditkit.saes import SparseAutoencoder, check_fits, load_sae

Watches = Sequence[tuple[SparseAutoencoder, Lock]]

DEFAULT_MAX_TOKENS = 256
"""Length of a reply where the task sets none."""

_CHANGES_SAMPLING = (
    "top_p",
    "top_k",
    "stop_seqs",
    "best_of",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "num_choices",
    "logprobs",
    "prompt_logprobs",
    "response_schema",
    "reasoning_effort",
    "reasoning_tokens",
)
"""Settings that a watched model does not implement: refused, never ignored."""


class WatchedModelAPI(ModelAPI):
    """A language model under watch: every reply's verdicts are in the output's metadata.

    From the command line: `inspect eval task.py --model auditkit/MODEL -M sae=… -M lock=…`; in
    Python, `watched_model(model, watches)`. One reply at a time, in a worker thread; with `stop`,
    a reply ends where a rule of high severity fires, and lesser ones are told. `max_tokens`,
    `temperature` and `seed` of Inspect's configuration are honoured, any other setting that would
    change what is sampled is refused.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - Inspect's own signature
        *,
        sae: str | None = None,
        lock: str | None = None,
        dtype: str = "float32",
        device: str = "cpu",
        stop: bool = False,
        loaded: LanguageModel | None = None,
        watches: Watches = (),
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if loaded is None:
            loaded, watches = _load(model_name, sae, lock, dtype, device)
        self._model, self._watches, self._stop = loaded, watches, stop
        self._one_at_a_time: CapacityLimiter | None = None

    def max_tokens(self) -> int | None:
        return DEFAULT_MAX_TOKENS

    def max_connections(self) -> int:
        return 1

    def connection_key(self) -> str:
        return f"auditkit/{self.model_name}"

    def should_retry(self, ex: Exception) -> bool:
        """A local failure stays a failure."""
        del ex
        return False

    async def count_text_tokens(self, text: str) -> int:
        """Tokens of `text`, by the model's own tokenizer (Inspect's would ask the network)."""
        return len(self._model.tokenizer(text, add_special_tokens=False).input_ids)

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Reply to the conversation under watch; InvalidInput for what cannot be honoured."""
        del tool_choice
        if tools:
            raise NotSupportedYet("a watched model calls no tools", help="use a task without any")
        _check(config)
        prompt = prompt_of(input)
        if self._one_at_a_time is None:
            self._one_at_a_time = CapacityLimiter(1)
        return await anyio.to_thread.run_sync(
            self._reply, prompt, config, limiter=self._one_at_a_time
        )

    def _reply(self, prompt: Prompt, config: GenerateConfig) -> ModelOutput:
        length = config.max_tokens or DEFAULT_MAX_TOKENS
        (reply,) = watch_generate(
            self._model,
            self._watches,
            [prompt],
            max_new_tokens=length,
            temperature=config.temperature or 0.0,
            seed=config.seed or 0,
            actions=[Stop(at_least=Severity.HIGH)] if self._stop else (),
            on_unknown="open",
            on_error="closed",
        )
        return _output(self.model_name, reply, length)


def _load(
    model: str, sae: str | None, lock: str | None, dtype: str, device: str
) -> tuple[LanguageModel, Watches]:
    if sae is None or lock is None:
        raise InvalidInput(
            f"the model auditkit/{model} has nothing to watch with",
            help="give -M sae=FOLDER -M lock=rules.lock.json",
        )
    loaded = load_model(model, dtype=dtype, device=device)
    opened = load_sae(sae)
    check_fits(opened, loaded.identity)
    return loaded, [(opened, read_lock(Path(lock)))]


def _check(config: GenerateConfig) -> None:
    asked = [name for name in _CHANGES_SAMPLING if getattr(config, name) is not None]
    if asked:
        raise NotSupportedYet(
            f"a watched model does not implement {', '.join(asked)}",
            help="max_tokens, temperature and seed are honoured",
        )


def _output(name: str, reply: WatchedReply, length: int) -> ModelOutput:
    given, made = reply.result.prompt_tokens, len(reply.ids)
    message = ChatMessageAssistant(content=reply.text, model=name, source="generate")
    return ModelOutput(
        model=name,
        choices=[ChatCompletionChoice(message=message, stop_reason=_stop_reason(reply, length))],
        usage=ModelUsage(input_tokens=given, output_tokens=made, total_tokens=given + made),
        metadata=metadata_of(reply),
    )


def _stop_reason(reply: WatchedReply, length: int) -> StopReason:
    if reply.result.ending is not Ending.COMPLETED:
        return "content_filter"
    return "max_tokens" if len(reply.ids) >= length else "stop"
