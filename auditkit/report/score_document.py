"""An SAE's score as a document: every measure with the floors' values beside it, and plot data."""

from __future__ import annotations

import json
import re
from typing import Literal

from auditkit.core.documents import Document
from auditkit.core.measured import Measure
from auditkit.report.visible import escape_hidden

EVERY_GROUP = ("fidelity", "loss", "geometry", "stability", "ablation", "probing")
Group = Literal["fidelity", "loss", "geometry", "stability", "ablation", "probing"]

_PLAIN_LIST = re.compile(r"\[\n[^\[\]{}]*?\n *\]")


class Beside(Document):
    """What another dictionary comes to by the same measure. `kept`: from an earlier score."""

    column: str
    value: Measure
    kept: bool = False


class ScoreRow(Document):
    """One measure of the scored SAE; `beside` are floors and other SAEs, by column.

    `without_high_norm` is the same without tokens of norm above the limit, where it was taken.
    """

    name: str
    unit: str
    value: Measure
    without_high_norm: Measure | None = None
    beside: tuple[Beside, ...] = ()
    note: str = ""


class DensityCurve(Document):
    """Latents per bin of log10 P(f ≠ 0); bin i covers [edges[i], edges[i+1])."""

    column: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    silent: int


class Distribution(Document):
    """Tokens per bin of a quantity; the end bins hold what lies beyond them."""

    column: str
    quantity: Literal["norm", "norm_hat", "error", "norm_ratio", "relative_error"]
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    quantiles: tuple[tuple[float, float], ...]


class FrontierPoint(Document):
    """Explained variance at an L0; points of one `curve` differ only in how many terms they use."""

    curve: str
    l0: float
    explained_variance: float


class EffectCurve(Document):
    """Effective logits moved by each of some directions: latents of an SAE, or a control's."""

    column: str
    effective_logits: tuple[float, ...]


class ProbeScore(Document):
    """A probe on k features (None: all); `chosen` are their indices."""

    column: str
    k: int | None
    accuracy: Measure
    auroc: Measure
    chosen: tuple[int, ...] | None


class ProbeTask(Document):
    """Probes of one labelled task, all tested on the same examples."""

    name: str
    fitted_on: int
    tested_on: int
    majority: Measure
    scores: tuple[ProbeScore, ...]


class ScorePart(Document):
    """The measures of one group. `kept`: not taken this time, from the earlier score."""

    group: Group
    rows: tuple[ScoreRow, ...]
    densities: tuple[DensityCurve, ...] = ()
    distributions: tuple[Distribution, ...] = ()
    frontier: tuple[FrontierPoint, ...] = ()
    effects: tuple[EffectCurve, ...] = ()
    probes: tuple[ProbeTask, ...] = ()
    vocabulary: int | None = None
    high_norm_tokens: int | None = None
    kept: bool = False


class ScoredSae(Document):
    """The SAE that was scored."""

    name: str
    weights_sha256: str
    architecture: str
    hook_point: str
    d_in: int
    d_sae: int
    k: int | None


class ScoredModel(Document):
    """The model that it was scored on, as it computed."""

    name: str
    weights_sha256: str
    dtype: str
    quantisation: str | None


class ScoredText(Document):
    """The text: pieces of documents, unmasked tokens, and a digest of the token ids."""

    pieces: int
    documents: int
    tokens: int
    digest: str
    norm_limit: float | None


class Column(Document):
    """A dictionary that the SAE is held against."""

    name: str
    note: str


class ScoreDocument(Document):
    """`score.json`: what `auditkit sae score` found. The same for the same inputs, to the byte."""

    format: Literal["auditkit-sae-score/1"] = "auditkit-sae-score/1"
    sae: ScoredSae
    model: ScoredModel
    text: ScoredText
    kept_from: ScoredText | None = None
    """The text of what was kept from an earlier score, where it was another one."""
    columns: tuple[Column, ...]
    parts: tuple[ScorePart, ...]

    def rows(self) -> list[ScoreRow]:
        """All measures, in the order in which they are shown."""
        return [row for part in self.parts for row in part.rows]

    def part(self, group: str) -> ScorePart | None:
        """The measures of a group, where there are any."""
        return next((part for part in self.parts if part.group == group), None)

    def json_text(self) -> str:
        """The document as it is written to `score.json`."""
        text = json.dumps(
            self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False
        )
        # Lists of plain values on one line: histograms stay readable.
        return escape_hidden(_PLAIN_LIST.sub(_on_one_line, text)) + "\n"


def _on_one_line(match: re.Match[str]) -> str:
    return "[" + ", ".join(line.strip().rstrip(",") for line in match[0].splitlines()[1:-1]) + "]"
