"""Loading and writing SAEs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from auditkit.core.errors import NotSupportedYet
from auditkit.core.hook_point import HookPoint
from auditkit.saes.formats.dictionary_learning import read_dictionary_learning
from auditkit.saes.formats.dictionary_learning_writing import write_dictionary_learning
from auditkit.saes.formats.gemma_scope import read_gemma_scope
from auditkit.saes.formats.recognise import Layout, recognise_layout
from auditkit.saes.formats.release import PREFIX, load_release
from auditkit.saes.formats.saelens_folder import read_saelens_folder, write_saelens_folder
from auditkit.saes.formats.sparsify import read_sparsify, write_sparsify
from auditkit.saes.sparse_autoencoder import SparseAutoencoder


class ExportFormat(StrEnum):
    """The layouts that an SAE can be written in."""

    SAELENS = "saelens"
    SPARSIFY = "sparsify"
    DICTIONARY_LEARNING = "dictionary_learning"


def load_sae(
    source: str | Path, *, dtype: str = "float32", hook_point: HookPoint | None = None
) -> SparseAutoencoder:
    """Load an SAE: a SAELens folder, Gemma Scope's params.npz, a sparsify or dictionary_learning
    folder, or `release:RELEASE/SAE_ID` through sae-lens.

    `hook_point` is used only where the source does not name its own. Raises WeightsError for
    weights that are missing, damaged, of the wrong shape or not finite; DocumentError for a bad
    cfg.json; InvalidInput where nothing says where it reads; NotSupportedYet for what is
    recognised and not built yet.
    """
    if dtype != "float32":
        raise NotSupportedYet(
            f"SAEs compute in float32 in this version, not in {dtype}", help="leave dtype out"
        )
    if isinstance(source, str) and source.startswith(PREFIX):
        return load_release(source, hook_point)
    path = Path(source)
    readers = {
        Layout.SAELENS: read_saelens_folder,
        Layout.GEMMA_SCOPE: read_gemma_scope,
        Layout.SPARSIFY: read_sparsify,
        Layout.DICTIONARY_LEARNING: read_dictionary_learning,
    }
    return readers[recognise_layout(path)](path, hook_point)


def write_sae(
    sae: SparseAutoencoder,
    folder: str | Path,
    *,
    dtype: str = "float16",
    log_sparsity: Float[Tensor, " d_sae"] | None = None,
) -> SparseAutoencoder:
    """Write a SAELens folder, whole or not at all; return the SAE as it will be loaded from there.

    Weights are rounded to `dtype` (float16, bfloat16 or float32). Raises WeightsError where a
    weight overflows it, InvalidInput where the folder holds something else, RunFailed where it
    cannot be written.
    """
    return write_saelens_folder(sae, Path(folder), dtype=dtype, log_sparsity=log_sparsity)


def export_sae(
    sae: SparseAutoencoder, folder: str | Path, export_format: ExportFormat
) -> tuple[Path, tuple[str, ...]]:
    """Write `sae` in float32 as another tool reads it; where it is, and what a user should know.

    Raises NotSupportedYet for what the format cannot express, InvalidInput where something stands
    there, RunFailed where it cannot be written.
    """
    folder = Path(folder)
    if export_format is ExportFormat.SPARSIFY:
        return write_sparsify(sae, folder), ()
    if export_format is ExportFormat.DICTIONARY_LEARNING:
        return write_dictionary_learning(sae, folder)
    write_sae(sae, folder, dtype="float32")
    return folder, ()
