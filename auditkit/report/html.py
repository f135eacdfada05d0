"""The report as one HTML file: no script, no request, readable on paper and in the dark."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from auditkit.core.confirmations import Confirmation
from auditkit.core.locks import ConfirmPlan
from auditkit.core.measured import Measure, NotMeasured
from auditkit.report import certificates, correlations, figures, robustness, wording
from auditkit.report.document import ReportDocument
from auditkit.report.facts import (
    checks_of,
    latents_of,
    left_out,
    mask_names,
    notes_of,
    of_the_sae,
    own_score,
    plan_of,
    rival_of,
    statuses_of,
    tests_of,
    verdicts_of,
)
from auditkit.report.plots import dose_response_svg, outcome_label
from auditkit.report.provenance import SOURCES, digests, queries
from auditkit.report.strips import lay_out
from auditkit.report.visible import one_line, visible

_TEMPLATES = Path(__file__).parent / "templates"


def to_html(doc: ReportDocument) -> str:
    """Render `doc` as one self-contained page.

    Everything from prompts, rules and models is escaped, and characters that hide or reorder text
    are written out; a content security policy forbids any script and any request besides.
    """
    return (
        page_environment()
        .get_template("report.html.j2")
        .render(
            doc=doc, audit=doc.audit, digests=digests(doc), queries=queries(doc), sources=SOURCES
        )
    )


@cache
def page_environment() -> Environment:
    """Templates with everything escaped; shared by every page."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_shown,
    )
    environment.filters.update(
        measure=_measure,
        rate=_rate,
        auroc=_auroc,
        short=figures.short,
        breakable=_breakable,
        n=figures.observations,
        percent=figures.percent,
        figure=figures.figure,
        p=figures.p_value,
        one_line=one_line,
        count=lambda x: f"{x:,}",
        anchor=_anchor,
    )
    environment.globals.update(_names())
    return environment


def _names() -> dict[str, Any]:
    """What templates may call."""
    return {
        "calibration": wording.calibration_sentence,
        "false_positives": wording.false_positives_in_short,
        "strata_of": certificates.strata_of,
        "length_in_words": certificates.length_in_words,
        "stratum_in_words": certificates.stratum_in_words,
        "joint_sentence": certificates.joint_sentence,
        "robustness_sentence": robustness.robustness_sentence,
        "variant_in_words": robustness.variant_in_words,
        "best": wording.best_detector,
        "frames": wording.frames,
        "verdict_means": wording.VERDICT_MEANINGS,
        "status_means": wording.STATUS_MEANINGS,
        "strip": lay_out,
        "plot": _plot,
        "plan_of": plan_of,
        "tests_of": tests_of,
        "outcome": outcome_label,
        "latents_of": latents_of,
        "mask_names": mask_names,
        "left_out": left_out,
        "checks_of": checks_of,
        "notes_of": notes_of,
        "of_the_sae": of_the_sae,
        "own_score": own_score,
        "rival_of": rival_of,
        "verdicts_of": verdicts_of,
        "statuses_of": statuses_of,
        "members_in_words": correlations.members_in_words,
        "correlation_sentence": correlations.correlation_sentence,
        "shown_groups": correlations.shown_groups,
        "standing_on": correlations.standing_on,
        "css": Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
    }


def _anchor(rule_id: str) -> str:
    return "rule-" + "".join(c if c.isalnum() else "-" for c in rule_id)


def _plot(confirmation: Confirmation, plan: ConfirmPlan | None) -> Markup | None:
    svg = dose_response_svg(confirmation, plan)
    return None if svg is None else Markup(svg)


def _shown(value: object) -> object:
    """Every plain string that a template prints has its hidden characters written out."""
    return visible(value) if type(value) is str else value


def _measure(value: Measure, unit: str = "") -> Markup:
    return _marked(value, figures.measure(value, unit))


def _rate(value: Measure) -> Markup:
    return _marked(value, figures.rate(value))


def _auroc(value: Measure) -> Markup:
    return _marked(value, figures.auroc(value))


def _breakable(name: str) -> Markup:
    """A name that may go on in a new line after each dot and underscore."""
    shown = str(escape(visible(name)))
    return Markup(shown.replace(".", ".<wbr>").replace("_", "_<wbr>"))


def _marked(value: Measure, text: str) -> Markup:
    shown = escape(visible(text))
    return (
        Markup('<span class="missing">{}</span>').format(shown)
        if isinstance(value, NotMeasured)
        else shown
    )
