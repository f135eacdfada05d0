"""Which prompts a command looks at: suites, labels and tags of the recordings in a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray

from auditkit.core.errors import InvalidInput, MismatchError, NothingEvaluated
from auditkit.core.fingerprint import fingerprint
from auditkit.core.prompts import Role, Split
from auditkit.core.recordings import Recording
from auditkit.core.tokens import TokenMask
from auditkit.store import MASKED_IN_STATS, Store
from auditkit.store.latent_queries import TokenSet, eligible_tokens

KINDS = ("suite", "label", "tag")
HOLDOUT = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedPrompt:
    """A prompt of a recording: its ordinal there, and what it is chosen by."""

    recording: str
    suite: str
    prompt: str
    ordinal: int
    label: str | None
    tags: tuple[str, ...]
    split: Split | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Recordings of one model and SAE, and which of their tokens count."""

    recordings: tuple[Recording, ...]
    prompts: tuple[RecordedPrompt, ...]
    masked: TokenMask
    roles: tuple[Role, ...]

    @property
    def d_sae(self) -> int:
        return self.recordings[0].sae.d_sae

    def check_latent(self, latent: int) -> None:
        """Raise InvalidInput for an index that the SAE does not have."""
        if not 0 <= latent < self.d_sae:
            raise InvalidInput(
                f"there is no latent {latent} in {self.recordings[0].sae.name}",
                help=f"its latents are 0 to {self.d_sae - 1}",
            )

    def tokens(
        self, store: Store, prompts: Sequence[RecordedPrompt] | None = None
    ) -> list[TokenSet]:
        """The eligible tokens of each recording that has any, of `prompts` only if given."""
        found: list[TokenSet] = []
        for recording in self.recordings:
            ordinals = None if prompts is None else _ordinals(prompts, recording.id)
            if ordinals is not None and not len(ordinals):
                continue
            tokens = eligible_tokens(
                store, recording, masked=self.masked, roles=self.roles, ordinals=ordinals
            )
            found += [tokens] if len(tokens) else []
        return found


def open_scope(
    store: Store,
    *,
    recordings: Sequence[str] = (),
    roles: Sequence[str] = (),
    masked: TokenMask = MASKED_IN_STATS,
) -> Scope:
    """The recordings of `store` whose ids begin with one of `recordings` (without any: all).

    Raises NothingEvaluated for an empty store, InvalidInput for an id or role that is not there,
    and MismatchError where the recordings are of several models or SAEs.
    """
    everything = store.recordings()
    if not everything:
        raise NothingEvaluated(
            f"{store.path} holds no recording", help="record a suite first: auditkit record"
        )
    chosen = [r for r in everything if not recordings or r.id.startswith(tuple(recordings))]
    for wanted in recordings:
        if not any(r.id.startswith(wanted) for r in everything):
            known = ", ".join(f"{r.id} ({r.suite})" for r in everything)
            raise InvalidInput(f"{store.path} has no recording {wanted!r}", help=f"it has {known}")
    if len({(r.model.digest, r.sae.digest) for r in chosen}) > 1:
        listed = "; ".join(f"{r.id}: {r.suite}, {r.sae.name} on {r.model.name}" for r in chosen)
        raise MismatchError(
            f"{store.path} holds recordings of several models or SAEs, whose latents differ",
            help=f"name those of one with --recording: {listed}",
        )
    return Scope(
        recordings=tuple(chosen),
        prompts=tuple(p for r in chosen for p in _prompts(store, r)),
        masked=masked,
        roles=tuple(_role(r) for r in roles),
    )


def select(scope: Scope, name: str) -> tuple[RecordedPrompt, ...]:
    """The prompts that `name` means: `suite:NAME`, `label:NAME`, `tag:NAME`, or a bare NAME that
    only one of the three has. Raises InvalidInput for a name that means nothing, or two things.
    """
    kind, colon, rest = name.partition(":")
    kinds = (kind,) if colon and kind in KINDS else KINDS
    wanted = rest if len(kinds) == 1 else name
    found = {k: _having(scope.prompts, k, wanted) for k in kinds}
    meant = [k for k, prompts in found.items() if prompts]
    if not meant:
        raise InvalidInput(f"nothing in the store is called {name!r}", help=_known(scope, wanted))
    if len(meant) > 1:
        raise InvalidInput(
            f"{name!r} is the name of a {' and of a '.join(meant)}",
            help="say which: " + " or ".join(f"{k}:{name}" for k in meant),
        )
    return found[meant[0]]


def halves(
    prompts: Sequence[RecordedPrompt], holdout: float = HOLDOUT
) -> tuple[tuple[RecordedPrompt, ...], tuple[RecordedPrompt, ...]]:
    """The prompts for selection and those for test, as binding divides them.

    By the suite's own splits where the prompts have any, else by a hash of the prompt's id.
    """
    if any(p.split is not None for p in prompts):
        test = [p.split is Split.TEST for p in prompts]
    else:
        test = [int(fingerprint(p.prompt, length=8), 16) < holdout * 16**8 for p in prompts]
    pairs = list(zip(prompts, test, strict=True))
    return tuple(p for p, t in pairs if not t), tuple(p for p, t in pairs if t)


def _prompts(store: Store, recording: Recording) -> list[RecordedPrompt]:
    rows = store.query(
        "SELECT prompt, ordinal, label, tags, split FROM prompts WHERE recording = ? "
        "ORDER BY ordinal",
        [recording.id],
    )
    columns = (rows[c].to_pylist() for c in ("prompt", "ordinal", "label", "tags", "split"))
    return [
        RecordedPrompt(
            recording=recording.id,
            suite=recording.suite,
            prompt=prompt,
            ordinal=ordinal,
            label=label,
            tags=() if tags == "[]" else tuple(json.loads(tags)),
            split=Split(split) if split else None,
        )
        for prompt, ordinal, label, tags, split in zip(*columns, strict=True)
    ]


_NAMES: dict[str, Callable[[RecordedPrompt], Iterable[str]]] = {
    "suite": lambda p: (p.suite,),
    "label": lambda p: () if p.label is None else (p.label,),
    "tag": lambda p: p.tags,
}


def _having(prompts: Sequence[RecordedPrompt], kind: str, name: str) -> tuple[RecordedPrompt, ...]:
    names = _NAMES[kind]
    return tuple(p for p in prompts if name in names(p))


def _known(scope: Scope, wanted: str) -> str:
    every = {f"{k}:{n}" for k, names in _NAMES.items() for p in scope.prompts for n in names(p)}
    bare = {n.partition(":")[2]: n for n in sorted(every, reverse=True)}
    near = get_close_matches(wanted, bare, n=3, cutoff=0.5)
    if near:
        return "did you mean " + " or ".join(bare[n] for n in near) + "?"
    shown = sorted(every)[:20]
    return "it has " + ", ".join(shown) + (", …" if len(every) > 20 else "")


def _ordinals(prompts: Sequence[RecordedPrompt], recording: str) -> NDArray[np.int64]:
    return np.array([p.ordinal for p in prompts if p.recording == recording], dtype=np.int64)


def _role(name: str) -> Role:
    try:
        return Role(name)
    except ValueError:
        known = ", ".join(r.value for r in Role)
        raise InvalidInput(f"unknown role {name!r}", help=f"one of {known}") from None
