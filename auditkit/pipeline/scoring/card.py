"""The card that lies beside an SAE: data, tokens, and every measure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from auditkit.core.audits import NamedMeasure
from auditkit.core.measured import Measured
from auditkit.report.score_document import ScoreDocument, ScoreRow
from auditkit.report.score_table import score_markdown
from auditkit.saes import SparseAutoencoder, read_log_sparsity, write_sae
from auditkit.saes.formats.saelens_folder import WEIGHTS
from auditkit.saes.formats.tensor_file import STORED_DTYPES, read_tensors

WITH_FLOORS = (
    "explained variance (centred)",
    "ΔCE",
    "KL(p ‖ p_x̂)",
    "seed stability",
    "effective logits moved",
    "AUROC of probes on k = 1",
)
"""The measures whose floors a report on an audit shows too."""


def render_card(sae: SparseAutoencoder, document: ScoreDocument) -> str:
    """Markdown for an SAE's README."""
    config = sae.config
    training = config.metadata.get("auditkit", {}).get("training", {})
    lines = [
        f"# {config.name}",
        "",
        f"A {config.architecture.value} sparse autoencoder on {config.model_name or 'a model'}, "
        f"`{config.hook_point.name}`: {config.d_sae:,} latents, d_in {config.d_in}"
        + (f", k {config.k}." if config.k else "."),
        "",
        "The folder is in SAELens' format (`cfg.json`, `sae_weights.safetensors`); "
        "`auditkit sae inspect` and `sae_lens.SAE.load_from_disk` read it. `score.html` shows the "
        "measures below with plots, `score.json` holds them with every interval.",
        "",
        *_training(training),
        "## Measures on held-out text",
        "",
        f"{document.text.tokens:,} unmasked tokens in {document.text.pieces:,} pieces of "
        f"{document.text.documents:,} documents: one document in 25 of every source was kept from "
        "training. The definitions are in `docs/measures.md`.",
        "",
        score_markdown(document),
    ]
    return "\n".join(lines)


def card_rows(document: ScoreDocument) -> tuple[NamedMeasure, ...]:
    """The measures that go into the SAE's metadata, from which reports on audits take them."""
    rows: list[NamedMeasure] = []
    for part in document.parts:
        if part.group == "probing":
            rows += [_named(r) for r in part.rows if r.name.startswith("AUROC")]
        else:
            rows += map(_named, part.rows)
    for row in document.rows():
        if row.name in WITH_FLOORS:
            rows += [
                NamedMeasure(name=f"{row.name}: {b.column}", value=b.value, unit=row.unit)
                for b in row.beside
            ]
    return tuple(rows)


def keep_in_metadata(
    sae: SparseAutoencoder, folder: Path, measures: Sequence[NamedMeasure]
) -> None:
    """Write the measures into the SAE's own metadata; weights keep the dtype they are stored in."""
    own = dict(sae.config.metadata.get("auditkit", {}))
    own["card"] = {"measures": [as_row(m) for m in measures]}
    write_sae(
        sae.with_metadata({**sae.config.metadata, "auditkit": own}),
        folder,
        dtype=_stored_dtype(folder),
        log_sparsity=read_log_sparsity(folder),
    )


def as_row(measure: NamedMeasure) -> dict[str, Any]:
    """A measure as a JSON object."""
    row: dict[str, Any] = {"name": measure.name, "unit": measure.unit, "note": measure.note}
    value = measure.value
    if not isinstance(value, Measured):
        return row | {"reason": value.reason}
    row |= {"value": value.value, "n": value.n}
    if value.interval is not None:
        row |= {"low": value.interval.low, "high": value.interval.high}
    return row


def _stored_dtype(folder: Path) -> str:
    """The dtype of a folder's weights; float32, which loses nothing, where they have several."""
    found = {tensor.dtype for tensor in read_tensors(folder / WEIGHTS).values()}
    return next((name for name, dtype in STORED_DTYPES.items() if found == {dtype}), "float32")


def _named(row: ScoreRow) -> NamedMeasure:
    return NamedMeasure(name=row.name, value=row.value, unit=row.unit, note=row.note)


def _training(training: dict[str, Any]) -> list[str]:
    if not training:
        return []
    rows = training.get("sources")
    sources: Sequence[dict[str, Any]] = rows if isinstance(rows, list) else []
    facts = {
        "distinct tokens": _count(training.get("distinct_tokens")),
        "tokens seen": _count(training.get("tokens_seen")),
        "median activation norm of the text": _number(training.get("reference_norm")),
        "explained variance on held-out rows when training ended": _number(
            training.get("held_out_explained_variance")
        ),
    }
    return [
        "## Training",
        "",
        *(f"- {name}: {fact}" for name, fact in facts.items() if fact),
        "",
        "| source | tokens |",
        "| --- | --- |",
        *(f"| {s['name']} | {s['tokens']:,} |" for s in sources),
        "",
    ]


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, (int, float)) else ""
