"""The vLLM adapter against a fake of its shapes: every token lands on its request, once."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from auditkit.core.errors import InvalidInput, MismatchError, NotSupportedYet
from auditkit.core.hook_point import HookPoint, Site
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.core.tokens import TokenizedPrompt, TokenMask
from auditkit.core.verdicts import Reason, Truth
from auditkit.integrations.vllm import (
    AuditkitWorker,
    Ledger,
    PromptLayout,
    RequestVerdicts,
    RunnerMonitor,
    read_spans,
)
from auditkit.integrations.vllm.layers import find_layer, residual_stream
from auditkit.rules import RuleWatcher, SignalPool, write_lock
from auditkit.saes import write_sae
from tests.fake_vllm import FakeEngine, FakeRequest, FakeRunner
from tests.tiny import WORDS, tiny_model
from tests.tiny_sae import tiny_sae
from tests.watched import lock, rule, various_rules

MODEL, SAE = tiny_model(), tiny_sae()
LOCK = lock(MODEL, SAE, *various_rules(), high_norm=13.0)
SPECIAL = frozenset(MODEL.tokenizer.all_special_ids)
Found = dict[tuple[str, int], tuple[Truth, Reason | None, int | None]]


def rendered(n: int, *, seed: int = 0, shared: bool = False) -> list[TokenizedPrompt]:
    generator = random.Random(seed)
    opening = Message(role=Role.SYSTEM, content=" ".join(generator.choices(WORDS, k=14)))
    made: list[TokenizedPrompt] = []
    for i in range(n):
        words = " ".join(generator.choices(WORDS, k=generator.randint(2, 20)))
        turns = (Message(role=Role.USER, content=words),)
        prompt = Prompt(id=f"r{i}", messages=(opening, *turns) if shared else turns)
        made.append(MODEL.render(prompt, generation_prompt=True))
    return made


def requests(prompts: list[TokenizedPrompt], *, max_tokens: int = 6) -> list[FakeRequest]:
    return [
        FakeRequest(p.prompt_id, list(p.ids), max_tokens, PromptLayout.of(p).to_extra_args())
        for p in prompts
    ]


def watched(
    prompts: list[TokenizedPrompt], *, remember: int = 0, **settings: object
) -> tuple[dict[str, RequestVerdicts], dict[str, FakeRequest], FakeEngine]:
    runner = FakeRunner(MODEL)
    engine = FakeEngine(runner, end_ids=MODEL.end_ids, **settings)  # type: ignore[arg-type]
    monitor = RunnerMonitor(
        [(SAE, LOCK)],
        model_digest=MODEL.identity.digest,
        on_error="closed",
        remember=remember,
        special_ids=SPECIAL,
    )
    assert monitor.attach(runner) == 1
    served = requests(prompts)
    engine.run(served)
    monitor.detach()
    return {v.request: v for v in monitor.take()}, {r.req_id: r for r in served}, engine


def verdicts(found: RequestVerdicts) -> Found:
    return {
        (rule_id, o.frame): (o.verdict.truth, o.verdict.reason, o.token)
        for rule_id, o in found.verdicts
    }


def expected(prompt: TokenizedPrompt, tokens: list[int]) -> Found:
    """The rules over a plain pass through the model, without the adapter's code."""
    whole = MODEL.extend(prompt, tokens[len(prompt) : -1])
    x = MODEL.capture(MODEL.pad([whole]), [SAE.hook_point])[SAE.hook_point][0]
    latents = SAE.encode(x)
    found: Found = {}
    for r in LOCK.rules:
        watcher, pool = RuleWatcher(r, LOCK.masked), SignalPool(r.signals[0])
        outcomes = []
        for n in range(len(whole)):
            own = slice(int(latents.offsets[n]), int(latents.offsets[n + 1]))
            value = pool.value(latents.indices[own].tolist(), latents.values[own].tolist())
            mask = whole.masks[n]
            if float(x[n].norm()) > 13.0:
                mask |= TokenMask.HIGH_NORM
            outcomes += watcher.push(whole.roles[n], whole.messages[n], int(mask), {"s": value})
        for o in [*outcomes, *watcher.finish()]:
            if o.final:
                found[r.id, o.frame] = (o.verdict.truth, o.verdict.reason, o.token)
    return found


def test_the_test_model_has_tokens_on_both_sides_of_the_high_norm() -> None:
    batch = MODEL.pad(rendered(6))
    norms = MODEL.capture(batch, [SAE.hook_point])[SAE.hook_point].norm(dim=2)[batch.attention]
    assert float(norms.min()) < 13.0 < float(norms.max())


def test_flattened_batches_give_the_verdicts_of_a_plain_pass() -> None:
    prompts = rendered(10)
    found, served, _ = watched(prompts, budget=400)
    truths: set[Truth] = set()
    for prompt in prompts:
        wanted = expected(prompt, served[prompt.prompt_id].tokens)
        assert verdicts(found[prompt.prompt_id]) == wanted
        truths |= {truth for truth, _, _ in wanted.values()}
    assert truths >= {Truth.TRUE, Truth.FALSE}


def test_chunked_prefill_and_preemption_change_no_verdict() -> None:
    prompts = rendered(12, seed=1)
    found, served, engine = watched(prompts, budget=9, preemption=0.15)
    assert engine.chunked > 10
    assert engine.preempted > 5
    for prompt in prompts:
        own = found[prompt.prompt_id]
        tokens = served[prompt.prompt_id].tokens
        assert verdicts(own) == expected(prompt, tokens)
        assert (own.tokens, own.uncovered, own.errors) == (len(tokens) - 1, 0, ())


def test_tokens_from_the_prefix_cache_are_not_covered() -> None:
    prompts = rendered(8, seed=2, shared=True)
    found, served, engine = watched(prompts, prefix_cache=True)
    assert engine.served_from_cache > 40
    uncovered = [found[p.prompt_id] for p in prompts if found[p.prompt_id].uncovered]
    assert sum(v.uncovered for v in uncovered) == engine.served_from_cache
    changed = 0
    for prompt in prompts:
        wanted = expected(prompt, served[prompt.prompt_id].tokens)
        got = verdicts(found[prompt.prompt_id])
        assert got.keys() == wanted.keys()
        for key, (truth, reason, token) in got.items():
            if truth is Truth.UNKNOWN:
                changed += wanted[key][0] is not Truth.UNKNOWN
                assert reason in (Reason.NOT_COVERED, Reason.EMPTY_FRAME)
            else:  # what is said in spite of the gap is right
                assert truth is wanted[key][0]
                assert token == wanted[key][2] or truth is Truth.TRUE
    assert changed > 0


def test_a_ledger_makes_cached_prompt_tokens_known_again() -> None:
    prompts = rendered(8, seed=2, shared=True)
    found, served, engine = watched(prompts, remember=10_000, prefix_cache=True)
    assert sum(v.remembered for v in found.values()) == engine.served_from_cache > 40
    for prompt in prompts:
        own = found[prompt.prompt_id]
        assert own.uncovered == 0
        assert verdicts(own) == expected(prompt, served[prompt.prompt_id].tokens)


def test_a_ledger_that_is_too_small_forgets_and_says_so() -> None:
    prompts = rendered(8, seed=2, shared=True)
    found, _, engine = watched(prompts, remember=5, prefix_cache=True)
    covered = sum(v.remembered for v in found.values())
    assert covered + sum(v.uncovered for v in found.values()) == engine.served_from_cache
    assert covered < engine.served_from_cache


def test_a_ledger_keeps_no_more_than_its_capacity() -> None:
    from auditkit.integrations.vllm.ledger import TokenReading, first_key, next_key

    ledger, key = Ledger(10), first_key("")
    for token in range(1000):
        key = next_key(key, token)
        ledger.keep(key, TokenReading(high_norm=False, signals=()))
    assert len(ledger) == 10
    assert ledger.find(key) is not None
    assert next_key(first_key(""), 7) != next_key(first_key("lora-a"), 7)


def test_without_a_layout_rules_on_roles_stay_unknown() -> None:
    runner = FakeRunner(MODEL)
    bound = lock(MODEL, SAE, rule("reply", "any(s > 0)", *range(64), roles=(Role.ASSISTANT,)))
    monitor = RunnerMonitor([(SAE, bound)], model_digest=MODEL.identity.digest, on_error="closed")
    monitor.attach(runner)
    (prompt,) = rendered(1)
    bare = FakeRequest("bare", list(prompt.ids), 4, None)
    FakeEngine(runner, end_ids=MODEL.end_ids).run([bare])
    (found,) = monitor.take()
    assert {o.verdict.truth for _, o in found.verdicts} <= {Truth.UNKNOWN}


def test_a_latching_rule_can_be_polled_while_its_request_runs() -> None:
    runner = FakeRunner(MODEL)
    bound = lock(MODEL, SAE, rule("any", "any(s > 0)", *range(64)))
    monitor = RunnerMonitor([(SAE, bound)], model_digest=MODEL.identity.digest, on_error="open")
    monitor.attach(runner)
    (prompt,) = rendered(1)
    heard: list[str] = []
    inner = runner.execute_model

    def step(scheduled: object) -> dict[str, int]:
        chosen = inner(scheduled)  # type: ignore[arg-type]
        heard.extend(r for _, r, _ in monitor.take_fired())
        return chosen

    runner.execute_model = step  # type: ignore[method-assign,assignment]
    FakeEngine(runner, end_ids=MODEL.end_ids, budget=4).run(requests([prompt]))
    assert heard[0] == "any"
    assert monitor.take()[0].verdicts


def test_a_failure_makes_verdicts_unknown_where_the_policy_is_open() -> None:
    runner = FakeRunner(MODEL)
    monitor = RunnerMonitor([(SAE, LOCK)], model_digest=MODEL.identity.digest, on_error="open")
    monitor.attach(runner)
    broken = requests(rendered(2))
    broken[0].extra_args = {"auditkit": {"runs": [["user", 0, 0, 1]]}}
    FakeEngine(runner, end_ids=MODEL.end_ids).run(broken)
    found = {v.request: v for v in monitor.take()}
    assert "describes 1 tokens" in found["r0"].errors[0]
    assert {o.verdict.truth for _, o in found["r0"].verdicts} == {Truth.UNKNOWN}
    assert {r for r, _ in found["r0"].verdicts} == {r.id for r in LOCK.rules}
    assert found["r1"].errors == ()


def test_a_failure_is_raised_where_the_policy_is_closed() -> None:
    runner = FakeRunner(MODEL)
    monitor = RunnerMonitor([(SAE, LOCK)], model_digest=MODEL.identity.digest, on_error="closed")
    monitor.attach(runner)
    broken = requests(rendered(1))
    broken[0].extra_args = {"auditkit": {"runs": "nonsense"}}
    with pytest.raises(InvalidInput, match="not a prompt layout"):
        FakeEngine(runner, end_ids=MODEL.end_ids).run(broken)


def test_warm_up_passes_are_not_watched_and_detaching_leaves_no_hook() -> None:
    runner = FakeRunner(MODEL)
    monitor = RunnerMonitor([(SAE, LOCK)], model_digest=MODEL.identity.digest, on_error="closed")
    monitor.attach(runner)
    runner.profile()
    with pytest.raises(MismatchError, match="attached already"):
        monitor.attach(runner)
    monitor.detach()
    FakeEngine(runner, end_ids=MODEL.end_ids).run(requests(rendered(1)))
    assert monitor.take() == []
    assert "execute_model" not in runner.__dict__
    layers = runner.get_model().model.layers
    assert not any(layer._forward_hooks for layer in layers)


def test_an_engine_that_replays_cuda_graphs_is_refused() -> None:
    monitor = RunnerMonitor([(SAE, LOCK)], model_digest=MODEL.identity.digest, on_error="open")
    with pytest.raises(MismatchError, match="CUDA graphs"):
        monitor.attach(FakeRunner(MODEL, enforce_eager=False))


def test_a_lock_for_another_model_or_sae_is_refused() -> None:
    with pytest.raises(MismatchError, match="said to be"):
        RunnerMonitor([(SAE, LOCK)], model_digest="0" * 64, on_error="open")
    with pytest.raises(MismatchError, match="for the SAE"):
        RunnerMonitor([(tiny_sae(1), LOCK)], model_digest=MODEL.identity.digest, on_error="open")


def test_draft_tokens_and_unknown_layouts_of_the_batch_are_refused() -> None:
    batch = SimpleNamespace(req_ids=["a", "b"], num_computed_tokens_cpu=[0, 5])
    step = SimpleNamespace(
        num_scheduled_tokens={"a": 3, "b": 1},
        total_num_scheduled_tokens=4,
        scheduled_spec_decode_tokens={},
    )
    assert [(s.request, s.first, s.start, s.stop) for s in read_spans(step, batch)] == [
        ("a", 0, 0, 3),
        ("b", 5, 3, 4),
    ]
    step.total_num_scheduled_tokens = 6
    with pytest.raises(MismatchError, match="4 scheduled tokens"):
        read_spans(step, batch)
    step.scheduled_spec_decode_tokens = {"b": [1]}
    with pytest.raises(NotSupportedYet, match="draft tokens"):
        read_spans(step, batch)


def test_a_layout_survives_the_journey() -> None:
    layout = PromptLayout.of(rendered(1, shared=True)[0])
    sent = layout.to_extra_args()
    assert PromptLayout.from_extra_args(sent, len(layout)) == layout
    assert len(sent["auditkit"]["runs"]) < len(layout)
    with pytest.raises(InvalidInput, match="describes"):
        PromptLayout.from_extra_args(sent, len(layout) + 1)


def test_only_a_layers_output_can_be_watched() -> None:
    model = FakeRunner(MODEL).get_model()
    with pytest.raises(NotSupportedYet, match="hook_resid_post only"):
        find_layer(model, HookPoint(layer=1, site=Site.RESID_PRE))
    with pytest.raises(InvalidInput, match="none of number 9"):
        find_layer(model, HookPoint(layer=9, site=Site.RESID_POST))
    with pytest.raises(InvalidInput, match="no decoder layers"):
        find_layer(torch.nn.Linear(2, 2), SAE.hook_point)


def test_the_fused_residual_is_added() -> None:
    x = torch.randn(3, 4)
    assert torch.equal(residual_stream((x, 2 * x)), x + 2 * x)
    assert torch.equal(residual_stream(x), x)


class FakeWorker:
    """vLLM's worker, of which the extension becomes a base."""

    def __init__(self, runner: FakeRunner, rank: int, size: int) -> None:
        self.model_runner, self.rank = runner, rank
        self.parallel_config = SimpleNamespace(tensor_parallel_size=size)


def test_the_worker_extension_takes_and_returns_plain_values(tmp_path: Path) -> None:
    kept = write_sae(SAE, tmp_path / "sae", dtype="float32")
    write_lock(replace(LOCK, sae=kept.identity), tmp_path / "rules.lock.json")
    watches = [(str(tmp_path / "sae"), str(tmp_path / "rules.lock.json"))]
    worker_class = type("Worker", (FakeWorker, AuditkitWorker), {})
    other = worker_class(FakeRunner(MODEL), 1, 2)
    assert other.auditkit_attach(watches, MODEL.identity.digest, "open") == 0
    runner = FakeRunner(MODEL)
    worker = worker_class(runner, 0, 2)
    assert worker.auditkit_attach(watches, MODEL.identity.digest, "open") == 1
    with pytest.raises(MismatchError, match="watched already"):
        worker.auditkit_attach(watches, MODEL.identity.digest, "open")
    FakeEngine(runner, end_ids=MODEL.end_ids).run(requests(rendered(2)))
    plain = worker.auditkit_take()
    assert {p["request"] for p in plain} == {"r0", "r1"}
    assert {v["verdict"]["truth"] for p in plain for v in p["verdicts"]} >= {"true", "false"}
    assert {f["rule"] for f in worker.auditkit_take_fired()} <= {r.id for r in LOCK.rules}
    worker.auditkit_detach()
    assert worker.auditkit_take() == []


def test_no_name_of_the_extension_can_meet_one_of_the_workers() -> None:
    names = [n for n in dir(AuditkitWorker) if not n.startswith("__")]
    assert all(n.startswith("auditkit_") for n in names)
