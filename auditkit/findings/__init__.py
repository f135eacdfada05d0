"""Locked rules × store → findings, and what a reader needs to check them."""

from auditkit.findings.correlating import evaluate_correlations
from auditkit.findings.evaluation import evaluate_lock, evaluate_rule
from auditkit.findings.views import build_views

__all__ = ["build_views", "evaluate_correlations", "evaluate_lock", "evaluate_rule"]
