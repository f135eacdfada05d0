"""Methods that vLLM mixes into its worker, for `collective_rpc` from the engine's process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from auditkit.core.errors import MismatchError
from auditkit.core.fingerprint import to_plain
from auditkit.integrations.vllm.runner import OnError, RunnerMonitor
from auditkit.rules import read_lock
from auditkit.saes import load_sae


class AuditkitWorker:
    """Give it to vLLM by name: `worker_extension_cls="auditkit.integrations.vllm.AuditkitWorker"`.

    vLLM adds the class to its worker's bases and refuses an extension that has an attribute of
    the worker's, so every name here begins with `auditkit_`. All methods take and return plain
    values. Only tensor-parallel rank 0 watches: the residual stream is the same on every rank.
    """

    auditkit_monitor: RunnerMonitor | None = None

    def auditkit_attach(
        self,
        watches: list[tuple[str, str]],
        model_digest: str,
        on_error: OnError,
        remember: int = 0,
        special_ids: list[int] | None = None,
        tensor_rank: int | None = None,
    ) -> int:
        """Watch (SAE, lock file) pairs from now on; return how many layers this worker watches.

        `special_ids` are the tokenizer's special tokens, which are masked in replies.
        `tensor_rank` is this worker's tensor-parallel rank where it is not vLLM's `rank`.
        """
        worker: Any = self
        if self.auditkit_monitor is not None:
            raise MismatchError("this worker is watched already", help="auditkit_detach first")
        rank = worker.rank % worker.parallel_config.tensor_parallel_size
        if (rank if tensor_rank is None else tensor_rank) != 0:
            return 0
        monitor = RunnerMonitor(
            [(load_sae(sae), read_lock(Path(lock))) for sae, lock in watches],
            model_digest=model_digest,
            on_error=on_error,
            remember=remember,
            special_ids=frozenset(special_ids or ()),
        )
        held = monitor.attach(worker.model_runner)
        self.auditkit_monitor = monitor
        return held

    def auditkit_take(self) -> list[dict[str, Any]]:
        """Verdicts of the requests that finished since the last call, JSON-ready."""
        monitor = self.auditkit_monitor
        return [] if monitor is None else [v.to_plain() for v in monitor.take()]

    def auditkit_take_fired(self) -> list[dict[str, Any]]:
        """Rules that fired in requests still running, for the engine to abort them."""
        monitor = self.auditkit_monitor
        fired = [] if monitor is None else monitor.take_fired()
        return [{"request": r, "rule": rule, **to_plain(o)} for r, rule, o in fired]

    def auditkit_detach(self) -> None:
        """Take the hooks away."""
        if self.auditkit_monitor is not None:
            self.auditkit_monitor.detach()
            self.auditkit_monitor = None
