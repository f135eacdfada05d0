"""How often random live latents of the real model come out confirmed, and whether p is uniform.

Run by `python benchmarks/confirm.py --null 200`. Every random latent goes through `confirm_rule` as
a rule of its own, with the lexica of the library in turn. What makes it affordable, and which way
each choice leans:

- short: twelve openings, six prompts to ablate on, no written replies;
- controls are drawn from a pool of live latents that the targets belong to, and norms are snapped
  to powers of 2, so that targets share most of their controls' trials;
- damage is not measured, so no latent is refused for it: this can only raise the rate of false
  confirmations;
- ablation runs for the first `--ablated` latents, whose p-values are looked at, and for every
  latent whose steering test comes below 0.05; another latent cannot be confirmed.

Stopped and started again it goes on where it was: results lie in `--state`, a folder.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from null_summary import LEVEL, summarise_rows

from auditkit.confirm import (
    ConfirmInputs,
    ConfirmSettings,
    ControlPool,
    LatentTable,
    RawConfirmation,
    confirm_rule,
    finish_verdicts,
)
from auditkit.confirm.ablation import cut
from auditkit.confirm.analysis import TrialTable, sequential_rank_p
from auditkit.confirm.prepared import editable_tokens
from auditkit.core.confirmations import Arm, Trial
from auditkit.core.measured import Measured
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.core.statistics import rank_p_value
from auditkit.models import LanguageModel
from auditkit.pipeline.latent_rules import NamedLatents, rule_on_latents
from auditkit.saes import SparseAutoencoder, load_sae
from auditkit.store import open_store
from auditkit.suites import Lexicon, library_root, load_lexicon, load_suite

POOL = 400
SEED = 0
SETTINGS = ConfirmSettings(
    prompts=12,
    control_prompts=12,
    ablation_prompts=6,
    ablation_tokens=8,
    band_controls=0,
    damage_texts=0,
    generation=False,
    ladder=2.0,
)


@dataclass(frozen=True)
class NullWorld:
    """The model, its SAE, the latents to try, and what every test shares."""

    model: LanguageModel
    sae: SparseAutoencoder
    targets: tuple[int, ...]
    table: LatentTable
    live: int
    lexica: tuple[Lexicon, ...]
    neutral: tuple[Prompt, ...]
    texts: tuple[Prompt, ...]
    fires: np.ndarray[Any, np.dtype[np.bool_]]


def null_rate(
    n: int, *, ablated: int, model: LanguageModel, sae: Path, store: Path, state: Path
) -> dict[str, Any]:
    """Try `n` random live latents, those on record excepted, and sum up."""
    world = make_world(n, model, load_sae(str(sae)), store)
    state.mkdir(parents=True, exist_ok=True)
    rows_file, effects_file = state / "latents.jsonl", state / "effects.npz"
    kept = rows_file.read_text().splitlines() if rows_file.exists() else []
    rows = [json.loads(line) for line in kept]
    ranks = {latent: place for place, latent in enumerate(world.targets)}
    rows = [r for r in rows if r["ablation asked"] or ranks[r["latent"]] >= ablated]
    done = {row["latent"] for row in rows}
    pool = ControlPool()
    _load_effects(pool, effects_file)
    for place, latent in enumerate(world.targets):
        if latent in done:
            continue
        start = time.process_time()
        row = try_latent(world, latent, place, pool, ablate=place < ablated)
        row["cpu_seconds"] = round(time.process_time() - start, 3)
        rows.append(row)
        with rows_file.open("a") as file:
            file.write(json.dumps(row) + "\n")
        if len(rows) % 10 == 0:
            _save_effects(pool, effects_file)
            print(f"{len(rows)} of {n}", flush=True)
    # A row that was asked for again, with ablation this time, stands later in the file.
    latest = {row["latent"]: row for row in rows}
    found = [latest[k] for k in world.targets if k in latest]
    return {
        "model": world.model.identity.name,
        "sae": world.sae.config.name,
        "live latents": world.live,
        "pool": POOL,
        "settings": {f: getattr(SETTINGS, f) for f in SETTINGS.__slots__},
        **summarise_rows(found, world.targets[:ablated], hits=SETTINGS.futility_hits),
    }


def make_world(n: int, model: LanguageModel, sae: SparseAutoencoder, store: Path) -> NullWorld:
    """Draw the pool and the targets, and find where the targets fire."""
    with open_store(store) as opened:
        own = [r.id for r in opened.recordings() if r.sae.digest == sae.identity.digest]
        stats = opened.latent_stats(opened.measure_latent_stats(sorted(own)))
    rows = {
        name: stats.column(name).to_numpy(zero_copy_only=False)
        for name in ("latent", "density", "mean", "q99")
    }
    live = np.asarray(rows["latent"])[stats.column("fires").to_numpy() > 0]
    drawn = np.random.default_rng(SEED).permutation(live)[:POOL]
    whole = LatentTable.from_rows(
        sae.config.d_sae, {k: np.nan_to_num(np.asarray(v, float)) for k, v in rows.items()}
    )
    inside = np.isin(np.arange(sae.config.d_sae), drawn)
    table = LatentTable(
        density=whole.density * inside, mean=whole.mean * inside, q99=whole.q99 * inside
    )
    texts = [_plain(p) for p in load_suite("builtin/benign-chat").prompts]
    return NullWorld(
        model=model,
        sae=sae,
        targets=tuple(int(k) for k in drawn[:n]),
        table=table,
        live=len(live),
        lexica=tuple(
            load_lexicon(f"lexicon/{path.stem}")
            for path in sorted((library_root() / "lexicons").glob("*.yaml"))
        ),
        neutral=tuple(_plain(p) for p in load_suite("builtin/neutral-openings").prompts),
        texts=tuple(texts),
        fires=_where_they_fire(model, sae, texts),
    )


def try_latent(
    world: NullWorld, latent: int, place: int, pool: ControlPool, *, ablate: bool
) -> dict[str, Any]:
    """One latent through the causal test; p-values, verdict and size of what was run."""
    lexicon = world.lexica[place % len(world.lexica)]
    row = _confirm(world, latent, lexicon, pool, ablate=ablate)
    if not ablate and row.get("steering p", 1.0) < LEVEL:
        # The trials of the steering test are in the pool.
        row = _confirm(world, latent, lexicon, pool, ablate=True)
    return row


def _confirm(
    world: NullWorld, latent: int, lexicon: Lexicon, pool: ControlPool, *, ablate: bool
) -> dict[str, Any]:
    firing = [t for t, f in zip(world.texts, world.fires[:, latent], strict=True) if f]
    inputs = ConfirmInputs(
        neutral=world.neutral,
        positive=tuple(firing[: SETTINGS.ablation_prompts]) if ablate else (),
        negative=(),
        benign=(),
        lexicon=lexicon,
        other_lexicons=tuple(x for x in world.lexica if x.name != lexicon.name),
        latents=world.table,
    )
    rule = rule_on_latents(NamedLatents(parts=((latent, 1.0),)), f"lexicon/{lexicon.name}", q=LEVEL)
    trials: list[Trial] = []
    raw = confirm_rule(
        world.model,
        world.sae,
        rule,
        rule.confirm[0],
        inputs,
        settings=SETTINGS,
        pool=pool,
        trial_sink=trials.extend,
    )
    verdict = finish_verdicts([harmless(raw)])[0]
    row: dict[str, Any] = {
        "latent": latent,
        "lexicon": lexicon.name,
        "verdict": verdict.verdict.value,
        "why": verdict.why,
        "ablation asked": ablate,
        "prompts it fires on": len(firing),
    }
    table = TrialTable.of(trials)
    for name, test in (("steering", raw.steering), ("ablation", raw.ablation)):
        if test is None:
            continue
        dose = test.dose or 0.0
        row |= {
            f"{name} p": test.p,
            f"{name} p_sign": test.p_sign,
            f"{name} p_rank": test.p_rank,
            f"{name} p_latents": _latents_alone(table, test.op, dose, 1 if dose else -1),
            f"{name} effect": test.effect.value if isinstance(test.effect, Measured) else None,
            f"{name} controls": test.controls,
            f"{name} latents": len(_matched(table, test.op, dose)),
        }
    return row


def harmless(raw: RawConfirmation) -> RawConfirmation:
    """The same numbers, the damage that was not measured taken as none: no latent is refused."""
    none = Measured(value=0.0, n=1)
    return replace(raw, damage_kl=none, damage_budget=none)


def _matched(table: TrialTable, op: str, dose: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Mean effects of the matched latents, in the order of drawing."""
    prompts = table.common_prompts(op, dose)
    return table.controls(op, dose, prompts)[Arm.LATENT].mean(axis=1)


def _latents_alone(table: TrialTable, op: str, dose: float, sign: int) -> float:
    """The rank among the matched latents, without any other kind of control."""
    own = table.own(Arm.TARGET, op, dose)
    effect = sign * float(np.mean([own[p] for p in table.common_prompts(op, dose)]))
    means = sign * _matched(table, op, dose)
    stopped = sequential_rank_p(effect, means, SETTINGS.futility_hits)
    return rank_p_value(effect, means) if stopped is None else stopped


def _where_they_fire(
    model: LanguageModel, sae: SparseAutoencoder, texts: Sequence[Prompt]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """[text, latent]: whether the latent fires on the text's first tokens."""
    fires = np.zeros((len(texts), sae.config.d_sae), dtype=bool)
    rendered = [model.render(t) for t in texts]
    short = [cut(t, min(len(t), SETTINGS.ablation_tokens + 1)) for t in rendered]
    for start in range(0, len(short), 32):
        some = short[start : start + 32]
        x = model.capture(model.pad(some), [sae.hook_point])[sae.hook_point]
        for row, tokens in enumerate(some):
            content = torch.tensor(editable_tokens(tokens))
            active = sae.encode(x[row, : len(tokens)][content]).to_dense() > 0
            fires[start + row] = active.any(dim=0).numpy()
    return fires


def _plain(prompt: Prompt) -> Prompt:
    text = Message(role=Role.TEXT, content=prompt.messages[-1].content)
    return replace(prompt, messages=(text,))


def _save_effects(pool: ControlPool, file: Path) -> None:
    keys = list(pool.effects)
    half = file.with_name("half-" + file.name)
    np.savez(half, keys=json.dumps(keys), effects=np.stack([pool.effects[k] for k in keys]))
    half.replace(file)


def _load_effects(pool: ControlPool, file: Path) -> None:
    if file.exists():
        with np.load(file) as kept:
            for key, effect in zip(json.loads(str(kept["keys"])), kept["effects"], strict=True):
                pool.effects[(key[0], key[1], key[2])] = effect
