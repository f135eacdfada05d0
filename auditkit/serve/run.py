"""`auditkit serve`: load a model and the SAEs of its locks, and serve it until a signal."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from auditkit.core.errors import InvalidInput
from auditkit.core.locks import Lock, LockedRule
from auditkit.core.progress import Progress
from auditkit.core.prompts import Role
from auditkit.models import load_model
from auditkit.rules import StreamEvaluator, offline_parts, read_lock
from auditkit.saes import SparseAutoencoder, check_fits, load_sae
from auditkit.serve.app import create_app
from auditkit.serve.server import run_until_signal
from auditkit.serve.settings import Action, FailPolicy, Hold, ServeSettings
from auditkit.serve.watched_engine import WatchedEngine


def serve(
    model: str,
    saes: Sequence[str],
    locks: Sequence[Path],
    *,
    settings: ServeSettings,
    name: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
    progress: Progress,
) -> None:
    """Serve `model` under the rules of `locks`, the n-th bound to the n-th of `saes`."""
    if len(saes) != len(locks):
        raise InvalidInput(
            f"{len(saes)} SAEs and {len(locks)} locks", help="give --sae and --lock in pairs"
        )
    watches = [(load_sae(s), read_lock(p)) for s, p in zip(saes, locks, strict=True)]
    cores = os.cpu_count() or 1
    # Every worker thread has a team of its own: more threads than cores only wait for one another.
    torch.set_num_threads(threads or max(1, cores // settings.limits.concurrency))
    progress.note(f"loading {model}")
    loaded = load_model(model, dtype=dtype, device=device, progress=progress.note)
    for sae, _ in watches:
        for warning in check_fits(sae, loaded.identity):
            progress.note(warning)
    for _, lock in watches:
        for line in offline_parts(lock):
            progress.note(line)
    served = name or loaded.identity.name
    engine = WatchedEngine(
        loaded, watches, name=served, policy=settings.policy, limits=settings.limits
    )
    for note in notes_on(settings, watches):
        progress.note(note)
    progress.note(f"{len(engine.rule_ids)} rules watch {served}; {settings.policy.action} on a hit")
    run_until_signal(create_app(engine, settings), settings, announce=progress.note)


def notes_on(
    settings: ServeSettings, watches: Sequence[tuple[SparseAutoencoder, Lock]]
) -> list[str]:
    """What a user of these settings should know before the first request."""
    policy = settings.policy
    notes: list[str] = []
    if settings.log_prompts:
        notes.append("prompts and replies are logged (--log-prompts)")
    if policy.action is Action.RECORD or policy.hold is Hold.REPLY:
        return notes
    late = [rule.id for _, lock in watches for rule in lock.rules if decides_late(rule)]
    if late:
        shown = ", ".join([*late[:3], "…"] if len(late) > 3 else late)
        notes.append(
            f"{len(late)} rules decide at the end of a reply ({shown}): a streamed reply's text "
            "has gone out by then; --hold reply holds it until they have"
        )
    if policy.fail is FailPolicy.CLOSED:
        notes.append("--fail closed on streams blocks what is not sent yet; see --hold reply")
    return notes


def decides_late(rule: LockedRule) -> bool:
    """Whether a rule looks at the reply and can fire only when it is complete."""
    roles = rule.scope.roles
    sees_reply = not roles or Role.ASSISTANT in roles
    return sees_reply and not StreamEvaluator(rule).latching
