"""Is what the monitor says what recording and evaluating the same tokens says?

    python benchmarks/monitor_equality.py [--prompts 1008] [--batch 16] [--new-tokens 8]
                                          [--work FILE] [--json FILE] [--markdown FILE]

Prompts of all shipped suites, in left-padded batches, each generated under watch in one of the
ways of MODES: greedy, sampled, beams, chunked prefill, auditkit's own decoding; with the prompts'
roles given or derived from the chat template. The rules are the shipped lock's and as many of
every kind (latching or not, all frames and scopes) whose thresholds lie where latents are active.
Each reply is then appended to its prompt, recorded by one plain right-padded pass into a store,
and evaluated in SQL. Compared, for every rule and frame: truth, reason, firing token.

Every finished batch is a line of the work file; a run that is started again goes on from there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from auditkit.core.fingerprint import fingerprint
from auditkit.core.locks import Frame, Lock, Scope
from auditkit.core.measured import Measure, Measured
from auditkit.core.prompts import Prompt, Role, Suite
from auditkit.core.recordings import RecordingPlan
from auditkit.core.tokens import TokenizedPrompt
from auditkit.findings import evaluate_lock
from auditkit.models import LanguageModel, load_model
from auditkit.monitor import Monitor, RowResult
from auditkit.recording import describe_recording
from auditkit.recording.conversations import Conversation, batches_of
from auditkit.recording.encoding import encode_batch
from auditkit.recording.rows import to_rows
from auditkit.rules import read_lock
from auditkit.saes import SparseAutoencoder, load_sae
from auditkit.store import TOKENS_PER_PROMPT, open_store
from auditkit.suites import library_root, load_suite
from benchmarks.monitor import SHIPPED_SAE, SMOLLM2
from benchmarks.monitor_equality_markdown import to_markdown
from benchmarks.monitor_locks import PROVENANCE, build_lock, live_latents

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SHIPPED_LOCK = ROOT / "reports" / "smollm2" / "rules.lock.json"
HIGH_NORM_FACTOR = 10.0
TOOL = (Role.TOOL,)
LONGEST = 52
"""Tokens of a prompt with its template: short ones, so that a thousand are affordable."""
MODES: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "sampled": {"do_sample": True, "temperature": 1.0},
    "beams": {"do_sample": False, "num_beams": 2},
    "chunked prefill": {"do_sample": False, "prefill_chunk_size": 16},
    "own decoding": {},
}


@dataclass(frozen=True)
class Bench:
    """Everything a batch needs."""

    model: LanguageModel
    sae: SparseAutoencoder
    lock: Lock
    plan: RecordingPlan
    new_tokens: int


def questions(model: LanguageModel, count: int) -> list[Prompt]:
    """`count` short prompts, taken from all suites in turn.

    Every other prompt with an answer keeps it, and the model goes on after it.
    """
    folder = library_root() / "suites"
    names = sorted({path.stem for path in folder.iterdir() if path.suffix in (".yaml", ".jsonl")})
    columns = [_opened(load_suite(f"builtin/{name}"), name) for name in names]
    longest = max(len(column) for column in columns)
    mixed = [column[i] for i in range(longest) for column in columns if i < len(column)]
    chosen: list[Prompt] = []
    for prompt in mixed:
        if len(chosen) < count and len(model.render(prompt, generation_prompt=True)) <= LONGEST:
            chosen.append(prompt)
    return chosen


def _opened(suite: Suite, name: str) -> list[Prompt]:
    opened: list[Prompt] = []
    for number, prompt in enumerate(suite.prompts):
        messages = prompt.messages
        if messages[-1].role is Role.ASSISTANT and len(messages) > 1 and number % 2:
            messages = messages[:-1]
        opened.append(replace(prompt, id=f"{name}/{prompt.id}", messages=messages))
    return opened


def equality_lock(
    model: LanguageModel, sae: SparseAutoencoder, shipped: Lock, prompts: Sequence[Prompt]
) -> Lock:
    """The shipped rules, 24 over latents that are live on some of the prompts, and two that can
    only be unknown."""
    batch = model.pad([model.render(p, generation_prompt=True) for p in prompts[:48]])
    x = model.capture(batch, [sae.hook_point])[sae.hook_point][batch.attention]
    latents = sae.encode(x)
    more = build_lock(
        model.identity,
        sae,
        live_latents(latents, 288, least=8),
        rules=24,
        level=float(latents.values.quantile(0.6)),
        assistant_only=False,
    )
    unheard = replace(
        more.rules[1], id="benchmark.unheard", frame=Frame.CONVERSATION, scope=Scope(roles=TOOL)
    )
    missing = replace(unheard.signals[0], latents=(), unresolved="no such label")
    unbound = replace(more.rules[0], id="benchmark.unbound", signals=(missing,))
    return replace(shipped, rules=(*shipped.rules, *more.rules, unheard, unbound))


def generate(
    bench: Bench, tokens: Sequence[TokenizedPrompt], mode: str, *, seed: int, given: bool
) -> tuple[RowResult, ...]:
    """The results of one batch generated under watch."""
    model, batch = bench.model, bench.model.pad(tokens, side="left")
    monitor = Monitor(model, [(bench.sae, bench.lock)])
    torch.manual_seed(seed)
    with monitor.request(prompts=tokens if given else None) as request:
        if mode == "own decoding":
            model.generate(batch, max_new_tokens=bench.new_tokens, temperature=0.7, seed=seed)
        else:
            model.network.generate(
                batch.ids,
                attention_mask=batch.attention.long(),
                max_new_tokens=bench.new_tokens,
                pad_token_id=model.pad_id,
                **MODES[mode],
            )
    return request.results()


def evaluate(
    bench: Bench, prompts: Sequence[Prompt], tokens: Sequence[TokenizedPrompt]
) -> dict[str, dict[str, Any]]:
    """Verdicts by "prompt rule frame" of recording and evaluating whole conversations."""
    suite = Suite(name="equality", title="", source="", licence="", prompts=tuple(prompts))
    recording = describe_recording(bench.model, bench.sae, suite, bench.plan, PROVENANCE)
    conversations = [
        Conversation(ordinal=n, prompt=p, tokens=t)
        for n, (p, t) in enumerate(zip(prompts, tokens, strict=True))
    ]
    with open_store(":memory:") as store:
        store.begin_recording(recording)
        for batch in batches_of(conversations):
            store.commit_batch(to_rows(encode_batch(bench.model, bench.sae, batch), recording))
        store.finish_recording(recording.id)
        findings = evaluate_lock(bench.lock, store, recording)
    return {
        f"{m.prompt_id} {m.rule_id} {m.frame}": _verdict(
            m.truth.value,
            m.reason and m.reason.value,
            None if m.token is None else m.token % TOKENS_PER_PROMPT,
            m.score,
        )
        for finding in findings
        for m in finding.matches
    }


def watched(prompts: Sequence[Prompt], results: Sequence[RowResult]) -> dict[str, dict[str, Any]]:
    """The monitor's verdicts, named alike."""
    return {
        f"{prompt.id} {a.rule_id} {a.frame}": _verdict(
            a.verdict.truth.value, a.verdict.reason and a.verdict.reason.value, a.token, a.score
        )
        for prompt, result in zip(prompts, results, strict=True)
        for a in result.verdicts
    }


def _verdict(truth: str, reason: str | None, token: int | None, score: Measure) -> dict[str, Any]:
    value = score.value if isinstance(score, Measured) else None
    return {"truth": truth, "reason": reason, "token": token, "score": value}


def compare_batch(bench: Bench, number: int, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Generate one batch under watch, evaluate the same tokens offline, compare."""
    mode, given = list(MODES)[number % len(MODES)], number // len(MODES) % 2 == 0
    tokens = [bench.model.render(p, generation_prompt=True) for p in prompts]
    results = generate(bench, tokens, mode, seed=number, given=given)
    whole = [bench.model.extend(t, r.ids) for t, r in zip(tokens, results, strict=True)]
    online, offline = watched(prompts, results), evaluate(bench, prompts, whole)
    keys = sorted(online.keys() | offline.keys())
    differences = [
        {"at": key, "monitor": online.get(key), "offline": offline.get(key)}
        for key in keys
        if _decision(online.get(key)) != _decision(offline.get(key))
    ]
    return {
        "batch": number,
        "mode": mode,
        "roles": "given" if given else "derived",
        "prompts": len(prompts),
        "new_tokens": sum(len(r.ids) for r in results),
        "tokens": sum(len(t) for t in whole),
        "frames": len(keys),
        "true": sum(v["truth"] == "true" for v in offline.values()),
        "false": sum(v["truth"] == "false" for v in offline.values()),
        "unknown": sum(v["truth"] == "unknown" for v in offline.values()),
        "largest_score_difference": max(
            (_apart(online[key], offline[key]) for key in online.keys() & offline.keys()),
            default=0.0,
        ),
        "errors": [error for r in results for error in r.errors],
        "differences": differences,
    }


def _decision(verdict: dict[str, Any] | None) -> object:
    return verdict and (verdict["truth"], verdict["reason"], verdict["token"])


def _apart(a: dict[str, Any], b: dict[str, Any]) -> float:
    if a["score"] is None or b["score"] is None:
        return 0.0
    return abs(a["score"] - b["score"]) / max(1.0, abs(b["score"]))


def run(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every batch that the work file lacks; after each, the sum of all so far."""
    torch.set_num_threads(arguments.threads)
    model, sae = load_model(SMOLLM2), load_sae(str(SHIPPED_SAE))
    prompts = questions(model, arguments.prompts)
    lock = equality_lock(model, sae, read_lock(SHIPPED_LOCK), prompts)
    assert lock.high_norm is not None, "the shipped lock has a bound on norms"
    plan = RecordingPlan(
        reference_norm=lock.high_norm / HIGH_NORM_FACTOR, high_norm_factor=HIGH_NORM_FACTOR
    )
    bench = Bench(model, sae, lock, plan, arguments.new_tokens)
    key = fingerprint([lock, [p.id for p in prompts], arguments.batch, arguments.new_tokens])
    done = read_work(arguments.work, key)
    ordered = sorted(prompts, key=lambda p: len(model.render(p)))
    batches = -(-len(ordered) // arguments.batch)
    for number in range(batches):
        if number not in done:
            done[number] = compare_batch(bench, number, ordered[number::batches])
            with arguments.work.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, **done[number]}) + "\n")
            own = done[number]
            print(
                f"batch {number + 1} of {batches}: {own['frames']} frames, "
                f"{len(own['differences'])} differ, {own['errors'] or 'no errors'}",
                file=sys.stderr,
                flush=True,
            )
            yield summarise([done[n] for n in sorted(done)], bench)
    yield summarise([done[n] for n in sorted(done)], bench)


def read_work(path: Path, key: str) -> dict[int, dict[str, Any]]:
    """Batches that an earlier run of the same plan has finished."""
    if not path.is_file():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {line["batch"]: line for line in lines if line["key"] == key}


def summarise(batches: Sequence[dict[str, Any]], bench: Bench) -> dict[str, Any]:
    """Totals, totals by mode, and every difference with its rule and threshold."""
    conditions = {rule.id: rule.condition for rule in bench.lock.rules}
    cuts = {r.id: getattr(r.calibration, "threshold", None) for r in bench.lock.rules}
    counted = ("prompts", "new_tokens", "tokens", "frames", "true", "false", "unknown")
    differences = [
        {
            "mode": b["mode"],
            "condition": conditions[d["at"].split()[1]],
            "threshold": cuts[d["at"].split()[1]],
            **d,
        }
        for b in batches
        for d in b["differences"]
    ]
    modes = {
        mode: {
            **{name: sum(b[name] for b in batches if b["mode"] == mode) for name in counted},
            "differ": sum(len(b["differences"]) for b in batches if b["mode"] == mode),
        }
        for mode in MODES
    }
    total = {name: sum(b[name] for b in batches) for name in counted}
    return {
        "benchmark": "monitor_equality",
        "model": bench.model.identity.name,
        "sae": bench.sae.config.name,
        "rules": len(conditions),
        "total": {**total, "differ": len(differences)},
        "equal_share": 1 - len(differences) / total["frames"],
        "largest_score_difference": max(b["largest_score_difference"] for b in batches),
        "modes": modes,
        "errors": sorted({error for b in batches for error in b["errors"]}),
        "differences": differences,
    }


def main() -> None:
    """Parse arguments, run, write Markdown and JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prompts", type=int, default=1008)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--new-tokens", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "monitor-equality.jsonl")
    parser.add_argument("--json", type=Path, default=RESULTS / "monitor-equality.json")
    parser.add_argument("--markdown", type=Path, default=RESULTS / "monitor-equality.md")
    arguments = parser.parse_args()
    arguments.work.parent.mkdir(parents=True, exist_ok=True)
    text = ""
    for result in run(arguments):
        text = to_markdown(result)
        arguments.markdown.write_text(text, encoding="utf-8")
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(text)


if __name__ == "__main__":
    main()
