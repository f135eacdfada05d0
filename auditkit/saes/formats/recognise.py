"""Which tool wrote an SAE, told by the files that stand there."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path

from auditkit.core.errors import InvalidInput, NotSupportedYet, WeightsError

SPARSIFY_KEYS = {"num_latents", "expansion_factor", "multi_topk"}
EXPECTED = (
    "expected a SAELens folder (cfg.json, sae_weights.safetensors), Gemma Scope's params.npz, a "
    "sparsify folder (cfg.json, sae.safetensors), a dictionary_learning folder (ae.pt, "
    "config.json), or release:RELEASE/SAE_ID"
)


class Layout(StrEnum):
    """The layouts that are read, by the name of the tool that writes them."""

    SAELENS = "SAELens"
    GEMMA_SCOPE = "Gemma Scope"
    SPARSIFY = "sparsify"
    DICTIONARY_LEARNING = "dictionary_learning"


def recognise_layout(path: Path) -> Layout:
    """Whose SAE stands at `path`, a folder or its file of weights.

    Raises WeightsError where none does, NotSupportedYet for a pickle that is nobody's.
    """
    if path.suffix == ".npz" or (path / "params.npz").is_file():
        return Layout.GEMMA_SCOPE
    if (path / "ae.pt").is_file() or path.name == "ae.pt":
        return Layout.DICTIONARY_LEARNING
    if (path / "sae.safetensors").is_file() or SPARSIFY_KEYS & _cfg_keys(path):
        return Layout.SPARSIFY
    if path.suffix in (".pt", ".pth", ".bin"):
        raise NotSupportedYet(
            f"{path}: this is a pickled checkpoint, which is not supported yet", help=EXPECTED
        )
    if not path.exists():
        raise WeightsError(f"{path}: no such SAE folder", help=EXPECTED)
    if not (path / "cfg.json").is_file():
        inside = _saes_inside(path)
        raise WeightsError(
            f"{path}: not an SAE's folder: cfg.json is missing",
            help=f"name one of the SAEs inside: {', '.join(inside)}" if inside else EXPECTED,
        )
    return Layout.SAELENS


def _saes_inside(path: Path) -> list[str]:
    if not path.is_dir():
        return []
    files = ("cfg.json", "ae.pt", "params.npz")
    return sorted({found.parent.name for file in files for found in path.glob(f"*/{file}")})


def _cfg_keys(path: Path) -> set[str]:
    try:
        value = json.loads((path / "cfg.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return set()
    return set(value) if isinstance(value, dict) else set()


def require_text(path: Path) -> str:
    """A text file's content; raise InvalidInput where it cannot be read as UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read: {error}") from None
