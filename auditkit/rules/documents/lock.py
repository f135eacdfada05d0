"""`rules.lock.json`: every rule of a run, bound. Floats come back to the bit; bytes are stable."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from auditkit.core.correlations import LockedCorrelation
from auditkit.core.documents import Document
from auditkit.core.errors import InvalidInput
from auditkit.core.filters import LockedFilter
from auditkit.core.fingerprint import to_plain
from auditkit.core.identity import ModelIdentity, SaeIdentity
from auditkit.core.locks import JointCalibration, JointNotCalibrated, Lock, LockedRule
from auditkit.core.recordings import Provenance
from auditkit.core.tokens import TokenMask

FORMAT = "auditkit-lock/1"
AGAIN = "write it anew with: auditkit rules bind"

_MASKS = tuple(m for m in TokenMask if m is not TokenMask.NONE)
MaskName = Literal["BOS", "TEMPLATE", "SPECIAL", "PADDING", "HIGH_NORM"]


class LockDocument(Document):
    """A lock as it stands in its file."""

    format: Literal["auditkit-lock/1"]
    model: ModelIdentity
    sae: SaeIdentity
    masked: tuple[MaskName, ...]
    high_norm: float | None
    provenance: Provenance
    rules: tuple[LockedRule, ...]
    filters: tuple[LockedFilter, ...] = ()
    correlations: tuple[LockedCorrelation, ...] = ()
    joint: tuple[JointCalibration | JointNotCalibrated, ...] = ()


def render_lock(lock: Lock) -> str:
    """A lock as JSON: the same text for equal locks. Raises ValueError on NaN or infinity."""
    plain: dict[str, Any] = {
        "format": FORMAT,
        "model": to_plain(lock.model),
        "sae": to_plain(lock.sae),
        "masked": [m.name for m in _MASKS if m in lock.masked],
        "high_norm": lock.high_norm,
        "provenance": to_plain(lock.provenance),
        "rules": to_plain(lock.rules),
        "filters": to_plain(lock.filters),
        "correlations": to_plain(lock.correlations),
        "joint": to_plain(lock.joint),
    }
    return json.dumps(plain, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def parse_lock(text: str, path: str = "rules.lock.json") -> Lock:
    """Read a lock's JSON; raise InvalidInput that says what is wrong and where."""
    plain = _load(text, path)
    _check_format(plain, path)
    try:
        document = LockDocument.model_validate_json(text)
    except ValidationError as error:
        raise InvalidInput("\n".join(_problems(error, path)), help=AGAIN) from None
    masked = TokenMask.NONE
    for name in document.masked:
        masked |= TokenMask[name]
    return Lock(
        model=document.model,
        sae=document.sae,
        rules=document.rules,
        masked=masked,
        high_norm=document.high_norm,
        provenance=document.provenance,
        filters=document.filters,
        correlations=document.correlations,
        joint=document.joint,
    )


def read_lock(path: str | Path) -> Lock:
    """Read `rules.lock.json`; raise InvalidInput if it is missing, malformed or newer."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidInput(f"{path}: the lock cannot be read: {reason}", help=AGAIN) from None
    return parse_lock(text, str(path))


def write_lock(lock: Lock, path: str | Path) -> None:
    """Write a lock whole or not at all; raise InvalidInput where it cannot be written."""
    target = Path(path)
    beside = target.with_name(target.name + ".new")
    try:
        beside.write_text(render_lock(lock), encoding="utf-8", newline="\n")
        beside.replace(target)
    except OSError as error:
        raise InvalidInput(
            f"{path}: the lock cannot be written: {error.strerror}",
            help="give another place with --out",
        ) from None


def _load(text: str, path: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}", help=AGAIN
        ) from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path}: not a lock: {error}", help=AGAIN) from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return made


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _check_format(plain: Any, path: str) -> None:
    found = plain.get("format") if isinstance(plain, dict) else None
    if found == FORMAT:
        return
    newer = re.fullmatch(r"auditkit-lock/(\d+)", found) if isinstance(found, str) else None
    if newer is not None and int(newer.group(1)) > 1:
        raise InvalidInput(
            f"{path}: written in {found}, which is newer than this auditkit's {FORMAT}",
            help="install a newer auditkit, or " + AGAIN,
        )
    raise InvalidInput(f"{path}: not a lock: its format is {found!r}, not {FORMAT!r}", help=AGAIN)


def _problems(error: ValidationError, path: str) -> list[str]:
    return [
        f"{path}: {'.'.join(str(part) for part in detail['loc'])}: "
        f"{'unknown key' if detail['type'] == 'unexpected_keyword_argument' else detail['msg']}"
        for detail in error.errors(include_url=False)
    ]
