"""Watch a vLLM model runner: a hook on each watched layer, requests told apart by the scheduler."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from auditkit.core.errors import AuditkitError, InvalidInput, MismatchError, NotSupportedYet
from auditkit.core.locks import Lock
from auditkit.integrations.vllm.layers import find_layer, residual_stream
from auditkit.integrations.vllm.layout import PromptLayout
from auditkit.integrations.vllm.ledger import Ledger, first_key
from auditkit.integrations.vllm.reading import Reader
from auditkit.integrations.vllm.request import RequestVerdicts, RequestWatch
from auditkit.integrations.vllm.spans import NewRequest, Scheduled, Span, read_spans
from auditkit.rules import FrameOutcome
from auditkit.saes import SparseAutoencoder

OnError = Literal["open", "closed"]


@dataclass(slots=True)
class _Layer:
    """One SAE with its rules, and the requests now running."""

    sae: SparseAutoencoder
    lock: Lock
    reader: Reader
    ledger: Ledger
    requests: dict[str, RequestWatch] = field(default_factory=dict[str, RequestWatch])


@dataclass(slots=True)
class _Step:
    """The forward pass that is running."""

    scheduled: Scheduled
    ids: list[int] | None = None
    spans: tuple[Span, ...] | None = None


class RunnerMonitor:
    """Locked rules over everything that one model runner computes; activations are only read.

    `model_digest` is the digest of the audited model: a worker's weights are fused and sharded and
    cannot be fingerprinted, so the user says which model vLLM serves; a lock for another model or
    SAE is refused. `remember` tokens are kept for prompts that the prefix cache serves later (0:
    their tokens are not covered, and verdicts that need them unknown). With `on_error="open"` a
    failure of the monitor makes the verdicts of the requests in that step unknown, with the error
    beside them; with `closed` it is raised inside the worker, which ends the engine. At most `keep`
    finished requests wait to be taken.
    """

    def __init__(
        self,
        watches: Sequence[tuple[SparseAutoencoder, Lock]],
        *,
        model_digest: str,
        on_error: OnError,
        remember: int = 0,
        keep: int = 4096,
        special_ids: frozenset[int] = frozenset(),
    ) -> None:
        for sae, lock in watches:
            _check(sae, lock, model_digest)
        self._layers = [
            _Layer(sae, lock, Reader(sae, lock), Ledger(remember)) for sae, lock in watches
        ]
        self._on_error, self._special = on_error, special_ids
        self._finished: deque[RequestVerdicts] = deque(maxlen=keep)
        self._fired: deque[tuple[str, str, FrameOutcome]] = deque(maxlen=keep)
        self._step: _Step | None = None
        self._runner: Any = None
        self._stack = ExitStack()

    def attach(self, runner: Any) -> int:
        """Hook the runner; return how many of the watched layers this worker holds.

        Raises MismatchError where CUDA graphs or torch.compile would leave the hooks out, or where
        a monitor is attached already.
        """
        if self._runner is not None:
            raise MismatchError("this monitor is attached already", help="detach it first")
        if not runner.vllm_config.model_config.enforce_eager:
            raise MismatchError(
                "the engine compiles the model and replays CUDA graphs, which run no Python hooks",
                help="start vLLM with enforce_eager=True",
            )
        model: nn.Module = runner.get_model()
        held = 0
        for layer in self._layers:
            module = find_layer(model, layer.sae.hook_point)
            if module is not None:
                hook = self._layer_hook(layer)
                self._stack.callback(module.register_forward_hook(hook).remove)
                held += 1
        self._stack.callback(
            model.register_forward_pre_hook(self._see_ids, with_kwargs=True).remove
        )
        self._wrap(runner)
        self._runner = runner
        return held

    def detach(self) -> None:
        """Take every hook away; what has been concluded stays to be taken."""
        self._stack.close()
        self._runner = self._step = None

    def take(self) -> list[RequestVerdicts]:
        """Verdicts of the requests that have finished since the last call."""
        taken = list(self._finished)
        self._finished.clear()
        return taken

    def take_fired(self) -> list[tuple[str, str, FrameOutcome]]:
        """(request, rule, outcome) of latching rules that fired since the last call, still running.

        What a caller polls in order to abort requests early.
        """
        taken = list(self._fired)
        self._fired.clear()
        return taken

    def _wrap(self, runner: Any) -> None:
        own = runner.__dict__.get("execute_model")
        inner = runner.execute_model

        def execute_model(scheduled: Scheduled, *args: Any, **kwargs: Any) -> Any:
            self._end(scheduled)
            self._begin(scheduled)
            self._step = _Step(scheduled)
            try:
                return inner(scheduled, *args, **kwargs)
            finally:
                self._step = None

        def unwrap() -> None:
            if own is None:
                del runner.__dict__["execute_model"]
            else:
                runner.__dict__["execute_model"] = own

        runner.__dict__["execute_model"] = execute_model
        self._stack.callback(unwrap)

    def _end(self, scheduled: Scheduled) -> None:
        for layer in self._layers:
            for request in scheduled.finished_req_ids:
                watch = layer.requests.pop(request, None)
                if watch is not None:
                    self._finished.append(watch.finish())

    def _begin(self, scheduled: Scheduled) -> None:
        for new in scheduled.scheduled_new_reqs:
            for layer in self._layers:
                layer.requests[new.req_id] = self._new_watch(new, layer)

    def _new_watch(self, new: NewRequest, layer: _Layer) -> RequestWatch:
        prompt = tuple(new.prompt_token_ids or ())
        extra = getattr(new.sampling_params, "extra_args", None)
        error: AuditkitError | None = None
        try:
            layout = PromptLayout.from_extra_args(extra, len(prompt))
        except InvalidInput as failure:
            layout, error = PromptLayout.plain(len(prompt)), failure
        if new.prompt_token_ids is None or new.mm_features:
            error = NotSupportedYet("a prompt of embeddings or with other media than text")
        adapter = "" if new.lora_request is None else str(new.lora_request)
        watch = RequestWatch(
            new.req_id,
            prompt,
            layout,
            layer.lock,
            ledger=layer.ledger,
            key=first_key(adapter),
            special=self._special,
        )
        if error is not None:
            self._failed([watch], error)
        return watch

    def _failed(self, watches: Sequence[RequestWatch], error: Exception) -> None:
        if self._on_error == "closed":
            raise error
        for watch in watches:
            watch.fail(f"{type(error).__name__}: {error}")

    def _see_ids(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ids = kwargs.get("input_ids", args[0] if args else None)
        if self._step is not None and isinstance(ids, Tensor):
            self._step.ids = ids.tolist()

    def _layer_hook(self, layer: _Layer) -> Any:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            step = self._step
            if step is None:  # profiling, warm-up
                return
            try:
                self._see(layer, step, residual_stream(output))
            except Exception as error:  # a failing monitor must not end the engine by itself
                running = [r for r in step.scheduled.num_scheduled_tokens if r in layer.requests]
                self._failed([layer.requests[r] for r in running], error)

        return hook

    @torch.no_grad()
    def _see(self, layer: _Layer, step: _Step, x: Tensor) -> None:
        if step.spans is None:
            step.spans = read_spans(step.scheduled, self._runner.input_batch)
        total = step.scheduled.total_num_scheduled_tokens
        if step.ids is None or len(step.ids) < total or x.shape[0] < total:
            raise MismatchError(
                f"the layer saw {x.shape[0]} rows and "
                f"{'no' if step.ids is None else len(step.ids)} token ids of {total} scheduled",
                help="micro-batches and sequence parallelism are not supported",
            )
        readings = layer.reader.read(x[:total])
        for span in step.spans:
            watch = layer.requests.get(span.request)
            if watch is not None:  # a request from before the monitor was attached is not watched
                rows = slice(span.start, span.stop)
                fired = watch.take(span.first, step.ids[rows], readings[rows])
                self._fired.extend((span.request, rule, outcome) for rule, outcome in fired)


def _check(sae: SparseAutoencoder, lock: Lock, model_digest: str) -> None:
    if lock.model.digest != model_digest:
        raise MismatchError(
            f"the lock was bound for {lock.model.name} ({lock.model.digest[:12]}), the model is "
            f"said to be {model_digest[:12]}",
            help="bind the rules for the model that vLLM serves",
        )
    if lock.sae.digest != sae.identity.digest:
        raise MismatchError(
            f"the lock was bound for the SAE {lock.sae.name} ({lock.sae.digest[:12]}), this is "
            f"{sae.identity.name} ({sae.identity.digest[:12]})",
            help="bind the rules for this SAE: auditkit rules bind",
        )
