"""The `trainer` block's objective, with the settings that are its own."""

from __future__ import annotations

import dataclasses

from auditkit.config import TrainDocument
from auditkit.core.errors import InvalidInput
from auditkit.training import Objective, objectives


def plan_objective(document: TrainDocument) -> Objective:
    """The objective that the document's trainer names, with the settings that it gives.

    Raises InvalidInput for an objective that does not exist and for settings that it does not
    have, lacks or cannot take.
    """
    name, given = document.trainer.objective, document.trainer.own_settings
    known = objectives()
    if name not in known:
        raise InvalidInput(
            f"{document.name}: trainer.objective is {name}, which does not exist",
            help="objectives: " + ", ".join(known),
        )
    settings = [f for f in dataclasses.fields(known[name]) if f.init]
    names = sorted(f.name for f in settings)
    strange = sorted(given.keys() - names)
    if strange:
        raise InvalidInput(
            f"{document.name}: trainer.{strange[0]} is no setting of {name}",
            help=f"{name} has " + ", ".join(names),
        )
    for setting in settings:
        if setting.default is dataclasses.MISSING and setting.name not in given:
            raise InvalidInput(
                f"{document.name}: trainer.{setting.name} is missing, which {name} needs",
                help=f"{name} has " + ", ".join(names),
            )
    return known[name](**given)
