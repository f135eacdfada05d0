"""Which rows of a flattened batch belong to which request, and where in the request they stand."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from auditkit.core.errors import MismatchError, NotSupportedYet


class NewRequest(Protocol):
    """vLLM's `NewRequestData`: a request that this worker sees for the first time."""

    @property
    def req_id(self) -> str: ...
    @property
    def prompt_token_ids(self) -> Sequence[int] | None: ...
    @property
    def mm_features(self) -> Sequence[Any]: ...
    @property
    def sampling_params(self) -> Any: ...
    @property
    def lora_request(self) -> Any: ...


class Scheduled(Protocol):
    """vLLM's `SchedulerOutput`: what one step runs, and which requests ended before it."""

    @property
    def scheduled_new_reqs(self) -> Sequence[NewRequest]: ...
    @property
    def num_scheduled_tokens(self) -> Mapping[str, int]: ...
    @property
    def total_num_scheduled_tokens(self) -> int: ...
    @property
    def scheduled_spec_decode_tokens(self) -> Mapping[str, Sequence[int]]: ...
    @property
    def finished_req_ids(self) -> Collection[str]: ...


class Batch(Protocol):
    """The runner's persistent `InputBatch`, as it stands while the forward pass runs."""

    @property
    def req_ids(self) -> Sequence[str]: ...
    @property
    def num_computed_tokens_cpu(self) -> Sequence[int]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Rows [start, stop) of the flattened batch: a request's tokens from position `first` on."""

    request: str
    first: int
    start: int
    stop: int


def read_spans(scheduled: Scheduled, batch: Batch) -> tuple[Span, ...]:
    """The spans of one step, in the order of the batch's rows.

    A request's rows follow one another; requests stand in the order of `batch.req_ids`, which the
    runner may have rearranged since they were scheduled. Raises NotSupportedYet where draft tokens
    are being verified (a rejected draft would have been watched as if it were said), and
    MismatchError where the rows do not add up.
    """
    if any(scheduled.scheduled_spec_decode_tokens.values()):
        raise NotSupportedYet(
            "this step verifies draft tokens of speculative decoding",
            help="run vLLM without speculative_config, or read these requests' verdicts as unknown",
        )
    spans: list[Span] = []
    at = 0
    for row, request in enumerate(batch.req_ids):
        count = scheduled.num_scheduled_tokens.get(request, 0)
        if count:
            first = int(batch.num_computed_tokens_cpu[row])
            spans.append(Span(request=request, first=first, start=at, stop=at + count))
            at += count
    if at != scheduled.total_num_scheduled_tokens:
        raise MismatchError(
            f"the batch's requests have {at} scheduled tokens, the step "
            f"{scheduled.total_num_scheduled_tokens}",
            help="this version of vLLM lays its batch out otherwise: see docs/vllm.md",
        )
    return tuple(spans)
