"""Twins in SQL: which prompts are a pair, and every statistic of a message less its twin's.

Two prompts of a recording are twins if they bear the same tag `pair:…` and no third one does.
Frame n of one is compared with frame n of the other. `twinned` says whether there is such a frame;
difference number j lies between `dlo{j}` and `dhi{j}` (NULL: unbounded) in units of 2⁻²⁰ times its
share `ds{j}`, and what is not known of it is not known for the reason ranked `dr{j}`.
"""

from __future__ import annotations

from collections.abc import Iterator

from auditkit.core.verdicts import Reason
from auditkit.rules.lowered.plan import Plan, frame_cuts
from auditkit.rules.lowered.twins import PAIR_TAG
from auditkit.rules.sql.frames import open_rank
from auditkit.rules.sql.gathered import shared
from auditkit.rules.sql.parts import Parameters, columns


def twin_steps(plan: Plan, given: Parameters) -> Iterator[tuple[str, str]]:
    """The steps from complete frames to frames with differences; none where none is asked for."""
    differences = sorted({cut.aggregate for cut in frame_cuts(plan.root) if cut.paired})
    if not differences:
        return
    tags = "json_extract_string(tags, '$[*]')"
    tag = f"list_filter({tags}, lambda t: starts_with(t, '{PAIR_TAG}'))[1]"
    yield "tagged", f"SELECT prompt, {tag} AS pair\n  FROM prompts\n  WHERE recording = $1"
    yield (
        "twins",
        "SELECT a.prompt, min(b.prompt) AS twin\n"
        "  FROM tagged a JOIN tagged b ON a.pair = b.pair AND a.prompt <> b.prompt\n"
        "  GROUP BY a.prompt\n  HAVING count(*) = 1",
    )
    beside = [f"t.{name}{j} AS t{name}{j}" for j in differences for name in _columns(plan, j)]
    yield (
        "beside",
        f"SELECT {columns(['c.*', 't.prompt IS NOT NULL AS twinned', *beside])}\n"
        "  FROM complete c LEFT JOIN twins w ON w.prompt = c.prompt\n"
        "  LEFT JOIN complete t ON t.prompt = w.twin AND t.frame = c.frame",
    )
    made = [column for j in differences for column in _difference(plan, j)]
    yield "compared", f"SELECT {columns(['*', *made])}\n  FROM beside"


def _columns(plan: Plan, j: int) -> tuple[str, ...]:
    aggregate = plan.aggregates[j]
    return ("n", "lo", "hi") if aggregate.signal is not None else ("n", "lo", "hi", "r")


def _difference(plan: Plan, j: int) -> Iterator[str]:
    own, twin = _share(plan, j, ""), _share(plan, j, "t")

    def times(bound: str, share: str) -> str:
        return f"CAST({bound} AS HUGEINT) * {share}"

    yield f"{times(f'lo{j}', twin)} - {times(f'thi{j}', own)} AS dlo{j}"
    yield f"{times(f'hi{j}', twin)} - {times(f'tlo{j}', own)} AS dhi{j}"
    yield f"{times(own, twin)} AS ds{j}"
    missing = f"CASE WHEN NOT twinned THEN {Reason.NO_TWIN.rank} ELSE {open_rank(plan, j, 't')} END"
    yield f"least({open_rank(plan, j, '')}, {missing}) AS dr{j}"


def _share(plan: Plan, j: int, side: str) -> str:
    return shared(plan.aggregates[j], f"{side}n{j}") or "1"
