"""Plan → one parameterised DuckDB statement: verdict, reason, firing token, score per frame.

The statement goes through named steps: tokens are `framed` and `placed`, latents `pooled` into
`valued` signals, token tests tested (and `counted` where order matters), frames `gathered` into
bounds of every statistic, and judged in SQL's three-valued logic, which is Kleene's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from auditkit.core.fixed_point import SCALE
from auditkit.core.locks import Frame, LockedRule
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenMask
from auditkit.core.verdicts import Reason
from auditkit.rules.lowered.lowering import lower_rule
from auditkit.rules.lowered.plan import Plan, PlanLatent, PlanSignal
from auditkit.rules.sql.frames import frame_levels
from auditkit.rules.sql.gathered import gathered_columns
from auditkit.rules.sql.order import order_steps
from auditkit.rules.sql.parts import Extent, Parameters, columns, role_in
from auditkit.rules.sql.tokens import token_levels
from auditkit.rules.sql.twins import twin_steps
from auditkit.rules.sql.windows import window_steps


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledSql:
    """A statement with numbered parameters: `connection.execute(text, parameters)`."""

    text: str
    parameters: tuple[object, ...]


def compile_sql(
    rule: LockedRule | Plan, recording: str, *, masked: TokenMask, laid_out: bool = False
) -> CompiledSql:
    """Compile a rule for one recording.

    The statement reads `tokens`, `activations` and `coverage` (and `prompts`, where messages are
    compared with their twins') and returns, ordered by prompt and frame: prompt, frame, verdict,
    reason, at, token, score. With `laid_out` it reads `placed` and `frames`, as `compile_layout`
    makes them, in place of tokens and coverage. Raises like `lower_rule`.
    """
    plan = lower_rule(rule)
    given = Parameters(recording)
    steps = [
        *([] if laid_out else _layout_steps(plan, given, masked)),
        *_pooled_steps(plan, given),
        ("valued", _valued(plan, given, laid_out=laid_out)),
    ]
    before = "valued"
    for name, made in token_levels(plan, given):
        steps.append((name, f"SELECT {columns(['*', *made])}\n  FROM {before}"))
        before = name
    windowed, found = window_steps(plan, given, before)
    steps += windowed
    for name, made in order_steps(plan, Extent(), given):
        steps.append((name, f"SELECT {columns(['*', *made])}\n  FROM {before}"))
        before = name
    steps.append(("gathered", _gathered(plan, given, before)))
    steps.append(("complete", _complete(plan, found)))
    before = "complete"
    for name, text in twin_steps(plan, given):
        steps.append((name, text))
        before = name
    for name, made in frame_levels(plan, given):
        steps.append((name, f"SELECT {columns(['*', *made])}\n  FROM {before}"))
        before = name
    body = ",\n".join(f"{name} AS (\n  {text}\n)" for name, text in steps)
    return CompiledSql(text=f"WITH {body}\n{_result(before, plan)}", parameters=given.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutSql:
    """Two statements: the frames of a recording, and the tokens in them."""

    frames: CompiledSql
    placed: CompiledSql


def layout_of(plan: Plan) -> tuple[object, ...] | None:
    """What decides how a rule lays tokens into frames: rules of which it is the same share a
    layout. None for frames that are laid out rule by rule."""
    if plan.frame not in (Frame.CONVERSATION, Frame.MESSAGE, Frame.EXCHANGE):
        return None
    return plan.frame, plan.scope


def compile_layout(plan: Plan, recording: str, *, masked: TokenMask) -> LayoutSql:
    """The statements whose results `compile_sql` reads as `frames` and `placed`."""
    given = Parameters(recording)
    steps = _layout_steps(plan, given, masked)
    body = ",\n".join(f"{name} AS (\n  {text}\n)" for name, text in steps)
    covered = (
        "SELECT p.*, coalesce(p.token <= r.last_token, FALSE) AS covered\n"
        "FROM placed p ASOF LEFT JOIN reach r ON p.token >= r.first_token\nORDER BY p.token"
    )
    return LayoutSql(
        frames=CompiledSql(text=f"WITH {body}\nSELECT * FROM frames", parameters=given.values()),
        placed=CompiledSql(text=f"WITH {body}\n{covered}", parameters=given.values()),
    )


def _layout_steps(plan: Plan, given: Parameters, masked: TokenMask) -> list[tuple[str, str]]:
    return [
        *_frame_steps(plan, given, masked),
        ("placed", _placed(plan, given)),
        ("reach", _reach()),
    ]


def _frame_steps(plan: Plan, given: Parameters, masked: TokenMask) -> list[tuple[str, str]]:
    unmasked = f"(mask & {given.integer(int(masked))}) = 0"
    eligible = " AND ".join([unmasked, *role_in("role", plan.scope.roles)])
    user = Role.USER.value
    first_of_user = "row_number() OVER (PARTITION BY prompt, message, role ORDER BY token) = 1"
    opens = f", role = '{user}' AND {first_of_user} AS opens"
    spoken = (
        f"SELECT prompt, token, role, message, {eligible} AS eligible"
        f"{opens if plan.frame is Frame.EXCHANGE else ''}\n  FROM tokens\n"
        f"  WHERE recording = {given.recording}"
    )
    match plan.frame:
        case Frame.CONVERSATION:
            number, only = "0", ""
        case Frame.MESSAGE | Frame.PAIRED_MESSAGE:
            number = "dense_rank() OVER (PARTITION BY prompt ORDER BY message) - 1"
            only = "\n  WHERE eligible"
        case Frame.TOKEN:
            return [("spoken", spoken)]
        case Frame.EXCHANGE:
            count = "count(*) FILTER (WHERE opens) OVER (PARTITION BY prompt ORDER BY token"
            number = f"greatest({count} ROWS UNBOUNDED PRECEDING) - 1, 0)"
            only = ""
    framed = f"SELECT prompt, token, role, eligible, {number} AS frame\n  FROM spoken{only}"
    return [
        ("spoken", spoken),
        ("framed", framed),
        ("frames", "SELECT DISTINCT prompt, frame\n  FROM framed"),
    ]


def _placed(plan: Plan, given: Parameters) -> str:
    if plan.frame is Frame.TOKEN:  # every token that is placed is a frame
        number = "row_number() OVER (PARTITION BY prompt ORDER BY token) - 1"
        number = f"{number} - {given.integer(plan.scope.skip_first)} AS frame"
        return (
            f"SELECT prompt, {number}, token, role, 0 AS epos"
            "\n  FROM spoken\n  WHERE eligible\n  QUALIFY frame >= 0"
        )
    epos = "row_number() OVER (PARTITION BY prompt, frame ORDER BY token) - 1"
    epos = f"{epos} - {given.integer(plan.scope.skip_first)} AS epos"
    return (
        f"SELECT prompt, frame, token, role, {epos}"
        "\n  FROM framed\n  WHERE eligible\n  QUALIFY epos >= 0"
    )


def _reach() -> str:
    """Coverage as a step function, right even where ranges overlap."""
    return (
        "SELECT first_token, max(last_token) OVER (ORDER BY first_token) AS last_token\n"
        "  FROM coverage\n  WHERE recording = $1"
    )


def _pooled_steps(plan: Plan, given: Parameters) -> list[tuple[str, str]]:
    rows = [(i, x) for i, s in enumerate(plan.signals) if s.resolved for x in s.latents]
    if not rows:
        return []
    weights = [
        given.unnest([i for i, _ in rows], "INTEGER", "signal"),
        given.unnest([x.latent for _, x in rows], "INTEGER", "latent"),
        given.unnest([float(x.weight) for _, x in rows], "DOUBLE", "weight"),
        given.unnest([float(x.zero) for _, x in rows], "DOUBLE", "zero"),
        given.unnest([float(x.scale) for _, x in rows], "DOUBLE", "scale"),
        given.unnest([_taken_off(plan.signals[i], x) for i, x in rows], "BIGINT", "silence"),
    ]
    ranked = "share"
    if any(s.falling for s in plan.signals):
        places = [_place(plan.signals[i], x) for i, x in rows]
        weights.append(given.unnest(places, "INTEGER", "place"))
        ranked = "share, w.place"
    scaled = "w.weight * (CAST(a.value AS DOUBLE) - w.zero) / w.scale"
    units = f"CAST(floor({scaled} * {SCALE}.0::DOUBLE + 0.5::DOUBLE) AS BIGINT)"
    shares = (
        f"SELECT a.token, w.signal, {units} - w.silence AS {ranked}\n"
        f"  FROM activations a JOIN weights w ON a.latent = w.latent\n"
        f"  WHERE a.recording = {given.recording}"
    )
    pooled = [_pool(i, s, given) for i, s in enumerate(plan.signals) if s.resolved]
    return [
        ("weights", f"SELECT {columns(weights)}"),
        ("shares", shares),
        ("pooled", f"SELECT {columns(['token', *pooled])}\n  FROM shares\n  GROUP BY token"),
    ]


def _taken_off(signal: PlanSignal, latent: PlanLatent) -> int:
    """A sum adds what latents have above silence; where silences differ, the largest is plain."""
    return 0 if signal.falling else latent.silence


def _place(signal: PlanSignal, latent: PlanLatent) -> int:
    """A latent's place, from 1, in the falling order of silences."""
    return signal.falling.index(latent) + 1 if signal.falling else 0


def _pool(number: int, signal: PlanSignal, given: Parameters) -> str:
    mine = f"FILTER (WHERE signal = {number})"
    if not signal.largest:
        return f"CAST(sum(share) {mine} AS BIGINT) AS s{number}"
    if signal.falling:
        # of the active latents' places in the falling order of silences, those that stand at their
        # own number are the ones before the first silent latent
        silences = given.array([x.silence for x in signal.falling], "BIGINT")
        before = f"len(list_filter(list_sort(list(place) {mine}), lambda p, i: p = i))"
        return f"greatest(max(share) {mine}, {silences}[1 + {before}]) AS s{number}"
    silent = f"CASE WHEN count(*) {mine} < {len(signal.latents)} THEN 0 END"
    return f"greatest(max(share) {mine}, {silent}) AS s{number}"


def _valued(plan: Plan, given: Parameters, *, laid_out: bool) -> str:
    covered = "p.covered" if laid_out else "p.token <= r.last_token"
    values: list[str] = []
    for number, signal in enumerate(plan.signals):
        if not signal.resolved:
            values.append(f"CAST(NULL AS BIGINT) AS v{number}")
            continue
        silent = given.integer(signal.constant)
        value = f"{silent} + coalesce(s.s{number}, 0)"
        if signal.falling:
            value = f"coalesce(s.s{number}, {silent})"
        values.append(f"CASE WHEN {covered} THEN {value} END AS v{number}")
    pooled = (
        "\n  LEFT JOIN pooled s ON s.token = p.token"
        if any(x.resolved for x in plan.signals)
        else ""
    )
    kept = ["p.prompt", "p.frame", "p.token", "p.role", "p.epos"]
    reach = "" if laid_out else " ASOF LEFT JOIN reach r ON p.token >= r.first_token"
    return f"SELECT {columns([*kept, *values])}\n  FROM placed p{reach}{pooled}"


def _gathered(plan: Plan, given: Parameters, source: str) -> str:
    made = ["prompt", "frame", "count(*) AS eligible", *gathered_columns(plan, Extent(), given)]
    if plan.frame is Frame.TOKEN:
        made.append("min(token) AS token")
    return f"SELECT {columns(made)}\n  FROM {source}\n  GROUP BY prompt, frame"


def _complete(plan: Plan, found: Sequence[str]) -> str:
    """Every frame, the empty ones too, with what its windows were found to be."""
    if plan.frame is Frame.TOKEN:  # none is empty
        return _found_in("SELECT g.*", "FROM gathered g", found, "g")
    counts = [f"coalesce(g.n{j}, 0) AS n{j}" for j, _ in Extent().aggregates(plan)]
    replaced = f" REPLACE ({', '.join(counts)})" if counts else ""
    kept = f"SELECT f.prompt, f.frame, g.* EXCLUDE (prompt, frame){replaced}"
    frames = "FROM frames f LEFT JOIN gathered g ON g.prompt = f.prompt AND g.frame = f.frame"
    return _found_in(kept, frames, found, "f")


def _found_in(kept: str, frames: str, found: Sequence[str], of: str) -> str:
    kept += "".join(f", {name}.* EXCLUDE (prompt, frame)" for name in found)
    joins = "".join(
        f"\n  LEFT JOIN {name} ON {name}.prompt = {of}.prompt AND {name}.frame = {of}.frame"
        for name in found
    )
    return f"{kept}\n  {frames}{joins}"


def _result(judged: str, plan: Plan) -> str:
    reasons = " ".join(f"WHEN {r.rank} THEN '{r.value}'" for r in Reason)
    verdicts = "WHEN TRUE THEN 'true' WHEN FALSE THEN 'false'"
    chosen = [
        "j.prompt",
        "CAST(j.frame AS INTEGER) AS frame",
        f"CASE j.verdict {verdicts} ELSE 'unknown' END AS verdict",
        f"CASE WHEN j.verdict IS NULL THEN CASE j.rank {reasons} END END AS reason",
        "CAST(CASE WHEN j.verdict THEN j.fires END AS INTEGER) AS at",
        f"CASE WHEN j.verdict THEN {'j' if plan.frame is Frame.TOKEN else 'p'}.token END AS token",
        "j.score",
    ]
    if plan.frame is Frame.TOKEN:
        return f"SELECT {columns(chosen)}\nFROM {judged} j\nORDER BY j.prompt, j.frame"
    same = "p.prompt = j.prompt AND p.frame = j.frame AND p.epos = j.fires"
    return (
        f"SELECT {columns(chosen)}\n"
        f"FROM {judged} j LEFT JOIN placed p ON {same}\nORDER BY j.prompt, j.frame"
    )
