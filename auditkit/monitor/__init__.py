"""Locked rules on live activations, token by token, inside generation."""

from auditkit.monitor.actions import (
    Action,
    Call,
    Escalate,
    LogJsonl,
    Record,
    Replace,
    Steer,
    Stop,
)
from auditkit.monitor.alerts import (
    ActionRun,
    Alert,
    Cost,
    Ending,
    FiredMember,
    Roles,
    RowResult,
    TokenSeen,
    WatchedReply,
)
from auditkit.monitor.generation import watch_generate
from auditkit.monitor.monitor import Monitor, Watch
from auditkit.monitor.policy import OnFail
from auditkit.monitor.request import Request
from auditkit.rules import PromptFacts

__all__ = [
    "Action",
    "ActionRun",
    "Alert",
    "Call",
    "Cost",
    "Ending",
    "Escalate",
    "FiredMember",
    "LogJsonl",
    "Monitor",
    "OnFail",
    "PromptFacts",
    "Record",
    "Replace",
    "Request",
    "Roles",
    "RowResult",
    "Steer",
    "Stop",
    "TokenSeen",
    "Watch",
    "WatchedReply",
    "watch_generate",
]
