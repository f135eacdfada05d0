"""Feature-watch rules: documents, conditions, lint, two evaluators, locks. No torch, no duckdb."""

from __future__ import annotations

from auditkit.rules.checking.codes import CODES
from auditkit.rules.checking.file_cache import RuleFileCache
from auditkit.rules.checking.lint_formats import FORMATS
from auditkit.rules.checking.lint_frames import PromptRoles, RolesOf
from auditkit.rules.checking.rule_files import (
    RuleFile,
    lint_blocking,
    lint_rules,
    load_rules,
    parse_rules,
    read_rule_paths,
    read_rules,
)
from auditkit.rules.combining.correlate import GroupVerdict, MemberFrame, asks_where, judge_group
from auditkit.rules.combining.excusing import (
    MatchCase,
    PromptFacts,
    active_filters,
    excusing_filter,
)
from auditkit.rules.documents.correlation_documents import CorrelationDocument
from auditkit.rules.documents.filter_documents import FilterDocument
from auditkit.rules.documents.label_import import read_labels
from auditkit.rules.documents.label_tables import (
    LabelTable,
    load_label_table,
    make_table,
    pinned_table,
    render_label_table,
)
from auditkit.rules.documents.lock import parse_lock, read_lock, render_lock, write_lock
from auditkit.rules.documents.patterns import compile_pattern
from auditkit.rules.documents.rule_documents import (
    ConfirmDocument,
    ContrastSelect,
    DirectionSelect,
    Example,
    ExampleSet,
    IndexSelect,
    LabelSelect,
    PromptExample,
    RuleDocument,
    ScoreDocument,
    SignalDocument,
)
from auditkit.rules.documents.schema import render_schema, rule_schema
from auditkit.rules.documents.signals import (
    Contrast,
    draft_rule,
    rule_digest,
    rule_scope,
    signal_examples,
    signal_unit,
)
from auditkit.rules.documents.tuning import lock_correlation, lock_filter
from auditkit.rules.explaining.explain import explain_rule
from auditkit.rules.explaining.explain_combined import explain_correlation, explain_filter
from auditkit.rules.explaining.threshold import critical_threshold, evaluate_pair
from auditkit.rules.language.condition import ConditionError, parse_condition
from auditkit.rules.language.render import render_condition
from auditkit.rules.lowered.lowering import lower_rule
from auditkit.rules.lowered.plan import Plan
from auditkit.rules.lowered.pooling import SignalPool, pool_signal
from auditkit.rules.lowered.twins import find_twins
from auditkit.rules.sql.statement import CompiledSql, compile_layout, compile_sql, layout_of
from auditkit.rules.streaming.frame_places import FramePlaces
from auditkit.rules.streaming.frames import FrameAssembler, FrameOutcome, RuleWatcher, split_frames
from auditkit.rules.streaming.online import offline_parts, watched_online
from auditkit.rules.streaming.stream import StreamEvaluator, StreamSnapshot, TokenSignals
from auditkit.rules.trying.correlation_tests import run_correlation_tests
from auditkit.rules.trying.unit_tests import (
    Outcome,
    RunSql,
    SeriesTables,
    UnitResult,
    judge_example,
    run_unit_tests,
)

__all__ = [
    "CODES",
    "FORMATS",
    "CompiledSql",
    "ConditionError",
    "ConfirmDocument",
    "Contrast",
    "ContrastSelect",
    "CorrelationDocument",
    "DirectionSelect",
    "Example",
    "ExampleSet",
    "FilterDocument",
    "FrameAssembler",
    "FrameOutcome",
    "FramePlaces",
    "GroupVerdict",
    "IndexSelect",
    "LabelSelect",
    "LabelTable",
    "MatchCase",
    "MemberFrame",
    "Outcome",
    "Plan",
    "PromptExample",
    "PromptFacts",
    "PromptRoles",
    "RolesOf",
    "RuleDocument",
    "RuleFile",
    "RuleFileCache",
    "RuleWatcher",
    "RunSql",
    "ScoreDocument",
    "SeriesTables",
    "SignalDocument",
    "SignalPool",
    "StreamEvaluator",
    "StreamSnapshot",
    "TokenSignals",
    "UnitResult",
    "active_filters",
    "asks_where",
    "compile_layout",
    "compile_pattern",
    "compile_sql",
    "critical_threshold",
    "draft_rule",
    "evaluate_pair",
    "excusing_filter",
    "explain_correlation",
    "explain_filter",
    "explain_rule",
    "find_twins",
    "judge_example",
    "judge_group",
    "layout_of",
    "lint_blocking",
    "lint_rules",
    "load_label_table",
    "load_rules",
    "lock_correlation",
    "lock_filter",
    "lower_rule",
    "make_table",
    "offline_parts",
    "parse_condition",
    "parse_lock",
    "parse_rules",
    "pinned_table",
    "pool_signal",
    "read_labels",
    "read_lock",
    "read_rule_paths",
    "read_rules",
    "render_condition",
    "render_label_table",
    "render_lock",
    "render_schema",
    "rule_digest",
    "rule_schema",
    "rule_scope",
    "run_correlation_tests",
    "run_unit_tests",
    "signal_examples",
    "signal_unit",
    "split_frames",
    "watched_online",
    "write_lock",
]
