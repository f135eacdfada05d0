"""Rules × recorded examples → lock: pick latents, calibrate, score beside plain baselines."""

from auditkit.binding.binder import bind_rule, bind_rules
from auditkit.binding.context import BindContext
from auditkit.binding.directions import Completion, completions_needed, fit_directions
from auditkit.binding.needs import example_suite, suites_needed

__all__ = [
    "BindContext",
    "Completion",
    "bind_rule",
    "bind_rules",
    "completions_needed",
    "example_suite",
    "fit_directions",
    "suites_needed",
]
