"""Load `audit.yaml` and `train.yaml`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from auditkit.config.documents import AuditDocument, TrainDocument
from auditkit.config.several_document import SeveralDocument, with_whole_trainers
from auditkit.core.documents import Document, parse_document, parse_yaml, validate_document
from auditkit.core.errors import DocumentError, InvalidInput

D = TypeVar("D", bound=Document)


@dataclass(frozen=True, slots=True, kw_only=True)
class Located(Generic[D]):
    """A document with the folder that its relative paths start from."""

    document: D
    folder: Path

    def resolve(self, path: str) -> Path:
        """The path that `path` means in this document."""
        return (self.folder / Path(path).expanduser()).resolve()

    def resolve_source(self, source: str) -> str:
        """A model's or SAE's source: a path in this document where there is one, else a name."""
        path = self.resolve(source)
        return str(path) if path.exists() else source


def load_audit(path: Path) -> Located[AuditDocument]:
    """Load `audit.yaml`; raise DocumentError with positions, or InvalidInput if unreadable."""
    document, _ = parse_document(_read(path), str(path), AuditDocument)
    return Located(document=document, folder=path.resolve().parent)


def load_train(path: Path) -> Located[TrainDocument]:
    """Load the one SAE that `path` names: `train.yaml`, or `train.yaml#NAME` where it has several.

    Raises DocumentError with positions, or InvalidInput if unreadable or where no name is given
    and there are several.
    """
    first, *others = load_saes(path)
    if others:
        names = [located.document.name for located in (first, *others)]
        raise InvalidInput(
            f"{path}: {len(names)} SAEs are named in it, and one is wanted: {', '.join(names)}",
            help=f"say which: {path}#{names[0]}",
        )
    return first


def load_saes(path: Path) -> tuple[Located[TrainDocument], ...]:
    """Load every SAE of a `train.yaml`, each as a document of its own; of `train.yaml#NAME` that
    one. Raises as `load_train` does."""
    file, name = _split_name(path)
    parsed = parse_yaml(_read(file), str(file))
    if parsed.diagnostics:
        raise DocumentError(parsed.diagnostics)
    folder = file.resolve().parent
    if isinstance(parsed.value, dict) and "saes" in parsed.value:
        parsed.value = with_whole_trainers(cast("dict[str, Any]", parsed.value))
        documents = validate_document(parsed, SeveralDocument).documents()
    else:
        documents = (validate_document(parsed, TrainDocument),)
    chosen = [d for d in documents if name is None or d.name == name]
    if not chosen:
        raise InvalidInput(
            f"{file}: no SAE is named {name!r} in it",
            help=f"it names {', '.join(d.name for d in documents)}",
        )
    return tuple(Located(document=d, folder=folder) for d in chosen)


def _split_name(path: Path) -> tuple[Path, str | None]:
    """`train.yaml#NAME` as file and name; a file that is really called so wins."""
    before, mark, name = str(path).rpartition("#")
    if not mark or path.exists():
        return path, None
    return Path(before), name


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidInput(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path}: cannot be read: {error}") from None
