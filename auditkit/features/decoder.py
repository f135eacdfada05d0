"""What a latent writes into the model, read from weights without torch: nearest latents by
decoder cosine, and the words that it raises and lowers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from auditkit.core.errors import InvalidInput, MismatchError, WeightsError
from auditkit.core.identity import SaeIdentity
from auditkit.core.measured import NotMeasured

Array = NDArray[np.float32]

WEIGHTS = "sae_weights.safetensors"
UNEMBEDDINGS = ("lm_head.weight", "model.embed_tokens.weight", "transformer.wte.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Another latent and the cosine of the two decoder rows."""

    latent: int
    cosine: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitEffect:
    """Change of a token's logit per unit of the latent, relative to the mean over tokens."""

    token_id: int
    effect: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitEffects:
    """The tokens that a latent raises most and lowers most, directly: the final norm left out."""

    raised: tuple[LogitEffect, ...]
    lowered: tuple[LogitEffect, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentDirections:
    """What the SAE's decoder says of a latent."""

    nearest: tuple[Neighbour, ...]
    logits: LogitEffects | NotMeasured


def read_decoder(folder: Path, identity: SaeIdentity) -> Array:
    """W_dec [d_sae, d_in] of a SAELens folder, if it is the SAE of `identity`.

    Raises InvalidInput or WeightsError where there are no such weights, MismatchError where they
    are of another SAE: by the same digest over names, shapes and values as `load_sae` takes.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise InvalidInput(
            f"{folder} has no {WEIGHTS}", help="give the SAELens folder that was recorded with"
        )
    tensors = {k: v.astype(np.float32) for k, v in _read(path).items()}
    if "W_dec" not in tensors:
        raise WeightsError(f"{path} has no tensor W_dec", help="give a SAELens folder")
    if _digest(tensors) != identity.weights_sha256:
        raise MismatchError(
            f"{path} is not the SAE of these recordings ({identity.name}, "
            f"{identity.d_sae} × {identity.d_in})",
            help="give the folder that was recorded with; one whose scales are folded in as it is "
            "loaded can be compared only after write_sae",
        )
    return tensors["W_dec"]


def read_unembedding(path: Path, d_in: int) -> Array:
    """[vocabulary, d_in] from `FILE.safetensors`, under one of UNEMBEDDINGS' names.

    Raises InvalidInput, WeightsError or MismatchError.
    """
    if not path.is_file():
        raise InvalidInput(
            f"there is no file {path}", help="give the model's safetensors file with lm_head"
        )
    tensors = _read(path, UNEMBEDDINGS)
    if not tensors:
        raise WeightsError(
            f"{path} has no unembedding", help=f"expected one of {', '.join(UNEMBEDDINGS)}"
        )
    found = next(tensors[name] for name in UNEMBEDDINGS if name in tensors)
    if found.ndim != 2 or found.shape[1] != d_in:
        raise MismatchError(
            f"{path}: the unembedding has shape {list(found.shape)}, expected [vocabulary, {d_in}]",
            help="give the unembedding of the model that was recorded",
        )
    return found.astype(np.float32)


def latent_directions(
    W_dec: Array, latent: int, unembedding: Array | NotMeasured, *, most: int = 10
) -> LatentDirections:
    """Nearest latents of `latent`, and what it does to the logits; rows of norm 0 are near none."""
    norms = np.linalg.norm(W_dec, axis=1)
    own = W_dec[latent] / max(float(norms[latent]), np.finfo(np.float32).tiny)
    cosines = (W_dec @ own) / np.maximum(norms, np.finfo(np.float32).tiny)
    cosines[latent] = -np.inf
    order = np.argsort(-cosines, kind="stable")[: min(most, len(cosines) - 1)]
    return LatentDirections(
        nearest=tuple(Neighbour(latent=int(i), cosine=float(cosines[i])) for i in order),
        logits=unembedding
        if isinstance(unembedding, NotMeasured)
        else _effects(unembedding @ W_dec[latent], most),
    )


def _effects(logits: NDArray[np.floating[Any]], most: int) -> LogitEffects:
    centred = logits - logits.mean()
    order = np.argsort(-centred, kind="stable").tolist()

    def effects(ids: Sequence[int]) -> tuple[LogitEffect, ...]:
        return tuple(LogitEffect(token_id=i, effect=float(centred[i])) for i in ids)

    return LogitEffects(raised=effects(order[:most]), lowered=effects(order[::-1][:most]))


def _read(path: Path, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            held = list(file.keys())
            return {n: file.get_tensor(n) for n in held if names is None or n in names}
    except (SafetensorError, TypeError, OSError) as error:
        raise WeightsError(
            f"{path} cannot be read: {error}",
            help="expected safetensors in float16 or float32 (bfloat16 needs torch)",
        ) from error


def _digest(tensors: Mapping[str, Array]) -> str:
    """As `saes.weights.weights_sha256` has it for tensors in float32."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"{name}:{list(tensor.shape)}:torch.float32;".encode())
        digest.update(tensor.data)
    return digest.hexdigest()
