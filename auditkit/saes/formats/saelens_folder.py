"""The native format: a SAELens folder with cfg.json and sae_weights.safetensors."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from auditkit.core.errors import InvalidInput, RunFailed, WeightsError
from auditkit.core.hook_point import HookPoint
from auditkit.saes.config import Normalisation, SaeConfig
from auditkit.saes.folding import Whitening, fold_activation_scale, fold_whitening
from auditkit.saes.formats.cfg import SaelensCfg, cfg_values, parse_cfg, to_config
from auditkit.saes.formats.recognise import require_text
from auditkit.saes.formats.tensor_file import read_tensors, round_to
from auditkit.saes.sparse_autoencoder import SparseAutoencoder

CFG, WEIGHTS, SPARSITY = "cfg.json", "sae_weights.safetensors", "sparsity.safetensors"
SCALER, WHITENING = "activation_scaler.json", "activation_whitening.safetensors"
OWN_FILES = {CFG, WEIGHTS, SPARSITY, SCALER, WHITENING}


def read_saelens_folder(folder: Path, hook_point: HookPoint | None = None) -> SparseAutoencoder:
    """Load a SAELens 6 folder in float32; `hook_point` stands in for a missing hook_name.

    Activation statistics of a training checkpoint that lie beside the weights are folded in.
    Raises WeightsError, DocumentError, NotSupportedYet or InvalidInput.
    """
    path = folder / CFG
    cfg = parse_cfg(require_text(path), str(path))
    config = to_config(cfg, name=folder.resolve().name, path=str(path), hook_point=hook_point)
    sae = assemble(config, read_tensors(folder / WEIGHTS))
    return _undo_normalisation(sae, cfg, folder)


def assemble(config: SaeConfig, tensors: Mapping[str, Tensor]) -> SparseAutoencoder:
    """An SAE from SAELens' tensors, with older names and left-overs settled."""
    tensors = dict(tensors)
    if "log_threshold" in tensors and "threshold" not in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").float().exp()
    scaling = tensors.get("scaling_factor")
    if scaling is not None and torch.allclose(scaling, torch.ones_like(scaling)):
        del tensors["scaling_factor"]
    return SparseAutoencoder(config, tensors)


def read_log_sparsity(folder: Path) -> Float[Tensor, " d_sae"] | None:
    """log10 of each latent's firing rate in training, where the folder has it."""
    path = folder / SPARSITY
    if not path.is_file():
        return None
    tensors = read_tensors(path)
    if "sparsity" not in tensors:
        raise WeightsError(f"{path}: no tensor 'sparsity'", help=f"delete {SPARSITY} to go without")
    return tensors["sparsity"]


def write_saelens_folder(
    sae: SparseAutoencoder,
    folder: Path,
    *,
    dtype: str = "float16",
    log_sparsity: Float[Tensor, " d_sae"] | None = None,
) -> SparseAutoencoder:
    """Write a folder whole or not at all, and return the SAE as it will be loaded from there.

    Weights are rounded to `dtype`; the identity is that of the rounded weights. An SAE that stands
    there is replaced; other files in its folder (a card) stay. Raises WeightsError where a weight
    overflows `dtype`, InvalidInput where the folder holds something else or the metadata is no
    JSON, RunFailed where it cannot be written.
    """
    folder = folder.resolve()
    stored = round_to(sae.tensors, dtype)
    text = _render_json(cfg_values(sae.config, stored_dtype=dtype), sae.config.name)
    if folder.exists() and not _replaceable(folder):
        raise InvalidInput(
            f"{folder}: there is something else than an SAE",
            help="name a new folder, or one that holds a cfg.json of an SAE",
        )
    fresh = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        fresh.mkdir(parents=True)
        (fresh / CFG).write_text(text, encoding="utf-8")
        _save(stored, fresh / WEIGHTS)
        if log_sparsity is not None:
            _save({"sparsity": log_sparsity.contiguous()}, fresh / SPARSITY)
        _put_in_place(fresh, folder)
    except OSError as error:
        raise RunFailed(
            f"{folder}: the SAE cannot be written: {error.strerror or error}",
            help="choose a folder that is writable and has space",
        ) from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    tensors = {name: t.to(torch.float32) for name, t in stored.items()}
    return SparseAutoencoder(sae.config, tensors, notes=sae.notes)


def _undo_normalisation(sae: SparseAutoencoder, cfg: SaelensCfg, folder: Path) -> SparseAutoencoder:
    """Fold what SAELens leaves to a file beside the weights of a training checkpoint."""
    if cfg.normalize_activations == "covariance_whitening":
        path = folder / WHITENING
        if not path.is_file():
            raise WeightsError(
                f"{folder}: trained on whitened activations, and {WHITENING} is missing",
                help="take the final model of the run, where SAELens has folded the whitening in, "
                "or copy the file from the checkpoint",
            )
        t, d = read_tensors(path), cfg.d_in
        shapes = {"mean": (d,), "matrix": (d, d), "inverse_matrix": (d, d)}
        if {name: tuple(tensor.shape) for name, tensor in t.items()} != shapes:
            raise WeightsError(
                f"{path}: expected mean [{d}], matrix [{d}, {d}] and inverse_matrix [{d}, {d}]",
                help="copy the file from the same checkpoint as the weights",
            )
        return fold_whitening(
            sae, Whitening(mean=t["mean"], matrix=t["matrix"], inverse=t["inverse_matrix"])
        )
    if cfg.normalize_activations == Normalisation.EXPECTED_AVERAGE_ONLY_IN.value:
        factor = _scaling_factor(folder / SCALER)
        if factor is not None:
            return fold_activation_scale(sae, factor)
        note = (
            f"SAE {sae.config.name} says normalize_activations: expected_average_only_in, and its "
            "factor is in no file: activations are encoded as they are, as SAELens does"
        )
        return SparseAutoencoder(sae.config, sae.tensors, notes=(*sae.notes, note))
    return sae


def _scaling_factor(path: Path) -> float | None:
    if not path.is_file():
        return None
    try:
        factor = json.loads(require_text(path))["scaling_factor"]
        return None if factor is None else float(factor)
    except (ValueError, KeyError, TypeError):
        raise InvalidInput(
            f"{path}: expected an object with the number scaling_factor",
            help="copy the file from the training checkpoint again",
        ) from None


def _render_json(values: dict[str, Any], name: str) -> str:
    try:
        return json.dumps(values, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise InvalidInput(
            f"SAE {name}: its metadata is no JSON: {error}",
            help="metadata holds text, finite numbers, booleans, null, lists and objects",
        ) from None


def _replaceable(folder: Path) -> bool:
    return folder.is_dir() and ((folder / CFG).is_file() or not any(folder.iterdir()))


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _put_in_place(fresh: Path, folder: Path) -> None:
    if not folder.exists():
        fresh.rename(folder)
        return
    for item in folder.iterdir():
        if item.name not in OWN_FILES:
            copy = shutil.copytree if item.is_dir() else shutil.copy2
            copy(item, fresh / item.name)
    old = folder.with_name(fresh.name.removesuffix(".tmp") + ".old")
    folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)
