"""A small score with everything in it: intervals, floors, what is missing, what was kept."""

from __future__ import annotations

from auditkit.core.measured import Interval, Measure, Measured, NotMeasured
from auditkit.report.score_document import (
    Beside,
    Column,
    DensityCurve,
    Distribution,
    EffectCurve,
    FrontierPoint,
    ProbeScore,
    ProbeTask,
    ScoredModel,
    ScoreDocument,
    ScoredSae,
    ScoredText,
    ScorePart,
    ScoreRow,
)

ABSENT = NotMeasured("no frozen-decoder SAE has been trained; auditkit sae compare trains it")
HOSTILE = "tiny <script>alert(1)</script> | sae"


def measured(value: float, n: int = 58_938, half: float | None = None) -> Measured:
    ends = None if half is None else Interval(low=value - half, high=value + half)
    return Measured(value=value, n=n, interval=ends)


def row(name: str, value: Measure, *beside: tuple[str, Measure, bool], note: str = "") -> ScoreRow:
    return ScoreRow(
        name=name,
        unit="share",
        value=value,
        without_high_norm=value,
        beside=tuple(Beside(column=c, value=v, kept=k) for c, v, k in beside),
        note=note,
    )


def _fidelity() -> ScorePart:
    edges = tuple(i / 4 - 3 for i in range(13))
    return ScorePart(
        group="fidelity",
        rows=(
            row(
                "explained variance (centred)",
                measured(0.8547, half=0.0125),
                ("PCA", measured(0.4267), False),
                ("frozen decoder", ABSENT, False),
                ("random model", measured(0.4485), True),
                note="held-out text | float32",
            ),
            row("L0", measured(32.0, half=0.0), ("PCA", measured(32.0), False)),
            row("dead latents", measured(0.000488)),
        ),
        densities=(
            DensityCurve(
                column="SAE",
                edges=edges,
                counts=(1, 0, 3, 8, 20, 60, 90, 80, 40, 9, 2, 1),
                silent=3,
            ),
            DensityCurve(
                column="PCA", edges=edges, counts=(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4), silent=0
            ),
        ),
        distributions=(
            *(
                Distribution(
                    column="SAE",
                    quantity=quantity,
                    edges=(1.0, 10.0, 100.0, 1000.0),
                    counts=(5, 60, 35),
                    quantiles=((0.5, 70.0),),
                )
                for quantity in ("norm", "norm_hat", "error")
            ),
            *(
                Distribution(
                    column=column,
                    quantity="relative_error",
                    edges=(0.0, 0.5, 1.0, 1.5),
                    counts=counts,
                    quantiles=((0.5, 0.4),),
                )
                for column, counts in (("SAE", (70, 30, 0)), ("PCA", (10, 80, 10)))
            ),
        ),
        frontier=(
            FrontierPoint(curve="SAE", l0=32.0, explained_variance=0.8547),
            FrontierPoint(curve="PCA", l0=16.0, explained_variance=0.35),
            FrontierPoint(curve="PCA", l0=32.0, explained_variance=0.4267),
        ),
        high_norm_tokens=0,
    )


def _probing() -> ScorePart:
    def score(column: str, k: int | None, value: float) -> ProbeScore:
        return ProbeScore(
            column=column,
            k=k,
            accuracy=measured(value - 0.05, 42, 0.1),
            auroc=measured(value, 42, 0.08),
            chosen=(17,) if k == 1 else None,
        )

    return ScorePart(
        group="probing",
        rows=(row("AUROC of probes on k = 1", measured(0.81, 2, 0.05)),),
        probes=tuple(
            ProbeTask(
                name=name,
                fitted_on=80,
                tested_on=42,
                majority=measured(0.5, 42, 0.15),
                scores=(
                    score("SAE", 1, 0.81 + shift),
                    score("SAE", 2, 0.86 + shift),
                    score("activations", None, 0.9 + shift),
                    score("PCA", 1, 0.7 + shift),
                ),
            )
            for name, shift in (("deception", 0.0), ("hostility", 0.02))
        ),
    )


def score_sample() -> ScoreDocument:
    """The document; made anew each time, always the same."""
    return ScoreDocument(
        sae=ScoredSae(
            name=HOSTILE,
            weights_sha256="ab" * 32,
            architecture="topk",
            hook_point="blocks.1.hook_resid_post",
            d_in=32,
            d_sae=64,
            k=4,
        ),
        model=ScoredModel(
            name="tiny-0", weights_sha256="cd" * 32, dtype="float32", quantisation=None
        ),
        text=ScoredText(
            pieces=300, documents=120, tokens=58_938, digest="ef" * 32, norm_limit=1371.0
        ),
        columns=(
            Column(name="PCA", note="the k leading components"),
            Column(name="frozen decoder", note="decoder rows stay random"),
            Column(name="random model", note="all weights drawn anew"),
        ),
        parts=(
            _fidelity(),
            ScorePart(
                group="loss",
                rows=(row("ΔCE", measured(0.1294, 19_534, 0.004), ("PCA", measured(2.5), False)),),
            ),
            ScorePart(
                group="stability", rows=(row("seed stability", measured(0.0422)),), kept=True
            ),
            ScorePart(
                group="ablation",
                rows=(row("effective logits moved", measured(31_000.0, 96, 900.0)),),
                effects=(
                    EffectCurve(column="SAE", effective_logits=(29_000.0, 31_500.0, 32_500.0)),
                    EffectCurve(column="PCA", effective_logits=(31_000.0, 33_500.0, 32_600.0)),
                ),
                vocabulary=49_152,
            ),
            _probing(),
        ),
    )
