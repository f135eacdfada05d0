"""The tables of `train_step.py`."""

from __future__ import annotations

from typing import Any


def to_markdown(r: dict[str, Any]) -> str:
    """One width: all candidates with their circumstances."""
    lines = [
        "# One training step",
        "",
        f"d_in {r['d_in']}, {r['d_sae']:,} latents, k {r['k']}, batch {r['batch_size']:,}; "
        f"{r['data']} data; {r['steps']} steps at lr {r['lr']:g}; {r['threads']} threads on "
        f"{r['cpus']} CPUs (load average {r['load_average_1_minute']:.1f}), torch {r['torch']}. "
        "What the columns mean is said in benchmarks/train_step.py.",
        "",
        "| candidate | n | wall ms | quartiles | CPU ms | × product, wall | × product, CPU | EV | "
        "recovery | L0 | recall of top k | memory |",
        "| --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    lines += [_row(row) for row in r["rows"]]
    lines += [
        f"| {name} | {why} | | | | | | | | | | |" for name, why in sorted(r["missing"].items())
    ]
    if r["speedups"]:
        lines += ["", "| | times as fast, wall | by CPU time |", "| --- | --: | --: |"]
        lines += [
            f"| {s['fast']} over {s['slow']} | {_interval(s['wall'], 1)} | "
            f"{_interval(s['cpu'], 1)} |"
            for s in r["speedups"]
        ]
    return "\n".join(lines) + "\n"


def widths_to_markdown(result: dict[str, Any]) -> str:
    """CPU time of each candidate at each width, and the slope in logarithms."""
    results = result["results"]
    widths = [f"{r['d_sae']:,}" for r in results]
    first = results[0]
    lines = [
        "# A training step against width",
        "",
        f"d_in {first['d_in']}, k {first['k']}, batch {first['batch_size']:,}; CPU ms per step, "
        f"in brackets × the product's; medians of {first['steps'] - 1} rounds; "
        f"{first['threads']} threads, load averages "
        + ", ".join(f"{r['load_average_1_minute']:.1f}" for r in results)
        + ". The slope is that of log time against log width: 1 is proportional.",
        "",
        f"| candidate | {' | '.join(widths)} | slope |",
        f"| --- | {'--: | ' * len(widths)}--: |",
    ]
    for number, row in enumerate(first["rows"]):
        cells = [_at_width(r["rows"][number]) for r in results]
        slope = result["slopes"].get(row["candidate"])
        lines.append(f"| {row['candidate']} | {' | '.join(cells)} | {_number(slope, 2)} |")
    return "\n".join(lines) + "\n"


def _row(row: dict[str, Any]) -> str:
    low, high = row["wall_ms_quartiles"]
    times = row["times_the_product"]
    return (
        f"| {row['candidate']} | {row['n']} | {row['wall_ms']:.0f} | {low:.0f}–{high:.0f} | "
        f"{row['cpu_ms']:.0f} | {_interval(times['wall'], 2)} | {_interval(times['cpu'], 2)} | "
        f"{_number(row['explained_variance'], 4)} | {_number(row['recovery'], 4)} | "
        f"{_number(row['l0'], 1)} | {_number(row['recall'], 6)} | {_number(row['memory'], 2)} |"
    )


def _at_width(row: dict[str, Any]) -> str:
    return f"{row['cpu_ms']:,.0f} ({row['times_the_product']['cpu']['median']:.2f})"


def _interval(x: dict[str, float], digits: int) -> str:
    return f"{x['median']:.{digits}f} ({x['low']:.{digits}f}–{x['high']:.{digits}f})"


def _number(value: float | None, digits: int) -> str:
    return "—" if value is None else f"{value:.{digits}f}"
