"""Score a whole rule on examples that chose nothing, beside plain detectors on the same ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from auditkit.binding.baselines import (
    DIFFERENCE_OF_MEANS,
    LOGISTIC,
    TFIDF,
    difference_of_means,
    logistic_regression,
    text_only,
)
from auditkit.binding.recorded import RecordedSuite, signal_frames
from auditkit.core.locks import DetectorScore, LockedRule, Scope
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.core.statistics import auroc, binomial_rate
from auditkit.core.verdicts import Truth
from auditkit.rules import StreamEvaluator, TokenSignals, critical_threshold
from auditkit.store import Store


def score_rule(
    rule: LockedRule,
    positive: RecordedSuite,
    negative: RecordedSuite,
    holdout: float,
    store: Store,
) -> DetectorScore:
    """AUROC of the rule over held-out examples; an example scores as its highest frame."""
    unresolved = [s for s in rule.signals if s.unresolved is not None]
    tests = [positive.divided(holdout)[1], negative.divided(holdout)[1]]
    if unresolved:
        why = f"signal {unresolved[0].name!r}: {unresolved[0].unresolved}"
        return _score("rule", NotMeasured(why), tests)
    uses = "calibrated" in " ".join([rule.condition, *(text for _, text in rule.let)])
    high, low = (
        _by_prompt(
            suite, [_frame_score(rule, f, uses) for f in signal_frames(store, suite, rule.signals)]
        )
        for suite in tests
    )
    return DetectorScore(
        detector="rule", auroc=auroc(*_finite(high, low)), positives=len(high), negatives=len(low)
    )


def score_baselines(
    rule: LockedRule,
    positive: RecordedSuite,
    negative: RecordedSuite,
    holdout: float,
    store: Store,
) -> tuple[DetectorScore, ...]:
    """Difference of means and logistic regression on dense activations, and text alone."""
    role = pooled_role(rule.scope)
    (ps, pt), (ns, nt) = positive.divided(holdout), negative.divided(holdout)
    scores: list[DetectorScore] = []
    dense = [pooled_means(store, suite, role) for suite in (ps, ns, pt, nt)]
    x, y = _stacked(dense[0], dense[1])
    for name, detector in (
        (DIFFERENCE_OF_MEANS, difference_of_means),
        (LOGISTIC, logistic_regression),
    ):
        if not all(map(len, dense)):
            scores.append(_score(name, NotMeasured("an example set has no vectors"), [pt, nt]))
            continue
        found = detector(x, y, np.concatenate([dense[2], dense[3]]))
        area = auroc(found[: len(dense[2])], found[len(dense[2]) :])
        scores.append(
            DetectorScore(
                detector=name, auroc=area, positives=len(dense[2]), negatives=len(dense[3])
            )
        )
    scores.append(_text_score(ps, ns, pt, nt))
    return tuple(scores)


def verified_rate(rule: LockedRule, frames: Sequence[Sequence[TokenSignals]]) -> Measure:
    """Share of fresh benign frames on which the rule fires."""
    fired = 0
    for frame in frames:
        evaluator = StreamEvaluator(rule)
        evaluator.push(frame)
        fired += evaluator.finish().truth is Truth.TRUE
    return binomial_rate(fired, len(frames)) if frames else NotMeasured("no fresh benign frames")


def _frame_score(rule: LockedRule, frame: Sequence[TokenSignals], calibrated: bool) -> float:
    """The largest threshold at which the rule fires; without `calibrated`, its first statistic
    where the rest of the condition holds."""
    if calibrated:
        critical = critical_threshold(rule, frame)
        return -math.inf if critical is None else critical
    evaluator = StreamEvaluator(rule)
    evaluator.push(frame)
    score = evaluator.score()
    return score.value if isinstance(score, Measured) else -math.inf


def _by_prompt(suite: RecordedSuite, scores: Sequence[float]) -> list[float]:
    best: dict[str, float] = {}
    for frame, score in zip(suite.frames, scores, strict=True):
        best[frame.prompt_id] = max(best.get(frame.prompt_id, -math.inf), score)
    return list(best.values())


def _finite(high: Sequence[float], low: Sequence[float]) -> tuple[list[float], list[float]]:
    """Ranks are all that AUROC looks at: infinities become the ends of the finite range."""
    known = [v for v in (*high, *low) if math.isfinite(v)] or [0.0]
    bottom, top = min(known) - 1.0, max(known) + 1.0
    return [min(max(v, bottom), top) for v in high], [min(max(v, bottom), top) for v in low]


def pooled_role(scope: Scope) -> str:
    """Whose words the pooled activations beside a rule are of: its scope's one role, or all."""
    return scope.roles[0].value if len(scope.roles) == 1 else "all"


def pooled_means(store: Store, suite: RecordedSuite, role: str) -> NDArray[np.float64]:
    """[prompt, d_in]: mean activations of the suite's prompts over the tokens of `role`."""
    ids, vectors = store.vectors(suite.recording, "mean", role)
    wanted = {f.prompt_id for f in suite.frames}
    kept = [n for n, id_ in enumerate(ids) if id_ in wanted]
    return np.asarray(vectors[kept], dtype=np.float64)


def _stacked(
    positive: NDArray[np.float64], negative: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    if not len(positive) or not len(negative):
        return np.zeros((0, 0)), np.zeros(0, dtype=bool)
    return np.concatenate([positive, negative]), np.arange(len(positive) + len(negative)) < len(
        positive
    )


def _text_score(
    ps: RecordedSuite, ns: RecordedSuite, pt: RecordedSuite, nt: RecordedSuite
) -> DetectorScore:
    texts = [[f.text for f in suite.frames] for suite in (ps, ns, pt, nt)]
    if not all(texts):
        return _score(TFIDF, NotMeasured("an example set has no text"), [pt, nt])
    labels = np.arange(len(ps) + len(ns)) < len(ps)
    found = text_only(texts[0] + texts[1], labels, texts[2] + texts[3])
    if found is None:
        return _score(TFIDF, NotMeasured("the texts hold no words"), [pt, nt])
    high, low = (
        _by_prompt(pt, found[: len(pt)].tolist()),
        _by_prompt(nt, found[len(pt) :].tolist()),
    )
    return DetectorScore(
        detector=TFIDF, auroc=auroc(high, low), positives=len(high), negatives=len(low)
    )


def _score(detector: str, value: Measure, tests: Sequence[RecordedSuite]) -> DetectorScore:
    positives, negatives = (len({f.prompt_id for f in s.frames}) for s in tests)
    return DetectorScore(detector=detector, auroc=value, positives=positives, negatives=negatives)
