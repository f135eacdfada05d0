"""What is recorded is what the model and the SAE say about each token."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from auditkit.core.errors import (
    InvalidInput,
    MismatchError,
    NonFiniteActivations,
    NothingEvaluated,
)
from auditkit.core.hook_point import HookPoint
from auditkit.core.prompts import Message, Prompt, Role, Suite
from auditkit.core.recordings import RecordingPlan, RecordingState
from auditkit.core.tokens import TokenMask
from auditkit.models import LanguageModel
from auditkit.recording import conversations, measure_reference_norm, record_suite
from auditkit.saes import SparseAutoencoder
from auditkit.store import Store, open_store
from tests.recorded_runs import PROVENANCE, small_suite
from tests.tiny import tiny_model
from tests.tiny_sae import tiny_sae

PLAN = RecordingPlan(max_tokens=64)
MODEL, SAE = tiny_model(), tiny_sae()


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(conversations, "BATCH_TOKENS", 256)


def _suite(*prompts: Prompt) -> Suite:
    return Suite(name="s", title="S", source="test", licence="Apache-2.0", prompts=prompts)


def _chat(name: str, *turns: tuple[Role, str]) -> Prompt:
    return Prompt(id=name, messages=tuple(Message(role=r, content=c) for r, c in turns))


def _record(
    store: Store,
    suite: Suite,
    plan: RecordingPlan = PLAN,
    model: LanguageModel = MODEL,
    sae: SparseAutoencoder = SAE,
) -> str:
    return record_suite(model, sae, suite, store, plan, provenance=PROVENANCE).id


def _alone(ids: list[int], model: LanguageModel = MODEL) -> torch.Tensor:
    """Activations [token, d_in] of the token ids in a plain forward pass of their own."""
    with torch.no_grad():
        hidden = model.network(
            input_ids=torch.tensor([ids]), output_hidden_states=True
        ).hidden_states
    return hidden[SAE.hook_point.layer + 1][0]


def test_activations_are_those_of_a_pass_over_the_prompt_alone() -> None:
    suite = small_suite(20)
    with open_store(":memory:") as store:
        id = _record(store, suite)
        tokens = store.frame_tokens(id)
        rows, acts = tokens.to_pylist(), store.activations(id).to_pylist()
        assert store.done_prompts(id) == {p.id for p in suite.prompts}
    stored: dict[int, dict[int, float]] = {}
    for row in acts:
        stored.setdefault(row["token"], {})[row["latent"]] = row["value"]
    for ordinal, prompt in enumerate(suite.prompts):
        own = [r for r in rows if r["prompt"] == prompt.id]
        rendered = MODEL.render(prompt, max_tokens=64)
        assert [r["token_id"] for r in own] == list(rendered.ids)
        assert [r["token"] for r in own] == [ordinal * 2**20 + i for i in range(len(own))]
        assert [r["mask"] for r in own] == [int(m) for m in rendered.masks]
        latents = SAE.encode(_alone(list(rendered.ids)))
        dense = latents.to_dense()
        for position, row in enumerate(own):
            found = stored.get(row["token"], {})
            for latent, value in found.items():
                assert value == pytest.approx(float(dense[position, latent]), abs=1e-4)
            assert len(found) == int(latents.counts()[position])


def test_coverage_spans_every_token_once() -> None:
    with open_store(":memory:") as store:
        id = _record(store, small_suite(20))
        missed = store.query(
            "SELECT count(*) AS n FROM tokens t WHERE (SELECT count(*) FROM coverage c "
            "WHERE t.token BETWEEN c.first_token AND c.last_token) <> 1"
        )
        assert missed["n"].to_pylist() == [0]
        assert set(store.coverage(id)["sae"].to_pylist()) == {SAE.identity.digest}


def test_vectors_pool_the_unmasked_tokens_of_a_role() -> None:
    suite = _suite(
        _chat("two", (Role.USER, "the cat made fire ? no cat"), (Role.ASSISTANT, "red bird")),
        _chat("one", (Role.USER, "hello you there")),
    )
    with open_store(":memory:") as store:
        id = _record(store, suite)
        tokens = store.frame_tokens(id).to_pylist()
        for prompt in suite.prompts:
            own = [t for t in tokens if t["prompt"] == prompt.id]
            x = _alone([t["token_id"] for t in own]).numpy()
            for role in ("all", "user", "assistant"):
                kept = [
                    i for i, t in enumerate(own) if t["mask"] == 0 and role in ("all", t["role"])
                ]
                for pool, expected in (
                    ("mean", lambda v: v.mean(axis=0)),
                    ("max", lambda v: v.max(axis=0)),
                    ("last", lambda v: v[-1]),
                ):
                    ids, vectors = store.vectors(id, pool, role)
                    whole = role == "all" or prompt.id == "one"
                    assert (prompt.id in ids) == (bool(kept) and (whole or pool == "mean"))
                    if prompt.id in ids:
                        got = vectors[ids.index(prompt.id)]
                        np.testing.assert_allclose(got, expected(x[kept]), atol=1e-4)


def test_a_second_run_calls_nothing_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.duckdb"
    with open_store(path) as store:
        first = record_suite(MODEL, SAE, small_suite(10), store, PLAN, provenance=PROVENANCE)
    before = path.read_bytes()
    calls: list[tuple[int, int]] = []
    other = replace(PROVENANCE, git_commit="later")
    with open_store(path) as store:
        again = record_suite(
            MODEL, SAE, small_suite(10), store, PLAN, provenance=other,
            progress=lambda done, total: calls.append((done, total)),
        )  # fmt: skip
    assert again == first
    assert first.state is RecordingState.COMPLETE
    assert calls == []
    assert path.read_bytes() == before


def test_another_plan_is_another_recording() -> None:
    with open_store(":memory:") as store:
        one = _record(store, small_suite(5))
        other = _record(store, small_suite(5), replace(PLAN, max_tokens=8))
        assert one != other
        assert [r.state for r in store.recordings()] == [RecordingState.COMPLETE] * 2
        assert store.query("SELECT max(position) AS p FROM tokens WHERE recording = ?", [other])[
            "p"
        ].to_pylist() == [7]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_a_run_that_is_interrupted_goes_on_where_it_was(stop: type[BaseException]) -> None:
    suite, seen = small_suite(30), list[int]()

    def interrupt(done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 3:
            raise stop("enough")

    with open_store(":memory:") as whole, open_store(":memory:") as broken:
        id = _record(whole, suite)
        with pytest.raises(stop, match="enough"):
            record_suite(MODEL, SAE, suite, broken, PLAN, provenance=PROVENANCE, progress=interrupt)
        assert 0 < len(broken.done_prompts(id)) < 30
        record_suite(
            MODEL, SAE, suite, broken, PLAN, provenance=PROVENANCE,
            progress=lambda done, total: seen.append(done),
        )  # fmt: skip
        assert seen[3] == seen[2]
        assert seen[-1] == 30
        for table in ("prompts", "tokens", "activations", "coverage", "vectors", "recordings"):
            sql = f"SELECT * FROM {table} ORDER BY ALL"
            assert broken.query(sql).equals(whole.query(sql)), table


def test_replies_are_recorded_as_the_assistants_own() -> None:
    suite = _suite(
        _chat("asked", (Role.USER, "the cat ?")),
        _chat("answered", (Role.USER, "the cat ?"), (Role.ASSISTANT, "red bird")),
        Prompt(id="text", messages=(Message(role=Role.TEXT, content="the cat made"),)),
    )
    plan = replace(PLAN, max_new_tokens=6, temperature=1.0, seed=5)
    with open_store(":memory:") as store:
        id = _record(store, suite, plan)
        tokens = store.frame_tokens(id).to_pylist()
        messages = {
            row["prompt"]: json.loads(row["messages"]) for row in store.prompts(id).to_pylist()
        }
        acts = store.activations(id).to_pylist()
    generated = {
        p.id: [t for t in tokens if t["prompt"] == p.id and t["generated"]] for p in suite.prompts
    }
    assert generated["answered"] == []
    assert 0 < len(generated["asked"]) <= 6
    assert {t["role"] for t in generated["asked"]} == {"assistant"}
    assert {t["message"] for t in generated["asked"]} == {1}
    assert {t["role"] for t in generated["text"]} == {"text"}
    assert [m["generated"] for m in messages["asked"]] == [False, True]
    assert messages["asked"][1]["content"] == MODEL.decode(
        [t["token_id"] for t in generated["asked"]]
    )
    assert len(messages["answered"]) == 2
    own = [t for t in tokens if t["prompt"] == "asked"]
    dense = SAE.encode(_alone([t["token_id"] for t in own])).to_dense()
    last = {r["latent"]: r["value"] for r in acts if r["token"] == own[-1]["token"]}
    assert last == pytest.approx({j: float(dense[-1, j]) for j in last}, abs=1e-4)


def test_tokens_of_high_norm_are_masked() -> None:
    suite = small_suite(10)
    reference = measure_reference_norm(MODEL, SAE.hook_point, suite, max_tokens=64)
    plan = replace(PLAN, reference_norm=reference.value, high_norm_factor=1.0)
    with open_store(":memory:") as store:
        id = _record(store, suite, plan)
        tokens = store.frame_tokens(id).to_pylist()
    text = [t for t in tokens if t["mask"] & ~int(TokenMask.HIGH_NORM) == 0]
    high = sum(t["mask"] == int(TokenMask.HIGH_NORM) for t in text)
    assert reference.n == len(text)
    assert abs(high - len(text) / 2) <= 2
    for prompt in suite.prompts[:3]:
        own = [t for t in tokens if t["prompt"] == prompt.id]
        norms = _alone([t["token_id"] for t in own]).norm(dim=1)
        for token, norm in zip(own, norms.tolist(), strict=True):
            if abs(norm - reference.value) > 1e-3:
                assert bool(token["mask"] & int(TokenMask.HIGH_NORM)) == (norm > reference.value)


def test_a_reference_norm_needs_tokens() -> None:
    empty = _suite(_chat("system", (Role.SYSTEM, "")))
    with pytest.raises(NothingEvaluated, match="no token that is not masked"):
        measure_reference_norm(MODEL, SAE.hook_point, empty)


def test_nan_in_activations_names_prompt_and_token() -> None:
    broken = tiny_model(seed=1)
    bomb = broken.tokenizer.convert_tokens_to_ids("bomb")
    with torch.no_grad():
        broken.network.get_input_embeddings().weight[bomb] = float("nan")
    good = _chat("good", *[(Role.USER, "the cat " * 28)])
    bad = _chat("bad", (Role.USER, "a bomb"))
    with open_store(":memory:") as store:
        with pytest.raises(NonFiniteActivations, match=r"infinite at token \d+ .* of prompt 'bad'"):
            _record(
                store,
                _suite(good, *[replace(good, id=f"g{i}") for i in range(3)], bad),
                model=broken,
            )
        (recording,) = store.recordings()
        assert recording.state is RecordingState.OPEN
        assert store.done_prompts(recording.id) >= {"good"}
        assert "bad" not in store.done_prompts(recording.id)
        assert store.query("SELECT * FROM tokens WHERE prompt = 'bad'").num_rows == 0


def test_infinite_latents_name_prompt_and_token() -> None:
    sae = tiny_sae()
    sae.tensors["W_enc"].fill_(3e38)
    with (
        open_store(":memory:") as store,
        pytest.raises(NonFiniteActivations, match=r"latents of the SAE tiny-sae-0 .* prompt 'p'"),
    ):
        _record(store, _suite(_chat("p", (Role.USER, "the cat"))), sae=sae)


def test_an_sae_of_another_width_is_refused_before_anything_is_written() -> None:
    with open_store(":memory:") as store:
        with pytest.raises(MismatchError, match="width"):
            _record(store, small_suite(3), sae=tiny_sae(d_in=16))
        assert store.recordings() == []


def test_a_suite_without_prompts_is_refused() -> None:
    with open_store(":memory:") as store, pytest.raises(InvalidInput, match="has no prompts"):
        _record(store, _suite())


def test_two_prompts_of_one_id_are_refused() -> None:
    prompt = _chat("p", (Role.USER, "the cat"))
    with open_store(":memory:") as store, pytest.raises(InvalidInput, match="with the id 'p'"):
        _record(store, _suite(prompt, prompt))


def test_a_hook_point_that_the_model_lacks_is_refused() -> None:
    with open_store(":memory:") as store, pytest.raises(MismatchError, match="layers 0 to 2"):
        _record(store, small_suite(3), sae=tiny_sae(layer=7))
    assert HookPoint.parse("blocks.7.hook_resid_post") == tiny_sae(layer=7).hook_point
