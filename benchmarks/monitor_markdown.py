"""The monitor's measurements as a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def to_markdown(result: dict[str, Any], what: Mapping[str, str]) -> str:
    """The page `results/monitor.md`: one table of pairs a batch size, then the arithmetic."""
    lines = [
        "# What the monitor costs",
        "",
        f"{result['model']}, {result['sae']['name']} at {result['hook_point']}, "
        f"{result['threads']} threads, greedy replies of {result['new_tokens']} tokens to prompts "
        f"of {result['suite']}. Record only. Written by `python benchmarks/monitor.py`.",
        "",
        "A pair is the seconds of a whole `generate` under watch (entering, leaving and fetching "
        "the results included) over those of a bare one beside it: the two take turns at every "
        "token, so that a slow spell of the machine meets both. The control is one bare "
        "generation beside another: no cost below its spread can be told from noise. A goal is "
        "met or missed where the whole interval says so, else undecided.",
    ]
    for size, measured in result["batches"].items():
        lines += _table(size, measured, result["goals"], what)
    return "\n".join([*lines, *_arithmetic(result, what), ""])


def _table(
    size: str, measured: dict[str, Any], goals: dict[str, Any], what: Mapping[str, str]
) -> list[str]:
    lines = [
        "",
        f"## Batch {size}",
        "",
        f"Prompts of {measured['prompt_columns']} columns, padding included; a bare step takes "
        f"{measured['bare_ms_per_step']:.1f} ms (median, prefill spread over the steps). Load "
        f"average at the end {measured['load']:.1f}, of which this benchmark is 1.",
        "",
        "| | n | median cost [95%] | goal | 95th percentile [95%] | goal |",
        "| --- | --: | --- | --- | --- | --- |",
    ]
    for name, own in measured["ratios"].items():
        goal = goals.get(name, {})
        lines.append(
            f"| {what[name]} | {own['n']} | {_cost(own, 'median')} | {_goal(own, goal, 'median')} "
            f"| {_cost(own, 'p95')} | {_goal(own, goal, 'p95')} |"
        )
    return lines


def _arithmetic(result: dict[str, Any], what: Mapping[str, str]) -> list[str]:
    table = result["arithmetic"]
    own = table["model"]["multiply_adds"]
    lines = [
        "",
        "## Arithmetic",
        "",
        f"A token takes {own / 1e6:,.1f} million multiply-adds with the model's weights (attention "
        "over the context left out).",
        "",
        "| | multiply-adds per token read | share of the model's | tokens through the whole "
        "encoder | tokens through it in bfloat16 |",
        "| --- | --: | --: | --: | --: |",
    ]
    for name, entry in table.items():
        if name == "model":
            continue
        needing = entry.get("share_of_tokens_through_the_whole_encoder")
        shown = "all" if needing is None else f"{needing:.1%} of {entry['tokens_read']:,}"
        bounded = entry.get("share_of_tokens_through_bfloat16", 0.0)
        lines.append(
            f"| {what[name]} | {entry['multiply_adds']:,.0f} | {entry['share_of_the_model']:.3%} "
            f"| {shown} | {bounded:.1%} |"
        )
    shares = ", ".join(
        f"{own['decided'] / own['tokens']:.1%} of {own['tokens']:,} tokens for {name} "
        f"{own['latents']} latents"
        for name, own in result["shortcut"].items()
    )
    return [
        *lines,
        "",
        f"The thresholded SAE has the threshold {result['threshold']:.3f}, the mean k-th "
        f"pre-activation (k = {result['sae']['k']}) on the prompts. On the TopK SAE a token needs "
        "no more than the watched rows where none of them is positive; the others need the "
        f"product with the whole encoder, because every latent competes. That decides {shares}; "
        "below an eighth the encoder gives the shortcut up. Two to 32 tokens read together meet "
        "the encoder in bfloat16 where the processor has instructions for it: its rounding is "
        "bounded, and only latents within the bound of the k-th place are looked at again.",
    ]


def _cost(own: dict[str, Any], key: str) -> str:
    low, high = own[f"{key}_interval_95"]
    return f"{own[key] - 1:+.2%} [{low - 1:+.2%}, {high - 1:+.2%}]"


def _goal(own: dict[str, Any], goal: dict[str, float], key: str) -> str:
    if key not in goal:
        return ""
    low, high = (bound - 1 for bound in own[f"{key}_interval_95"])
    found = "met" if high <= goal[key] else "missed" if low > goal[key] else "undecided"
    return f"≤ {goal[key]:.0%}: {found}"
