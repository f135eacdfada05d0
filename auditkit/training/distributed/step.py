"""The sparse TopK step on a mesh: each rank its tokens and its latents, the result that of one.

Per step, on a mesh of `data` × `latents` ranks with B tokens of a batch here:

- every rank takes the k largest of its own pre-activations; the values alone go round the row
  (B·k numbers), and each rank keeps those of its own that are among the k largest of all;
- partial reconstructions are summed over the row (B·d_in numbers);
- gradients of a rank's own latents are summed over the column (2·d_sae·d_in / latents numbers),
  and those of b_dec over all; Adam and the decoder's projection are then local.

Nothing of size B·d_sae leaves a rank. Sums over the batch (the deviation that the loss is divided
by, the spread of the error for AuxK, which latents fired) are those of the whole batch, so the
objective is that of one process, and not a mean of per-rank objectives.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from auditkit.core.errors import NotSupportedYet
from auditkit.training.adam import adam_update
from auditkit.training.distributed.auxk import distributed_auxk
from auditkit.training.distributed.mesh import Mesh
from auditkit.training.distributed.sums import among_largest, spread_over_data
from auditkit.training.parameters import SaeParameters, StepReport, TrainState
from auditkit.training.plan import TrainPlan
from auditkit.training.sparse_step import ActivePairs, decode_pairs, sparse_gradients
from auditkit.training.topk_settings import TopKSettings

_EVALUATION_ROWS = 2048


class DistributedStep:
    """Runs training steps on this rank's part of a state, in place; every rank calls it alike.

    Raises NotSupportedYet for other objectives than TopK, InvalidInput where the batch or the
    latents cannot be shared out evenly.
    """

    def __init__(self, plan: TrainPlan, mesh: Mesh) -> None:
        if not isinstance(plan.objective, TopKSettings):
            raise NotSupportedYet(
                f"the objective {plan.objective.name} is not trained on several processes yet",
                help="start it without torchrun; topk is the objective that is sharded",
            )
        mesh.share_of_batch(plan.batch_size)
        mesh.share_of_latents(plan.d_sae)
        self._plan = plan
        self._topk = plan.objective
        self._mesh = mesh
        self._pre_acts = torch.empty(0)

    def __call__(self, state: TrainState, x: Float[Tensor, "batch d_in"]) -> StepReport:
        """One step on this rank's rows `x` of the batch (scaled units)."""
        plan, mesh, p = self._plan, self._mesh, state.parameters
        centred = x - p.b_dec
        pairs = self._choose(self._encode(centred, p))
        error = centred - mesh.sum_over_latents(decode_pairs(pairs, p.W_dec))
        tokens = len(x) * mesh.data
        deviation = spread_over_data(x, mesh)
        aux = distributed_auxk(
            p,
            self._pre_acts,
            centred,
            error,
            state.silent_tokens >= plan.dead_after_tokens,
            mesh=mesh,
            k_aux=self._topk.k_aux,
            aux_coefficient=self._topk.aux_coefficient,
        )
        grad_x_hat = error * (-2.0 / deviation)
        gradients = sparse_gradients(p, pairs, centred, grad_x_hat, aux.gradients)
        fired = torch.zeros_like(p.b_enc)
        fired[pairs.latents[pairs.values > 0]] = 1.0
        self._sum_gradients(gradients, grad_x_hat, p, fired)
        state.silent_tokens.add_(tokens)
        state.silent_tokens[fired > 0] = 0
        adam_update(state, gradients, plan)
        state.step += 1
        return self._report(error, pairs, deviation, aux.dead, aux.loss)

    @torch.no_grad()
    def explained_variance(self, state: TrainState, x: Float[Tensor, "token d_in"]) -> float:
        """Centred explained variance on rows that every rank has whole; sums in float64."""
        mesh, p = self._mesh, state.parameters
        error = torch.zeros(1, dtype=torch.float64)
        for rows in x[mesh.data_rank :: mesh.data].split(_EVALUATION_ROWS):
            centred = rows - p.b_dec
            pairs = self._choose(torch.addmm(p.b_enc, centred, p.W_enc_rows.T))
            left = centred - mesh.sum_over_latents(decode_pairs(pairs, p.W_dec))
            error += left.square().sum(dtype=torch.float64)
        exact = x.to(torch.float64)
        spread = float((exact - exact.mean(0)).square().sum())
        return 1.0 - float(mesh.sum_over_data(error)) / spread

    def _encode(self, centred: Tensor, p: SaeParameters) -> Float[Tensor, "batch rows"]:
        if self._pre_acts.shape != (len(centred), p.d_sae) or self._pre_acts.dtype != centred.dtype:
            self._pre_acts = torch.empty(len(centred), p.d_sae, dtype=centred.dtype)
        torch.mm(centred, p.W_enc_rows.T, out=self._pre_acts)
        return self._pre_acts.add_(p.b_enc)

    def _choose(self, pre_acts: Float[Tensor, "batch rows"]) -> ActivePairs:
        """This rank's latents among the k largest of all; the value of its others is 0."""
        values, latents = pre_acts.topk(min(self._topk.k, pre_acts.shape[1]), dim=1, sorted=False)
        own = among_largest(values, self._topk.k, self._mesh)
        return ActivePairs(latents=latents, values=values.relu_().mul_(own))

    def _sum_gradients(
        self, gradients: SaeParameters, grad_x_hat: Tensor, p: SaeParameters, fired: Tensor
    ) -> None:
        """Sum over ranks, in place: gradients of the latents here, of b_dec, and who fired."""
        mesh = self._mesh
        # Each rank knows of b_dec what its own latents say; x̂'s part is the same along a row.
        gradients.b_dec.copy_(-(p.W_enc_rows.T @ gradients.b_enc))
        if mesh.latent_rank == 0:
            gradients.b_dec.add_(grad_x_hat.sum(0))
        mesh.sum_over_all(gradients.b_dec)
        if mesh.data == 1:
            return
        mesh.sum_over_data(gradients.W_enc_rows)
        if not self._plan.frozen_decoder:
            mesh.sum_over_data(gradients.W_dec)
        small = mesh.sum_over_data(torch.cat([gradients.b_enc, fired]))
        gradients.b_enc.copy_(small[: len(fired)])
        fired.copy_(small[len(fired) :])

    def _report(
        self, error: Tensor, pairs: ActivePairs, deviation: float, dead: int, loss: float | None
    ) -> StepReport:
        squared = float(error.square().sum(dtype=torch.float64))
        counted = torch.tensor(
            [squared if self._mesh.latent_rank == 0 else 0.0, float((pairs.values > 0).sum())],
            dtype=torch.float64,
        )
        self._mesh.sum_over_all(counted)
        return StepReport(
            squared_error=float(counted[0]),
            squared_deviation=deviation,
            active=int(counted[1]),
            dead=dead,
            aux_loss=loss,
        )
