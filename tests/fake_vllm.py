"""A stand-in for vLLM's v1 engine with the tiny model inside: its shapes, not its kernels.

Tokens of several requests are flattened into one batch with padding rows behind them; long prompts
come in chunks; requests are preempted and recomputed; blocks of a prompt that were computed before
are served from a prefix cache and never pass through the layers; rows are rearranged between
steps; decoder layers hand on `(hidden_states, residual)`.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from auditkit.models import LanguageModel

BLOCK = 4


@dataclass
class FakeCachedRequests:
    req_ids: list[str]
    resumed_req_ids: set[str]
    num_computed_tokens: list[int]


@dataclass
class FakeSchedulerOutput:
    scheduled_new_reqs: list[Any]
    scheduled_cached_reqs: FakeCachedRequests
    num_scheduled_tokens: dict[str, int]
    total_num_scheduled_tokens: int
    finished_req_ids: set[str]
    scheduled_spec_decode_tokens: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class FakeRequest:
    req_id: str
    prompt: list[int]
    max_tokens: int
    extra_args: dict[str, Any] | None
    tokens: list[int] = field(default_factory=list)
    computed: int = 0
    known: bool = False
    running: bool = False

    def __post_init__(self) -> None:
        self.tokens = self.tokens or list(self.prompt)

    @property
    def reply(self) -> list[int]:
        return self.tokens[len(self.prompt) :]


class FakeDecoderLayer(nn.Module):
    """The residual stream goes on in two parts whose sum is exact."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * 0.5, x * 0.5


class FakeForCausalLM(nn.Module):
    """vLLM's module tree over the tiny network; `forward` takes the flattened batch."""

    def __init__(self, model: LanguageModel, runner: FakeRunner) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.layers = nn.ModuleList(FakeDecoderLayer() for _ in range(model.n_layers))
        self._inner, self._runner = [model], [runner]

    def forward(self, *, input_ids: Tensor, positions: Tensor) -> Tensor:
        (runner,) = self._runner
        (model,) = self._inner
        states: list[tuple[Tensor, ...]] = []
        logits: list[Tensor] = []
        for row, req_id in enumerate(runner.input_batch.req_ids):
            count = runner.scheduled.num_scheduled_tokens.get(req_id, 0)
            if count == 0:
                continue
            first = int(runner.input_batch.num_computed_tokens_cpu[row])
            tokens = runner.requests[req_id].tokens[: first + count]
            out: Any = model.network(torch.tensor([tokens]), output_hidden_states=True)
            states.append(tuple(h[0, first:] for h in out.hidden_states[1:]))
            logits.append(out.logits[0, -1])
        padding = len(input_ids) - sum(len(s[0]) for s in states)
        for n, layer in enumerate(self.model.layers):
            flat = torch.cat([s[n] for s in states])
            layer(torch.cat([flat, flat.new_full((padding, flat.shape[1]), 1e4)]))
        return torch.stack(logits)


class FakeRunner:
    """vLLM's model runner: a persistent batch, and one forward pass a step."""

    def __init__(self, model: LanguageModel, *, seed: int = 0, enforce_eager: bool = True) -> None:
        self.vllm_config = SimpleNamespace(
            model_config=SimpleNamespace(enforce_eager=enforce_eager)
        )
        self.requests: dict[str, FakeRequest] = {}
        self.input_batch = SimpleNamespace(req_ids=[], num_computed_tokens_cpu=[])
        self.scheduled: Any = None
        self._model = FakeForCausalLM(model, self)
        self._random = random.Random(seed)

    def get_model(self) -> nn.Module:
        return self._model

    @torch.no_grad()
    def execute_model(self, scheduled: FakeSchedulerOutput) -> dict[str, int]:
        self.scheduled = scheduled
        if not scheduled.total_num_scheduled_tokens:
            return {}
        rows = [*scheduled.num_scheduled_tokens]
        idle = [r for r in self.requests if self.requests[r].running and r not in rows]
        order = rows + idle  # a request may keep its place in the batch and compute nothing
        self._random.shuffle(order)
        self.input_batch.req_ids = order
        self.input_batch.num_computed_tokens_cpu = [self.requests[r].computed for r in order]
        ids = [
            token
            for r in order
            for token in self.requests[r].tokens[self.requests[r].computed :][
                : scheduled.num_scheduled_tokens.get(r, 0)
            ]
        ]
        padded = ids + [0] * (-len(ids) % 8)
        logits = self._model(
            input_ids=torch.tensor(padded), positions=torch.zeros(len(padded), dtype=torch.long)
        )
        computing = [r for r in order if r in scheduled.num_scheduled_tokens]
        return {r: int(row.argmax()) for r, row in zip(computing, logits, strict=True)}

    def profile(self) -> None:
        """A forward pass outside `execute_model`, as in warm-up."""
        for layer in self._model.model.layers:
            layer(torch.zeros(3, 32))


class FakeEngine:
    """The scheduler: token budget, chunks, prefix cache, preemption; runs requests to their end."""

    def __init__(
        self,
        runner: FakeRunner,
        *,
        end_ids: frozenset[int],
        budget: int = 24,
        prefix_cache: bool = False,
        preemption: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.runner, self.end_ids, self.budget = runner, end_ids, budget
        self.prefix_cache, self.preemption = prefix_cache, preemption
        self._random = random.Random(seed)
        self._cached: set[tuple[int, ...]] = set()
        self._finished: set[str] = set()
        self._told: set[str] = set()
        self.preempted = self.chunked = self.served_from_cache = 0

    def run(self, requests: list[FakeRequest], *, at_once: int = 4) -> None:
        """Serve all requests, and one last empty step that tells the worker of the last ends."""
        waiting, running = list(requests), []
        self.runner.requests.update({r.req_id: r for r in requests})
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(waiting.pop(0))
            self._preempt(running)
            self._step(running)
            running = [r for r in running if r.req_id not in self._finished]
        self.runner.execute_model(self._output([], {}))

    def _preempt(self, running: list[FakeRequest]) -> None:
        for request in running:
            if request.running and self._random.random() < self.preemption:
                request.computed, request.running = 0, False
                self.preempted += 1

    def _step(self, running: list[FakeRequest]) -> None:
        counts: dict[str, int] = {}
        left = self.budget
        for request in running:
            if not request.running:
                request.computed = self._hit(request)
            count = min(len(request.tokens) - request.computed, left)
            if count > 0:
                counts[request.req_id] = count
                left -= count
        scheduled = [r for r in running if r.req_id in counts]
        output = self._output([r for r in scheduled if not r.known], counts)
        for request in scheduled:
            self.served_from_cache += 0 if request.known else request.computed
            request.known = request.running = True
        chosen = self.runner.execute_model(output)
        for request in scheduled:
            self._advance(request, counts[request.req_id], chosen[request.req_id])

    def _advance(self, request: FakeRequest, count: int, token: int) -> None:
        request.computed += count
        for end in range(BLOCK, request.computed + 1, BLOCK):
            self._cached.add(tuple(request.tokens[:end]))
        if request.computed < len(request.tokens):
            self.chunked += 1
            return
        request.tokens.append(token)
        if token in self.end_ids or len(request.reply) >= request.max_tokens:
            self._finished.add(request.req_id)
            request.running = False

    def _hit(self, request: FakeRequest) -> int:
        if not self.prefix_cache:
            return 0
        hit = 0
        for end in range(BLOCK, len(request.tokens), BLOCK):  # the last token is always computed
            if tuple(request.tokens[:end]) not in self._cached:
                break
            hit = end
        return hit

    def _output(self, new: list[FakeRequest], counts: dict[str, int]) -> FakeSchedulerOutput:
        finished, self._told = self._finished - self._told, set(self._finished)
        cached = [r for r in counts if r not in {n.req_id for n in new}]
        return FakeSchedulerOutput(
            scheduled_new_reqs=[
                SimpleNamespace(
                    req_id=r.req_id,
                    prompt_token_ids=list(r.prompt),
                    mm_features=[],
                    sampling_params=SimpleNamespace(extra_args=r.extra_args),
                    lora_request=None,
                )
                for r in new
            ],
            scheduled_cached_reqs=FakeCachedRequests(cached, set(), []),
            num_scheduled_tokens=counts,
            total_num_scheduled_tokens=sum(counts.values()),
            finished_req_ids=finished,
        )
