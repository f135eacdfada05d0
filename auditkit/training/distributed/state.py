"""A training state cut over the latents of a mesh, and put together again."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from auditkit.training.distributed.mesh import Mesh
from auditkit.training.parameters import SaeParameters, TrainState

PER_LATENT = ("W_enc_rows", "W_dec", "b_enc")
"""Parameters with a row per latent; b_dec is the same on every rank."""

_GROUPS = ("parameters", "first_moments", "second_moments")


def shard_state(state: TrainState, mesh: Mesh) -> TrainState:
    """The rows of `state` that belong to this rank, as memory of their own."""
    if mesh.latents == 1:
        return state
    rows = mesh.share_of_latents(state.parameters.d_sae)
    return _map_state(state, lambda tensor: tensor[rows].clone())


def gather_state(state: TrainState, mesh: Mesh) -> TrainState | None:
    """The whole state on rank 0, None elsewhere; every rank has to call it.

    Raises RunFailed where ranks that hold the same latents do not hold the same numbers.
    """
    if mesh.data > 1:
        mesh.require_equal(_checksum(state), "parameters")
    if mesh.latents == 1:
        return state if mesh.rank == 0 else None
    if mesh.data_rank != 0:
        return None
    # Tensors are gathered in the order in which _map_state meets them, which is that of every rank.
    gathered: list[Tensor] = []
    _map_state(state, lambda tensor: _keep(gathered, tensor, mesh))
    if mesh.rank != 0:
        return None
    whole = iter(gathered)
    return _map_state(state, lambda tensor: next(whole))


def gather_parameters(state: TrainState, mesh: Mesh) -> TrainState:
    """The state with its whole parameters, on every rank; moments stay as they are."""
    if mesh.latents == 1:
        return state

    def whole(tensor: Tensor) -> Tensor:
        return torch.cat(mesh.gather_latents(tensor))

    return dataclasses.replace(state, parameters=_map_parameters(state.parameters, whole))


def _keep(gathered: list[Tensor], tensor: Tensor, mesh: Mesh) -> Tensor:
    whole = mesh.gather_on_first(tensor)
    if whole is not None:
        gathered.append(whole)
    return tensor


def _checksum(state: TrainState) -> float:
    groups: list[SaeParameters] = [getattr(state, name) for name in _GROUPS]
    return sum(float(t.sum(dtype=torch.float64)) for g in groups for t in g.named().values())


def _map_state(state: TrainState, change: Callable[[Tensor], Tensor]) -> TrainState:
    """The state with every tensor that has a row per latent changed."""
    return dataclasses.replace(
        state,
        parameters=_map_parameters(state.parameters, change),
        first_moments=_map_parameters(state.first_moments, change),
        second_moments=_map_parameters(state.second_moments, change),
        silent_tokens=change(state.silent_tokens),
    )


def _map_parameters(group: SaeParameters, change: Callable[[Tensor], Tensor]) -> SaeParameters:
    return SaeParameters.from_named(
        {
            name: change(tensor) if name in PER_LATENT else tensor
            for name, tensor in group.named().items()
        }
    )
