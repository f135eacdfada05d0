"""Prometheus metrics of one server, in a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from auditkit.core.verdicts import Truth
from auditkit.serve.engine import Ended, Engine, Outcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counts requests, tokens, seconds, verdicts and what they led to. No label holds any text."""

    def __init__(self, engine: Engine) -> None:
        registry = self.registry = CollectorRegistry()

        def counter(name: str, help: str, *labels: str) -> Counter:
            return Counter(f"auditkit_{name}", help, labels, registry=registry)

        self._requests = counter(
            "requests", "Chat requests by HTTP status (499: the client left).", "status"
        )
        self._tokens = counter("tokens", "Tokens, of prompts and of replies.", "kind")
        self._verdicts = counter("verdicts", "Verdicts per rule and truth.", "rule", "truth")
        self._unknowns = counter("unknowns", "Unknown verdicts by reason.", "rule", "reason")
        self._actions = counter("actions", "Replies stopped or replaced.", "action")
        self._errors = counter("monitor_errors", "Exchanges in which the monitor failed.")
        self._seconds = Histogram(
            "auditkit_request_seconds",
            "Seconds from a request's arrival to its end.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._first = Histogram(
            "auditkit_first_text_seconds",
            "Seconds from a request's arrival to its first text.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._running = Gauge("auditkit_running", "Requests in work.", registry=registry)
        self._queued = Gauge("auditkit_queue_depth", "Requests that wait.", registry=registry)
        for rule in engine.rule_ids:
            for truth in Truth:
                self._verdicts.labels(rule, truth.value)
        for outcome in (Outcome.STOPPED, Outcome.REPLACED):
            self._actions.labels(outcome.value)

    def load(self, running: int, waiting: int) -> None:
        """How many requests are in work, and how many wait."""
        self._running.set(running)
        self._queued.set(waiting)

    def first_text(self, seconds: float) -> None:
        self._first.observe(seconds)

    def finished(self, status: int, seconds: float) -> None:
        """A request has ended, whichever way."""
        self._requests.labels(str(status)).inc()
        self._seconds.observe(seconds)

    def concluded(self, ended: Ended) -> None:
        """A reply is complete, with its verdicts."""
        self._tokens.labels("prompt").inc(ended.prompt_tokens)
        self._tokens.labels("reply").inc(ended.reply_tokens)
        conclusion = ended.conclusion
        for verdict in conclusion.verdicts:
            self._verdicts.labels(verdict.rule_id, verdict.verdict.truth.value).inc()
            if verdict.verdict.reason is not None:
                self._unknowns.labels(verdict.rule_id, verdict.verdict.reason.value).inc()
        if conclusion.outcome is not Outcome.NONE:
            self._actions.labels(conclusion.outcome.value).inc()
        if conclusion.monitor_error is not None:
            self._errors.inc()

    def render(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
