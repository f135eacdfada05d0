"""Whether a shipped benign suite has the frames that a rule's target asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from auditkit.core.locks import Frame
from auditkit.core.prompts import Role
from auditkit.rules.checking.report import Reporter
from auditkit.rules.documents.rule_documents import RuleDocument

PromptRoles = Sequence[tuple[Role, ...]]
"""Of each prompt that chooses thresholds, the roles of its messages in order."""
RolesOf = Callable[[str], PromptRoles | None]
"""The prompts of a shipped suite; None where a reference is to another one."""

STRATA = 4
"""How many lengths `stratify: [length]` certifies apart."""


def check_frames(rules: Sequence[RuleDocument], roles_of: RolesOf, reporter: Reporter) -> None:
    """Warn where even if no benign frame fires, there are too few of them to certify the target."""
    for number, rule in enumerate(rules):
        asked = rule.calibrate
        prompts = None if asked is None else roles_of(asked.suite)
        if asked is None or prompts is None:
            continue
        most = _most_frames(rule, prompts)
        each = math.ceil(math.log(1 - asked.confidence) / math.log1p(-asked.target_fpr))
        needed = each * (STRATA if asked.stratify else 1)
        if most is not None and most < needed:
            reporter.add(
                "AK064",
                f"{asked.suite} has at most {most:,} benign frames to choose a threshold from, and "
                f"{asked.target_fpr:g} at {asked.confidence:g} needs {needed:,}",
                ("rules", number, "calibrate", "target_fpr"),
                help="a larger target_fpr, or a benign suite of your own",
            )


def _most_frames(rule: RuleDocument, prompts: PromptRoles) -> int | None:
    """No more frames than this can have an eligible token; None where it is not a matter of
    messages."""
    wanted = set(rule.scope.roles) or set(Role)
    match rule.frame:
        case Frame.MESSAGE:
            return sum(role in wanted for roles in prompts for role in roles)
        case Frame.EXCHANGE:
            return sum(max(1, roles.count(Role.USER)) for roles in prompts if wanted & set(roles))
        case Frame.CONVERSATION:
            return sum(bool(wanted & set(roles)) for roles in prompts)
        case _:
            return None
