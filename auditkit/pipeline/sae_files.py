"""`auditkit sae import` and `export`: SAEs from other tools' files, and into them."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from auditkit.core.errors import InvalidInput, RunFailed
from auditkit.core.hook_point import HookPoint
from auditkit.core.measured import Measured
from auditkit.saes import (
    ExportFormat,
    SparseAutoencoder,
    load_sae,
    read_log_sparsity,
    write_sae,
)
from auditkit.saes import export_sae as write_export

PROBES = 256
TOLERANCE = 1e-3
"""Change of a token's latents, relative to the largest latent, that half of them may exceed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """An SAE that was read in one format and written in another.

    `difference` is the largest change of a latent over random activations, relative to the largest
    latent, n their number.
    """

    name: str
    architecture: str
    hook_point: str
    d_in: int
    d_sae: int
    digest: str
    folder: Path
    difference: Measured
    notes: tuple[str, ...]

    def text(self) -> str:
        lines = [
            f"{self.name}: {self.architecture}, {self.d_sae:,} latents of width {self.d_in} at "
            f"{self.hook_point}, in {self.folder}",
            f"read back: latents differ by at most {self.difference.value:.1e} of the largest "
            f"(n = {self.difference.n} random activations)",
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def json(self) -> str:
        values: dict[str, Any] = dataclasses.asdict(self) | {"folder": str(self.folder)}
        return json.dumps(values, indent=1, ensure_ascii=False)


def import_sae(
    source: str, out: Path, *, hook_point: str | None, name: str | None, dtype: str
) -> Converted:
    """Read an SAE of any known format and write it as a SAELens folder.

    Raises InvalidInput where `out` is taken or nothing says where the SAE reads, WeightsError or
    NotSupportedYet for what cannot be read.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInput(
            f"{out}: there is something already", help="name a folder that does not exist yet"
        )
    given = None if hook_point is None else HookPoint.parse(hook_point)
    sae = load_sae(source, hook_point=given)
    notes = list(sae.notes)
    if given is not None and sae.hook_point != given:
        notes.append(f"the source names its own hook point, {sae.hook_point}: {given} is not used")
    if name is not None:
        sae = _renamed(sae, name)
    folder = Path(source)
    sparsity = read_log_sparsity(folder) if folder.is_dir() else None
    write_sae(sae, out, dtype=dtype, log_sparsity=sparsity)
    return _converted(sae, load_sae(out), out, notes)


def export_sae(source: str, out: Path, *, export_format: ExportFormat) -> Converted:
    """Read an SAE and write it as another tool reads it, refusing what that tool cannot express."""
    sae = load_sae(source)
    folder, notes = write_export(sae, out, export_format)
    return _converted(sae, load_sae(folder, hook_point=sae.hook_point), folder, [*notes])


def _renamed(sae: SparseAutoencoder, name: str) -> SparseAutoencoder:
    return SparseAutoencoder(
        dataclasses.replace(sae.config, name=name), sae.tensors, notes=sae.notes
    )


def _converted(
    before: SparseAutoencoder, after: SparseAutoencoder, folder: Path, notes: list[str]
) -> Converted:
    return Converted(
        name=before.config.name,
        architecture=before.config.architecture.value,
        hook_point=after.hook_point.name,
        d_in=before.config.d_in,
        d_sae=before.config.d_sae,
        digest=after.identity.digest,
        folder=folder,
        difference=_compare(before, after, folder),
        notes=tuple(notes),
    )


def _compare(before: SparseAutoencoder, after: SparseAutoencoder, folder: Path) -> Measured:
    """The largest change of a latent over random activations around b_dec."""
    generator = torch.Generator().manual_seed(0)
    x = before.b_dec + torch.randn(PROBES, before.config.d_in, generator=generator)
    one, two = before.encode(x).to_dense(), after.encode(x).to_dense()
    largest = float(one.abs().max()) or 1.0
    by_token = (one - two).abs().amax(dim=1) / largest
    # The k-th and the next latent of a token may change places by rounding alone: the median tells.
    middle = float(by_token.median())
    if middle > TOLERANCE:
        raise RunFailed(
            f"{folder}: read back, latents differ by {middle:.2g} of the largest, "
            f"expected at most {TOLERANCE:g}",
            help="write it in float32; if it comes back, report it with the SAE's architecture",
        )
    return Measured(value=float(by_token.max()), n=PROBES)
