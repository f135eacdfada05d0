"""The text of a score: every token's activations with the document that it is from."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from auditkit.core.hook_point import HookPoint
from auditkit.core.measured import Interval, Measured, NotMeasured
from auditkit.core.progress import Silent
from auditkit.core.prompts import Message, Prompt, Role
from auditkit.pipeline.scoring.bench import ScoreBench
from auditkit.pipeline.scoring.rows import digits, rounded
from auditkit.pipeline.workbench import Workbench
from auditkit.saes import ArchitectureName, SaeConfig, SparseAutoencoder
from auditkit.store import MASKED_IN_STATS
from tests.tiny import WORDS, tiny_model

HOOK = HookPoint.parse("blocks.1.hook_resid_post")


@pytest.fixture(scope="module")
def bench() -> Workbench:
    model = tiny_model()
    d = model.d_model
    config = SaeConfig(
        name="axes", architecture=ArchitectureName.STANDARD, d_in=d, d_sae=d, hook_point=HOOK
    )
    zeros, eye = torch.zeros(d), torch.eye(d)
    tensors = {"W_enc": eye, "W_dec": eye.clone(), "b_enc": zeros, "b_dec": zeros.clone()}
    sae = SparseAutoencoder(config, tensors)
    return Workbench(model=model, sae=sae, provenance=cast(Any, None))


def test_every_token_knows_its_document(bench: Workbench) -> None:
    lengths = (3, 17, 8, 40, 5)
    names = ("a#0", "b#0", "a#1", "c#0", "b#1")
    prompts = [
        bench.model.render(
            Prompt(id=name, messages=(Message(role=Role.TEXT, content=" ".join(WORDS[:n])),))
        )
        for name, n in zip(names, lengths, strict=True)
    ]
    score = ScoreBench(
        located=cast(Any, None),
        bench=bench,
        prompts=prompts,
        compared=cast(Any, None),
        others=(),
        progress=Silent(),
    )
    found = score.captured
    assert len(found.x) == len(found.documents)
    for number, document in enumerate(("a", "b", "c")):
        own = [p for p in prompts if p.prompt_id.startswith(document)]
        alone: list[torch.Tensor] = []
        for prompt in own:
            x = bench.model.capture(bench.model.pad([prompt]), [HOOK])[HOOK][0]
            alone.append(x[[not m & MASKED_IN_STATS for m in prompt.masks]])
        together = found.x[found.documents == number]
        expected = torch.cat(alone)
        assert len(together) == len(expected)
        torch.testing.assert_close(together.sum(0), expected.sum(0), rtol=1e-4, atol=1e-4)


def test_rows_keep_six_digits_and_reasons() -> None:
    value = Measured(value=0.123456789, n=3, interval=Interval(low=0.1234561, high=1234567.8))
    short = rounded(value)
    assert short == Measured(value=0.123457, n=3, interval=Interval(low=0.123456, high=1234570.0))
    assert rounded(short) == short
    missing = NotMeasured("why")
    assert rounded(missing) is missing
    assert digits(0.0) == 0.0
