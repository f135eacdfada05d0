"""EleutherAI's sparsify: a folder per hook point with cfg.json and sae.safetensors.

encoder.weight [d_sae, d_in], encoder.bias, W_dec [d_sae, d_in], b_dec; TopK over the ReLU of
(x − b_dec) W_enc + b_enc. Where it reads is the name of the module whose output that is, and the
name of the folder: `layers.10` is the residual stream after block 10.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from auditkit.core.errors import InvalidInput, NotSupportedYet
from auditkit.core.hook_point import HookPoint, Site
from auditkit.saes.config import ArchitectureName, SaeConfig
from auditkit.saes.folding import fold_decoder_norm, fold_pre_bias
from auditkit.saes.formats.cfg import parse_json_object
from auditkit.saes.formats.plain_weights import require_hook_point, require_matrix, require_names
from auditkit.saes.formats.recognise import require_text
from auditkit.saes.formats.tensor_file import read_tensors
from auditkit.saes.formats.whole_folder import refuse_normalised, write_new_folder
from auditkit.saes.sparse_autoencoder import SparseAutoencoder

CFG, WEIGHTS, RUN = "cfg.json", "sae.safetensors", "config.json"
_NAMES = {"encoder.weight", "encoder.bias", "W_dec", "b_dec"}
_KNOWN = {"d_in", "k", "num_latents", "expansion_factor", "activation"}
# Flags that change what is computed where they are set, and those of training alone.
_REFUSED = ("transcode", "skip_connection", "embed_skip", "gram_lookup", "signed")
_TRAINING = {"normalize_decoder", "multi_topk", "lookup_max_order", "gram_table_hash"}
_FOLDER = re.compile(r"(?:.*\.)?(?:layers|h|blocks)[._](\d+)(?:\.(\w+))?")
_MODULES = {"mlp": Site.MLP_OUT, "self_attn": Site.ATTN_OUT, "attn": Site.ATTN_OUT}
_MODULES["attention"] = Site.ATTN_OUT


def read_sparsify(folder: Path, hook_point: HookPoint | None = None) -> SparseAutoencoder:
    """Load a sparsify folder; `hook_point` where the folder's name is no module of a block.

    Raises WeightsError, InvalidInput, or NotSupportedYet for transcoders, skip connections and
    groupmax.
    """
    path = folder / CFG
    cfg = parse_json_object(require_text(path), str(path), "d_in, k, num_latents")
    d_in, d_sae, k = _sizes(cfg, path)
    tensors = read_tensors(folder / WEIGHTS)
    require_names(tensors, _NAMES, folder / WEIGHTS, "a sparsify SAE")
    require_matrix(tensors["encoder.weight"], "encoder.weight", folder / WEIGHTS)
    config = SaeConfig(
        name=folder.resolve().name,
        architecture=ArchitectureName.TOPK,
        d_in=d_in,
        d_sae=d_sae,
        k=k,
        hook_point=require_hook_point(_place(folder.resolve().name), hook_point, folder),
        model_name=_model(folder.resolve().parent / RUN),
        metadata={"auditkit": {"source": {"format": "sparsify"}}},
    )
    return SparseAutoencoder(
        config,
        {
            "W_enc": tensors["encoder.weight"].T,
            "b_enc": tensors["encoder.bias"],
            "W_dec": tensors["W_dec"],
            "b_dec": tensors["b_dec"],
        },
    )


def write_sparsify(sae: SparseAutoencoder, folder: Path) -> Path:
    """Write `folder` as a sparsify run with this SAE in the folder of its module; return that.

    Latents are the same. Raises NotSupportedYet for what sparsify cannot express: any
    architecture but topk, activations normalised token by token, resid_mid.
    """
    config = sae.config
    if config.architecture is not ArchitectureName.TOPK:
        raise NotSupportedYet(
            f"SAE {config.name}: sparsify has topk SAEs alone, and this is {config.architecture}",
            help="export it as saelens or dictionary_learning",
        )
    refuse_normalised(sae, "sparsify")
    module = _module(config.hook_point)
    if config.rescale_acts_by_decoder_norm:
        sae = fold_decoder_norm(sae)
    sae = fold_pre_bias(sae, applied=True)
    cfg = {
        "activation": "topk",
        "expansion_factor": max(1, config.d_sae // config.d_in),
        "normalize_decoder": bool((sae.decoder_norms - 1).abs().max() < 1e-3),
        "num_latents": config.d_sae,
        "k": config.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": config.d_in,
    }
    tensors = {
        "encoder.weight": sae.W_enc.T.contiguous(),
        "encoder.bias": sae.b_enc,
        "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
    }

    def fill(fresh: Path) -> None:
        (fresh / module).mkdir()
        (fresh / RUN).write_text(json.dumps({"model": config.model_name}) + "\n", encoding="utf-8")
        (fresh / module / CFG).write_text(json.dumps(cfg) + "\n", encoding="utf-8")
        save_file(tensors, fresh / module / WEIGHTS)

    write_new_folder(folder, fill)
    return folder / module


def _sizes(cfg: dict[str, Any], path: Path) -> tuple[int, int, int]:
    """d_in, d_sae and k; what this version cannot run or does not know is refused."""
    for flag in _REFUSED:
        if cfg.get(flag):
            raise NotSupportedYet(
                f"{path}: {flag} is set, which is not supported yet",
                help="only plain topk SAEs are read from sparsify",
            )
    if cfg.get("activation", "topk") != "topk":
        raise NotSupportedYet(
            f"{path}: the activation {cfg['activation']!r} is not supported yet",
            help="only topk is read from sparsify",
        )
    unknown = sorted(cfg.keys() - _KNOWN - _TRAINING - set(_REFUSED))
    if unknown:
        raise InvalidInput(
            f"{path}: unknown key {unknown[0]!r}",
            help="what it does to the numbers is not known here; known: "
            + ", ".join(sorted(_KNOWN | _TRAINING | set(_REFUSED))),
        )
    sizes = {"num_latents": 0, "expansion_factor": 32, "k": 32} | cfg
    for name in ("d_in", "num_latents", "expansion_factor", "k"):
        if not isinstance(sizes.get(name), int) or isinstance(sizes[name], bool):
            raise InvalidInput(f"{path}: {name} is {sizes.get(name)!r}, expected a whole number")
    return (
        sizes["d_in"],
        sizes["num_latents"] or sizes["d_in"] * sizes["expansion_factor"],
        sizes["k"],
    )


def _place(name: str) -> HookPoint | None:
    match = _FOLDER.fullmatch(name)
    if match is None:
        return None
    site = Site.RESID_POST if match[2] is None else _MODULES.get(match[2])
    return None if site is None else HookPoint(layer=int(match[1]), site=site)


def _module(hook_point: HookPoint) -> str:
    layer, site = hook_point.layer, hook_point.site
    if site is Site.RESID_PRE and layer > 0:
        return f"layers.{layer - 1}"  # the same place in the stream
    suffix = {Site.RESID_POST: "", Site.MLP_OUT: ".mlp", Site.ATTN_OUT: ".self_attn"}.get(site)
    if suffix is None:
        raise NotSupportedYet(
            f"{hook_point}: no module's output, and sparsify names the places of SAEs by modules",
            help="export it as saelens",
        )
    return f"layers.{layer}{suffix}"


def _model(run: Path) -> str | None:
    if not run.is_file():
        return None
    found = parse_json_object(require_text(run), str(run), "model").get("model")
    return found if isinstance(found, str) else None
