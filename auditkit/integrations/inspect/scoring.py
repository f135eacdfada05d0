"""A scorer: each rule's verdict on a sample, in the sample's scores."""

from __future__ import annotations

from collections.abc import Mapping

from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import TaskState

from auditkit.core.errors import InvalidInput
from auditkit.core.verdicts import Truth
from auditkit.integrations.inspect.verdicts import KEY, in_words, truth_by_rule, watched_calls


@scorer(metrics={"*": [mean(), stderr()]})
def watched_rules() -> Scorer:
    """Score a sample with every rule's verdict, as two values a rule: `RULE:fired`, `RULE:unknown`.

    Inspect averages values over samples and epochs, and would turn the word "unknown" into 0: so
    each of the two is 0 or 1, and their means are the share of samples where the rule fired, and
    the share where nobody knows. Never read the first without the second. A rule has fired if it
    did in any frame of any watched model call of the sample. The score's metadata has the verdicts
    in words (`rules`) and in full (`calls`: frames, firing tokens, scores, reasons). Raises
    InvalidInput where no model call of the sample was watched: there is nothing to score.
    """

    async def score(state: TaskState, target: Target) -> Score:
        del target
        calls = watched_calls()
        if not calls:
            raise InvalidInput(
                f"sample {state.sample_id!r} has no watched model call",
                help="use a model of the provider auditkit/…, or watched_model(model, watches)",
            )
        truths = truth_by_rule(calls)
        return Score(
            value=_values(truths),
            explanation=in_words(truths),
            metadata={KEY: {"rules": {r: t.value for r, t in truths.items()}, "calls": calls}},
        )

    return score


def _values(truths: Mapping[str, Truth]) -> dict[str, str | int | float | bool | None]:
    return {
        f"{rule}:{name}": int(truth is wanted)
        for rule, truth in truths.items()
        for name, wanted in (("fired", Truth.TRUE), ("unknown", Truth.UNKNOWN))
    }
