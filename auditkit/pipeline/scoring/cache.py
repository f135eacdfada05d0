"""Measures that were taken before, by the content of everything they depend on."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

import auditkit
from auditkit.core.cache_folder import cache_root
from auditkit.core.errors import RunFailed
from auditkit.core.fingerprint import fingerprint
from auditkit.pipeline.whole_file import write_whole
from auditkit.report.score_document import ScorePart

_VERSION = 2
"""Raise it with every change to what a group measures."""


def part_key(group: str, facts: object) -> str:
    """The name under which a group's measures are kept; `facts` are all that they depend on."""
    return fingerprint([auditkit.__version__, _VERSION, group, facts], length=40)


def read_part(key: str) -> ScorePart | None:
    """What is kept under `key`; None where nothing is, or nothing that this version reads."""
    try:
        return ScorePart.model_validate_json(_path(key).read_bytes())
    except (OSError, ValidationError):
        return None


def keep_part(key: str, part: ScorePart) -> None:
    """Keep a group's measures; where the folder cannot be written they are measured again."""
    try:
        write_whole(_path(key), part.model_dump_json())
    except RunFailed:
        return


def _path(key: str) -> Path:
    return cache_root() / "scores" / f"{key}.json"
