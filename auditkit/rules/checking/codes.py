"""The table of diagnostics: every code that rule files can earn, and how bad it is."""

from __future__ import annotations

from dataclasses import dataclass

from auditkit.core.diagnostics import Level


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """A diagnostic: its level and what it says in general."""

    level: Level
    title: str


def _error(title: str) -> Code:
    return Code(level=Level.ERROR, title=title)


def _warning(title: str) -> Code:
    return Code(level=Level.WARNING, title=title)


CODES: dict[str, Code] = {
    "AK001": _error("not valid YAML"),
    "AK002": _error("a tab in the indentation"),
    "AK003": _error("a duplicate key"),
    "AK004": _error("nested or aliased too deeply"),
    "AK005": _error("a YAML tag, or a key that is not plain text"),
    "AK010": _error("an unknown key"),
    "AK011": _error("a missing key"),
    "AK012": _error("a value of the wrong type"),
    "AK013": _error("a value that is not allowed"),
    "AK020": _error("a condition or pattern that cannot be read"),
    "AK021": _error("an unknown signal"),
    "AK022": _error("an unknown name in a condition"),
    "AK023": _error("a let that is defined by itself"),
    "AK024": _error("an id that another rule bears"),
    "AK025": _error("a name that is a word of the language"),
    "AK026": _error("a let with the name of a signal"),
    "AK027": _error("a name that stands twice"),
    "AK028": _error("an argument that the function does not take"),
    "AK029": _error("a part of the language where it means nothing"),
    "AK030": _error("'k of' that does not depend on its operands"),
    "AK031": _error("a let that is never used"),
    "AK032": _error("a signal that is never used"),
    "AK033": _error("a comparison that is always true or always false"),
    "AK034": _error("a role outside the rule's scope"),
    "AK035": _error("the same operand twice"),
    "AK036": _error("'them' or a pattern that matches nothing"),
    "AK037": _error("a rule named that is not there"),
    "AK038": _error("a filter that excuses nothing, or everything"),
    "AK039": _error("a correlation that does not depend on its members"),
    "AK040": _error("units that do not fit together"),
    "AK041": _error("a unit where none belongs"),
    "AK042": _error("a number of tokens that is not whole, or out of range"),
    "AK043": _error("a fraction that is not between 0 and 1"),
    "AK044": _error("different roles inside one aggregate"),
    "AK045": _error("a threshold that is too large"),
    "AK046": _error("a fit, pool and unit that do not fit together"),
    "AK047": _error("'calibrated' more than once"),
    "AK048": _error("weights or latents that do not pair up"),
    "AK049": _error("members that do not fit together"),
    "AK050": _error("raw units with a portable selector"),
    "AK051": _error("latents by index without the SAE's fingerprint"),
    "AK052": _error("a label table that is not pinned"),
    "AK060": _error("'calibrated' without calibrate:"),
    "AK061": _error("calibrate: without 'calibrated'"),
    "AK062": _warning("a target that needs very many benign frames"),
    "AK063": _error("a 'calibrated' that the rule does not fall with"),
    "AK064": _warning("a shipped suite with too few benign frames for the target"),
    "AK065": _error("a 'calibrated' in frames of one token"),
    "AK070": _warning("a blocking action on a rule that is decided at the end"),
    "AK071": _warning("a filter that a monitor cannot decide by itself"),
    "AK072": _warning("a correlation that only an audit judges"),
    "AK073": _warning("a comparison with a twin, which a monitor does not have"),
    "AK080": _warning("no test in which the rule stays silent"),
    "AK081": _warning("a q that the number of controls cannot reach"),
    "AK082": _warning("no test in which the rule fires"),
    "AK083": _error("a test series that cannot be read"),
    "AK084": _error("a firing place in a test that does not fire"),
    "AK085": _error("a rule scored on the examples that choose it"),
    "AK086": _warning("a rule scored on the examples that calibrate it"),
    "AK090": _error("a stable rule without tests"),
    "AK091": _error("a stable rule without a calibration"),
    "AK092": _error("a stable rule without a confirmation"),
    "AK093": _error("a filter without a reason or an author"),
    "AK094": _error("a wrong ignore comment"),
    "AK095": _warning("an ignore comment that silences nothing"),
    "AK096": _warning("an expired filter"),
    "AK097": _error("a day that is not in the calendar, or out of order"),
}

FIXED_FAMILIES = ("AK00", "AK01", "AK02")
"""Families that no comment can silence: the file does not say what it means."""
