"""dictionary_learning (Marks, Karvonen & Mueller): a folder with ae.pt and config.json.

`config.json` names the class under trainer.dict_class; ae.pt is its state dict. Linear layers hold
encoder.weight [d_sae, d_in] and decoder.weight [d_in, d_sae]. Latents are those of the weights as
they stand. dictionary_learning itself may multiply them by the norms of the decoder's rows:
AutoEncoder.from_pretrained does unless told otherwise, and some checkouts of the repository (not
the release 0.1) do for gated and jumprelu.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.core.errors import InvalidInput, NotSupportedYet, WeightsError
from auditkit.core.hook_point import HookPoint, Site
from auditkit.saes.config import ArchitectureName, SaeConfig
from auditkit.saes.formats.cfg import parse_json_object
from auditkit.saes.formats.plain_weights import require_hook_point, require_matrix, require_names
from auditkit.saes.formats.recognise import require_text
from auditkit.saes.sparse_autoencoder import SparseAutoencoder

CONFIG, WEIGHTS = "config.json", "ae.pt"
UNIT = 1e-3
_COUNTED = {"k", "threshold"}
_PLACES = {
    "resid_pre": Site.RESID_PRE,
    "resid_mid": Site.RESID_MID,
    "resid_post": Site.RESID_POST,
    "mlp": Site.MLP_OUT,
    "attn": Site.ATTN_OUT,
    "attention": Site.ATTN_OUT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DictClass:
    """A class of theirs: our architecture, and their names for our tensors.

    `norms` says that its loader, or some versions, multiply latents by the decoder rows' norms;
    `extra` are tensors that a state dict may hold besides.
    """

    architecture: ArchitectureName
    names: Mapping[str, str]
    applied: bool = True
    norms: bool = False
    extra: frozenset[str] = frozenset()

    @property
    def transposed(self) -> bool:
        """Whether matrices are those of linear layers."""
        return self.names["W_enc"] == "encoder.weight"


_LINEAR = {"W_enc": "encoder.weight", "W_dec": "decoder.weight"}
_PLAIN = {"W_enc": "W_enc", "W_dec": "W_dec", "b_enc": "b_enc", "b_dec": "b_dec"}


def dict_classes() -> dict[str, DictClass]:
    """Their classes that are read and written."""
    standard, jumprelu = ArchitectureName.STANDARD, ArchitectureName.JUMPRELU
    biases = {"b_enc": "encoder.bias", "b_dec": "b_dec"}
    gated = {"b_gate": "gate_bias", "b_mag": "mag_bias", "r_mag": "r_mag", "b_dec": "decoder_bias"}
    return {
        "AutoEncoder": DictClass(
            architecture=standard,
            names={**_LINEAR, "b_enc": "encoder.bias", "b_dec": "bias"},
            norms=True,
        ),
        "AutoEncoderNew": DictClass(
            architecture=standard,
            names={**_LINEAR, "b_enc": "encoder.bias", "b_dec": "decoder.bias"},
            applied=False,
        ),
        "GatedAutoEncoder": DictClass(
            architecture=ArchitectureName.GATED, names={**_LINEAR, **gated}, norms=True
        ),
        "JumpReluAutoEncoder": DictClass(
            architecture=jumprelu,
            names={**_PLAIN, "threshold": "threshold"},
            applied=False,
            norms=True,
        ),
        "AutoEncoderTopK": DictClass(
            architecture=ArchitectureName.TOPK,
            names={**_LINEAR, **biases},
            extra=frozenset(_COUNTED),
        ),
        "BatchTopKSAE": DictClass(
            architecture=jumprelu,
            names={**_LINEAR, **biases, "threshold": "threshold"},
            extra=frozenset({"k"}),
        ),
        "MatryoshkaBatchTopKSAE": DictClass(
            architecture=jumprelu,
            names={**_PLAIN, "threshold": "threshold"},
            extra=frozenset({"k", "group_sizes"}),
        ),
    }


def read_dictionary_learning(path: Path, hook_point: HookPoint | None = None) -> SparseAutoencoder:
    """Load a folder, or the ae.pt in it; `hook_point` where config.json names no submodule.

    Raises WeightsError for a damaged file or other tensors than the class has, NotSupportedYet for
    another class, InvalidInput for a config.json that says too little.
    """
    folder = path if path.is_dir() else path.parent
    trainer = _trainer(folder)
    named = str(trainer.get("dict_class"))
    kind = dict_classes().get(named)
    if kind is None:
        raise NotSupportedYet(
            f"{folder / CONFIG}: the dictionary class {named!r} is not supported yet",
            help="supported: " + ", ".join(dict_classes()),
        )
    state = _read_state(folder / WEIGHTS)
    require_names(
        {name: t for name, t in state.items() if name not in kind.extra},
        set(kind.names.values()),
        folder / WEIGHTS,
        f"the class {named}",
    )
    tensors, notes = _tensors(kind, state, folder / WEIGHTS)
    place, guessed = _place(trainer, hook_point)
    d_in, d_sae = require_matrix(tensors["W_enc"], kind.names["W_enc"], folder / WEIGHTS)
    model = trainer.get("lm_name")
    config = SaeConfig(
        name=folder.resolve().name,
        architecture=kind.architecture,
        d_in=d_in,
        d_sae=d_sae,
        k=_k(trainer, state, folder) if kind.architecture is ArchitectureName.TOPK else None,
        hook_point=require_hook_point(place, hook_point, folder),
        apply_b_dec_to_input=kind.applied,
        model_name=model if isinstance(model, str) else None,
        metadata={"auditkit": {"source": {"format": "dictionary_learning", "dict_class": named}}},
    )
    norms = norm_notes(tensors["W_dec"]) if kind.norms else ()
    return SparseAutoencoder(config, tensors, notes=(*notes, *guessed, *norms))


def norm_notes(W_dec: Float[Tensor, "d_sae d_in"]) -> tuple[str, ...]:
    """What to know of an SAE whose decoder rows have another norm than 1."""
    norms = W_dec.float().norm(dim=1)
    if float((norms - 1).abs().max()) <= UNIT:
        return ()
    return (
        f"decoder rows have norms of {float(norms.min()):.3g} to {float(norms.max()):.3g}: latents "
        "are those of the weights as they are, and dictionary_learning may multiply them by these",
    )


def _trainer(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    trainer = parse_json_object(require_text(path), str(path), "trainer").get("trainer")
    if not isinstance(trainer, dict) or "dict_class" not in trainer:
        raise InvalidInput(
            f"{path}: trainer.dict_class is missing: nothing says what ae.pt is",
            help="copy the config.json that was written beside ae.pt",
        )
    return trainer


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file", help="expected ae.pt beside config.json")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path}: not a file of tensors ({path.stat().st_size} bytes): {first}",
            help="the file was cut off or damaged, or holds code, which is never run",
        ) from None
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise WeightsError(f"{path}: not a state dict", help="expected tensors by name")
    return {str(name): tensor for name, tensor in state.items()}


def _tensors(
    kind: DictClass, state: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Our tensors from theirs, and what a user should know of them."""
    tensors = {ours: state[theirs] for ours, theirs in kind.names.items()}
    for name in ("W_enc", "W_dec"):
        require_matrix(tensors[name], kind.names[name], path)
    if kind.transposed:
        tensors |= {"W_enc": tensors["W_enc"].T, "W_dec": tensors["W_dec"].T}
    threshold = tensors.get("threshold")
    if threshold is None or threshold.ndim:
        return tensors, ()
    tensors["threshold"] = threshold.float().expand(tensors["W_enc"].shape[1]).contiguous()
    if float(threshold) >= 0:
        return tensors, ()
    note = f"{path}: the threshold was never learnt ({float(threshold):g}): every positive latent"
    return tensors, (f"{note} is active",)


def _k(trainer: Mapping[str, Any], state: Mapping[str, Tensor], folder: Path) -> int:
    stated = trainer.get("k")
    stored = int(state["k"]) if "k" in state else stated
    if not isinstance(stored, int) or isinstance(stored, bool) or stated not in (None, stored):
        raise InvalidInput(
            f"{folder}: k is {stated!r} in config.json and {stored!r} in ae.pt",
            help="both must be the k it was trained with",
        )
    return stored


def _place(
    trainer: Mapping[str, Any], given: HookPoint | None
) -> tuple[HookPoint | None, tuple[str, ...]]:
    """The hook point, with a note where the site is the one that everybody means."""
    layer = trainer.get("layer")
    if not isinstance(layer, int):
        return None, ()
    submodule = str(trainer.get("submodule_name") or "")
    for word, site in _PLACES.items():
        if word in submodule:
            return HookPoint(layer=layer, site=site), ()
    if given is not None:
        return given, ()
    place = HookPoint(layer=layer, site=Site.RESID_POST)
    return place, (f"config.json names layer {layer} and no submodule: taken as {place}",)
