"""Causal tests of named latents as an HTML page: verdicts, plots, texts. No script."""

from __future__ import annotations

from collections.abc import Sequence

from auditkit.core.confirmations import Confirmation
from auditkit.core.locks import LockedRule
from auditkit.report.html import page_environment


def confirm_html(
    results: Sequence[tuple[LockedRule, Confirmation]],
    *,
    model: str,
    sae: str,
    hook_point: str,
    lexicon: str,
) -> str:
    """Render rules of named latents and their verdicts as one self-contained page.

    Texts are escaped, and characters that hide or reorder text are written out; a content security
    policy forbids any script and any request.
    """
    return (
        page_environment()
        .get_template("confirm.html.j2")
        .render(results=results, model=model, sae=sae, hook_point=hook_point, lexicon=lexicon)
    )
