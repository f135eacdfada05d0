"""Latents that are no cause by themselves: a redundant pair, and one gated by another."""

from __future__ import annotations

import torch

from auditkit.confirm import ControlPool, confirm_rule, finish_verdicts
from auditkit.core.confirmations import CausalVerdict
from tests.planted import SMALL, rule_on
from tests.planted_circuits import GATE, PAIR, planted_circuits

EXPECTED = {
    (PAIR[0],): CausalVerdict.SUFFICIENT_ONLY,
    (PAIR[1],): CausalVerdict.SUFFICIENT_ONLY,
    PAIR: CausalVerdict.CONFIRMED,
    (GATE[0],): CausalVerdict.NECESSARY_ONLY,
    (GATE[1],): CausalVerdict.NECESSARY_ONLY,
    GATE: CausalVerdict.CONFIRMED,
}


def test_parts_of_a_circuit_are_told_from_its_whole() -> None:
    torch.set_num_threads(1)
    world, pool = planted_circuits(), ControlPool()
    raws = []
    for latents in EXPECTED:
        rule = rule_on(*latents)
        raws.append(
            confirm_rule(
                world.model,
                world.sae,
                rule,
                rule.confirm[0],
                world.inputs,
                settings=SMALL,
                pool=pool,
            )
        )
    found = {
        latents: finish_verdicts([raw])[0] for latents, raw in zip(EXPECTED, raws, strict=True)
    }
    assert {latents: c.verdict for latents, c in found.items()} == EXPECTED
