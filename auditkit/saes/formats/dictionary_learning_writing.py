"""Writing an SAE as dictionary_learning's ae.pt and config.json."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from auditkit.saes.config import ArchitectureName
from auditkit.saes.folding import fold_decoder_norm, fold_pre_bias
from auditkit.saes.formats.dictionary_learning import CONFIG, WEIGHTS, dict_classes, norm_notes
from auditkit.saes.formats.whole_folder import refuse_normalised, write_new_folder
from auditkit.saes.sparse_autoencoder import SparseAutoencoder


def write_dictionary_learning(sae: SparseAutoencoder, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Write `folder` for dictionary_learning; return it, with notes.

    Latents are the same. Raises NotSupportedYet for activations normalised token by token.
    """
    config = sae.config
    refuse_normalised(sae, "dictionary_learning")
    named = _class_of(sae)
    kind = dict_classes()[named]
    if config.rescale_acts_by_decoder_norm:
        sae = fold_decoder_norm(sae)
    sae = fold_pre_bias(sae, applied=kind.applied)
    state = _state(sae, named)
    trainer = {
        "dict_class": named,
        "activation_dim": config.d_in,
        "dict_size": config.d_sae,
        "layer": config.hook_point.layer,
        "lm_name": config.model_name,
        "submodule_name": f"{config.hook_point.site.value}_layer_{config.hook_point.layer}",
        **({"k": config.k} if config.k is not None else {}),
    }
    context = config.metadata.get("context_size")

    def fill(fresh: Path) -> None:
        text = json.dumps({"trainer": trainer, "buffer": {"ctx_len": context}}, indent=2)
        (fresh / CONFIG).write_text(text + "\n", encoding="utf-8")
        torch.save(state, fresh / WEIGHTS)

    write_new_folder(folder, fill)
    return folder, norm_notes(sae.W_dec) if kind.norms else ()


def _class_of(sae: SparseAutoencoder) -> str:
    return {
        ArchitectureName.STANDARD: "AutoEncoder"
        if sae.config.apply_b_dec_to_input
        else "AutoEncoderNew",
        ArchitectureName.GATED: "GatedAutoEncoder",
        ArchitectureName.TOPK: "AutoEncoderTopK",
        ArchitectureName.JUMPRELU: "JumpReluAutoEncoder",
    }[sae.config.architecture]


def _state(sae: SparseAutoencoder, named: str) -> dict[str, Tensor]:
    kind = dict_classes()[named]
    state = {theirs: sae.tensors[ours] for ours, theirs in kind.names.items()}
    if kind.transposed:
        for ours in ("W_enc", "W_dec"):
            state[kind.names[ours]] = sae.tensors[ours].T.contiguous()
    if sae.config.k is not None:
        state |= {
            "k": torch.tensor(sae.config.k, dtype=torch.int32),
            "threshold": torch.tensor(-1.0),
        }
    return {name: tensor.clone() for name, tensor in state.items()}
