"""Gemma Scope's params.npz (Lieberum et al. 2024, arXiv 2408.05147): JumpReLU SAEs of Gemma 2.

The file holds W_enc [d_in, d_sae], b_enc, W_dec [d_sae, d_in], b_dec and threshold, and nothing
else: which model, layer and site it belongs to stands in its path alone, as in
`gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71/params.npz`. b_dec is not subtracted from
the input.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from auditkit.core.errors import NotSupportedYet, WeightsError
from auditkit.core.hook_point import HookPoint, Site
from auditkit.saes.config import ArchitectureName, SaeConfig
from auditkit.saes.formats.plain_weights import require_hook_point, require_matrix, require_names
from auditkit.saes.sparse_autoencoder import SparseAutoencoder

_NAMES = {"W_enc", "W_dec", "b_enc", "b_dec", "threshold"}
_REPOSITORY = re.compile(r"gemma-scope-(?P<size>\d+b)-(?P<tune>pt|it)-(?P<kind>[a-z]+)")
_LAYER = re.compile(r"layer_(\d+)")
_SITES = {"res": Site.RESID_POST, "mlp": Site.MLP_OUT}


def read_gemma_scope(path: Path, hook_point: HookPoint | None = None) -> SparseAutoencoder:
    """Load params.npz, or the folder that holds it; `hook_point` where its path names none.

    Raises WeightsError for a damaged file, NotSupportedYet for attention heads, embeddings and
    transcoders, InvalidInput where nothing says where it reads.
    """
    file = path / "params.npz" if path.is_dir() else path
    whole = file.resolve().as_posix()
    repository = _REPOSITORY.search(whole)
    _refuse_kind(file, whole, repository)
    tensors = _read_arrays(file)
    require_names(tensors, _NAMES, file, "a Gemma Scope SAE")
    d_in, d_sae = require_matrix(tensors["W_enc"], "W_enc", file)
    config = SaeConfig(
        name=_name(file.resolve()),
        architecture=ArchitectureName.JUMPRELU,
        d_in=d_in,
        d_sae=d_sae,
        hook_point=require_hook_point(_place(whole, repository), hook_point, file),
        apply_b_dec_to_input=False,
        model_name=_model(repository),
        metadata={"prepend_bos": True, "auditkit": {"source": {"format": "Gemma Scope"}}},
    )
    return SparseAutoencoder(config, tensors)


def _read_arrays(file: Path) -> dict[str, Tensor]:
    if not file.is_file():
        raise WeightsError(f"{file}: no such file", help="expected Gemma Scope's params.npz")
    try:
        with file.open("rb") as raw, np.load(raw, allow_pickle=False) as archive:
            arrays = {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(
            f"{file}: not a complete .npz file ({file.stat().st_size} bytes): {error}",
            help="the file was cut off or damaged on its way; copy or download it again",
        ) from None
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise WeightsError(
                f"{file}: {name} is stored as {array.dtype}", help="expected floating point numbers"
            )
    # Gemma Scope 2 writes w_enc and w_dec.
    return {
        ("W_" + name[2:] if name.startswith("w_") else name): torch.from_numpy(
            array.astype(np.float32)
        )
        for name, array in arrays.items()
    }


def _refuse_kind(file: Path, whole: str, repository: re.Match[str] | None) -> None:
    kind = repository["kind"] if repository else ""
    what = {
        "att": "reads single attention heads (hook_z)",
        "transcoders": "is a transcoder: it writes elsewhere than it reads",
    }.get(kind)
    if "/embedding/" in whole:
        what = "reads the token embeddings"
    if what is not None:
        raise NotSupportedYet(
            f"{file}: this Gemma Scope SAE {what}, which is not supported yet",
            help="use one of the residual stream (…-res) or of the MLP's output (…-mlp)",
        )


def _place(whole: str, repository: re.Match[str] | None) -> HookPoint | None:
    layer = _LAYER.search(whole)
    site = _SITES.get(repository["kind"]) if repository else None
    return HookPoint(layer=int(layer[1]), site=site) if layer and site else None


def _model(repository: re.Match[str] | None) -> str | None:
    if repository is None:
        return None
    tuned = "-it" if repository["tune"] == "it" else ""
    return f"google/gemma-2-{repository['size']}{tuned}"


def _name(file: Path) -> str:
    """The folders from the layer on, as Gemma Scope itself names its SAEs."""
    parts = file.parent.parts
    start = next((i for i, part in enumerate(parts) if _LAYER.fullmatch(part)), len(parts) - 1)
    return "/".join(parts[start:]) if file.name == "params.npz" else file.stem
