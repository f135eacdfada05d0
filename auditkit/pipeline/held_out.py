"""The text that a train.yaml keeps from training, rendered for a model."""

from __future__ import annotations

from auditkit.config import Located, TrainDocument
from auditkit.core.errors import InvalidInput
from auditkit.core.tokens import TokenizedPrompt
from auditkit.models import LanguageModel
from auditkit.pipeline.train import draw_documents


def held_out_prompts(
    located: Located[TrainDocument], model: LanguageModel, *, tokens: int
) -> list[TokenizedPrompt]:
    """Pieces of documents that training never saw, up to `tokens` tokens.

    Raises InvalidInput where there are none.
    """
    chosen: list[TokenizedPrompt] = []
    total = 0
    for piece in draw_documents(located, held_out=True):
        rendered = model.render(piece, max_tokens=located.document.harvest.context)
        if total + len(rendered) > tokens:
            break
        chosen.append(rendered)
        total += len(rendered)
    if not chosen:
        raise InvalidInput(
            f"{located.document.name}: no held-out text within {tokens:,} tokens",
            help="allow more tokens, or add sources: one document in 25 is held out",
        )
    return chosen


def document_of(prompt: TokenizedPrompt) -> str:
    """The document that a piece was cut from."""
    return prompt.prompt_id.rpartition("#")[0] or prompt.prompt_id
