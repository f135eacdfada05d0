"""The comparison of the monitor with recording and evaluating, as a page."""

from __future__ import annotations

from typing import Any


def to_markdown(result: dict[str, Any]) -> str:
    """The page `results/monitor-equality.md`."""
    total = result["total"]
    equal = total["frames"] - total["differ"]
    columns = ("prompts", "new_tokens", "frames", "true", "false", "unknown", "differ")
    rows = [("all", total), *result["modes"].items()]
    lines = [
        "# The monitor against recording and evaluating the same tokens",
        "",
        f"{result['model']}, {result['sae']}, {result['rules']} rules, {total['prompts']:,} "
        f"prompts with generated replies ({total['tokens']:,} tokens in all). Written by "
        "`python benchmarks/monitor_equality.py`.",
        "",
        f"**{equal:,} of {total['frames']:,} verdicts are equal** in truth, reason and firing "
        f"token ({result['equal_share']:.4%}; the goal is 100%). Scores differ by at most "
        f"{result['largest_score_difference']:.1e}, relative where above 1: the same activations, "
        "summed in another order by another batch shape. Errors inside the monitor: "
        f"{len(result['errors'])}.",
        "",
        "| | prompts | reply tokens | frames | true | false | unknown | differ |",
        "| --- | " + " | ".join(["--:"] * len(columns)) + " |",
        *(f"| {name} | " + " | ".join(f"{own[c]:,}" for c in columns) + " |" for name, own in rows),
    ]
    lines += ["", "## Every difference", ""] if result["differences"] else []
    for d in result["differences"]:
        lines.append(
            f"- {d['mode']}: `{d['at']}`, `{d['condition']}`"
            + (f" with {d['threshold']:.6f}" if d["threshold"] is not None else "")
            + f": monitor {_shown(d['monitor'])}, offline {_shown(d['offline'])}"
        )
    return "\n".join([*lines, *(f"- {error}" for error in result["errors"]), ""])


def _shown(verdict: dict[str, Any] | None) -> str:
    if verdict is None:
        return "no such frame"
    score = "" if verdict["score"] is None else f", score {verdict['score']:.7f}"
    place = "" if verdict["token"] is None else f" at token {verdict['token']}"
    return f"{verdict['truth']}{place}{score}"
