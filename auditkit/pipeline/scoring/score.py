"""`auditkit sae score`: an SAE's measures on held-out text, floors beside, into its card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from auditkit.config import load_train
from auditkit.core.audits import NamedMeasure
from auditkit.core.errors import InvalidInput
from auditkit.core.fingerprint import to_plain
from auditkit.core.measured import NotMeasured
from auditkit.core.progress import Progress
from auditkit.pipeline.held_out import document_of, held_out_prompts
from auditkit.pipeline.scoring.bench import ScoreBench
from auditkit.pipeline.scoring.cache import keep_part, part_key, read_part
from auditkit.pipeline.scoring.card import card_rows, keep_in_metadata, render_card
from auditkit.pipeline.scoring.contenders import load_beside, load_compared
from auditkit.pipeline.scoring.effects import score_ablation, score_loss
from auditkit.pipeline.scoring.groups import score_fidelity, score_geometry
from auditkit.pipeline.scoring.kept import read_score, with_kept
from auditkit.pipeline.scoring.probing import score_probing, tasks_digest
from auditkit.pipeline.scoring.stability import score_stability
from auditkit.pipeline.transcoders import require_autoencoder
from auditkit.pipeline.whole_file import write_whole
from auditkit.pipeline.workbench import Workbench
from auditkit.report.score_document import (
    EVERY_GROUP,
    ScoredModel,
    ScoreDocument,
    ScoredSae,
    ScoredText,
    ScorePart,
)
from auditkit.report.score_page import score_html
from auditkit.report.score_table import score_terminal
from auditkit.saes import SparseAutoencoder
from auditkit.saes.formats.recognise import Layout, recognise_layout
from auditkit.store import MASKED_IN_STATS

CARD, DOCUMENT, PAGE = "README.md", "score.json", "score.html"
_GROUPS: dict[str, Callable[[ScoreBench], ScorePart]] = {
    "fidelity": score_fidelity,
    "loss": score_loss,
    "geometry": score_geometry,
    "stability": score_stability,
    "ablation": score_ablation,
    "probing": score_probing,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSummary:
    """The score, and where its card and its page were written."""

    document: ScoreDocument
    card: Path
    page: Path

    @property
    def measures(self) -> tuple[NamedMeasure, ...]:
        """The rows that the SAE's metadata keep for reports."""
        return card_rows(self.document)

    def text(self, *, width: int = 140) -> str:
        table = score_terminal(self.document, width=width)
        return f"{table}card: {self.card}\npage: {self.page}"

    def json(self) -> str:
        return self.document.json_text().rstrip("\n")


def score_from(
    file: Path,
    *,
    sae: Path | None = None,
    tokens: int = 60_000,
    beside: Sequence[Path] = (),
    out: Path | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    again: bool = False,
    progress: Progress,
) -> ScoreSummary:
    """Measure on the documents that `file` keeps from training, in float32, and write the card.

    `sae` is a folder, by default the one that `file` trains; `beside` are others of the same hook
    point, each a column. Card, document and page are written to `out`, by default the SAE's own
    folder, whose metadata then hold the measures too. Groups of measures not asked for, and
    comparisons that are not there, keep what the last score of the same weights says. Groups
    measured before on the same content are read from the cache unless `again`. Raises InvalidInput
    for a group that does not exist.
    """
    groups = choose_groups(only, skip)
    located = load_train(file)
    require_autoencoder(located.document, "score")
    folder = sae or located.resolve(located.document.output)
    target = out or _own_folder(folder)
    bench = Workbench.load(
        located.resolve_source(located.document.model.source),
        str(folder),
        dtype="float32",
        progress=progress,
    )
    score = ScoreBench(
        located=located,
        bench=bench,
        prompts=held_out_prompts(located, bench.model, tokens=tokens),
        compared=load_compared(located, bench.sae, bench.model),
        others=load_beside(beside, bench.sae),
        progress=progress,
    )
    parts = {group: _part(group, score, again=again) for group in groups}
    before = read_score(target / DOCUMENT) or read_score(folder / DOCUMENT)
    document = with_kept(_document(score, parts), before, score.compared)
    if out is None:
        keep_in_metadata(bench.sae, folder, card_rows(document))
    return _write(document, bench.sae, target)


def choose_groups(only: Sequence[str], skip: Sequence[str]) -> tuple[str, ...]:
    """The groups to measure, in their order."""
    for name in (*only, *skip):
        if name not in EVERY_GROUP:
            raise InvalidInput(
                f"there is no group of measures called {name!r}",
                help=f"the groups are {', '.join(EVERY_GROUP)}",
            )
    return tuple(g for g in EVERY_GROUP if (not only or g in only) and g not in skip)


def _own_folder(folder: Path) -> Path:
    if recognise_layout(folder) is not Layout.SAELENS:
        raise InvalidInput(
            f"{folder}: another tool's SAE, whose files are left alone",
            help="name a folder for card and page: --out FOLDER",
        )
    return folder


def _part(group: str, score: ScoreBench, *, again: bool) -> ScorePart:
    """A group's measures: from the cache, or taken now and put there."""
    key = part_key(group, _facts(group, score))
    found = None if again else read_part(key)
    if found is not None:
        score.progress.note(f"{group}: measured before on the same content")
        return found
    part = _GROUPS[group](score)
    keep_part(key, part)
    return part


def _facts(group: str, score: ScoreBench) -> list[object]:
    """All that a group's measures depend on."""
    compared = score.compared
    return [
        to_plain(score.sae.identity),
        to_plain(score.bench.model.identity),
        score.text_digest,
        score.bench.reference_norm,
        score.seed,
        score.located.document.harvest.context,
        [[c.column, c.digest] for c in (*compared.shown, *score.others)],
        [compared.reference.digest, compared.second_seed.digest],
        tasks_digest() if group == "probing" else "",
    ]


def _document(score: ScoreBench, parts: dict[str, ScorePart]) -> ScoreDocument:
    c, model = score.sae.config, score.bench.model.identity
    return ScoreDocument(
        sae=ScoredSae(
            name=c.name,
            weights_sha256=score.sae.identity.weights_sha256,
            architecture=c.architecture.value,
            hook_point=c.hook_point.name,
            d_in=c.d_in,
            d_sae=c.d_sae,
            k=c.k,
        ),
        model=ScoredModel(
            name=model.name,
            weights_sha256=model.weights_sha256,
            dtype=model.dtype,
            quantisation=model.quantisation,
        ),
        text=ScoredText(
            pieces=len(score.prompts),
            documents=len({document_of(p) for p in score.prompts}),
            tokens=sum(not m & MASKED_IN_STATS for p in score.prompts for m in p.masks),
            digest=score.text_digest,
            norm_limit=score.norm_limit,
        ),
        columns=score.columns,
        parts=tuple(parts.values()),
    )


def _write(document: ScoreDocument, sae: SparseAutoencoder, folder: Path) -> ScoreSummary:
    write_whole(folder / DOCUMENT, document.json_text())
    write_whole(folder / PAGE, score_html(document))
    write_whole(folder / CARD, render_card(sae, document))
    return ScoreSummary(document=document, card=folder / CARD, page=folder / PAGE)


def describe(measure: NamedMeasure) -> str:
    """A measure in a line: value, unit, n, note."""
    value = measure.value
    if isinstance(value, NotMeasured):
        return f"not measured: {value.reason}"
    note = f"; {measure.note}" if measure.note else ""
    return f"{value.value:.4g} {measure.unit} (n = {value.n:,}{note})"
