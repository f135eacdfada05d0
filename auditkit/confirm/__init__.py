"""Test by intervention whether latents cause what a rule claims."""

from auditkit.confirm.controls import plan_controls
from auditkit.confirm.ledger import TrialSink
from auditkit.confirm.pool import ControlPool
from auditkit.confirm.rule import confirm_rule, confirmation_id
from auditkit.confirm.settings import (
    ConfirmInputs,
    ConfirmSettings,
    LatentTable,
    Progress,
)
from auditkit.confirm.summary import RunFacts, summarise
from auditkit.confirm.verdicts import RawConfirmation, finish_verdicts

__all__ = [
    "ConfirmInputs",
    "ConfirmSettings",
    "ControlPool",
    "LatentTable",
    "Progress",
    "RawConfirmation",
    "RunFacts",
    "TrialSink",
    "confirm_rule",
    "confirmation_id",
    "finish_verdicts",
    "plan_controls",
    "summarise",
]
