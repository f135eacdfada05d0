"""With actions that only tell, every logit is the unwatched run's, to the bit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monitored import n_hooks, prompts, rendered

from auditkit.core.errors import InvalidInput
from auditkit.core.hook_point import HookPoint, Site
from auditkit.models import LanguageModel
from auditkit.monitor import Call, Monitor, Record
from auditkit.saes import ArchitectureName, SaeConfig, SparseAutoencoder
from tests.tiny import word_tokenizer
from tests.watched import lock, various_rules

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from families_under_test import CONFIGS, D_MODEL, family_model, random_prompt


def an_sae(hook_point: HookPoint) -> SparseAutoencoder:
    generator = torch.Generator().manual_seed(3)
    W_dec = torch.nn.functional.normalize(torch.randn(64, D_MODEL, generator=generator), dim=1)
    config = SaeConfig(
        name=f"sae-{hook_point}",
        architecture=ArchitectureName.TOPK,
        d_in=D_MODEL,
        d_sae=64,
        k=8,
        hook_point=hook_point,
    )
    tensors = {
        "W_enc": W_dec.T.contiguous(),
        "W_dec": W_dec,
        "b_enc": torch.zeros(64),
        "b_dec": torch.zeros(D_MODEL),
    }
    return SparseAutoencoder(config, tensors)


def sites_of(model: LanguageModel) -> list[HookPoint]:
    found: list[HookPoint] = []
    for site in Site:
        point = HookPoint(layer=1, site=site)
        try:
            with model.tap.hooked([point]):
                found.append(point)
        except InvalidInput:  # no residual stream between parallel attention and feed-forward
            assert site is Site.RESID_MID
    return found


@pytest.mark.parametrize("family", CONFIGS)
def test_every_logit_of_every_family_and_site_is_unchanged(family: str) -> None:
    model = family_model(family)
    batch = model.pad([random_prompt(11), random_prompt(7, seed=1)], side="left")
    given: dict[str, Any] = {
        "input_ids": batch.ids,
        "attention_mask": batch.attention.long(),
    }
    options: dict[str, Any] = {
        "max_new_tokens": 7,
        "do_sample": False,
        "eos_token_id": None,
        "output_logits": True,
        "return_dict_in_generate": True,
    }
    with torch.no_grad():
        bare_pass = model.network(**given).logits
    bare = model.network.generate(**given, **options)
    before = n_hooks(model)
    points = sites_of(model)
    assert len(points) >= 4
    saes = [an_sae(point) for point in points]
    watches = [(sae, lock(model, sae, *various_rules())) for sae in saes]
    told = Record()
    heard: list[Any] = []
    with Monitor(model, watches, actions=[told, Call(heard.append)]) as monitor:
        with torch.no_grad():
            watched_pass = model.network(**given).logits
        watched = model.network.generate(**given, **options)
    keep = batch.attention
    assert torch.equal(watched_pass[keep], bare_pass[keep])
    assert torch.equal(watched.sequences, bare.sequences)
    for step, unwatched in zip(watched.logits, bare.logits, strict=True):
        assert torch.equal(step, unwatched)
    results = monitor.results()
    assert all(r.errors == () for r in results)
    assert {a.hook_point for r in results for a in r.verdicts} == {p.name for p in points}
    assert told.alerts
    assert list(told.alerts) == heard
    assert n_hooks(model) == before
    after = model.network.generate(**given, **options)
    assert torch.equal(after.sequences, bare.sequences)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "mistral"])
def test_a_cache_that_the_caller_keeps_is_left_as_it_was(family: str) -> None:
    model = family_model(family)
    ids = torch.tensor([random_prompt(9).ids])
    options: dict[str, Any] = {
        "max_new_tokens": 5,
        "do_sample": False,
        "eos_token_id": None,
        "return_dict_in_generate": True,
    }
    bare = model.network.generate(ids, **options).past_key_values
    sae = an_sae(HookPoint(layer=2, site=Site.RESID_POST))
    with Monitor(model, [(sae, lock(model, sae, *various_rules()))]) as monitor:
        kept = model.network.generate(ids, **options).past_key_values
    assert monitor.result().tokens == 9 + 5
    assert kept.get_seq_length() == bare.get_seq_length()
    for own, other in zip(kept.layers, bare.layers, strict=True):
        assert torch.equal(own.keys, other.keys)
        assert torch.equal(own.values, other.values)


def test_a_reply_reads_the_same_under_several_monitors() -> None:
    model = family_model("llama")
    sae = an_sae(HookPoint(layer=1, site=Site.RESID_POST))
    watches = [(sae, lock(model, sae, *various_rules()))]
    asked = rendered(model, prompts(4))
    batch = model.pad(asked, side="left")
    bare = model.generate(batch, max_new_tokens=6, temperature=1.0, seed=3)
    outer, inner = Monitor(model, watches), Monitor(model, watches)
    with outer, inner, outer:
        watched = model.generate(batch, max_new_tokens=6, temperature=1.0, seed=3)
    assert watched == bare
    assert [r.ids for r in outer.results()] == [tuple(ids) for ids in bare]

    def told(monitor: Monitor) -> list[Any]:
        return [
            (a.rule_id, a.frame, a.verdict, a.token) for r in monitor.results() for a in r.verdicts
        ]

    assert told(outer) == told(inner)
    assert len(outer.requests) == len(inner.requests) == 1


Ways = dict[str, dict[str, Any]]
CACHED: Ways = {
    "static cache": {"do_sample": False, "cache_implementation": "static"},
    "beams": {"do_sample": False, "num_beams": 3},
    "chunked prefill": {"do_sample": False, "prefill_chunk_size": 4},
}
"""Ways in which families differ: their caches do."""
OTHERS: Ways = {
    "sampling": {"do_sample": True, "temperature": 1.3},
    "no cache": {"do_sample": False, "use_cache": False},
    "prompt lookup": {"do_sample": False, "prompt_lookup_num_tokens": 3},
    "assisted": {"do_sample": False},
}
KINDS = [pytest.param(family, torch.float32, CACHED, id=family) for family in CONFIGS]
KINDS += [
    pytest.param("llama", torch.float32, OTHERS, id="llama, other ways"),
    pytest.param("gpt2", torch.float32, OTHERS, id="gpt2, other ways"),
    pytest.param("llama", torch.bfloat16, OTHERS, id="llama, bfloat16"),
    pytest.param("gemma3_text", torch.bfloat16, CACHED, id="gemma3_text, bfloat16"),
]


@pytest.mark.parametrize(("family", "dtype", "ways"), KINDS)
def test_every_logit_and_score_is_unchanged_in_every_way_to_generate(
    family: str, dtype: torch.dtype, ways: Ways
) -> None:
    network, tokenizer = family_model(family).network.to(dtype), word_tokenizer()
    model = LanguageModel.wrap(network, tokenizer, name=family)
    saes = [an_sae(point) for point in sites_of(model)]
    watches = [(sae, lock(model, sae, *various_rules())) for sae in saes]
    for way, options in ways.items():
        asked = [random_prompt(11), random_prompt(7, seed=1)]
        if way in ("prompt lookup", "assisted"):  # transformers takes one prompt at a time there
            asked = asked[:1]
        batch = model.pad(asked, side="left")
        given: dict[str, Any] = {
            "input_ids": batch.ids,
            "attention_mask": batch.attention.long(),
            "max_new_tokens": 5,
            "eos_token_id": None,
            "output_logits": True,
            "output_scores": True,
            "return_dict_in_generate": True,
            **options,
        }
        if way == "assisted":
            given["assistant_model"] = family_model(family).network.to(dtype)
        torch.manual_seed(0)
        bare = network.generate(**given)
        torch.manual_seed(0)
        with Monitor(model, watches, actions=[Record()]) as monitor:
            watched = network.generate(**given)
        assert torch.equal(watched.sequences, bare.sequences), way
        for found, expected in ((watched.logits, bare.logits), (watched.scores, bare.scores)):
            assert len(found) == len(expected) > 0
            assert all(map(torch.equal, found, expected)), way
        for result in monitor.results():
            assert result.errors == ()
            assert result.tokens == result.prompt_tokens + len(result.ids), way
