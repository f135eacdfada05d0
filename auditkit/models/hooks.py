"""Read and edit activations at hook points, and start or stop a forward pass at one of them.

Hooks live on the network's modules, which all threads share; each acts only in the thread that
attached it, so that the passes of other threads go by untouched.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from auditkit.core.errors import InvalidInput
from auditkit.core.hook_point import HookPoint, Site
from auditkit.models.families import Layout

EditFunction = Callable[[Tensor, int], Tensor]
WatchFunction = Callable[[Tensor, int], None]
_Seen = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """A change of the activations at one hook point.

    `function(x [batch, pos, d_in], start)` returns the new activations, same shape. `start` is the
    column of the padded batch that x's first column is: 0 in a prefill, then the number of
    columns already in the KV cache. x is the function's own copy.
    """

    hook_point: HookPoint
    function: EditFunction


class ForwardStopped(Exception):
    """Ends a forward pass once the deepest hook point has been read."""


@contextmanager
def attached(
    layout: Layout, hook_point: HookPoint, seen: _Seen, *, every_thread: bool = False
) -> Generator[None]:
    """Call `seen` with the activations at `hook_point`; a returned tensor takes their place.

    Only in the thread that attached it, unless `every_thread`.
    """
    part = layout.part(hook_point)
    own = _everybodys if every_thread else _owned()
    match hook_point.site:
        case Site.RESID_PRE:
            handle = _on_input(part, seen, own)
        case Site.RESID_MID:
            handle = _on_shared_input(part, seen, own)
        case _:
            handle = _on_output(part, seen, own)
    try:
        yield
    finally:
        handle.remove()


def _owned() -> Callable[[], bool]:
    owner = threading.get_ident()
    return lambda: threading.get_ident() == owner


def _everybodys() -> bool:
    return True


# While one thread attaches or removes a hook, torch may call it in another without the keyword
# arguments that it was registered with: hence their defaults.


def _on_input(part: nn.Module, seen: _Seen, own: Callable[[], bool]) -> RemovableHandle:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> Any:
        if kwargs is None or not own():
            return None
        if args:
            new = seen(args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        new = seen(kwargs["hidden_states"])
        return None if new is None else (args, {**kwargs, "hidden_states": new})

    return part.register_forward_pre_hook(hook, with_kwargs=True)


def _on_shared_input(part: nn.Module, seen: _Seen, own: Callable[[], bool]) -> RemovableHandle:
    # The block holds the same tensor as its residual, so it is overwritten in place: adding the
    # difference somewhere else would not be exact in floating point.
    def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
        new = seen(args[0]) if own() else None
        if new is not None:
            args[0].copy_(new)

    return part.register_forward_pre_hook(hook)


def _on_output(part: nn.Module, seen: _Seen, own: Callable[[], bool]) -> RemovableHandle:
    def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
        if not own():
            return None
        if isinstance(output, tuple):
            new = seen(output[0])
            return None if new is None else (new, *output[1:])
        return seen(output)

    return part.register_forward_hook(hook)


@contextmanager
def _counted_columns(layout: Layout) -> Generator[Callable[[], int]]:
    """Yield a function that says how many columns the KV cache held when the pass began."""
    start = 0
    own = _owned()

    def hook(_: nn.Module, __: tuple[Any, ...], kwargs: dict[str, Any] | None = None) -> None:
        nonlocal start
        if kwargs is None or not own():
            return
        cache = kwargs.get("past_key_values")
        start = 0 if cache is None else int(cache.get_seq_length())

    handle = layout.body.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield lambda: start
    finally:
        handle.remove()


def _checked(edit: Edit, x: Tensor, start: int) -> Tensor:
    new = edit.function(x.clone(), start)
    if new.shape != x.shape:
        raise InvalidInput(
            f"an edit at {edit.hook_point} returned activations of shape {tuple(new.shape)}",
            help=f"expected the shape it was given, {tuple(x.shape)} (batch, pos, d_in)",
        )
    return new.to(x.dtype)


@contextmanager
def editing(layout: Layout, edits: Sequence[Edit]) -> Generator[None]:
    """Apply `edits` in order to every forward pass inside the context."""
    if not edits:
        yield
        return
    with ExitStack() as stack:
        start = stack.enter_context(_counted_columns(layout))
        for edit in edits:

            def seen(x: Tensor, edit: Edit = edit) -> Tensor:
                return _checked(edit, x, start())

            stack.enter_context(attached(layout, edit.hook_point, seen))
        yield


@contextmanager
def watching(layout: Layout, hook_point: HookPoint, callback: WatchFunction) -> Generator[None]:
    """Show `callback` a copy of the activations at `hook_point`; nothing it does changes them."""
    with ExitStack() as stack:
        start = stack.enter_context(_counted_columns(layout))

        def seen(x: Tensor) -> None:
            callback(x.detach().clone(), start())

        stack.enter_context(attached(layout, hook_point, seen))
        yield


@contextmanager
def capturing(
    layout: Layout, hook_points: Sequence[HookPoint]
) -> Generator[dict[HookPoint, Tensor]]:
    """Yield a dictionary that fills during a forward pass, which ends at the deepest hook point."""
    captured: dict[HookPoint, Tensor] = {}
    deepest = max(hook_points, key=lambda h: h.depth)
    with ExitStack() as stack:
        for hook_point in sorted(set(hook_points), key=lambda h: h.depth):

            def seen(x: Tensor, hook_point: HookPoint = hook_point) -> None:
                captured[hook_point] = x
                if hook_point == deepest:
                    raise ForwardStopped

            stack.enter_context(attached(layout, hook_point, seen))
        try:
            yield captured
        except ForwardStopped:
            return


@contextmanager
def starting_at(
    layout: Layout, hook_point: HookPoint, x: Float[Tensor, "batch pos d_in"]
) -> Generator[None]:
    """Skip every layer below `hook_point` and go on from activations `x` there.

    Raises InvalidInput for attn_out and mlp_out, which do not determine the residual stream.
    """
    if hook_point.site in (Site.ATTN_OUT, Site.MLP_OUT):
        raise InvalidInput(
            f"a forward pass cannot start from {hook_point}: the layers above also need the "
            "residual stream that it is added to",
            help="start from hook_resid_pre, hook_resid_mid or hook_resid_post",
        )
    layout.part(hook_point)
    whole = hook_point.site is Site.RESID_POST
    with ExitStack() as stack:
        for block in layout.blocks[: hook_point.layer + whole]:
            stack.enter_context(_bypassed(block))
        stack.enter_context(attached(layout, hook_point, lambda _: x))
        yield


@contextmanager
def _bypassed(block: nn.Module) -> Generator[None]:
    """Let `block` hand on its input, keeping its hooks; one thread at a time may do so."""
    replaced: Any = block.__dict__.get("forward")
    whole: Any = block.forward
    own = _owned()

    def forward(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        return hidden_states if own() else whole(hidden_states, *args, **kwargs)

    block.__dict__["forward"] = forward
    try:
        yield
    finally:
        if replaced is None:
            del block.__dict__["forward"]
        else:
            block.__dict__["forward"] = replaced


@contextmanager
def head_at(head: nn.Module, positions: Int[Tensor, " batch"]) -> Generator[None]:
    """Compute the output head at one position per row only: logits become [batch, 1, vocab]."""

    own = _owned()

    def hook(_: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor] | None:
        if not own():
            return None
        rows = torch.arange(positions.shape[0], device=args[0].device)
        return (args[0][rows, positions.to(args[0].device)].unsqueeze(1),)

    handle = head.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()
