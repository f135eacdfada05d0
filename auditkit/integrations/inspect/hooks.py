"""Hooks that write each sample's verdicts into its transcript, whatever scorer the task has."""

from __future__ import annotations

from inspect_ai.hooks import Hooks, SampleScoring, hooks
from inspect_ai.log import transcript

from auditkit.integrations.inspect.verdicts import (
    KEY,
    Plain,
    in_words,
    truth_by_rule,
    watched_calls,
)


@hooks(  # pyright: ignore[reportUntypedClassDecorator]
    name="auditkit_verdicts", description="Writes the verdicts of watched rules into the log."
)
class VerdictHooks(Hooks):
    """One info event a sample, source `auditkit`: each rule's verdict and every watched call.

    Written before the sample is scored, so that it stands in the log of tasks without a scorer
    too. Samples without a watched model call get none. Keeps nothing between samples.
    """

    async def on_sample_scoring(self, data: SampleScoring) -> None:
        """Sum up the sample's watched calls in its transcript."""
        del data
        calls = watched_calls()
        if calls:
            truths = truth_by_rule(calls)
            summed: Plain = {
                "summary": in_words(truths),
                "rules": {rule: truth.value for rule, truth in truths.items()},
                "stopped_by": [call["stopped_by"] for call in calls],
                "calls": calls,
            }
            transcript().info(summed, source=KEY)
