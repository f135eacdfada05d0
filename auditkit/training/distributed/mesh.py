"""The processes of one training run: who holds which tokens and which latents, and how they talk.

`data` × `latents` ranks stand in a grid, in rows of `latents`. Ranks of one row hold the same
tokens of a batch and different latents; ranks of one column hold the same latents and different
tokens. One row alone is a sharded dictionary, one column alone is data parallelism.

These are plain collectives of torch.distributed, on the groups of its DeviceMesh. DTensor would
add nothing: the step has no autograd to shard, and top-k over a sharded dimension and embedding_bag
have no sharding rule, so that it would gather the pre-activations, which is what sharding is to
avoid.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from auditkit.core.errors import InvalidInput, RunFailed

COLLECTIVE_TIMEOUT = timedelta(minutes=10)
WAITING_TIMEOUT = timedelta(days=7)
"""How long a rank waits for what rank 0 alone does (a harvest)."""

_LOST = "start the same command again: it goes on from the last checkpoint"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mesh:
    """This process's place among `data` × `latents` ranks. Groups are None where they are of one.

    Collectives work in place and raise RunFailed where another rank is gone.
    """

    rank: int
    data: int
    latents: int
    data_group: dist.ProcessGroup | None = None
    latent_group: dist.ProcessGroup | None = None
    patient_group: dist.ProcessGroup | None = None

    @property
    def size(self) -> int:
        return self.data * self.latents

    @property
    def data_rank(self) -> int:
        """Which share of a batch is here."""
        return self.rank // self.latents

    @property
    def latent_rank(self) -> int:
        """Which share of the latents is here."""
        return self.rank % self.latents

    def share_of_batch(self, batch_size: int) -> slice:
        """Rows of a batch that are here."""
        size = _share(batch_size, self.data, "batch_size")
        return slice(self.data_rank * size, (self.data_rank + 1) * size)

    def share_of_latents(self, d_sae: int) -> slice:
        """Latents that are here."""
        size = _share(d_sae, self.latents, "d_sae")
        return slice(self.latent_rank * size, (self.latent_rank + 1) * size)

    def sum_over_data(self, tensor: Tensor) -> Tensor:
        """The sum over all shares of the batch, written over `tensor`."""
        return self._sum(tensor, self.data_group, self.data)

    def sum_over_latents(self, tensor: Tensor) -> Tensor:
        """The sum over all shares of the latents, written over `tensor`."""
        return self._sum(tensor, self.latent_group, self.latents)

    def sum_over_all(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, written over `tensor`."""
        return self._sum(tensor, None, self.size)

    def gather_latents(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all shares of the latents, in their order, on each of them."""
        if self.latents == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.latents)]
        with self._together():
            dist.all_gather(parts, tensor.contiguous(), group=self.latent_group)
        return parts

    def gather_on_first(self, tensor: Tensor) -> Tensor | None:
        """All shares of the latents in one, on rank 0; None on every other rank."""
        if self.latents == 1 or self.data_rank != 0:
            return tensor if self.rank == 0 else None
        first = self.latent_rank == 0
        parts = [torch.empty_like(tensor) for _ in range(self.latents)] if first else None
        with self._together():
            dist.gather(tensor.contiguous(), parts, dst=0, group=self.latent_group)
        return None if parts is None else torch.cat(parts)

    def any(self, flag: bool) -> bool:
        """Whether it is so on any rank."""
        if self.size == 1:
            return flag
        return bool(self.sum_over_all(torch.tensor([int(flag)])))

    def require_equal(self, value: float, what: str) -> None:
        """Raise RunFailed unless `value` is the same to the bit along the data dimension."""
        if self.data == 1:
            return
        low, high = self._span(value, self.data_group)
        if low != high:
            raise RunFailed(
                f"{what} have drifted apart between ranks ({low!r} to {high!r}): ranks run "
                "different code, libraries or processors",
                help=_LOST,
            )

    def require_same_start(self, step: int) -> None:
        """Raise RunFailed on every rank unless all begin at `step`."""
        if self.size == 1:
            return
        low, high = self._span(float(step), None)
        if low != high:
            raise RunFailed(
                f"rank {self.rank} of {self.size} begins at step {step}, others at {low:.0f} to "
                f"{high:.0f}: they do not see one checkpoint",
                help="give all machines the same folders, on a file system that they share",
            )

    def _span(self, value: float, group: dist.ProcessGroup | None) -> tuple[float, float]:
        """The smallest and the largest `value` of a group (of all ranks, where that is None)."""
        ends = torch.tensor([value, -value], dtype=torch.float64)
        with self._together():
            dist.all_reduce(ends, op=dist.ReduceOp.MAX, group=group)
        return -float(ends[1]), float(ends[0])

    def wait_for_all(self) -> None:
        """Wait until every rank is here, for days if need be."""
        if self.size > 1:
            with self._together():
                dist.barrier(group=self.patient_group)

    def _sum(self, tensor: Tensor, group: dist.ProcessGroup | None, size: int) -> Tensor:
        if size > 1:
            with self._together():
                dist.all_reduce(tensor, group=group)
        return tensor

    @contextmanager
    def _together(self) -> Generator[None]:
        try:
            yield
        except RuntimeError as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise RunFailed(
                f"rank {self.rank} of {self.size} lost another rank, which was killed or failed: "
                f"{first}",
                help=_LOST,
            ) from None


ALONE = Mesh(rank=0, data=1, latents=1)
"""One process that holds everything."""


def started_together() -> int:
    """Of how many processes torchrun says that this is one; 1 where it did not start this."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def processes_here(mesh: Mesh) -> int:
    """How many ranks of `mesh` run on this machine, as torchrun says; all where it says nothing."""
    return min(mesh.size, int(os.environ.get("LOCAL_WORLD_SIZE", mesh.size)))


@contextmanager
def join_processes(*, latent_shards: int = 1, init_method: str = "env://") -> Generator[Mesh]:
    """Join the processes that torchrun started, with latents sharded over `latent_shards` of them
    and tokens over the rest; leave them at the end.

    Alone where torchrun did not start this. Raises InvalidInput where the ranks cannot be divided
    so, RunFailed where they do not find one another.
    """
    size, rank = started_together(), int(os.environ.get("RANK", "0"))
    if latent_shards < 1 or size % latent_shards:
        raise InvalidInput(
            f"latents cannot be sharded {latent_shards} ways over {size} processes",
            help="start them with torchrun, --nproc-per-node a multiple of the shards",
        )
    if size == 1:
        yield ALONE
        return
    try:
        dist.init_process_group(
            "gloo", init_method=init_method, rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT
        )
    except (RuntimeError, ValueError) as error:
        raise RunFailed(
            f"rank {rank} of {size} cannot join the others: {error}",
            help="check MASTER_ADDR and MASTER_PORT, and that every process was started",
        ) from None
    try:
        yield _mesh(rank, size // latent_shards, latent_shards)
    finally:
        dist.destroy_process_group()


def _mesh(rank: int, data: int, latents: int) -> Mesh:
    grid = init_device_mesh("cpu", (data, latents), mesh_dim_names=("data", "latents"))
    return Mesh(
        rank=rank,
        data=data,
        latents=latents,
        data_group=grid.get_group("data"),
        latent_group=grid.get_group("latents"),
        patient_group=_patient_group(),
    )


def _patient_group() -> dist.ProcessGroup:
    """All ranks, who wait for one another as long as it takes."""
    group = dist.new_group(backend="gloo", timeout=WAITING_TIMEOUT)
    assert isinstance(group, dist.ProcessGroup), "every rank is in it"
    return group


def _share(whole: int, ranks: int, name: str) -> int:
    if whole % ranks:
        raise InvalidInput(
            f"{name} {whole} cannot be shared out evenly among {ranks} ranks",
            help=f"choose a {name} that is a multiple of {ranks}",
        )
    return whole // ranks
