"""Show observers the forward passes of the thread or context that they were set up in.

One tap per network: its hooks are on the modules while anyone observes, and route every pass to
the observers of its own context. What an observer never asked for is never shown to it, so many
threads can run the same network, each with observers of its own.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from auditkit.core.hook_point import HookPoint
from auditkit.models.families import Layout
from auditkit.models.hooks import ForwardStopped, attached
from auditkit.models.interception import Interception, OpenCall
from auditkit.models.passes import Call, CallWatch, Observer, Pass

_OBSERVERS: ContextVar[tuple[tuple[Tap, Observer], ...]] = ContextVar("observers", default=())
_TAPS: WeakKeyDictionary[nn.Module, Tap] = WeakKeyDictionary()
_TAPS_LOCK = threading.Lock()


def tap_of(network: Any, layout: Layout) -> Tap:
    """The one tap of a network."""
    with _TAPS_LOCK:
        tap = _TAPS.get(network)
        if tap is None:
            tap = _TAPS[network] = Tap(network, layout)
        return tap


class _State(threading.local):
    """What one thread is doing with the network. `watches`: the open generation's, if one is."""

    current: Pass | None = None
    watches: list[CallWatch] | None = None
    opened: OpenCall | None = None
    paths: Tensor | None = None
    muted: int = 0


class Generation:
    """One generation under observation."""

    def __init__(self, call: Call, watches: list[CallWatch]) -> None:
        self.call, self.watches = call, watches

    def accepted(self, ids: Tensor, done: Tensor) -> Tensor:
        """Tell that a token was chosen for every row; rows that shall end now are added to done."""
        if self.call.mapped:
            return torch.ones_like(done) if any(w.wants_end() for w in self.watches) else done
        ended = [row for watch in self.watches for row in watch.accepted(ids, done)]
        if ended:
            done = done.clone()
            done[ended] = True
        return done

    def finished(self, sequences: Tensor) -> Tensor:
        """Tell what is returned; observers may put something else in its place."""
        for watch in self.watches:
            sequences = watch.finished(sequences)
        return sequences


class Tap:
    """Hooks on one network, while anyone observes it."""

    def __init__(self, network: Any, layout: Layout) -> None:
        self.layout = layout
        self.state = _State()
        self._network: ref[Any] = ref(network)
        self._lock = threading.Lock()
        self._uses: Counter[HookPoint] = Counter()
        self._attached: dict[HookPoint, ExitStack] = {}
        self._frame: list[RemovableHandle] = []
        self._everywhere: list[Observer] = []
        self._intercepted: Interception | None = None

    @contextmanager
    def observing(
        self, observer: Observer, hook_points: Sequence[HookPoint], *, every_thread: bool = False
    ) -> Generator[None]:
        """Show `observer` the passes of this context, or of every thread."""
        for hook_point in hook_points:
            self.layout.part(hook_point)  # raises before anything is attached
        with self.hooked(hook_points):
            if every_thread:
                with self._lock:
                    self._everywhere = [*self._everywhere, observer]
            else:
                _OBSERVERS.set((*_OBSERVERS.get(), (self, observer)))
            try:
                yield
            finally:
                if every_thread:
                    with self._lock:
                        self._everywhere = _without_last(self._everywhere, observer)
                else:
                    _OBSERVERS.set(tuple(_without_last(_OBSERVERS.get(), (self, observer))))

    def observers(self) -> list[Observer]:
        """Who observes this context, each once."""
        found: list[Observer] = []
        for tap, observer in _OBSERVERS.get():
            if tap is self and not any(o is observer for o in found):
                found.append(observer)
        found += [o for o in self._everywhere if not any(o is f for f in found)]
        return found

    @contextmanager
    def hooked(self, hook_points: Sequence[HookPoint]) -> Generator[None]:
        """Keep hooks at these places; the last to leave takes them off."""
        wanted = list(dict.fromkeys(hook_points))
        with self._lock:
            if not self._frame:
                body = self.layout.body
                self._frame = [
                    body.register_forward_pre_hook(self._begin, with_kwargs=True),
                    body.register_forward_hook(self._end),
                ]
                self._intercepted = Interception(self._network(), self)
            for hook_point in wanted:
                if not self._uses[hook_point]:
                    self._attached[hook_point] = self._attach(hook_point)
                self._uses[hook_point] += 1
        try:
            yield
        finally:
            with self._lock:
                for hook_point in wanted:
                    self._uses[hook_point] -= 1
                    if not self._uses[hook_point]:
                        del self._uses[hook_point]
                        self._attached.pop(hook_point).close()
                if not self._uses:
                    for handle in self._frame:
                        handle.remove()
                    self._frame = []
                    assert self._intercepted is not None
                    self._intercepted.undo()

    @contextmanager
    def generating(self, call: Call) -> Generator[Generation | None]:
        """A generation on this thread: its passes belong together. None if nobody observes it."""
        state = self.state
        observers = [] if state.muted or state.watches is not None else self.observers()
        if not observers:
            yield None
            return
        generation = Generation(call, _present(o.opened(call) for o in observers))
        state.watches = generation.watches
        try:
            yield generation
        except BaseException as error:
            for watch in generation.watches:
                watch.failed(error)
            raise
        finally:
            state.watches = state.current = state.paths = None

    @contextmanager
    def muted(self) -> Generator[None]:
        """Passes of this thread are shown to nobody."""
        before, self.state.current = self.state.current, None
        self.state.muted += 1
        try:
            yield
        finally:
            self.state.muted -= 1
            self.state.current = before

    def collect(
        self, hook_points: Sequence[HookPoint], inputs: dict[str, Any]
    ) -> dict[HookPoint, Tensor]:
        """Activations of one pass of the body, which ends at the deepest of the hook points."""
        collector = _Collector(max(hook_points, key=lambda h: h.depth))
        before = (self.state.current, self.state.watches, self.state.muted)
        with self.hooked(hook_points):
            self.state.watches, self.state.muted = [collector], 0
            try:
                self.layout.body(**inputs)
            except ForwardStopped:
                pass
            finally:
                self.state.current, self.state.watches, self.state.muted = before
        return collector.found

    def _attach(self, hook_point: HookPoint) -> ExitStack:
        stack = ExitStack()

        def seen(x: Tensor) -> Tensor | None:
            passed = self.state.current
            if passed is None:
                return None
            now = x
            for watch in passed.watches:
                new = watch.saw(passed, hook_point, now)
                now = now if new is None else new
            return None if now is x else now

        stack.enter_context(attached(self.layout, hook_point, seen, every_thread=True))
        return stack

    def _begin(
        self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None
    ) -> None:
        state = self.state
        state.current = None
        if kwargs is None or state.muted:
            return
        watches = state.watches
        if watches is None:
            observers = self.observers()
            if not observers:
                return
            passed = _described(args, kwargs)
            passed.watches = _present(o.passing(passed) for o in observers)
        else:
            passed = _described(args, kwargs)
            passed.watches, passed.paths = watches, state.paths
            state.paths = None
        state.current = passed

    def _end(self, _: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        passed, self.state.current = self.state.current, None
        if passed is None:
            return
        cache = getattr(output, "past_key_values", None)
        passed.cache = passed.cache if cache is None else cache
        for watch in passed.watches:
            watch.passed(passed)


class _Collector:
    """Keeps activations and ends the pass at the deepest hook point."""

    def __init__(self, deepest: HookPoint) -> None:
        self.deepest = deepest
        self.found: dict[HookPoint, Tensor] = {}

    def saw(self, passed: Pass, hook_point: HookPoint, x: Tensor) -> Tensor | None:
        self.found[hook_point] = x
        if hook_point == self.deepest:
            raise ForwardStopped
        return None

    def passed(self, passed: Pass) -> None:
        del passed

    def accepted(self, ids: Tensor, done: Tensor) -> Sequence[int]:
        del ids, done
        return ()

    def wants_end(self) -> bool:
        return False

    def finished(self, sequences: Tensor) -> Tensor:
        return sequences

    def failed(self, error: BaseException) -> None:
        del error


def _described(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Pass:
    ids: Tensor | None = args[0] if args else kwargs.get("input_ids")
    given: Any = ids if ids is not None else kwargs.get("inputs_embeds")
    cache = kwargs.get("past_key_values")
    attention = kwargs.get("attention_mask")
    plain = isinstance(attention, Tensor) and attention.ndim == 2
    return Pass(
        ids=ids,
        attention=attention if plain else None,
        rows=int(given.shape[0]),
        columns=int(given.shape[1]),
        start=0 if cache is None else int(cache.get_seq_length()),
        cache=cache,
    )


def _present(watches: Iterable[CallWatch | None]) -> list[CallWatch]:
    return [watch for watch in watches if watch is not None]


def _without_last(items: Sequence[Any], item: Any) -> list[Any]:
    kept = list(items)
    for place in reversed(range(len(kept))):
        if kept[place] == item:
            del kept[place]
            break
    return kept
