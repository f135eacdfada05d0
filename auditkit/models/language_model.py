"""A language model whose activations can be read, edited and started from."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from auditkit.core.errors import InvalidInput
from auditkit.core.hook_point import HookPoint
from auditkit.core.identity import ModelIdentity
from auditkit.core.prompts import Prompt
from auditkit.core.tokens import TokenizedPrompt
from auditkit.models import generation, hooks
from auditkit.models.batches import Side, TokenBatch, pad
from auditkit.models.families import Layout, locate
from auditkit.models.hooks import Edit, WatchFunction
from auditkit.models.identity import identify
from auditkit.models.passes import Call
from auditkit.models.prefix import Prefix, read_prefix
from auditkit.models.reading_back import ChatReader
from auditkit.models.rendering import Renderer
from auditkit.models.tapping import Tap, tap_of


class LanguageModel:
    """A causal language model from transformers, its tokenizer, and its hook points.

    Several threads may use it at a time: hooks, edits and observers act in the thread that set
    them up. Only `resume` is for one thread alone.
    """

    def __init__(self, network: Any, tokenizer: Any, identity: ModelIdentity) -> None:
        self.network: Any = network.eval()
        self.tokenizer: Any = tokenizer
        self.identity = identity
        self._layout: Layout = locate(network)
        self._renderer = Renderer(tokenizer)
        self._reader = ChatReader(self._renderer)

    @classmethod
    def wrap(
        cls, network: Any, tokenizer: Any, *, name: str, quantisation: str | None = None
    ) -> LanguageModel:
        """Wrap a network in memory; its identity is computed from its weights."""
        identity = identify(network, tokenizer, name=name, quantisation=quantisation)
        return cls(network, tokenizer, identity)

    @property
    def n_layers(self) -> int:
        return self.identity.n_layers

    @property
    def d_model(self) -> int:
        return self.identity.d_model

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def pad_id(self) -> int:
        """Token id to pad with; it is masked everywhere, so any id will do."""
        for id_ in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if id_ is not None:
                return int(id_)
        return 0

    @property
    def end_ids(self) -> frozenset[int]:
        """Token ids that end a reply."""
        found: set[int] = set()
        for holder in (self.network.generation_config, self.network.config, self.tokenizer):
            ids = getattr(holder, "eos_token_id", None)
            listed: list[int | None] = [*ids] if isinstance(ids, (list, tuple)) else [ids]
            found.update(int(id_) for id_ in listed if id_ is not None)
        return frozenset(found)

    def render(
        self, prompt: Prompt, *, generation_prompt: bool = False, max_tokens: int | None = None
    ) -> TokenizedPrompt:
        """Tokens of `prompt` with roles and masks; see `rendering.Renderer.render`."""
        return self._renderer.render(
            prompt, generation_prompt=generation_prompt, max_tokens=max_tokens
        )

    def extend(self, prompt: TokenizedPrompt, ids: Sequence[int]) -> TokenizedPrompt:
        """`prompt` followed by generated token ids: role assistant, marked generated."""
        return self._renderer.extend(prompt, list(ids))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens included."""
        return self._renderer.decode(list(ids))

    def read_back(self, ids: Sequence[int], *, prompt_id: str) -> TokenizedPrompt | None:
        """Token ids of a rendered chat with their roles; None where they cannot be told.

        What is returned renders to exactly these ids.
        """
        return self._reader.read(list(ids), prompt_id)

    @property
    def special_ids(self) -> frozenset[int]:
        """Ids of the tokenizer's special tokens, the unknown word's left out."""
        return self._renderer.special_ids

    @property
    def tap(self) -> Tap:
        """Where observers of this network's passes and generations are set up."""
        return tap_of(self.network, self._layout)

    def pad(self, prompts: Sequence[TokenizedPrompt], *, side: Side = "right") -> TokenBatch:
        """Pad with this model's padding token, on its device."""
        return pad(prompts, side=side, pad_id=self.pad_id).to(self.device)

    @torch.no_grad()
    def capture(
        self, batch: TokenBatch, hook_points: Sequence[HookPoint]
    ) -> dict[HookPoint, Float[Tensor, "batch pos d_in"]]:
        """Activations at each hook point; layers above the deepest one do not run.

        What stands at padding is finite and means nothing. Raises InvalidInput for a hook point
        that the model does not have, or none at all.
        """
        if not hook_points:
            raise InvalidInput("capture needs at least one hook point, and was given none")
        with hooks.capturing(self._layout, hook_points) as captured:
            self._body_forward(batch)
        return captured

    @torch.no_grad()
    def logits(
        self,
        batch: TokenBatch,
        edits: Sequence[Edit] = (),
        *,
        positions: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch pos vocab"] | Float[Tensor, "batch vocab"]:
        """Logits [batch, pos, vocab] under `edits`; [batch, vocab] with a position per row."""
        with hooks.editing(self._layout, edits):
            return self._forward(batch, positions)

    @torch.no_grad()
    def resume(
        self,
        batch: TokenBatch,
        hook_point: HookPoint,
        x: Float[Tensor, "batch pos d_in"],
        *,
        edits: Sequence[Edit] = (),
        positions: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch pos vocab"] | Float[Tensor, "batch vocab"]:
        """Logits from activations `x` at `hook_point`: only the layers above it run.

        `positions` gives one column per row, and makes the result [batch, vocab]. Raises
        InvalidInput for attn_out and mlp_out, for an x of the wrong shape, and for an edit below
        `hook_point`, which would have no effect.
        """
        expected = (*batch.ids.shape, self.d_model)
        if tuple(x.shape) != expected:
            raise InvalidInput(
                f"activations at {hook_point} have shape {tuple(x.shape)}",
                help=f"expected {expected}: batch, pos, d_model",
            )
        for edit in edits:
            if edit.hook_point.depth < hook_point.depth:
                raise InvalidInput(
                    f"an edit at {edit.hook_point} has no effect on a pass that starts at "
                    f"{hook_point}",
                    help="start the pass at the edit's hook point or below it",
                )
        with (
            hooks.starting_at(self._layout, hook_point, x),
            hooks.editing(self._layout, edits),
        ):
            return self._forward(batch, positions)

    @torch.no_grad()
    def share_prefix(
        self,
        batch: TokenBatch,
        hook_point: HookPoint,
        x: Float[Tensor, "batch pos d_in"],
        *,
        columns: int,
    ) -> Prefix:
        """Run the first `columns` columns above `hook_point` once, for `resume_after`.

        For prompts of one length, without padding; `columns` is at least 1 and leaves a column.
        """
        if not (batch.attention.all() and 0 < columns < batch.ids.shape[1]):
            raise InvalidInput(
                f"a prefix of {columns} columns of a batch of shape {tuple(batch.ids.shape)}",
                help="prompts of one length, and a prefix shorter than they are",
            )
        cache = DynamicCache()
        with hooks.starting_at(self._layout, hook_point, x[:, :columns]):
            self._layout.body(
                input_ids=batch.ids[:, :columns], past_key_values=cache, use_cache=True
            )
        return read_prefix(cache, hook_point, batch.ids, self.n_layers, columns)

    @torch.no_grad()
    def resume_after(
        self, prefix: Prefix, rows: Int[Tensor, " row"], x: Float[Tensor, "row pos d_in"]
    ) -> Float[Tensor, "row vocab"]:
        """Logits after the last column, from activations `x` of the columns after the prefix.

        `rows` names the prefix's prompt of each row. What `resume` would give for whole prompts
        whose first columns are as they were when the prefix was made, up to rounding.
        """
        ids = prefix.ids[rows, prefix.columns :]
        last = torch.full((len(rows),), ids.shape[1] - 1, device=ids.device)
        with (
            hooks.starting_at(self._layout, prefix.hook_point, x),
            hooks.head_at(self.network.get_output_embeddings(), last),
        ):
            logits: Tensor = self.network(
                input_ids=ids, past_key_values=prefix.cache_of(rows), use_cache=True
            ).logits
        return logits[:, 0]

    @torch.no_grad()
    def generate(
        self,
        batch: TokenBatch,
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        edits: Sequence[Edit] = (),
        stopping: Sequence[generation.Stopping] = (),
    ) -> list[list[int]]:
        """New token ids for each row, up to and without the end token.

        A batch padded on the right is padded on the left first. Each function of `stopping` is
        asked after every step which rows shall end.
        """
        if not bool(batch.attention[:, -1].all()):
            batch = self.pad(batch.prompts, side="left")
        call = Call(
            ids=batch.ids,
            attention=batch.attention,
            rows=len(batch),
            columns=batch.ids.shape[1],
            expand=1,
            mapped=False,
            drafted=False,
            end_ids=self.end_ids,
            pad_id=self.pad_id,
            prompts=batch.prompts,
        )
        with hooks.editing(self._layout, edits), self.tap.generating(call) as observed:
            replies = generation.decode(
                self.network,
                batch,
                max_new_tokens=max_new_tokens,
                end_ids=self.end_ids,
                pad_id=self.pad_id,
                temperature=temperature,
                seed=seed,
                stopping=stopping,
                observed=observed,
            )
        return replies if observed is None else generation.as_told(observed, batch, replies)

    def editing(self, edits: Sequence[Edit]) -> AbstractContextManager[None]:
        """Apply `edits` to every forward pass inside the context, `network.generate` included."""
        return hooks.editing(self._layout, edits)

    def watch(self, hook_point: HookPoint, callback: WatchFunction) -> AbstractContextManager[None]:
        """Show `callback(x [batch, pos, d_in], start)` every pass's activations; reads only."""
        return hooks.watching(self._layout, hook_point, callback)

    def _forward(self, batch: TokenBatch, positions: Tensor | None) -> Tensor:
        with ExitStack() as stack:
            if positions is not None:
                head = self.network.get_output_embeddings()
                stack.enter_context(hooks.head_at(head, positions))
            logits: Tensor = self.network(**_inputs(batch), use_cache=False).logits
        return logits if positions is None else logits[:, 0]

    def _body_forward(self, batch: TokenBatch) -> None:
        self._layout.body(**_inputs(batch), use_cache=False)


def _inputs(batch: TokenBatch) -> dict[str, Tensor]:
    attention = batch.attention
    # No real token attends to padding on its right, and without a mask attention is faster.
    right_padded = bool((attention[:, 1:] <= attention[:, :-1]).all())
    if right_padded:
        return {"input_ids": batch.ids, "attention_mask": torch.ones_like(batch.ids)}
    return {
        "input_ids": batch.ids,
        "attention_mask": attention.long(),
        "position_ids": (attention.cumsum(1) - 1).clamp(min=0),
    }
