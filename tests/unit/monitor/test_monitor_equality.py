"""Inside transformers' own generate, verdicts are those of recording and evaluating."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from monitored import generated, inputs, live, offline, prompts, rendered
from transformers import DynamicCache, TextStreamer, pipeline

from auditkit.core.hook_point import HookPoint, Site
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.core.tokens import TokenizedPrompt
from auditkit.core.verdicts import Truth
from auditkit.monitor import Monitor, Roles, RowResult
from auditkit.saes import ArchitectureName, SaeConfig, SparseAutoencoder
from tests.tiny import tiny_model
from tests.tiny_sae import tiny_sae
from tests.watched import lock, rule, various_rules

MODEL, SAE, DRAFTS = tiny_model(), tiny_sae(), tiny_model(1)
LOCK = lock(MODEL, SAE, *various_rules())
GREEDY: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
SAMPLED: dict[str, Any] = {"max_new_tokens": 6, "do_sample": True, "temperature": 1.3}
WAYS: dict[str, tuple[int, int, dict[str, Any]]] = {
    "one at a time": (12, 1, GREEDY),
    "greedy batch": (32, 8, GREEDY),
    "sampling": (32, 8, SAMPLED),
    "several samples of each": (16, 8, {**SAMPLED, "num_return_sequences": 3}),
    "beams": (24, 8, {**GREEDY, "num_beams": 3}),
    "several beams of each": (16, 4, {**GREEDY, "num_beams": 4, "num_return_sequences": 3}),
    "sampled beams": (16, 8, {**SAMPLED, "num_beams": 2}),
    "beams without a cache": (8, 4, {**GREEDY, "num_beams": 3, "use_cache": False}),
    "without a cache": (16, 8, {**GREEDY, "use_cache": False}),
    "static cache": (24, 8, {**GREEDY, "cache_implementation": "static"}),
    "chunked prefill": (24, 8, {**GREEDY, "prefill_chunk_size": 5}),
    "prompt lookup": (10, 1, {**GREEDY, "prompt_lookup_num_tokens": 3}),
    "assisted": (10, 1, {**GREEDY, "assistant_model": DRAFTS.network}),
    "assisted sampling": (8, 1, {**SAMPLED, "assistant_model": DRAFTS.network}),
    "a dictionary is returned": (16, 8, {**GREEDY, "return_dict_in_generate": True}),
}


@pytest.mark.parametrize("way", WAYS)
def test_verdicts_equal_record_and_evaluate(way: str) -> None:
    n, size, arguments = WAYS[way]
    asked = rendered(MODEL, prompts(n, seed=len(way)))
    monitor = Monitor(MODEL, [(SAE, LOCK)])
    results: list[RowResult] = []
    whole: list[TokenizedPrompt] = []
    for first in range(0, n, size):
        batch = asked[first : first + size]
        given = inputs(MODEL, batch)
        torch.manual_seed(first)
        with monitor.request(prompts=batch) as request:
            watched = MODEL.network.generate(**given, **arguments)
        torch.manual_seed(first)
        bare = MODEL.network.generate(**given, **arguments)
        assert torch.equal(_sequences(watched), _sequences(bare))
        whole += generated(MODEL, batch, request.results())
        results += request.results()
    assert all(r.errors == () for r in results)
    assert [r.tokens for r in results] == [r.prompt_tokens + len(r.ids) for r in results]
    found = live([replace(r, row=n) for n, r in enumerate(results)])
    assert found == offline(MODEL, SAE, LOCK, whole)
    assert {"true", "false"} <= {truth for truth, _, _ in found.values()}


def test_the_ways_cover_200_prompts() -> None:
    assert sum(n for n, _, _ in WAYS.values()) >= 200


def _sequences(out: Any) -> torch.Tensor:
    return out if isinstance(out, torch.Tensor) else out.sequences


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_plain_forward_pass_is_watched(side: Any) -> None:
    asked = [MODEL.render(p) for p in prompts(12, seed=5)]
    batch = MODEL.pad(asked, side=side)
    with Monitor(MODEL, [(SAE, LOCK)]).request(prompts=asked) as request:
        MODEL.network(batch.ids, attention_mask=batch.attention.long())
    assert live(request.results()) == offline(MODEL, SAE, LOCK, asked)


def test_a_decoding_loop_of_ones_own_is_one_request() -> None:
    asked = rendered(MODEL, prompts(1, seed=9))
    monitor = Monitor(MODEL, [(SAE, LOCK)])
    ids, cache, reply = torch.tensor([asked[0].ids]), None, list[int]()
    with monitor.request(prompts=asked) as request, torch.no_grad():
        for _ in range(6):
            out = MODEL.network(ids, past_key_values=cache, use_cache=True)
            cache, ids = out.past_key_values, out.logits[:, -1:].argmax(-1)
            reply.append(int(ids))
        request.complete([reply])
    (result,) = request.results()
    assert result.ids == tuple(reply)
    assert live([result]) == offline(MODEL, SAE, LOCK, [MODEL.extend(asked[0], reply)])


def test_a_prompt_fed_in_chunks_continues_its_cache() -> None:
    (whole,) = (MODEL.render(p) for p in prompts(1, seed=2))
    ids = torch.tensor([whole.ids])
    monitor = Monitor(MODEL, [(SAE, LOCK)])
    with monitor.request(prompts=[whole]) as request, torch.no_grad():
        out = MODEL.network(ids[:, :7], use_cache=True)
        out = MODEL.network(ids[:, 7:12], past_key_values=out.past_key_values)
        MODEL.network(ids[:, 12:], past_key_values=out.past_key_values)
    assert live(request.results()) == offline(MODEL, SAE, LOCK, [whole])


def test_a_second_turn_goes_on_from_the_first_ones_cache() -> None:
    asked = rendered(MODEL, prompts(1, seed=1))
    monitor = Monitor(MODEL, [(SAE, LOCK)])
    cache = DynamicCache()
    with monitor.request(prompts=asked):
        first = MODEL.network.generate(
            torch.tensor([asked[0].ids]), past_key_values=cache, **GREEDY
        )
    longer = torch.cat([first, first[:, :9]], dim=1)
    with monitor:
        second = MODEL.network.generate(longer, past_key_values=cache, **GREEDY)
    assert torch.equal(second, MODEL.network.generate(longer, past_key_values=None, **GREEDY))
    result = monitor.result()
    assert result.tokens == result.prompt_tokens + len(result.ids) == second.shape[1]
    assert all(a.verdict.reason is None for a in result.verdicts)


def test_what_a_cache_holds_from_before_is_unknown_and_never_silent() -> None:
    (asked,) = rendered(MODEL, prompts(1, seed=3))
    ids = torch.tensor([asked.ids])
    with torch.no_grad():
        cache = MODEL.network(ids[:, :15], use_cache=True).past_key_values
    silent = lock(MODEL, SAE, rule("never", "max(s) >= 1e6", *range(64)))
    with Monitor(MODEL, [(SAE, silent)]).request(prompts=[asked]) as request:
        MODEL.network.generate(ids, past_key_values=cache, **GREEDY)
    truths = {a.frame: a.verdict.truth for a in request.result().verdicts}
    assert truths[0] is Truth.UNKNOWN


def test_masks_of_high_norm_are_the_recordings() -> None:
    asked = rendered(MODEL, prompts(16, seed=8))
    x = MODEL.capture(MODEL.pad(asked), [SAE.hook_point])[SAE.hook_point]
    median = float(x.norm(dim=2).median())
    opened = lock(MODEL, SAE, *various_rules(), high_norm=median)
    with Monitor(MODEL, [(SAE, opened)]).request(prompts=asked) as request:
        MODEL.network.generate(**inputs(MODEL, asked), **GREEDY)
    whole = generated(MODEL, asked, request.results())
    assert live(request.results()) == offline(MODEL, SAE, opened, whole, reference_norm=median)


def untopped_sae(
    site: Site, layer: int, architecture: ArchitectureName = ArchitectureName.STANDARD
) -> SparseAutoencoder:
    """An SAE of 48 latents whose encoder chooses each by itself."""
    generator = torch.Generator().manual_seed(layer)
    W_dec = torch.nn.functional.normalize(torch.randn(48, 32, generator=generator), dim=1)
    config = SaeConfig(
        name=f"{architecture.value}-{site.value}-{layer}",
        architecture=architecture,
        d_in=32,
        d_sae=48,
        hook_point=HookPoint(layer=layer, site=site),
    )
    low = torch.full((48,), -0.5)
    own = {
        ArchitectureName.STANDARD: {"b_enc": low},
        ArchitectureName.JUMPRELU: {"b_enc": low, "threshold": torch.full((48,), 0.3)},
        ArchitectureName.GATED: {
            "b_gate": low,
            "b_mag": torch.full((48,), 0.1),
            "r_mag": torch.linspace(-0.5, 0.5, 48),
        },
    }[architecture]
    shared = {"W_enc": W_dec.T.contiguous(), "W_dec": W_dec, "b_dec": torch.zeros(32)}
    return SparseAutoencoder(config, shared | own)


@pytest.mark.parametrize(
    "architecture",
    [ArchitectureName.STANDARD, ArchitectureName.GATED, ArchitectureName.JUMPRELU],
)
def test_verdicts_through_every_encoder_equal_record_and_evaluate(
    architecture: ArchitectureName,
) -> None:
    sae = untopped_sae(Site.RESID_POST, 1, architecture)
    rules = (
        rule("peak", "max(s) >= 0.8", 3, 17, 40),
        rule("mean", "mean(s) >= 0.1", *range(20)),
        rule("often", "count(s > 0.2) >= 2", *range(0, 48, 3)),
        rule("signed", "sum(s) < 0.1", 2, 8, 12, 45, weights=(1.0, -0.5, 2.0, -1.0)),
    )
    opened = lock(MODEL, sae, *rules)
    asked = rendered(MODEL, prompts(16, seed=13))
    with Monitor(MODEL, [(sae, opened)]).request(prompts=asked) as request:
        MODEL.network.generate(**inputs(MODEL, asked), **GREEDY)
    found = live(request.results())
    assert found == offline(MODEL, sae, opened, generated(MODEL, asked, request.results()))
    assert {truth for truth, _, _ in found.values()} == {"true", "false"}


def test_several_saes_and_hook_points_are_watched_in_one_pass() -> None:
    saes = [SAE, untopped_sae(Site.MLP_OUT, 0), untopped_sae(Site.RESID_MID, 2)]
    rules = (rule("peak", "max(s) >= 0.8", 3, 17, 40), rule("mean", "mean(s) >= 0.1", *range(20)))
    locks = [lock(MODEL, sae, *rules) for sae in saes]
    asked = rendered(MODEL, prompts(8, seed=4))
    with Monitor(MODEL, list(zip(saes, locks, strict=True))).request(prompts=asked) as request:
        MODEL.network.generate(**inputs(MODEL, asked), **GREEDY)
    whole = generated(MODEL, asked, request.results())
    for sae, opened in zip(saes, locks, strict=True):
        own = _by_hook_point(request.results(), sae.hook_point.name)
        assert own == offline(MODEL, sae, opened, whole)


def _by_hook_point(results: Any, name: str) -> Any:
    return live(
        [replace(r, verdicts=tuple(a for a in r.verdicts if a.hook_point == name)) for r in results]
    )


def test_a_pipeline_is_watched() -> None:
    generate = pipeline("text-generation", model=MODEL.network, tokenizer=MODEL.tokenizer)
    with Monitor(MODEL, [(SAE, LOCK)]) as monitor:
        generate("the cat and the dog", max_new_tokens=5, do_sample=False)
    result = monitor.result()
    assert result.roles is Roles.UNKNOWN
    assert result.tokens == result.prompt_tokens + len(result.ids)
    assert result.verdicts


def test_a_pipelines_verdicts_on_a_chat_equal_record_and_evaluate() -> None:
    generate = pipeline("text-generation", model=MODEL.network, tokenizer=MODEL.tokenizer)
    message = Message(role=Role.USER, content="the cat and the dog")
    asked = MODEL.render(Prompt(id="chat", messages=(message,)), generation_prompt=True)
    chat = [{"role": message.role.value, "content": message.content}]
    with Monitor(MODEL, [(SAE, LOCK)]).request(prompts=[asked]) as request:
        generate(chat, max_new_tokens=5, do_sample=False)
    assert request.result().roles is Roles.GIVEN
    whole = generated(MODEL, [asked], request.results())
    assert live(request.results()) == offline(MODEL, SAE, LOCK, whole)


def test_a_streamer_is_given_the_same_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    (asked,) = rendered(MODEL, prompts(1, seed=6))
    streamer = TextStreamer(MODEL.tokenizer)
    ids = torch.tensor([asked.ids])
    MODEL.network.generate(ids, streamer=streamer, **GREEDY)
    bare = capsys.readouterr().out
    with Monitor(MODEL, [(SAE, LOCK)]).request(prompts=[asked]) as request:
        MODEL.network.generate(ids, streamer=streamer, **GREEDY)
    assert capsys.readouterr().out == bare
    whole = generated(MODEL, [asked], request.results())
    assert live(request.results()) == offline(MODEL, SAE, LOCK, whole)


def test_a_prompt_given_as_embeddings_is_watched() -> None:
    asked = rendered(MODEL, prompts(4, seed=7))
    given = inputs(MODEL, asked)
    x = MODEL.network.get_input_embeddings()(given["input_ids"])
    arguments = {"inputs_embeds": x, "attention_mask": given["attention_mask"], **GREEDY}
    bare = MODEL.network.generate(**arguments)
    with Monitor(MODEL, [(SAE, LOCK)]) as monitor:
        watched = MODEL.network.generate(**arguments)
    assert torch.equal(watched, bare)
    for result in monitor.results():
        assert result.roles is Roles.UNKNOWN
        assert result.errors == ()
        assert result.tokens == result.prompt_tokens + len(result.ids)


def test_rows_that_end_early_are_watched_to_their_own_end() -> None:
    asked = rendered(MODEL, prompts(8, seed=11))
    given = inputs(MODEL, asked)
    free = MODEL.network.generate(**given, **GREEDY)
    ends = [int(free[0, given["input_ids"].shape[1] + 2])]
    with Monitor(MODEL, [(SAE, LOCK)]).request(prompts=asked) as request:
        MODEL.network.generate(**given, **GREEDY, eos_token_id=ends)
    results = request.results()
    assert len(results[0].ids) == 2
    assert len({len(r.ids) for r in results}) > 1
    assert [r.tokens for r in results] == [r.prompt_tokens + len(r.ids) for r in results]
    assert live(results) == offline(MODEL, SAE, LOCK, generated(MODEL, asked, results))


def test_roles_of_tokens_follow_the_prompt_and_then_the_reply() -> None:
    (asked,) = rendered(MODEL, prompts(1, seed=12))
    seen: list[tuple[int, Role, bool]] = []
    with Monitor(MODEL, [(SAE, LOCK)]).request(
        prompts=[asked], on_token=lambda t: seen.append((t.position, t.role, t.generated))
    ):
        MODEL.network.generate(torch.tensor([asked.ids]), **GREEDY)
    assert [position for position, _, _ in seen] == list(range(len(asked) + 6))
    assert tuple(role for _, role, _ in seen[: len(asked)]) == asked.roles
    assert {role for _, role, is_generated in seen if is_generated} == {Role.ASSISTANT}
