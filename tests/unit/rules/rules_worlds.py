"""Random recordings and random rules, and the two evaluators run side by side on them."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import duckdb
import pyarrow as pa

from auditkit.core.locks import (
    Calibration,
    Frame,
    LockedLatent,
    LockedRule,
    LockedSignal,
    NotCalibrated,
    Pool,
    Scope,
    Unit,
)
from auditkit.core.measured import Measured, NotMeasured
from auditkit.core.prompts import Role
from auditkit.core.tokens import TokenMask
from auditkit.rules import RuleWatcher, SignalPool, TokenSignals, compile_sql, split_frames
from auditkit.rules.language.ast import (
    Aggregate,
    And,
    Calibrated,
    Compare,
    Defined,
    Difference,
    Expr,
    InRange,
    LetRef,
    Not,
    Number,
    Of,
    OfNames,
    Op,
    Or,
    Percentile,
    Quantified,
    Quantity,
    SignalRef,
    SignalStatistic,
    Then,
    TokenAnd,
    TokenCompare,
    TokenNot,
    TokenOf,
    TokenOr,
    TokenStatistic,
    TokenTest,
    Window,
    walk,
)
from auditkit.rules.language.render import render_condition
from tests.locked import make_rule, make_signal

N_LATENTS = 8
FRAMES = (*Frame, Frame.CONVERSATION, Frame.MESSAGE, Frame.EXCHANGE, Frame.PAIRED_MESSAGE)
ROLES = (Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.TOOL)
TRAPS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.5, 0.7, 1.0)


def as_float32(value: float) -> float:
    """What a FLOAT column gives back."""
    return struct.unpack("f", struct.pack("f", value))[0]


@dataclass
class Token:
    token: int
    prompt: str
    role: Role
    message: int
    mask: int
    covered: bool
    latents: dict[int, float]


@dataclass
class World:
    """One recording: prompts of tokens, and their tags."""

    recording: str
    prompts: dict[str, list[Token]]
    tags: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def twin(self, prompt: str) -> str | None:
        """The one other prompt with the same first tag `pair:…`."""

        def pair(name: str) -> str | None:
            return next((t for t in self.tags.get(name, ()) if t.startswith("pair:")), None)

        own = pair(prompt)
        others = [n for n in self.prompts if n != prompt and own is not None and pair(n) == own]
        return others[0] if len(others) == 1 else None


def random_world(rng: random.Random, recording: str, prompts: int) -> World:
    """Prompts of random turns, with masked, uncovered and silent tokens."""
    made = {}
    for ordinal in range(prompts):
        name = f"{recording}-p{ordinal:03d}"
        made[name] = list(_random_prompt(rng, name, ordinal * 1024))
    prompts_with_tokens = {k: v for k, v in made.items() if v}
    return World(recording, prompts_with_tokens, _random_tags(rng, list(prompts_with_tokens)))


def _random_tags(rng: random.Random, prompts: list[str]) -> dict[str, tuple[str, ...]]:
    """Most prompts are one of two twins; of some there are three, or one, or none is named."""
    tags: dict[str, tuple[str, ...]] = {}
    waiting, number = list(prompts), 0
    rng.shuffle(waiting)
    while waiting:
        pair, number = f"pair:{number:03d}", number + 1
        for _ in range(rng.choice((1, 2, 2, 2, 2, 2, 3))):
            if waiting:
                more = rng.choice(((), ("kind:x",), ("kind:x", "pair:000")))
                tags[waiting.pop()] = (*rng.choice(((), ("a",))), pair, *more)
    for prompt in rng.sample(prompts, min(2, len(prompts))):
        tags[prompt] = rng.choice(((), ("kind:x",)))
    return tags


def _random_prompt(rng: random.Random, name: str, first: int) -> Iterator[Token]:
    position, covered, missing = first, True, rng.choice((0.0, 0.0, 0.0, 0.1, 0.4, 1.0))
    for message in range(rng.randint(1, 5)):
        role = rng.choice(ROLES)
        for _ in range(rng.choice((0, 1, 1, 2, 3, 5))):
            covered = rng.random() >= missing if rng.random() < 0.6 else covered and missing < 1
            values = rng.sample(range(N_LATENTS), rng.randint(0, 4))
            yield Token(
                position,
                name,
                Role.THINKING if role is Role.ASSISTANT and rng.random() < 0.1 else role,
                message,
                rng.choice((0, 0, 0, 0, 0, 1, 2, 6, 16)),
                covered,
                {k: as_float32(random_value(rng)) for k in values},
            )
            position += 1


def random_value(rng: random.Random) -> float:
    """An activation: often one that stands exactly on a threshold."""
    return rng.choice(TRAPS) if rng.random() < 0.6 else rng.uniform(0.001, 1.5)


def load_worlds(worlds: list[World]) -> duckdb.DuckDBPyConnection:
    """An in-memory database with the tables that compiled rules read."""
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    rows = [(w.recording, t) for w in worlds for p in w.prompts.values() for t in p]
    tokens = pa.table(
        {
            "recording": pa.array([r for r, _ in rows], pa.string()),
            "token": pa.array([t.token for _, t in rows], pa.int64()),
            "prompt": pa.array([t.prompt for _, t in rows], pa.string()),
            "role": pa.array([t.role.value for _, t in rows], pa.string()),
            "message": pa.array([t.message for _, t in rows], pa.int32()),
            "mask": pa.array([t.mask for _, t in rows], pa.int32()),
        }
    )
    flat = [(r, t.token, k, v) for r, t in rows for k, v in t.latents.items()]
    activations = pa.table(
        {
            "recording": pa.array([x[0] for x in flat], pa.string()),
            "token": pa.array([x[1] for x in flat], pa.int64()),
            "latent": pa.array([x[2] for x in flat], pa.int32()),
            "value": pa.array([x[3] for x in flat], pa.float32()),
        }
    )
    ranges = [r for w in worlds for r in _coverage(w)]
    coverage = pa.table(
        {
            "recording": pa.array([x[0] for x in ranges], pa.string()),
            "sae": pa.array(["sae"] * len(ranges), pa.string()),
            "first_token": pa.array([x[1] for x in ranges], pa.int64()),
            "last_token": pa.array([x[2] for x in ranges], pa.int64()),
        }
    )
    tagged = [(w.recording, p, json.dumps(w.tags.get(p, ()))) for w in worlds for p in w.prompts]
    prompts = pa.table(
        {
            name: pa.array([row[i] for row in tagged], pa.string())
            for i, name in enumerate(("recording", "prompt", "tags"))
        }
    )
    tables = {"tokens": tokens, "activations": activations, "coverage": coverage}
    for name, table in {**tables, "prompts": prompts}.items():
        connection.register("incoming", table)
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM incoming")
        connection.unregister("incoming")
    return connection


def _coverage(world: World) -> Iterator[tuple[str, int, int]]:
    for tokens in world.prompts.values():
        start = None
        for token in tokens:
            if token.covered and start is None:
                start = token.token
            if not token.covered and start is not None:
                yield (world.recording, start, token.token - 1)
                start = None
        if start is not None:
            yield (world.recording, start, tokens[-1].token)
            if tokens[-1].token > start + 1:  # ranges may overlap
                yield (world.recording, start + 1, start + 1)


def calibrated_at(threshold: float) -> Calibration:
    """A certificate with a given threshold."""
    return Calibration(
        threshold=threshold,
        target_fpr=0.01,
        confidence=0.95,
        frames=299,
        exceedances=0,
        bound=0.00997,
        suite="builtin/benign-chat",
        verified=NotMeasured("planted"),
    )


def random_signal(rng: random.Random, name: str) -> LockedSignal:
    """A signal of any pool and unit; sometimes unresolved, often with negative weights."""
    if rng.random() < 0.08:
        return make_signal(name, unresolved="no latent reaches min_score")
    numbers = rng.sample(range(N_LATENTS), rng.choice((1, 1, 1, 2, 3, 4)))
    unit = rng.choice((Unit.RAW, Unit.FMAX, Unit.FMAX, Unit.Z, Unit.BARE))
    pool = rng.choice(tuple(Pool))
    latents = []
    for number in numbers:
        weight = rng.choice((1.0, 1.0, 0.5, 1 / 3, rng.uniform(0.1, 2)))
        if unit is Unit.BARE or rng.random() < 0.1:
            weight *= rng.choice((1, -1))
        scale = 1.0 if unit is Unit.RAW or rng.random() < 0.4 else rng.uniform(0.3, 5.0)
        offset = rng.uniform(-0.5, 0.7) if unit is Unit.Z else 0.0
        latents.append(LockedLatent(latent=number, weight=weight, scale=scale, offset=offset))
    made = make_signal(name, *latents, pool=pool, unit=unit)
    return replace(made, percentiles=((99.0, rng.choice(TRAPS)), (50.0, as_float32(0.1))))


class RandomRules:
    """Random rules over the whole language: statistics, windows, sequences, roles, let, frames,
    scopes. `near`: how often an atom is a window or a sequence."""

    def __init__(self, rng: random.Random, near: float = 0.25) -> None:
        self.rng, self.near = rng, near

    def rule(self) -> LockedRule:
        rng = self.rng
        self.names = ["a", "b", "c"][: rng.randint(1, 3)]
        signals = tuple(random_signal(rng, n) for n in self.names)
        self.units = {s.name: s.unit for s in signals}
        self.lets: list[str] = []
        self.frame = rng.choice(FRAMES)
        self.in_window = self.any_role = self.globs = False
        self.calibrated = rng.random() < 0.3
        self.rising = rng.random() < 0.45
        let = []
        for name in ["xa", "xb", "y"][: rng.choice((0, 0, 1, 2, 3))]:
            let.append((name, render_condition(self.expr(1))))
            self.lets.append(name)
        self.globs = True
        certificate = calibrated_at(rng.choice(TRAPS))
        missing = NotCalibrated(reason="too few benign frames", frames=10, needs_more=289)
        scope = Scope(
            roles=tuple(rng.sample(ROLES, rng.randint(1, 3))) if rng.random() < 0.4 else (),
            skip_first=rng.choice((0, 0, 0, 1, 2)),
        )
        return make_rule(
            render_condition(self.looking(rng.randint(0, 3))),
            signals=signals,
            let=tuple(let),
            frame=self.frame,
            scope=scope,
            calibration=certificate if rng.random() < 0.8 else missing,
        )

    def looking(self, depth: int) -> Expr:
        """An expression that looks at some token."""
        while True:
            made = self.expr(depth)
            if any(isinstance(n, SignalRef) for n in walk(made)):
                return made

    def expr(self, depth: int) -> Expr:
        rng = self.rng
        if depth == 0 or rng.random() < 0.15:
            return self.atom()
        kind = rng.choice(("and", "or", "of") if self.rising else ("and", "or", "of", "not"))
        if kind == "not":
            return Not(self.expr(depth - 1))
        parts = tuple(self.expr(depth - 1) for _ in range(rng.randint(2, 3)))
        if kind == "of":
            return Of(self.count(len(parts)), parts)
        return And(parts) if kind == "and" else Or(parts)

    def count(self, n: int) -> int | str:
        choices = (*range(1, n + 1), "any", "all", "none")
        return self.rng.choice(choices[:-1] if self.rising else choices)

    def atom(self) -> Expr:
        rng = self.rng
        if self.lets and not self.in_window and rng.random() < 0.3:
            if self.globs and rng.random() < 0.4:
                patterns = ["them", *(["x*"] if len(self.lets) > 0 else [])]
                pattern = rng.choice(patterns)
                named = [n for n in self.lets if pattern == "them" or n.startswith("x")]
                return OfNames(self.count(len(named)), pattern)
            return LetRef(rng.choice(self.lets))
        if rng.random() < self.near:
            if not self.in_window and rng.random() < 0.6:
                return self.window()
            within = rng.choice((1, 1, 2, 2, 3, 5, 40))
            return Then(self.test(rng.randint(0, 1)), self.test(rng.randint(0, 1)), within)
        if rng.random() < 0.06:
            return Defined(rng.choice(self.names))
        if rng.random() < 0.2:
            quantifier = "any" if self.rising else rng.choice(("any", "all"))
            return Quantified(quantifier, self.test(rng.randint(0, 2)))
        return self.compare()

    def window(self) -> Expr:
        rng = self.rng
        self.in_window, rising = True, self.rising
        self.rising = rising and rng.random() < 0.5  # whatever is asked of a window, it latches
        self.any_role = rng.random() < 0.5
        size, depth = rng.choice((1, 2, 2, 3, 3, 4, 6, 50)), rng.choice((0, 1, 1, 1, 2))
        made = Window(size, self.looking(depth))
        self.in_window = self.any_role = False
        self.rising = rising
        return made

    def compare(self) -> Expr:
        rng = self.rng
        if rng.random() < 0.5:
            functions = ("max", "max", "rolling_mean_max")
            if not self.rising:
                functions = (*functions, "mean", "sum", "quantile", "quantile", "topk_mean")
            function = rng.choice(functions)
            argument = None
            if function == "quantile":
                argument = rng.choice((0.01, 0.1, 0.25, 0.5, 0.5, 0.9, 0.333333, 1.0))
            elif function in ("topk_mean", "rolling_mean_max"):
                argument = float(rng.choice((1, 2, 2, 3, 4, 9)))
            ref = self.signal(self.roles())
            statistic = SignalStatistic(function, ref, argument)
            return self.against(statistic, lambda: self.level(ref.name))
        functions = ("count", "run", "first")
        function = rng.choice(functions if self.rising else (*functions, "frac", "last"))
        statistic = TokenStatistic(function, self.test(rng.randint(0, 2)))
        if function == "frac":
            return self.against(statistic, lambda: Number(rng.choice((*TRAPS, 0.0))))
        return self.against(statistic, lambda: Number(float(rng.randint(0, 4))))

    def against(self, statistic: Aggregate, level: Callable[[], Quantity]) -> Expr:
        rng = self.rng
        if self.frame is Frame.PAIRED_MESSAGE and not self.in_window and rng.random() < 0.5:
            return self.difference(statistic, level)
        if not self.rising and rng.random() < 0.12:
            return InRange(statistic, level(), level())
        ops = tuple(Op)
        if self.rising:
            ops = (Op.LE, Op.LT) if statistic.function == "first" else (Op.GE, Op.GT)
        return Compare(statistic, rng.choice(ops), level())

    def difference(self, aggregate: Aggregate, level: Callable[[], Quantity]) -> Expr:
        """A comparison with a twin; thresholds near 0, where differences lie."""
        rng = self.rng
        near = (Number(0.0), Number(-0.1), Number(1.0), Number(-1.0), level(), level())
        if aggregate.function == "frac":
            near = (Number(0.0), Number(-0.5), Number(0.25), level())
        if not self.rising and rng.random() < 0.12:
            return InRange(Difference(aggregate), rng.choice(near), rng.choice(near))
        return Compare(Difference(aggregate), rng.choice(tuple(Op)), rng.choice(near))

    def test(self, depth: int) -> TokenTest:
        return self._test(depth, self.roles())

    def _test(self, depth: int, roles: tuple[Role, ...]) -> TokenTest:
        rng = self.rng
        if depth == 0:
            ref = self.signal(roles)
            return TokenCompare(ref, rng.choice(tuple(Op)), self.level(ref.name))
        kind = rng.choice(("and", "or", "of", "not"))
        if kind == "not":
            return TokenNot(self._test(depth - 1, roles))
        parts = tuple(self._test(depth - 1, roles) for _ in range(rng.randint(2, 3)))
        if kind == "of":
            return TokenOf(rng.choice((*range(1, len(parts) + 1), "any", "all", "none")), parts)
        return TokenAnd(parts) if kind == "and" else TokenOr(parts)

    def roles(self) -> tuple[Role, ...]:
        number = 0 if self.any_role else self.rng.choice((0, 0, 0, 1, 2))
        return tuple(self.rng.sample(ROLES, number))

    def signal(self, roles: tuple[Role, ...]) -> SignalRef:
        return SignalRef(self.rng.choice(self.names), roles)

    def level(self, name: str) -> Quantity:
        if self.rng.random() < 0.08:
            alike = [n for n in self.names if self.units[n] == self.units[name]]
            return Percentile(self.rng.choice(alike), self.rng.choice((99.0, 50.0, 50.0, 12.0)))
        if self.calibrated and self.rng.random() < 0.3:
            return Calibrated()
        if self.rng.random() < 0.2:
            return Number(self.rng.choice((0.0, -0.1, -0.35)))
        return Number(random_value(self.rng))


Row = tuple[str, int, str, str | None, int | None, int | None, float | None]


def run_sql(
    connection: duckdb.DuckDBPyConnection,
    rule: LockedRule,
    world: World,
    masked: TokenMask,
    break_sql: Callable[[str], str] = lambda text: text,
) -> list[Row]:
    """The compiled rule's rows."""
    compiled = compile_sql(rule, world.recording, masked=masked)
    return connection.execute(break_sql(compiled.text), list(compiled.parameters)).fetchall()


def token_values(rule: LockedRule, token: Token) -> dict[str, int | None]:
    """Every signal's value at a token."""
    values: dict[str, int | None] = {}
    for signal in rule.signals:
        if not token.covered or signal.unresolved is not None:
            values[signal.name] = None
        else:
            values[signal.name] = SignalPool(signal).value(
                token.latents.keys(), token.latents.values()
            )
    return values


def twin_frames(
    rule: LockedRule, world: World, prompt: str, masked: TokenMask
) -> list[list[TokenSignals]]:
    """The frames of a prompt's twin, each with its eligible tokens; none without a twin."""
    tokens = world.prompts.get(world.twin(prompt) or "", [])
    seen = [TokenSignals(role=t.role, values=token_values(rule, t)) for t in tokens]
    placed = [(t.role, t.message, t.mask) for t in tokens]
    return [
        [seen[i] for i in members]
        for members in split_frames(rule.frame, rule.scope, masked, placed)
    ]


def run_stream(rule: LockedRule, world: World, masked: TokenMask) -> list[Row]:
    """The stream's rows on the same tokens."""
    rows: list[Row] = []
    watcher = RuleWatcher(rule, masked)
    pools = {s.name: SignalPool(s) for s in rule.signals}
    for prompt, tokens in world.prompts.items():
        watcher.reset(twin_frames(rule, world, prompt, masked))
        outcomes = []
        for token in tokens:
            values = {
                s.name: pools[s.name].value(token.latents.keys(), token.latents.values())
                if token.covered and s.unresolved is None
                else None
                for s in rule.signals
            }
            outcomes += watcher.push(token.role, token.message, token.mask, values)
        outcomes += watcher.finish()
        early = {o.frame: o.verdict for o in outcomes if not o.final}
        for o in outcomes:
            if not o.final:
                continue
            assert early.get(o.frame, o.verdict) == o.verdict
            v = o.verdict
            rows.append(
                (
                    prompt,
                    o.frame,
                    v.truth.value,
                    v.reason.value if v.reason else None,
                    v.at,
                    None if o.token is None else tokens[o.token].token,
                    o.score.value if isinstance(o.score, Measured) else None,
                )
            )
    return rows


@dataclass
class Bench:
    """Worlds in a database, and rules to try on them."""

    worlds: list[World]
    connection: duckdb.DuckDBPyConnection
    rng: random.Random

    def cases(self, n: int) -> Iterator[tuple[LockedRule, World, TokenMask]]:
        """n random rules, each with one of the worlds and a mask."""
        made = RandomRules(self.rng)
        for number in range(n):
            masked = TokenMask(self.rng.choice((31, 31, 3, 0)))
            yield made.rule(), self.worlds[number % len(self.worlds)], masked


def make_bench(seed: int, worlds: int = 6, prompts: int = 12) -> Bench:
    """Random worlds loaded into an in-memory database."""
    rng = random.Random(seed)
    made = [random_world(rng, f"r{i}", prompts) for i in range(worlds)]
    return Bench(made, load_worlds(made), rng)
