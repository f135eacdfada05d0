"""How to average again what interventions did: the target's trials, and those of its controls."""

from __future__ import annotations

from auditkit.core.confirmations import Arm, Confirmation
from auditkit.core.measured import Measure, Measured
from auditkit.report.document import ReportDocument
from auditkit.report.facts import tests_of
from auditkit.report.sql import Cell, Query, among, literal, query

CONTROLS = (Arm.LATENT, Arm.ISOTROPIC, Arm.COVARIANCE)
_KEY = "confirmation, op, dose, metric"

_Row = tuple[Cell, ...]


def effects(doc: ReportDocument) -> list[Query]:
    """Mean outcome of the target, of the reversed direction and of the positive control."""
    rows = [row for c in doc.audit.confirmations for row in _effect_rows(c)]
    sql = (
        "SELECT confirmation, arm, op, round(dose, 6) AS dose, metric,\n"
        "       count(*) AS prompts, avg(outcome) AS mean\n"
        "FROM trials\nWHERE control = 0 AND (confirmation, arm, op, round(dose, 6), metric) IN "
        f"{among(row[:5] for row in rows)}\n"
        "GROUP BY ALL ORDER BY ALL;"
    )
    return query(
        "Mean effects: doses, tests, damage, sign flip and positive control",
        sql,
        ("confirmation", "arm", "op", "dose", "metric", "prompts", "mean"),
        rows,
    )


def controls(doc: ReportDocument) -> list[Query]:
    """Mean, spread and number of the controls that every test was held against."""
    rows = [
        (c.id, t.op, _dose(t.dose), t.metric, t.prompts, t.controls, t.control_mean, t.control_sd)
        for c in doc.audit.confirmations
        for t in tests_of(c)
    ]
    arms = ", ".join(literal(arm.value) for arm in CONTROLS)
    sql = (
        "WITH runs AS (\n"
        "  SELECT confirmation, op, round(dose, 6) AS dose, metric,\n"
        "         arm, control, prompt, outcome,\n"
        f"         dense_rank() OVER (PARTITION BY {_KEY} ORDER BY arm, control)\n"
        f"         + dense_rank() OVER (PARTITION BY {_KEY} ORDER BY arm DESC, control DESC)\n"
        "         - 1 AS drawn,\n"
        f"         count(*) OVER (PARTITION BY {_KEY}, prompt) AS ran\n"
        f"  FROM trials WHERE arm IN ({arms})\n"
        "    AND (confirmation, op, round(dose, 6), metric) IN "
        f"{among(row[:4] for row in rows)}\n"
        "), means AS (\n"
        f"  SELECT {_KEY}, arm, control, count(*) AS prompts, avg(outcome) AS mean\n"
        f"  FROM runs WHERE ran = drawn  -- prompts on which every control was run\n"
        "  GROUP BY ALL\n"
        ")\n"
        f"SELECT {_KEY}, max(prompts) AS prompts, count(*) AS controls, avg(mean) AS mean,\n"
        "       coalesce(stddev_samp(mean), 0) AS sd\n"
        "FROM means GROUP BY ALL ORDER BY ALL;"
    )
    return query(
        "Controls of every test: how many, their mean effect and its spread",
        sql,
        ("confirmation", "op", "dose", "metric", "prompts", "controls", "mean", "sd"),
        rows,
    )


def _effect_rows(c: Confirmation) -> list[_Row]:
    op = c.steering.op if c.steering is not None else "steer"
    rows = [_row(c, Arm.TARGET, op, d.dose, c.metric, d.effect) for d in c.doses]
    rows += [_row(c, Arm.TARGET, t.op, t.dose, t.metric, t.effect) for t in tests_of(c)]
    if c.steering is not None:
        dose = c.steering.dose
        rows += [
            _row(c, Arm.TARGET, op, dose, "kl", c.damage_kl),
            _row(c, Arm.TARGET, op, dose, "ce", c.damage_ce),
            _row(c, Arm.SIGN_FLIP, op, dose, c.metric, c.sign_flip),
            _row(c, Arm.POSITIVE, op, dose, c.metric, c.positive_control),
        ]
    return [row for row in rows if row]


def _row(
    c: Confirmation, arm: Arm, op: str, dose: float | None, metric: str, value: Measure
) -> _Row:
    if not isinstance(value, Measured):
        return ()
    return (c.id, arm.value, op, _dose(dose), metric, value.n, value.value)


def _dose(dose: float | None) -> float:
    """An ablation stands at dose 0 in the store."""
    return round(float(dose or 0), 6)
