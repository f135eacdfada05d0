"""k-sparse probing in a score: the paired suites that ship, as labelled tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from auditkit.core.fingerprint import fingerprint
from auditkit.core.measured import Measure, Measured, NotMeasured
from auditkit.core.prompts import Prompt, Split
from auditkit.core.statistics import measure_mean
from auditkit.core.tokens import TokenizedPrompt
from auditkit.models import length_sorted_batches
from auditkit.pipeline.fidelity import BATCH_TOKENS
from auditkit.pipeline.scoring.bench import ScoreBench
from auditkit.pipeline.scoring.rows import OWN, rounded
from auditkit.pipeline.workbench import Workbench
from auditkit.quality import (
    LabelledFeatures,
    NeuronBasis,
    PrincipalComponents,
    Probe,
    RandomDictionary,
    majority_accuracy,
    mean_latents,
    probe_dense,
    probe_sparse,
)
from auditkit.quality.sparse_probing import SPARSITIES
from auditkit.report.score_document import Beside, ProbeScore, ProbeTask, ScorePart, ScoreRow
from auditkit.saes import SparseAutoencoder
from auditkit.store import MASKED_IN_STATS
from auditkit.suites import builtin_suites, load_suite

DENSE = "activations"
_SIDES = ("-concerning", "-benign")
Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledTask:
    """A family of prompts of two labels, each with the half that it is in."""

    name: str
    prompts: tuple[Prompt, ...]
    labels: tuple[bool, ...]


def shipped_tasks() -> tuple[LabelledTask, ...]:
    """The paired suites, concerning against benign; twins are in the same half."""
    names = [n for n in builtin_suites() if n.startswith("paired/") and n.endswith(_SIDES[0])]
    tasks: list[LabelledTask] = []
    for name in sorted(names):
        family = name.removesuffix(_SIDES[0])
        sides = [load_suite(f"builtin/{family}{side}").prompts for side in _SIDES]
        tasks.append(
            LabelledTask(
                name=family.removeprefix("paired/"),
                prompts=(*sides[0], *sides[1]),
                labels=(True,) * len(sides[0]) + (False,) * len(sides[1]),
            )
        )
    return tuple(tasks)


def tasks_digest() -> str:
    """What the probes' tasks are, by content."""
    return fingerprint([[t.name, t.prompts, t.labels] for t in shipped_tasks()])


def score_probing(score: ScoreBench) -> ScorePart:
    """Probe k latents, k coordinates, components or random directions, and all activations."""
    tasks = shipped_tasks()
    if not tasks:
        row = ScoreRow(name="probes", unit="", value=NotMeasured("no paired suites are installed"))
        return ScorePart(group="probing", rows=(row,))
    features, missing = _features(score, [p for t in tasks for p in t.prompts])
    score.progress.begin("probe labelled texts", len(tasks))
    probed: list[ProbeTask] = []
    first = 0
    for task in tasks:
        rows = slice(first, first + len(task.prompts))
        probed.append(_probe(task, {name: x[rows] for name, x in features.items()}))
        first += len(task.prompts)
        score.progress.advance()
    return ScorePart(group="probing", rows=_rows(score, probed, missing), probes=tuple(probed))


def _features(
    score: ScoreBench, prompts: Sequence[Prompt]
) -> tuple[dict[str, Matrix], dict[str, NotMeasured]]:
    """Each dictionary's features of each prompt, means over its unmasked tokens."""
    context = score.located.document.harvest.context
    rendered = [score.bench.model.render(p, max_tokens=context) for p in prompts]
    score.progress.begin("capture labelled texts", 1)
    x, of_token = _tokens(score.bench, rendered, score)
    score.progress.advance()
    pooled = _mean_rows(x, of_token, len(prompts))
    components = PrincipalComponents.fit(score.captured.x, k=score.sae.config.d_in)
    found = {OWN: _latents(score.sae, x, of_token, len(prompts)), DENSE: pooled.numpy()}
    missing: dict[str, NotMeasured] = {}
    for contender in score.contenders:
        dictionary, column = contender.found, contender.column
        if isinstance(dictionary, NotMeasured):
            missing[column] = dictionary
        elif contender is score.compared.random_model:
            assert isinstance(dictionary, SparseAutoencoder)
            others, places = _tokens(score.random_bench(), rendered, score)
            found[column] = _latents(dictionary, others, places, len(prompts))
        elif isinstance(dictionary, SparseAutoencoder):
            found[column] = _latents(dictionary, x, of_token, len(prompts))
        elif column == NeuronBasis.name:
            found[column] = pooled.numpy()
        else:
            rows = components.rows if column == PrincipalComponents.name else dictionary.rows
            found[column] = (pooled @ rows.double().T).numpy()
    return found, missing


def _tokens(
    bench: Workbench, rendered: Sequence[TokenizedPrompt], score: ScoreBench
) -> tuple[Tensor, Tensor]:
    """Activations of all unmasked tokens and the number of each one's prompt."""
    x = score.capture(bench, rendered).x
    of_token = [
        i
        for group in length_sorted_batches(rendered, max_tokens=BATCH_TOKENS)
        for i in group
        for mask in rendered[i].masks
        if not mask & MASKED_IN_STATS
    ]
    return x, torch.tensor(of_token, dtype=torch.int64)


def _mean_rows(x: Tensor, of_token: Tensor, n: int) -> Tensor:
    sums = torch.zeros(n, x.shape[1], dtype=torch.float64).index_add_(0, of_token, x.double())
    return sums / torch.bincount(of_token, minlength=n).clamp(min=1).unsqueeze(1)


def _latents(sae: SparseAutoencoder, x: Tensor, of_token: Tensor, n: int) -> Matrix:
    return mean_latents(sae.encode(x), of_token, n).numpy()


def _probe(task: LabelledTask, features: Mapping[str, Matrix]) -> ProbeTask:
    labels = np.array(task.labels)
    fitted = np.array([p.split is not Split.TEST for p in task.prompts])

    def halves(x: Matrix) -> LabelledFeatures:
        return LabelledFeatures(
            fit=x[fitted], fit_labels=labels[fitted], test=x[~fitted], test_labels=labels[~fitted]
        )

    scores: list[ProbeScore] = []
    for column, x in features.items():
        if column == DENSE:
            scores.append(_score(column, None, probe_dense(halves(x))))
            continue
        for k, probe in probe_sparse(halves(x)).items():
            scores.append(_score(column, k, probe))
    return ProbeTask(
        name=task.name,
        fitted_on=int(fitted.sum()),
        tested_on=int((~fitted).sum()),
        majority=rounded(majority_accuracy(halves(features[DENSE]))),
        scores=tuple(scores),
    )


def _score(column: str, k: int | None, probe: Probe) -> ProbeScore:
    return ProbeScore(
        column=column,
        k=k,
        accuracy=rounded(probe.accuracy),
        auroc=rounded(probe.auroc),
        chosen=probe.chosen if column == OWN else None,
    )


def _rows(
    score: ScoreBench, tasks: Sequence[ProbeTask], missing: Mapping[str, NotMeasured]
) -> tuple[ScoreRow, ...]:
    columns = [c.column for c in score.contenders]

    def mean(column: str, k: int | None, quantity: str) -> Measure:
        found = [
            getattr(s, quantity) for t in tasks for s in t.scores if s.column == column and s.k == k
        ]
        return rounded(measure_mean([m.value for m in found if isinstance(m, Measured)]))

    def row(k: int | None, quantity: str, unit: str) -> ScoreRow:
        if k is None:
            name = f"{unit} of a dense probe on activations"
            return ScoreRow(name=name, unit="mean over tasks", value=mean(DENSE, None, quantity))
        note = (
            "logistic regression on the k features of highest |AUROC − ½| on the half it is "
            "fitted on, tested on the other; features are means over a text's tokens. Beside: k "
            f"of the same activations' coordinates, principal components, {RandomDictionary.name} "
            "projections, or of the other SAEs' latents"
        )
        return ScoreRow(
            name=f"{unit} of probes on k = {k}",
            unit="mean over tasks",
            value=mean(OWN, k, quantity),
            beside=tuple(
                Beside(column=c, value=missing[c] if c in missing else mean(c, k, quantity))
                for c in columns
            ),
            note=note if k == SPARSITIES[0] and quantity == "auroc" else "",
        )

    larger = [t.majority.value for t in tasks if isinstance(t.majority, Measured)]
    return (
        *(row(k, "auroc", "AUROC") for k in (*SPARSITIES, None)),
        *(row(k, "accuracy", "accuracy") for k in (*SPARSITIES, None)),
        ScoreRow(
            name="accuracy of naming the larger class",
            unit="mean over tasks",
            value=rounded(measure_mean(larger)),
        ),
    )
