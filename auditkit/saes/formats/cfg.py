"""SAELens' cfg.json: every key that is known, what it means here, and what is refused."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import Field

from auditkit.core.documents import Document, ParsedText, parse_yaml, validate_document
from auditkit.core.errors import InvalidInput, NotSupportedYet
from auditkit.core.hook_point import HookPoint
from auditkit.saes.config import ArchitectureName, Normalisation, SaeConfig

FORMAT_VERSION = "6.54.12"

NOT_YET = {
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
    "abstopk",
    "matching_pursuit",
    "temporal",
}
TRANSCODERS = {"transcoder", "jumprelu_transcoder"}
TRAINING_ONLY = {"batchtopk", "matryoshka_batchtopk"}

# Keys that SAELens adds to the cfg.json of a training checkpoint; they change no number here.
TRAINING_KEYS = {
    "decoder_init_norm",
    "l1_coefficient",
    "l1_warm_up_steps",
    "lp_norm",
    "use_sparse_activations",
    "aux_loss_coefficient",
    "jumprelu_init_threshold",
    "jumprelu_bandwidth",
    "jumprelu_sparsity_loss_mode",
    "jumprelu_tanh_scale",
    "jumprelu_ste_to_input",
    "l0_coefficient",
    "l0_warm_up_steps",
    "pre_act_loss_coefficient",
    "target_l0",
}


class SaelensCfg(Document):
    """The cfg.json of a SAELens 6 inference folder."""

    architecture: Literal["standard", "gated", "topk", "jumprelu"]
    d_in: int
    d_sae: int
    dtype: Literal[
        "float16",
        "bfloat16",
        "float32",
        "float64",
        "torch.float16",
        "torch.bfloat16",
        "torch.float32",
        "torch.float64",
    ]
    device: str | None = None
    apply_b_dec_to_input: bool = True
    normalize_activations: Literal[
        "none",
        "expected_average_only_in",
        "constant_norm_rescale",
        "layer_norm",
        "covariance_whitening",
    ] = "none"
    reshape_activations: Literal["none", "hook_z"] = "none"
    k: int | None = None
    rescale_acts_by_decoder_norm: bool = False
    sae_lens_version: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict[str, Any])


def parse_cfg(text: str, path: str) -> SaelensCfg:
    """Read a cfg.json; `path` names it in errors.

    Raises NotSupportedYet for SAEs that this version does not run, DocumentError for unknown keys,
    missing keys and wrong types, InvalidInput for what is no JSON object.
    """
    value = parse_json_object(text, path)
    _refuse_unsupported(value, path)
    value = {key: v for key, v in value.items() if key not in TRAINING_KEYS}
    cfg = validate_document(ParsedText(value, parse_yaml(text, path).source, []), SaelensCfg)
    if cfg.architecture == "topk" and cfg.k is None:
        raise InvalidInput(
            f"{path}: a topk SAE without k",
            help="add the k it was trained with; SAELens would silently take 100",
        )
    if cfg.reshape_activations != "none" or cfg.metadata.get("hook_head_index") is not None:
        raise NotSupportedYet(
            f"{path}: this SAE reads single attention heads (hook_z), which is not supported yet",
            help="use an SAE on resid_pre, resid_mid, resid_post, attn_out or mlp_out",
        )
    return cfg


def to_config(
    cfg: SaelensCfg, *, name: str, path: str, hook_point: HookPoint | None = None
) -> SaeConfig:
    """The configuration that a cfg.json describes; `hook_point` stands in for a missing hook_name.

    `covariance_whitening` becomes `none`: the caller folds it. Raises InvalidInput.
    """
    metadata = dict(cfg.metadata)
    own = metadata.pop("auditkit", {})
    own = dict(own) if isinstance(own, dict) else {"card": own}
    stated_name, _ = own.pop("name", None), own.pop("stored_dtype", None)
    if own:
        metadata["auditkit"] = own
    model_name = metadata.pop("model_name", None)
    hook_name = metadata.pop("hook_name", None)
    for key in ("hook_layer", "sae_lens_version"):
        metadata.pop(key, None)
    if metadata.get("sae_lens_training_version", "") is None:
        del metadata["sae_lens_training_version"]
    whitened = cfg.normalize_activations == "covariance_whitening"
    return SaeConfig(
        name=stated_name if isinstance(stated_name, str) else name,
        architecture=ArchitectureName(cfg.architecture),
        d_in=cfg.d_in,
        d_sae=cfg.d_sae,
        hook_point=_hook_point(hook_name, hook_point, path),
        # SAELens' own jumprelu folders may carry the k of the BatchTopK run that made them.
        k=cfg.k if cfg.architecture == "topk" else None,
        apply_b_dec_to_input=cfg.apply_b_dec_to_input,
        normalize_activations=Normalisation("none" if whitened else cfg.normalize_activations),
        rescale_acts_by_decoder_norm=cfg.architecture == "topk"
        and cfg.rescale_acts_by_decoder_norm,
        model_name=model_name if isinstance(model_name, str) else None,
        metadata=metadata,
    )


def cfg_values(config: SaeConfig, *, stored_dtype: str) -> dict[str, Any]:
    """The cfg.json of a configuration. Its `dtype` is what the SAE computes in, float32."""
    own = dict(config.metadata.get("auditkit", {}))
    metadata = {
        "sae_lens_training_version": None,
        **config.metadata,
        "sae_lens_version": FORMAT_VERSION,
        "model_name": config.model_name,
        "hook_name": config.hook_point.name,
        "hook_layer": config.hook_point.layer,
        "auditkit": {**own, "name": config.name, "stored_dtype": stored_dtype},
    }
    topk: dict[str, Any] = {
        "k": config.k,
        "rescale_acts_by_decoder_norm": config.rescale_acts_by_decoder_norm,
    }
    return {
        "architecture": config.architecture.value,
        "d_in": config.d_in,
        "d_sae": config.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": config.apply_b_dec_to_input,
        "normalize_activations": config.normalize_activations.value,
        "reshape_activations": "none",
        **(topk if config.architecture is ArchitectureName.TOPK else {}),
        "metadata": metadata,
    }


def parse_json_object(
    text: str, path: str, wanted: str = "architecture, d_in, d_sae, dtype"
) -> dict[str, Any]:
    """A JSON object without duplicate keys; raise InvalidInput naming what was `wanted` in it."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise InvalidInput(f"{path}: duplicate key {twice[0]!r}")
        return dict(pairs)

    try:
        # NaN is no JSON, and Python writes it: as text it passes in metadata and fails elsewhere.
        value = json.loads(text, object_pairs_hook=unique, parse_constant=str)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(
            f"{path}: not valid JSON: {error}", help="the file may have been cut off; copy it again"
        ) from None
    if not isinstance(value, dict):
        raise InvalidInput(f"{path}: expected an object with {wanted}")
    return value


def _refuse_unsupported(value: dict[str, Any], path: str) -> None:
    architecture = value.get("architecture")
    if architecture in NOT_YET:
        raise NotSupportedYet(
            f"{path}: the architecture {architecture!r} is not supported yet",
            help="a transcoder is read in Python, by auditkit.saes.load_transcoder"
            if architecture in TRANSCODERS
            else "supported: " + ", ".join(a.value for a in ArchitectureName),
        )
    if architecture in TRAINING_ONLY:
        raise NotSupportedYet(
            f"{path}: a training checkpoint of a {architecture} SAE, whose inference form is "
            "jumprelu, cannot be read yet",
            help="write the inference model: sae.save_inference_model(folder) in SAELens",
        )
    metadata = value.get("metadata")
    version = value.get("sae_lens_version") or (
        metadata.get("sae_lens_version") if isinstance(metadata, dict) else None
    )
    major = str(version).split(".")[0]
    if not major.isdigit() or int(major) < 6:
        raise NotSupportedYet(
            f"{path}: metadata.sae_lens_version is {version!r}: folders from before SAELens 6 "
            "are not supported yet",
            help="load it with SAELens 6 and save it again: "
            "SAE.load_from_disk(old).save_model(new)",
        )


def _hook_point(name: Any, stand_in: HookPoint | None, path: str) -> HookPoint:
    if name is None and stand_in is not None:
        return stand_in
    if not isinstance(name, str):
        raise InvalidInput(
            f"{path}: metadata.hook_name is missing: nothing says where the SAE reads",
            help="add it, or pass hook_point, for example blocks.12.hook_resid_post",
        )
    try:
        return HookPoint.parse(name)
    except InvalidInput as error:
        raise NotSupportedYet(
            f"{path}: the hook point {name!r} is not supported yet", help=error.help
        ) from None
