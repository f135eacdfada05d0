"""Run a language model over documents and keep its activations, one folder per hook point."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.core.errors import InvalidInput
from auditkit.core.fingerprint import fingerprint, to_plain
from auditkit.core.hook_point import HookPoint
from auditkit.core.prompts import Prompt, Role
from auditkit.core.tokens import TokenizedPrompt, TokenMask
from auditkit.models import LanguageModel, length_sorted_batches
from auditkit.training.activations.store import ActivationMeta, ActivationStore
from auditkit.training.activations.writer import ActivationWriter
from auditkit.training.progress import HarvestEvent, HarvestProgress

BLOCK_DOCUMENTS = 256
"""Documents that are sorted by length together and committed together."""

_COLUMNS = ("ids", "texts", "roles", "messages", "masks", "generated")


def harvest_activations(
    model: LanguageModel,
    documents: Sequence[Prompt],
    folders: Mapping[HookPoint, Path],
    *,
    max_tokens: int | None = None,
    context: int = 256,
    batch_tokens: int = 4096,
    progress: HarvestProgress | None = None,
) -> dict[HookPoint, ActivationStore]:
    """Write the activations of `documents` at each hook point to its folder, in one pass.

    Text longer than `context` tokens is cut into windows that each begin with BOS; a chat is
    rendered through the model's template and cut off at `context`. BOS, template, special and
    padding tokens are left out. Ends after `max_tokens` rows. Killed and called again with the
    same arguments, it goes on to the same content as an undisturbed run; a complete folder is
    left as it is. Row i is the same token at every hook point (`check_aligned`), also where one
    was added later. Raises MismatchError for a folder of another harvest, NonFiniteActivations.
    """
    if not documents:
        raise InvalidInput("no documents to harvest from", help="check the text sources")
    if context < 2:
        raise InvalidInput(f"context is {context}, expected at least 2 (BOS and a token)")
    writers = _open_writers(model, documents, folders, max_tokens=max_tokens, context=context)
    pace = _Pace(of_documents=len(documents))
    first = min(w.documents for w in writers.values())
    for start in range(first, len(documents), BLOCK_DOCUMENTS):
        pending = [w for w in writers.values() if not _is_done(w, max_tokens)]
        if not pending:
            break
        # One that is ahead, because another was killed or begun later, waits for the others.
        waiting = {h: w for h, w in writers.items() if w in pending and w.documents <= start}
        if not waiting:
            continue
        block = documents[start : start + BLOCK_DOCUMENTS]
        kept = _block_rows(model, block, list(waiting), context, batch_tokens)
        for hook_point, writer in waiting.items():
            _write_block(writer, block, kept[hook_point], max_tokens)
        pace.tokens += sum(len(rows) for rows in next(iter(kept.values())))
        if progress is not None:
            done, rows = start + len(block), max(w.rows for w in waiting.values())
            progress(pace.event(documents=done, rows=rows, hook_points=len(waiting)))
    return {
        hook_point: ActivationStore(w.folder) if w.meta.complete else w.finish()
        for hook_point, w in writers.items()
    }


@dataclass(slots=True, kw_only=True)
class _Pace:
    """How fast this run goes, whatever an earlier one left."""

    of_documents: int
    tokens: int = 0
    began: float = field(default_factory=time.perf_counter)

    def event(self, *, documents: int, rows: int, hook_points: int) -> HarvestEvent:
        seconds = time.perf_counter() - self.began
        return HarvestEvent(
            documents=documents,
            of_documents=self.of_documents,
            rows=rows,
            hook_points=hook_points,
            tokens_per_second=self.tokens / seconds,
        )


def _is_done(writer: ActivationWriter, max_tokens: int | None) -> bool:
    return writer.meta.complete or (max_tokens is not None and writer.rows >= max_tokens)


def _write_block(
    writer: ActivationWriter,
    block: Sequence[Prompt],
    kept: Sequence[Float[Tensor, "_ d_in"]],
    max_tokens: int | None,
) -> None:
    for document, rows in zip(block, kept, strict=True):
        room = None if max_tokens is None else max(0, max_tokens - writer.rows)
        writer.append(rows[:room], source=document.source or "text")
    writer.commit()


def _open_writers(
    model: LanguageModel,
    documents: Sequence[Prompt],
    folders: Mapping[HookPoint, Path],
    *,
    max_tokens: int | None,
    context: int,
) -> dict[HookPoint, ActivationWriter]:
    text = fingerprint([fingerprint(document) for document in documents])
    identity = to_plain(model.identity)
    rows_key = fingerprint([identity, text, max_tokens, context])
    return {
        hook_point: ActivationWriter(
            folder,
            ActivationMeta(
                hook_point=hook_point.name,
                d_in=model.d_model,
                key=fingerprint([identity, text, hook_point.name, max_tokens, context]),
                model=identity,
                rows_key=rows_key,
            ),
        )
        for hook_point, folder in folders.items()
    }


def _block_rows(
    model: LanguageModel,
    block: Sequence[Prompt],
    hook_points: Sequence[HookPoint],
    context: int,
    batch_tokens: int,
) -> dict[HookPoint, list[Float[Tensor, "_ d_in"]]]:
    """Per hook point, the kept rows of each document of the block, in the block's order."""
    windows: list[TokenizedPrompt] = []
    owners: list[int] = []
    for number, document in enumerate(block):
        for window in _windows(model, document, context):
            windows.append(window)
            owners.append(number)
    pieces: dict[HookPoint, list[Tensor | None]] = {h: [None] * len(windows) for h in hook_points}
    for group in length_sorted_batches(windows, max_tokens=batch_tokens):
        batch = model.pad([windows[i] for i in group])
        captured = model.capture(batch, hook_points)
        keep = (batch.masks == int(TokenMask.NONE)) & batch.attention
        for hook_point in hook_points:
            for row, i in enumerate(group):
                pieces[hook_point][i] = captured[hook_point][row][keep[row]].float().cpu()
    rows: dict[HookPoint, list[Tensor]] = {}
    for hook_point in hook_points:
        parts: list[list[Tensor]] = [[torch.empty(0, model.d_model)] for _ in block]
        for owner, piece in zip(owners, pieces[hook_point], strict=True):
            if piece is not None:
                parts[owner].append(piece)
        rows[hook_point] = [torch.cat(p) for p in parts]
    return rows


def _windows(model: LanguageModel, document: Prompt, context: int) -> Iterator[TokenizedPrompt]:
    """The document's tokens in pieces of at most `context`, each piece of text led by BOS."""
    if document.messages and document.messages[0].role is not Role.TEXT:
        yield model.render(document, max_tokens=context)
        return
    whole = model.render(document)
    has_bos = len(whole) > 0 and bool(whole.masks[0] & TokenMask.BOS)
    yield _cut(whole, 0, context, lead=False)
    step = context - has_bos
    for start in range(context, len(whole), step):
        yield _cut(whole, start, start + step, lead=has_bos)


def _cut(whole: TokenizedPrompt, start: int, stop: int, *, lead: bool) -> TokenizedPrompt:
    columns = {name: getattr(whole, name) for name in _COLUMNS}
    return dataclasses.replace(
        whole,
        **{name: (c[:1] if lead else ()) + c[start:stop] for name, c in columns.items()},
    )
