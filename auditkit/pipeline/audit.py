"""The whole way: record, bind, evaluate, confirm, report. Every step resumes where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from auditkit.config import AuditDocument, Located, load_audit
from auditkit.core.audits import AuditRecord, MatchView, SuiteSummary
from auditkit.core.confirmations import Confirmation
from auditkit.core.correlations import CorrelationFinding
from auditkit.core.errors import ExitCode, InvalidInput
from auditkit.core.findings import Finding, FindingState
from auditkit.core.locks import Calibration, Lock, Severity
from auditkit.core.progress import Progress
from auditkit.core.prompts import Suite
from auditkit.core.recordings import Recording, RecordingPlan
from auditkit.findings import build_views, evaluate_correlations, evaluate_lock, evaluate_rule
from auditkit.pipeline.bind import bind_recorded, binding_suites, label_tables
from auditkit.pipeline.causes import run_causal_tests
from auditkit.pipeline.fidelity import measure_on_suites
from auditkit.pipeline.report_files import make_folder, write_report
from auditkit.pipeline.robustness import VariantWish
from auditkit.pipeline.rule_files.files import RuleSet, load_rule_set
from auditkit.pipeline.summaries import card_measures, list_limits, summarise_suite
from auditkit.pipeline.variant_bench import ModelBench
from auditkit.pipeline.workbench import Workbench
from auditkit.report import build_report, to_json, to_terminal
from auditkit.rules import RuleDocument, write_lock
from auditkit.store import Store, open_store
from auditkit.suites import load_suite

MATCHES_SHOWN = 6
NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditOutcome:
    """What an audit prints and how it ends."""

    folder: Path
    terminal: str
    json: str
    exit_code: ExitCode


def run_audit(file: Path, *, fail_on: str, progress: Progress) -> AuditOutcome:
    """Run the audit that `file` describes and write its report.

    Everything that can be wrong in the user's files is checked before the model is loaded.
    """
    threshold = parse_fail_on(fail_on)
    located = load_audit(file)
    tuned = load_rule_set(located.document.rules, base=located.folder)
    subjects = [load_suite(s.suite, base=located.folder) for s in located.document.subject]
    needed = binding_suites(tuned.rules, base=located.folder)
    for ref in located.document.reference:
        needed[ref] = load_suite(ref, base=located.folder)
    if not needed:
        # Scales and densities need a reference; without any other, the audited prompts are it.
        needed = {s.name: s for s in subjects}
    folder = located.resolve(located.document.output)
    make_folder(folder)
    path = located.resolve(located.document.store)
    make_folder(path.parent)
    with open_store(path) as store:
        record = _audit(located, tuned, needed, subjects, store, progress)
    write_lock(record.lock, folder / "rules.lock.json")
    return _report(record, folder, threshold)


def parse_fail_on(text: str) -> Severity | None:
    """A severity, or None for `never`."""
    if text == NEVER:
        return None
    try:
        return Severity(text)
    except ValueError:
        names = ", ".join([*(s.value for s in Severity), NEVER])
        raise InvalidInput(f"--fail-on {text!r} is no severity", help=f"one of {names}") from None


def exit_code_of(
    findings: Sequence[Finding | CorrelationFinding], threshold: Severity | None
) -> ExitCode:
    """1 where a rule of the threshold's severity or above fired, 4 where nothing was decided."""
    if not any(f.state is not FindingState.UNKNOWN for f in findings):
        return ExitCode.NOTHING_EVALUATED
    grave = [
        f
        for f in findings
        if f.state is FindingState.FIRED
        and threshold is not None
        and f.severity.rank >= threshold.rank
    ]
    return ExitCode.FINDINGS if grave else ExitCode.CLEAN


def _audit(
    located: Located[AuditDocument],
    tuned: RuleSet,
    needed: dict[str, Suite],
    subjects: Sequence[Suite],
    store: Store,
    progress: Progress,
) -> AuditRecord:
    document, rules = located.document, tuned.rules
    tables = label_tables(rules, base=located.folder)
    bench = Workbench.load(
        located.resolve_source(document.model.source),
        located.resolve_source(document.sae),
        dtype=document.model.dtype,
        device=document.model.device,
        progress=progress,
    )
    plan = bench.plan(max_tokens=document.record.max_tokens, seed=document.seed)
    examples = {ref: bench.record(suite, store, plan, progress) for ref, suite in needed.items()}
    recorded: list[Recording] = []
    for wish, suite in zip(document.subject, subjects, strict=True):
        own = bench.plan(
            max_tokens=document.record.max_tokens,
            generate=wish.generate,
            temperature=wish.temperature,
            seed=document.seed,
        )
        recorded.append(bench.record(suite, store, own, progress))
    lock, reference = bind_recorded(
        rules,
        store,
        examples,
        high_norm=bench.high_norm(plan),
        provenance=bench.provenance,
        seed=document.seed,
        tuned=tuned,
        labels=tables,
        complete=lambda recording, own: bench.complete(recording, own, store, progress),
        joint_fpr=document.joint_fpr,
        variants=_variants(document, bench, plan, store, progress),
        progress=progress,
    )
    for recording in recorded:
        bench.complete(recording, lock.directions, store, progress)
    findings, views = _evaluate(lock, store, recorded, progress)
    correlations = _correlate(lock, store, recorded, findings)
    _count_false_positives(lock, rules, store, examples)
    confirmations = _confirm(bench, lock, rules, needed, store, reference, document, progress)
    fidelity = measure_on_suites(bench, subjects, store, recorded, progress)
    return AuditRecord(
        name=document.name,
        title=document.title,
        description=document.description,
        subject=tuple(recorded),
        lock=lock,
        suites=_suites(store, subjects, recorded, needed, examples),
        findings=tuple(findings),
        views=tuple(views),
        confirmations=tuple(confirmations),
        sae_quality=card_measures(bench.sae.config.metadata),
        fidelity=fidelity,
        limits=list_limits(lock, findings, fidelity),
        correlations=tuple(correlations),
    )


def _variants(
    document: AuditDocument,
    bench: Workbench,
    plan: RecordingPlan,
    store: Store,
    progress: Progress,
) -> VariantWish | None:
    if document.robustness is None:
        return None
    records = ModelBench(load=lambda: bench, store=store, plan=plan, progress=progress)
    return VariantWish(bench=records, examples=document.robustness.examples)


def _evaluate(
    lock: Lock, store: Store, recorded: Sequence[Recording], progress: Progress
) -> tuple[list[Finding], list[MatchView]]:
    digest = store.write_lock(lock)
    progress.begin("evaluate rules", len(recorded))
    findings: list[Finding] = []
    views: list[MatchView] = []
    by_id = {rule.id: rule for rule in lock.rules}
    for recording in recorded:
        for finding in evaluate_lock(lock, store, recording):
            findings.append(finding)
            store.write_matches(finding.matches, lock=digest)
            store.write_finding(finding, recording=recording.id, lock=digest)
            views += build_views(
                by_id[finding.rule_id],
                finding,
                store,
                recording,
                masked=lock.masked,
                most=MATCHES_SHOWN,
            )
        progress.advance()
    return findings, views


def _correlate(
    lock: Lock, store: Store, recorded: Sequence[Recording], findings: Sequence[Finding]
) -> list[CorrelationFinding]:
    digest = store.write_lock(lock)
    found = evaluate_correlations(lock, store, recorded, findings)
    for finding in found:
        store.write_correlation(finding, lock=digest)
    return found


def _count_false_positives(
    lock: Lock, rules: Sequence[RuleDocument], store: Store, examples: Mapping[str, Recording]
) -> None:
    """Keep the verdicts on the benign frames that certified a threshold, to be counted again."""
    digest = store.write_lock(lock)
    asked = {rule.id: rule.calibrate.suite for rule in rules if rule.calibrate is not None}
    for rule in lock.rules:
        if isinstance(rule.calibration, Calibration):
            finding = evaluate_rule(rule, lock, store, examples[asked[rule.id]])
            store.write_matches(finding.matches, lock=digest)


def _confirm(
    bench: Workbench,
    lock: Lock,
    rules: Sequence[RuleDocument],
    suites: dict[str, Suite],
    store: Store,
    reference: str,
    document: AuditDocument,
    progress: Progress,
) -> list[Confirmation]:
    if not document.confirm.enabled:
        return []
    confirmations = run_causal_tests(
        bench,
        lock,
        rules,
        suites,
        store,
        reference,
        document.confirm,
        seed=document.seed,
        progress=progress,
    )
    digest = store.write_lock(lock)
    for confirmation in confirmations:
        store.write_confirmation(confirmation, lock=digest)
    return confirmations


def _suites(
    store: Store,
    subjects: Sequence[Suite],
    recorded: Sequence[Recording],
    needed: dict[str, Suite],
    examples: dict[str, Recording],
) -> tuple[SuiteSummary, ...]:
    audited = [
        summarise_suite(store, suite, recording, "audited")
        for suite, recording in zip(subjects, recorded, strict=True)
    ]
    bound = [
        summarise_suite(store, suite, examples[ref], "selection, calibration and scores")
        for ref, suite in needed.items()
    ]
    return (*audited, *bound)


def _report(record: AuditRecord, folder: Path, threshold: Severity | None) -> AuditOutcome:
    document = build_report(record)
    page = write_report(document, folder)
    return AuditOutcome(
        folder=folder,
        terminal=to_terminal(document) + f"\nreport: {page}",
        json=to_json(document),
        exit_code=exit_code_of([*record.findings, *record.correlations], threshold),
    )
