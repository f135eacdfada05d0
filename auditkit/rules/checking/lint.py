"""What is wrong with one rule beyond its schema: every family of diagnostics, in one pass."""

from __future__ import annotations

import math

from auditkit.core.locks import Pool, Status
from auditkit.core.statistics import MOST_CONTROLS, controls_needed
from auditkit.rules.checking.check import suggest
from auditkit.rules.checking.report import Reporter
from auditkit.rules.checking.rule_conditions import Trees, check_conditions
from auditkit.rules.checking.rule_frames import check_frame
from auditkit.rules.documents.patterns import PatternError, compile_pattern
from auditkit.rules.documents.rule_documents import (
    ContrastSelect,
    DirectionSelect,
    IndexSelect,
    LabelSelect,
    RuleDocument,
    SignalDocument,
    UnitTest,
)
from auditkit.rules.documents.series import SeriesError, default_role, lay_out_pair
from auditkit.rules.documents.signals import draft_rule, signal_examples
from auditkit.rules.language import ast
from auditkit.rules.lowered.lowering import lower_rule
from auditkit.rules.lowered.monotone import falls_with_threshold

MANY_FRAMES = 10_000
_TESTS_OF_A_PLAN = 2
"""Steering and ablation."""


def lint_rule(rule: RuleDocument, number: int, reporter: Reporter) -> None:
    """Report everything that is wrong with rule `number` of a file."""
    before = len(reporter.diagnostics)
    for name, signal in rule.signals.items():
        _check_signal(name, signal, number, reporter)
    trees = check_conditions(rule, number, reporter)
    check_frame(rule, number, trees, reporter)
    sound = not reporter.has_errors_from(before)
    _check_calibration(rule, number, trees, reporter, sound=sound)
    _check_score(rule, number, reporter)
    _check_confirmations(rule, number, reporter)
    _check_tests(rule, number, reporter)
    _check_governance(rule, number, reporter)


def _check_signal(name: str, signal: SignalDocument, number: int, reporter: Reporter) -> None:
    at = ("rules", number, "signals", name)
    select = signal.select
    if isinstance(select, LabelSelect):
        _check_label(select, (*at, "select"), reporter)
    if isinstance(select, DirectionSelect):
        _check_direction(signal, at, reporter)
    if isinstance(select, IndexSelect):
        _check_index(select, (*at, "select"), reporter)
    elif signal.unit == "raw":
        help = "use unit: fmax, which means the same on another SAE"
        reporter.add("AK050", f"unit: raw with by: {select.by}", (*at, "unit"), help=help)
    if isinstance(select, ContrastSelect) and select.fit == "l1":
        if signal.pool is not Pool.WEIGHTED:
            help = "fit: l1 weighs the latents: pool: weighted"
            reporter.add(
                "AK046", f"pool: {signal.pool.value} with fit: l1", (*at, "pool"), help=help
            )
        if signal.unit == "z":
            help = "fit: l1 works on fractions of fmax"
            reporter.add("AK046", "unit: z with fit: l1", (*at, "unit"), help=help)


def _check_index(select: IndexSelect, at: tuple[str | int, ...], reporter: Reporter) -> None:
    if select.sae is None:
        help = "sae: the fingerprint that `auditkit rules new` and the SAE's card print"
        reporter.add("AK051", "latents by index, of which SAE?", at, help=help)
    if len(set(select.latents)) != len(select.latents):
        reporter.add("AK048", "a latent stands here twice", (*at, "latents"))
    if select.weights is not None and len(select.weights) != len(select.latents):
        message = f"{len(select.weights)} weights for {len(select.latents)} latents"
        reporter.add("AK048", message, (*at, "weights"))


def _check_label(select: LabelSelect, at: tuple[str | int, ...], reporter: Reporter) -> None:
    if select.snapshot is None:
        help = "snapshot: the digest that `auditkit labels show` prints"
        message = "labels of which state of the table? Whoever changes it changes this rule"
        reporter.add("AK052", message, (*at, "table"), help=help)
    if select.match == "pattern":
        try:
            compile_pattern(select.label)
        except PatternError as error:
            reporter.add("AK020", f"label: {error}", (*at, "label"), help="patterns are RE2's")


def _check_direction(signal: SignalDocument, at: tuple[str | int, ...], reporter: Reporter) -> None:
    if signal.pool is not Pool.WEIGHTED:
        message = f"pool: {signal.pool.value} with by: direction"
        reporter.add("AK046", message, (*at, "pool"), help="a direction is one: leave pool: out")
    if signal.unit == "z":
        help = "a direction has its own scale: 0 between the examples' means, 1 at the positive"
        reporter.add("AK046", "unit: z with by: direction", (*at, "unit"), help=help)


def _check_calibration(
    rule: RuleDocument, number: int, trees: Trees, reporter: Reporter, *, sound: bool
) -> None:
    used = [
        (at, n)
        for at, (_, t) in trees.items()
        for n in ast.walk(t)
        if isinstance(n, ast.Calibrated)
    ]
    at = ("rules", number, "calibrate")
    if used and rule.calibrate is None:
        help = "calibrate: {suite: …, target_fpr: 0.01}"
        reporter.add("AK060", "'calibrated' without calibrate:", used[0][0], help=help)
    if rule.calibrate is None:
        return
    if not used and sound:
        help = "compare a statistic with 'calibrated', or leave calibrate: out"
        reporter.add("AK061", "nothing in the condition is 'calibrated'", at, key=True, help=help)
    share = rule.calibrate.target_fpr
    frames = math.ceil(math.log(1 - rule.calibrate.confidence) / math.log1p(-share))
    if frames > MANY_FRAMES:
        message = f"a rate of {share:g} needs at least {frames:,} benign frames to certify"
        reporter.add("AK062", message, (*at, "target_fpr"))
    if used and sound and not falls_with_threshold(lower_rule(draft_rule(rule))):
        help = "compare with >= or >, and not beneath 'not' or 'none of'"
        message = "raising 'calibrated' can make this rule fire more, so no threshold certifies it"
        reporter.add("AK063", message, used[0][0], help=help)


def _check_score(rule: RuleDocument, number: int, reporter: Reporter) -> None:
    if rule.score is None:
        return
    contrasts = [c for c in map(signal_examples, rule.signals.values()) if c is not None]
    chose = [side for c in contrasts for side in (c.positive, c.negative)]
    for name, side in (("positive", rule.score.positive), ("negative", rule.score.negative)):
        at = ("rules", number, "score", name)
        what = f"the suite {side.suite!r}" if side.suite else "these examples"
        if side in chose:
            help = "name another data set, or leave score: out: then a held-out part scores"
            reporter.add("AK085", f"{what} also chose the latents", at, help=help)
        elif rule.calibrate is not None and side.suite == rule.calibrate.suite:
            help = "score on prompts that no threshold was chosen from"
            reporter.add("AK086", f"{what} also chose the threshold", at, help=help)


def _check_confirmations(rule: RuleDocument, number: int, reporter: Reporter) -> None:
    names = [c.name for c in rule.confirm]
    for index, plan in enumerate(rule.confirm):
        at = ("rules", number, "confirm", index)
        if plan.intervene.signal not in rule.signals:
            message = f"unknown signal {plan.intervene.signal!r}"
            help = suggest(plan.intervene.signal, rule.signals)
            reporter.add("AK021", message, (*at, "intervene", "signal"), help=help)
        if plan.name in names[:index]:
            reporter.add("AK027", f"the name {plan.name!r} stands twice", (*at, "name"))
        if controls_needed(_TESTS_OF_A_PLAN, plan.expect.q) > MOST_CONTROLS:
            message = (
                f"q {plan.expect.q:g} cannot be reached: with {MOST_CONTROLS:,} controls, the most "
                f"there are, two tests come to {_TESTS_OF_A_PLAN / (1 + MOST_CONTROLS):.2g} at best"
            )
            reporter.add("AK081", message, (*at, "expect", "q"))


def _check_tests(rule: RuleDocument, number: int, reporter: Reporter) -> None:
    tests = rule.tests
    for index, test in enumerate(tests.unit):
        at = ("rules", number, "tests", "unit", index)
        try:
            laid = lay_out_pair(test.series, list(rule.signals), default_role(rule.scope.roles))
        except SeriesError as error:
            reporter.add("AK083", error.message, (*at, "series", error.key), help=error.help)
            continue
        _check_given(rule, test, at, reporter)
        tokens = [*laid.tokens, *(laid.twin or ())]
        outside = [t.role for t in tokens if rule.scope.roles and t.role not in rule.scope.roles]
        if outside:
            message = f"@{outside[0].value} is outside the rule's scope, so it sees no token"
            reporter.add("AK034", message, (*at, "series"), key=True)
        if test.at is not None and test.fires is not True:
            reporter.add("AK084", "'at' in a test that expects no firing", (*at, "at"), key=True)
        elif test.at is not None and test.at >= len(laid.tokens):
            reporter.add("AK084", f"'at' beyond the {len(laid.tokens)} tokens", (*at, "at"))
        if test.name in [t.name for t in tests.unit[:index]]:
            reporter.add("AK027", f"the name {test.name!r} stands twice", (*at, "name"))
    place = _tests_at(number, reporter)
    if not any(t.fires is False for t in tests.unit) and not tests.should_not_match:
        help = "a unit test with fires: false, or an example under should_not_match"
        reporter.add("AK080", "no test in which this rule stays silent", place, key=True, help=help)
    if not any(t.fires is True for t in tests.unit) and not tests.should_match:
        help = "a unit test with fires: true, or an example under should_match"
        reporter.add("AK082", "no test in which this rule fires", place, key=True, help=help)


def _check_given(
    rule: RuleDocument, test: UnitTest, at: tuple[str | int, ...], reporter: Reporter
) -> None:
    for key in test.given.percentiles:
        name = key.split(".p", 1)[0]
        if name not in rule.signals:
            help = suggest(name, rule.signals)
            message = f"unknown signal {name!r}"
            reporter.add("AK021", message, (*at, "given", "percentiles", key), key=True, help=help)


def _tests_at(number: int, reporter: Reporter) -> tuple[str | int, ...]:
    at = ("rules", number, "tests")
    return at if at in reporter.source.keys else ("rules", number, "id")


def _check_governance(rule: RuleDocument, number: int, reporter: Reporter) -> None:
    if rule.status is not Status.STABLE:
        return
    at = ("rules", number, "status")
    if not (rule.tests.unit or (rule.tests.should_match and rule.tests.should_not_match)):
        reporter.add("AK090", "a stable rule has tests", at)
    if rule.calibrate is None:
        reporter.add("AK091", "a stable rule has a calibration", at)
    if not rule.confirm:
        reporter.add("AK092", "a stable rule has a confirmation", at)
