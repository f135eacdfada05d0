"""`rules.lock.json`: an exact round trip, stable bytes, clear refusals."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditkit.core.errors import InvalidInput
from auditkit.core.identity import ModelIdentity, SaeIdentity
from auditkit.core.locks import (
    ConfirmPlan,
    DetectorScore,
    Intervention,
    Lock,
    LockedLatent,
    NotCalibrated,
    Scope,
    Unit,
)
from auditkit.core.measured import Interval, Measured, NotMeasured
from auditkit.core.prompts import Role
from auditkit.core.recordings import Provenance
from auditkit.core.tokens import TokenMask
from auditkit.rules import parse_lock, read_lock, render_lock, write_lock
from tests.locked import make_rule, make_signal
from tests.unit.rules.rules_worlds import RandomRules, calibrated_at

MODEL = ModelIdentity(
    name="tiny",
    weights_sha256="ab" * 32,
    architecture="llama",
    dtype="float32",
    quantisation=None,
    chat_template_sha256=None,
    n_layers=2,
    d_model=8,
    vocabulary=32,
)
SAE = SaeIdentity(
    name="planted",
    weights_sha256="cd" * 32,
    architecture="topk",
    hook_point="blocks.1.hook_resid_post",
    d_in=8,
    d_sae=16,
    dtype="float32",
    k=4,
    normalize_activations="none",
    apply_b_dec_to_input=True,
    rescale_acts_by_decoder_norm=False,
    model_name=None,
)
PROVENANCE = Provenance(
    auditkit="0.1.0", libraries=(("duckdb", "1.5.6"),), git_commit=None, git_dirty=None
)
SCORE = DetectorScore(
    detector="rule",
    auroc=Measured(value=0.91, n=200, interval=Interval(low=0.88, high=0.94)),
    positives=100,
    negatives=100,
)
PLAN = ConfirmPlan(
    name="dose",
    intervene=Intervention(op="steer", signal="a", doses=(-1.0, 0.5), unit=Unit.FMAX),
    metric="lexicon_logodds",
    target="lexicon/refusal",
    contrast="lexicon/compliance",
    direction="increase",
    monotonic=True,
    q=0.05,
)


def make_lock(**changes: Any) -> Lock:
    rule = make_rule(
        "max(a) >= calibrated and x",
        let=(("x", "count(a @user > 0.1) >= 2"),),
        calibration=calibrated_at(0.1 + 0.2),
        scope=Scope(roles=(Role.USER, Role.TEXT), skip_first=1),
    )
    rule = replace(rule, scores=(SCORE,), confirm=(PLAN,), notes=("“quoted”\n<b>",))
    lock = Lock(
        model=MODEL,
        sae=SAE,
        rules=(rule,),
        masked=TokenMask.BOS | TokenMask.HIGH_NORM,
        high_norm=123.456,
        provenance=PROVENANCE,
    )
    return replace(lock, **changes)


def test_a_lock_comes_back_equal_and_with_the_same_bytes(tmp_path: Path) -> None:
    lock = make_lock()
    path = tmp_path / "rules.lock.json"
    write_lock(lock, path)
    assert read_lock(path) == lock
    assert path.read_text(encoding="utf-8") == render_lock(lock) == render_lock(read_lock(path))
    assert [p.name for p in tmp_path.iterdir()] == ["rules.lock.json"]


def test_random_rules_come_back_equal() -> None:
    made = RandomRules(random.Random(4))
    lock = make_lock(rules=tuple(made.rule() for _ in range(60)), masked=TokenMask.NONE)
    assert parse_lock(render_lock(lock)) == lock


@pytest.mark.parametrize(
    "calibration", [None, NotCalibrated(reason="12 frames", frames=12, needs_more=287)]
)
def test_missing_is_a_value_in_a_lock(calibration: NotCalibrated | None) -> None:
    unresolved = make_signal("a", unresolved="no latent reaches min_score 0.85")
    rule = make_rule("max(a) > 1", signals=(unresolved,), calibration=calibration)
    missing = replace(SCORE, auroc=NotMeasured("one class only"))
    lock = make_lock(rules=(replace(rule, scores=(missing,)),), high_norm=None)
    assert parse_lock(render_lock(lock)) == lock


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_comes_back_to_the_bit(value: float) -> None:
    signal = make_signal("a", LockedLatent(latent=1, weight=value))
    lock = make_lock(rules=(make_rule("max(a) > 1", signals=(signal,)),))
    back = parse_lock(render_lock(lock)).rules[0].signals[0].latents[0].weight
    assert struct.pack("d", back) == struct.pack("d", value)


def test_a_number_that_is_not_finite_is_never_written() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        render_lock(make_lock(high_norm=float("nan")))


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    plain = json.loads(render_lock(make_lock()))
    change(plain)
    return json.dumps(plain)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x.json:1:1: not valid JSON"),
        (render_lock(make_lock())[:200], r"x.json:\d+:\d+: not valid JSON"),
        ("[]", "its format is None"),
        (edited(lambda p: p.update(format="auditkit-lock/2")), "newer than this auditkit's"),
        (edited(lambda p: p.update(format="auditkit-suite/1")), "'auditkit-suite/1', not"),
        (edited(lambda p: p.update(extra=1)), "extra"),
        (edited(lambda p: p["rules"][0].update(extra=1)), r"rules.0.extra: unknown key"),
        (edited(lambda p: p["rules"][0]["scope"].update(x=1)), r"rules.0.scope.x: unknown key"),
        (edited(lambda p: p["rules"][0].pop("condition")), r"rules.0.condition: Field required"),
        (edited(lambda p: p["rules"][0].update(rev="1")), r"rules.0.rev: Input should be a valid"),
        (edited(lambda p: p.update(masked=["ALL"])), r"masked.0: Input should be 'BOS'"),
        (render_lock(make_lock()).replace("123.456", "NaN"), "NaN is not a finite number"),
        (render_lock(make_lock()).replace('"rev": 1', '"rev": 1, "rev": 2'), "'rev' stands twice"),
    ],
)
def test_a_lock_that_is_not_one_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        parse_lock(text, "x.json")


def test_places_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere.json: the lock cannot be read: No such file"):
        read_lock(tmp_path / "nowhere.json")
    with pytest.raises(InvalidInput, match="the lock cannot be written"):
        write_lock(make_lock(), tmp_path / "no" / "rules.lock.json")
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="not UTF-8"):
        read_lock(tmp_path / "bytes.json")
