"""Transcoders in SAELens' layout: cfg.json with d_out, and sae_weights.safetensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from safetensors.torch import save_file

from auditkit.core.documents import Document, ParsedText, parse_yaml, validate_document
from auditkit.core.errors import InvalidInput
from auditkit.core.hook_point import HookPoint
from auditkit.saes.formats.cfg import FORMAT_VERSION, parse_json_object
from auditkit.saes.formats.recognise import require_text
from auditkit.saes.formats.tensor_file import read_tensors, round_to
from auditkit.saes.formats.whole_folder import write_new_folder
from auditkit.saes.transcoder import Transcoder, TranscoderConfig, TranscoderName

CFG, WEIGHTS = "cfg.json", "sae_weights.safetensors"


class TranscoderCfg(Document):
    """The cfg.json of a SAELens 6 transcoder without a skip connection."""

    architecture: Literal["transcoder", "jumprelu_transcoder"]
    d_in: int
    d_out: int
    d_sae: int
    dtype: str
    device: str | None = None
    apply_b_dec_to_input: Literal[False]
    normalize_activations: Literal["none", "expected_average_only_in"] = "none"
    reshape_activations: Literal["none"] = "none"
    metadata: dict[str, Any] = Field(default_factory=dict[str, Any])


def load_transcoder(folder: str | Path) -> Transcoder:
    """Load a transcoder from a SAELens folder.

    Raises DocumentError for a cfg.json with unknown, missing or unsupported keys, InvalidInput
    where nothing says where it reads and writes, WeightsError for damaged weights.
    """
    folder = Path(folder)
    path = folder / CFG
    text = require_text(path)
    value = parse_json_object(text, str(path), "architecture, d_in, d_out, d_sae")
    source = parse_yaml(text, str(path)).source
    cfg = validate_document(ParsedText(value, source, []), TranscoderCfg)
    own = cfg.metadata.get("auditkit", {})
    own = dict(own) if isinstance(own, dict) else {"card": own}
    stated, model = own.get("name"), cfg.metadata.get("model_name")
    config = TranscoderConfig(
        name=stated if isinstance(stated, str) else folder.resolve().name,
        architecture=TranscoderName(cfg.architecture),
        d_in=cfg.d_in,
        d_out=cfg.d_out,
        d_sae=cfg.d_sae,
        hook_point=_place(cfg, "hook_name", path),
        hook_point_out=_place(cfg, "hook_name_out", path),
        model_name=model if isinstance(model, str) else None,
        metadata={
            **{k: v for k, v in cfg.metadata.items() if k not in _WRITTEN},
            **({"auditkit": {k: v for k, v in own.items() if k != "name"}} if own else {}),
        },
    )
    return Transcoder(config, read_tensors(folder / WEIGHTS))


def write_transcoder(
    transcoder: Transcoder, folder: str | Path, *, dtype: str = "float16"
) -> Transcoder:
    """Write a new SAELens folder; return the transcoder as it will be loaded from there.

    Raises InvalidInput where something stands there already, WeightsError where a weight overflows
    `dtype`, RunFailed where it cannot be written.
    """
    stored = round_to(transcoder.tensors, dtype)
    text = json.dumps(_cfg_values(transcoder.config), indent=2, allow_nan=False) + "\n"

    def fill(fresh: Path) -> None:
        (fresh / CFG).write_text(text, encoding="utf-8")
        save_file(stored, fresh / WEIGHTS)

    write_new_folder(Path(folder), fill)
    return Transcoder(transcoder.config, {n: t.float() for n, t in stored.items()})


_WRITTEN = (
    "sae_lens_version", "model_name", "hook_name", "hook_layer", "hook_name_out",
    "hook_layer_out", "auditkit",
)  # fmt: skip


def _cfg_values(config: TranscoderConfig) -> dict[str, Any]:
    own = dict(config.metadata.get("auditkit", {}))
    return {
        "architecture": config.architecture.value,
        "d_in": config.d_in,
        "d_out": config.d_out,
        "d_sae": config.d_sae,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {
            **config.metadata,
            "sae_lens_version": FORMAT_VERSION,
            "model_name": config.model_name,
            "hook_name": config.hook_point.name,
            "hook_layer": config.hook_point.layer,
            "hook_name_out": config.hook_point_out.name,
            "hook_layer_out": config.hook_point_out.layer,
            "auditkit": {**own, "name": config.name},
        },
    }


def _place(cfg: TranscoderCfg, key: str, path: Path) -> HookPoint:
    name = cfg.metadata.get(key)
    if not isinstance(name, str):
        raise InvalidInput(
            f"{path}: metadata.{key} is missing: nothing says where the transcoder "
            + ("writes" if key.endswith("out") else "reads"),
            help="add it, for example blocks.12.hook_mlp_out",
        )
    return HookPoint.parse(name)
