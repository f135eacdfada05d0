"""The groups of a score that need activations and directions alone: fidelity and geometry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from auditkit.core.measured import Measure, NotMeasured
from auditkit.pipeline.scoring.bench import Captured, ScoreBench
from auditkit.pipeline.scoring.contenders import Contender
from auditkit.pipeline.scoring.rows import OWN, beside_of, digits, rounded
from auditkit.pipeline.scoring.suppression import suppression_rows
from auditkit.quality import (
    Dictionary,
    Fidelity,
    FidelityReport,
    Interference,
    NeuronBasis,
    PrincipalComponents,
    densities_of,
    directions_of,
    measure_fidelity,
    measure_interference,
)
from auditkit.report.score_document import (
    Beside,
    DensityCurve,
    Distribution,
    FrontierPoint,
    ScorePart,
    ScoreRow,
)

EV = "explained variance (centred)"
_QUANTITIES: tuple[Literal["norm", "norm_hat", "error", "norm_ratio", "relative_error"], ...] = (
    "norm",
    "norm_hat",
    "error",
    "norm_ratio",
    "relative_error",
)
_FIDELITY: tuple[tuple[str, str, Callable[[Fidelity], Measure], str], ...] = (
    (EV, "share", lambda f: f.explained_variance, "held-out text, float32"),
    (
        "explained variance (uncentred)",
        "share",
        lambda f: f.explained_variance_uncentred,
        "as in the review paper; flatters where the mean is large",
    ),
    (
        "relative reconstruction bias γ",
        "ratio",
        lambda f: f.relative_bias,
        "1 unbiased; below 1: feature suppression",
    ),
    ("norm ratio ‖x̂‖/‖x‖", "ratio", lambda f: f.norm_ratio, "mean over tokens"),
    ("relative error ‖x−x̂‖/‖x‖", "ratio", lambda f: f.relative_error, "mean over tokens"),
    ("cosine of x and x̂", "", lambda f: f.cosine, "mean over tokens"),
    ("L0", "latents per token", lambda f: f.l0, ""),
    ("dead latents", "share", lambda f: f.dead_rate, "silent over these n tokens"),
    ("latents denser than 1%", "share", lambda f: f.share_above_1_percent, ""),
    ("latents denser than 10%", "share", lambda f: f.share_above_10_percent, ""),
)
_GEOMETRY: tuple[tuple[str, Callable[[Interference], Measure], str], ...] = (
    ("mean |cos| of decoder rows", lambda g: g.mean_abs_cosine, ""),
    ("mutual coherence", lambda g: g.mutual_coherence, "the largest |cos| of two rows"),
    ("Welch bound", lambda g: g.welch_bound, "no dictionary of this size has a lower coherence"),
    ("interference", lambda g: g.interference, "Σ p cos² over the other latents"),
    (
        "interference of a uniform frame, p(m−1)/d",
        lambda g: g.uniform_interference,
        "Elhage et al. 2022",
    ),
    (
        "Gershgorin bound on δ_2k",
        lambda g: g.gershgorin_2k,
        "recovery is guaranteed below √2 − 1 = 0.414 (Candès & Wakin 2008)",
    ),
)


def score_fidelity(score: ScoreBench) -> ScorePart:
    """Reconstruction and sparsity of the SAE and of every contender, with their distributions."""
    own = Contender(column=OWN, note="", found=score.sae)
    everyone = (own, *score.contenders)
    score.progress.begin("reconstruct held-out activations", len(everyone) + 2)
    reports: dict[str, FidelityReport | NotMeasured] = {}
    for contender in everyone:
        found = contender.found
        reports[contender.column] = (
            found
            if isinstance(found, NotMeasured)
            else _fidelity(score, found, score.on(contender))
        )
        score.progress.advance()
    mine = reports[OWN]
    assert isinstance(mine, FidelityReport)
    rows = [_fidelity_row(spec, mine, reports) for spec in _FIDELITY]
    rows.insert(1, _pca_row(score))
    rows += suppression_rows(score)
    score.progress.advance()
    frontier = [*_points(reports), *_curves(score)]
    score.progress.advance()
    return ScorePart(
        group="fidelity",
        rows=tuple(rows),
        densities=tuple(_density_curves(reports)),
        distributions=tuple(_distributions(reports)),
        frontier=tuple(frontier),
        high_norm_tokens=mine.high_norm_tokens,
    )


def _fidelity(score: ScoreBench, dictionary: Dictionary, on: Captured) -> FidelityReport:
    return measure_fidelity(
        dictionary,
        on.batches(),
        pieces=on.numbers(),
        reference_norm=score.bench.reference_norm if on is score.captured else None,
    )


def _fidelity_row(
    spec: tuple[str, str, Callable[[Fidelity], Measure], str],
    mine: FidelityReport,
    reports: dict[str, FidelityReport | NotMeasured],
) -> ScoreRow:
    name, unit, of, note = spec
    without = mine.without_high_norm
    return ScoreRow(
        name=name,
        unit=unit,
        value=rounded(of(mine.every_token)),
        without_high_norm=None if isinstance(without, NotMeasured) else rounded(of(without)),
        beside=beside_of(reports, lambda r: of(r.every_token)),
        note=note,
    )


def _pca_row(score: ScoreBench) -> ScoreRow:
    """How easily the activations themselves are described, the random model's beside."""

    def explained(on: Captured) -> Measure:
        pca = PrincipalComponents.fit(on.x, k=score.k)
        return rounded(measure_fidelity(pca, on.batches()).every_token.explained_variance)

    random = score.compared.random_model
    return ScoreRow(
        name=f"explained variance of PCA, {score.k} components",
        unit="share",
        value=explained(score.captured),
        beside=(
            Beside(
                column=random.column,
                value=random.found
                if isinstance(random.found, NotMeasured)
                else explained(score.captured_random),
            ),
        ),
        note="how easily the activations themselves are described",
    )


def _points(reports: dict[str, FidelityReport | NotMeasured]) -> list[FrontierPoint]:
    return [
        point
        for column, report in reports.items()
        if isinstance(report, FidelityReport)
        for point in _point(column, report.every_token)
    ]


def _point(curve: str, found: Fidelity) -> list[FrontierPoint]:
    l0, explained = found.l0, found.explained_variance
    if isinstance(l0, NotMeasured) or isinstance(explained, NotMeasured):
        return []
    return [
        FrontierPoint(
            curve=curve,
            l0=digits(l0.value),
            explained_variance=digits(explained.value),
        )
    ]


def _curves(score: ScoreBench) -> list[FrontierPoint]:
    """PCA and the neuron basis with fewer and with more terms."""
    d_in, on = score.sae.config.d_in, score.captured
    ks = sorted({max(1, score.k // 4), max(1, score.k // 2), 2 * score.k, 4 * score.k} - {score.k})
    points: list[FrontierPoint] = []
    for k in (k for k in ks if k < d_in):
        for floor in (PrincipalComponents.fit(on.x, k=k), NeuronBasis.fit(on.x, k=k)):
            points += _point(floor.name, measure_fidelity(floor, on.batches()).every_token)
    return points


def _density_curves(reports: dict[str, FidelityReport | NotMeasured]) -> list[DensityCurve]:
    curves: list[DensityCurve] = []
    for column, report in reports.items():
        if isinstance(report, NotMeasured) or column == PrincipalComponents.name:
            continue
        d = report.every_token.densities
        if not isinstance(d, NotMeasured):
            curves.append(
                DensityCurve(column=column, edges=d.edges, counts=d.counts, silent=d.silent)
            )
    return curves


def _distributions(reports: dict[str, FidelityReport | NotMeasured]) -> list[Distribution]:
    found: list[Distribution] = []
    for column, report in reports.items():
        spread = None if isinstance(report, NotMeasured) else report.every_token.distributions
        if spread is None or isinstance(spread, NotMeasured):
            continue
        for quantity in _QUANTITIES if column == OWN else ("relative_error",):
            h = getattr(spread, quantity)
            found.append(
                Distribution(
                    column=column,
                    quantity=quantity,
                    edges=tuple(digits(e) for e in h.edges),
                    counts=h.counts,
                    quantiles=tuple((share, digits(value)) for share, value in h.quantiles),
                )
            )
    return found


def score_geometry(score: ScoreBench) -> ScorePart:
    """Interference and coherence of the SAE's directions, those of the contenders beside."""
    own = Contender(column=OWN, note="", found=score.sae)
    score.progress.begin("measure directions", 1 + len(score.contenders))
    found: dict[str, Interference | NotMeasured] = {}
    for contender in (own, *score.contenders):
        dictionary = contender.found
        found[contender.column] = (
            dictionary
            if isinstance(dictionary, NotMeasured)
            else measure_interference(
                directions_of(dictionary),
                densities=densities_of(dictionary, score.on(contender).batches()).float(),
                k=score.k,
            )
        )
        score.progress.advance()
    mine = found[OWN]
    assert isinstance(mine, Interference)
    rows = [
        ScoreRow(
            name=name,
            unit="",
            value=rounded(of(mine)),
            beside=beside_of(found, of),
            note=note,
        )
        for name, of, note in _GEOMETRY
    ]
    return ScorePart(group="geometry", rows=tuple(rows))
