"""Follow transformers' own `generate` on one network: its inputs, its steps, what it returns.

The methods of this one instance are wrapped while somebody observes it. None of the wrappers
changes what generate computes; they tell where a call begins, which rows have ended, and what the
rows' token ids are where beams change places.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from auditkit.models.passes import Call

if TYPE_CHECKING:
    from auditkit.models.tapping import Generation, Tap


class OpenCall:
    """What is known so far of a generate call of this thread."""

    def __init__(self, kwargs: dict[str, Any]) -> None:
        self.kwargs = kwargs
        self.stack = ExitStack()
        self.generation: Generation | None = None
        self.ids: Tensor | None = None
        self.inputs: dict[str, Any] = {}
        self.expand = 1
        self.embedded = 0
        """Columns of a prompt given as embeddings, which the returned ids leave out."""

    def whole(self, ids: Tensor) -> Tensor:
        """Ids of every column, −1 where embeddings were given."""
        if not self.embedded:
            return ids
        return torch.cat([ids.new_full((ids.shape[0], self.embedded), -1), ids], dim=1)


class Interception:
    """Wrappers on one network's methods, until `undo`."""

    def __init__(self, network: Any, tap: Tap) -> None:
        self._network, self._tap = network, tap
        self._own: dict[str, Any] = {}
        if not hasattr(network, "generate"):
            return
        self._wrap("generate", self._generate)
        self._wrap("_expand_inputs_for_generation", self._expand)
        self._wrap("_get_stopping_criteria", self._criteria)
        self._wrap("prepare_inputs_for_generation", self._prepare)
        self._wrap("_valid_auto_compile_criteria", _never_compiled)

    def undo(self) -> None:
        """Give the network its methods back."""
        for name, own in self._own.items():
            if own is None:
                del self._network.__dict__[name]
            else:
                self._network.__dict__[name] = own
        self._network = None

    def _wrap(self, name: str, wrapper: Callable[..., Any]) -> None:
        original: Any = getattr(self._network, name)
        self._own[name] = self._network.__dict__.get(name)
        # transformers reads the signatures of these methods; `wraps` keeps them.
        self._network.__dict__[name] = functools.wraps(original)(
            functools.partial(wrapper, original)
        )

    def _open(self) -> OpenCall | None:
        state = self._tap.state
        return None if state.muted else state.opened

    def _generate(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        tap, state = self._tap, self._tap.state
        if state.opened is not None or state.watches is not None:
            with tap.muted():  # drafts of assisted decoding: only what is verified counts
                return original(*args, **kwargs)
        if state.muted or not tap.observers():
            return original(*args, **kwargs)
        opened = state.opened = OpenCall(kwargs)
        try:
            with opened.stack:
                out = original(*args, **kwargs)
        finally:
            state.opened = None
        return out if opened.generation is None else _finished(opened, out)

    def _expand(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        ids, inputs = original(*args, **kwargs)
        opened = self._open()
        if opened is not None:
            opened.ids, opened.inputs = ids, inputs
            opened.expand = int(kwargs.get("expand_size", 1))
            embeddings = inputs.get("inputs_embeds")
            if embeddings is not None and (ids is None or not ids.shape[1]):
                opened.embedded = int(embeddings.shape[1])
        return ids, inputs

    def _criteria(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        criteria = original(*args, **kwargs)
        opened = self._open()
        if opened is None:
            return criteria
        config = kwargs["generation_config"] if "generation_config" in kwargs else args[0]
        call = _call(opened, config)
        opened.generation = opened.stack.enter_context(self._tap.generating(call))
        return criteria if opened.generation is None else _listening(criteria, opened)

    def _prepare(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        opened = self._open()
        if opened is not None and opened.generation is not None and opened.generation.call.mapped:
            ids: Tensor = args[0] if args else kwargs["input_ids"]
            ids = opened.whole(ids)
            if ids.shape[1] > opened.generation.call.columns:
                self._tap.state.paths = ids
        return original(*args, **kwargs)


def _never_compiled(original: Callable[..., Any], *args: Any, **kwargs: Any) -> bool:
    # A compiled forward may have been traced without the hooks.
    del original, args, kwargs
    return False


def _call(opened: OpenCall, config: Any) -> Call:
    from transformers.generation import GenerationMode

    kwargs, ids = opened.kwargs, opened.ids
    assert ids is not None
    assistant = kwargs.get("assistant_model")
    mode = config.get_generation_mode(assistant)
    step_by_step = (
        GenerationMode.GREEDY_SEARCH,
        GenerationMode.SAMPLE,
        GenerationMode.ASSISTED_GENERATION,
    )
    whole = opened.whole(ids)
    cache = opened.inputs.get("past_key_values")
    ends = config._eos_token_tensor
    pad = config._pad_token_tensor
    return Call(
        ids=whole,
        attention=opened.inputs.get("attention_mask"),
        rows=int(whole.shape[0]),
        columns=int(whole.shape[1]),
        expand=opened.expand,
        mapped=mode not in step_by_step or callable(kwargs.get("custom_generate")),
        drafted=mode is GenerationMode.ASSISTED_GENERATION,
        end_ids=frozenset() if ends is None else frozenset(int(i) for i in ends.flatten().tolist()),
        pad_id=0 if pad is None else int(pad),
        cache=cache,
        keeps_cache=cache is not None or bool(config.return_dict_in_generate),
    )


def _finished(opened: OpenCall, out: Any) -> Any:
    assert opened.generation is not None
    sequences: Tensor = out if isinstance(out, Tensor) else out.sequences
    whole = opened.whole(sequences)
    new = opened.generation.finished(whole)
    if new is whole:
        return out
    new = new[:, opened.embedded :]
    if isinstance(out, Tensor):
        return new
    out.sequences = new
    return out


def _listening(criteria: Any, opened: OpenCall) -> Any:
    from transformers.generation import StoppingCriteriaList

    class Listening(StoppingCriteriaList):
        """The call's own criteria; what they decide is passed on, and rows may be ended."""

        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            done = super().__call__(input_ids, scores, **kwargs)
            assert opened.generation is not None
            return opened.generation.accepted(opened.whole(input_ids), done)

    return Listening(criteria)
