"""Planted worlds: activations made of known features, and what a dictionary found of them."""

from __future__ import annotations

from auditkit.quality.worlds.gate import GateCheck, GateVerdict, gate, gate_world
from auditkit.quality.worlds.matching import FOUND_ABOVE
from auditkit.quality.worlds.packing import max_cosines, pack_directions, random_unit_rows
from auditkit.quality.worlds.readers import (
    DictionaryReader,
    Oracle,
    Reader,
    Reading,
    ceiling_readers,
    floor_readers,
)
from auditkit.quality.worlds.recipes import SIZES, make_world
from auditkit.quality.worlds.recovery import (
    MEASURE_TOKENS,
    FeatureRecovery,
    Recovery,
    measure_features,
    measure_recovery,
)
from auditkit.quality.worlds.world import PlantedBatch, PlantedWorld, WorldKind, WorldSize

__all__ = [
    "FOUND_ABOVE",
    "MEASURE_TOKENS",
    "SIZES",
    "DictionaryReader",
    "FeatureRecovery",
    "GateCheck",
    "GateVerdict",
    "Oracle",
    "PlantedBatch",
    "PlantedWorld",
    "Reader",
    "Reading",
    "Recovery",
    "WorldKind",
    "WorldSize",
    "ceiling_readers",
    "floor_readers",
    "gate",
    "gate_world",
    "make_world",
    "max_cosines",
    "measure_features",
    "measure_recovery",
    "pack_directions",
    "random_unit_rows",
]
