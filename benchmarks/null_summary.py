"""What the random latents of `confirm_null.py` came to: rates, and whether p is uniform."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from scipy.stats import kstest

from auditkit.core.confirmations import CausalVerdict
from auditkit.core.statistics import binomial_upper_bound

LEVEL = 0.05
MATCHED = " p_latents"
TESTS = {
    "steering p": "steering, p = max of the two",
    "steering p_sign": "steering, sign flip over prompts alone",
    "steering p_rank": "steering, rank among all kinds of controls alone",
    "steering p_latents": "steering, rank among matched latents alone",
    "ablation p": "ablation, p = max of the two",
    "ablation p_sign": "ablation, sign flip over prompts alone",
    "ablation p_rank": "ablation, rank among all kinds of controls alone",
    "ablation p_latents": "ablation, rank among matched latents alone",
}


def summarise_rows(
    rows: Sequence[dict[str, Any]], ablated: Collection[int], *, hits: int
) -> dict[str, Any]:
    """Rate of confirmations with its bound, and Kolmogorov–Smirnov tests of every p-value.

    `hits` is the number of controls at which a test stops early. `ablated` are the latents that
    were ablated whatever their steering came to: beyond them ablation ran only where steering had
    passed, and those are no sample.
    """
    verdicts = [row["verdict"] for row in rows]
    confirmed = verdicts.count(CausalVerdict.CONFIRMED.value)
    below = [r for r in rows if r.get("steering p", 1.0) < LEVEL]
    uniform: dict[str, Any] = {}
    for key, title in TESTS.items():
        sample = [r for r in rows if r["latent"] in ablated or not key.startswith("ablation")]
        values = np.array([r[key] for r in sample if key in r])
        if len(values):
            uniform[key] = {"what": title, **_uniformity(values)}
        if len(values) and key.endswith(MATCHED):
            spread = randomised(sample, key, hits=hits)
            uniform[f"{key}, randomised"] = {
                "what": f"{title}, spread over its steps at random",
                **_uniformity(spread),
            }
    return {
        "unit": "share of random live latents confirmed",
        "n": len(rows),
        "confirmed": confirmed,
        "rate": confirmed / len(rows),
        "95% upper bound": binomial_upper_bound(confirmed, len(rows)),
        "steering below 0.05": len(below),
        "of those, ablation could be run": sum("ablation p" in r for r in below),
        "verdicts": {v: verdicts.count(v) for v in sorted(set(verdicts))},
        "uniformity": uniform,
        "controls per steering test, mean": float(
            np.mean([r["steering controls"] for r in rows if "steering controls" in r])
        ),
        "CPU seconds": round(sum(r["cpu_seconds"] for r in rows), 1),
        "latents": list(rows),
    }


def randomised(
    rows: Sequence[dict[str, Any]], key: str, *, hits: int, seed: int = 0
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The p-values `key`, each drawn between itself and the next smaller one that it could be.

    A rank p comes in steps, hits/l after an early end and (1 + g)/(1 + K) without one, so that it
    is uniform only at the steps themselves; this is uniform throughout, where the null holds.
    """
    draw, count = np.random.default_rng(seed), key.replace(MATCHED, " latents")
    found: list[float] = []
    for row in rows:
        if key not in row:
            continue
        p, last = row[key], row[count] + 1
        early = p > hits / last + 1e-12
        below = hits / (round(hits / p) + 1) if early else p - 1 / last
        found.append(float(draw.uniform(below, p)))
    return np.array(found)


def null_text(result: dict[str, Any]) -> str:
    """The Markdown page of the result."""
    rows = [
        f"| {u['what']} | {u['n']} | {u['at most 0.05']:.1%} | {u['median']:.2f} | "
        f"{u['KS distance']:.3f} | {u['KS p']:.2g} | {u['KS p, too many small']:.2g} |"
        for u in result["uniformity"].values()
    ]
    verdicts = ", ".join(f"{v} {n}" for v, n in result["verdicts"].items())
    lexica = ", ".join(sorted({r["lexicon"] for r in result["latents"]}))
    return f"""# Random latents through the causal test

Written by `python benchmarks/confirm.py --null {result["n"]} --threads 1 --json
benchmarks/results/confirm-null.json`, which holds every latent's numbers. Model
{result["model"].rsplit("/", 1)[-1]}, SAE {result["sae"]}: {result["n"]} live latents drawn at
random (of {result["live latents"]}; matched controls from a pool of {result["pool"]} drawn with
them), each tested as a rule of its own on one of the lexica {lexica} in turn.
{result["CPU seconds"] / 60:.1f} minutes of CPU time on one thread;
{result["controls per steering test, mean"]:.0f} controls per steering test on average, for the
drawing ends once {result["settings"]["futility_hits"]} have done as much as the target.

**{result["confirmed"]} of {result["n"]} confirmed: {result["rate"]:.1%}, 95% upper bound
{result["95% upper bound"]:.1%}** (at most 5% is allowed). Steering p below 0.05:
{result["steering below 0.05"]}, of which {result["of those, ablation could be run"]} fire on enough
texts to be ablated. Verdicts: {verdicts}. Damage was not measured, which refuses no latent and so
can only raise the rate.

Kolmogorov–Smirnov against the uniform law, two-sided, and one-sided against too many *small*
p-values, which alone would be a fault:

| p-value | n | at most 0.05 | median | KS distance | KS p | KS p, too many small |
| --- | --- | --- | --- | --- | --- | --- |
{chr(10).join(rows)}

How to read it. The sign flip asks whether this direction differs from the *average* control on
these prompts. Every direction has an effect of its own, so of a random one that is mostly true in
one sense or the other, and its p-values heap up at both ends: alone it would confirm random
latents. The rank among matched latents asks whether the direction stands out among its like: that
is the null hypothesis here, and that p-value has to be uniform: in steps, for a test that stops
early has p = hits/drawn, and throughout once it is spread over its step at random. The rank among
all kinds takes the worst of three z-scores, and p is the larger of sign flip and rank, so both lean
to large values by design: not uniform, and on the safe side.
"""


def _uniformity(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
    """Two-sided, and against p-values that are too small, which alone would be a fault."""
    both = kstest(values, "uniform")
    small = kstest(values, "uniform", alternative="greater")
    return {
        "n": len(values),
        "at most 0.05": float((values <= LEVEL).mean()),
        "median": float(np.median(values)),
        "KS distance": float(both.statistic),
        "KS p": float(both.pvalue),
        "KS p, too many small": float(small.pvalue),
    }
