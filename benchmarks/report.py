"""Write the results into docs/performance.md and the picture: ``python -m benchmarks.report``.

What stands between the two markers of the page is replaced; the rest is written by hand.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks import picture
from benchmarks.goals import GOALS, Goal, Records
from benchmarks.harness import record
from benchmarks.harness.benchmark import RESULTS
from benchmarks.harness.files import ROOT
from benchmarks.harness.limits import Limits, middle

PAGE = ROOT / "docs" / "performance.md"
PICTURE = ROOT / "docs" / "performance.svg"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
ORDER = ("decode", "prefill", "depth", "ternary", "kv_types", "verify", "cold_start", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    records = read(options.results)
    if not records:
        raise SystemExit(f"there are no records in {options.results}")
    PAGE.write_text(replaced(PAGE.read_text(), text(records)))
    picture.draw(records, PICTURE)


def read(folder: Path) -> Records:
    """All records of a folder but those of quick runs, by the name of their benchmark."""
    found = {}
    for name in (*ORDER, "smollm2"):
        loaded = record.load(folder / f"{name}.json")
        if loaded is not None:
            found[name] = loaded
    return dict(found)


def replaced(page: str, results: str) -> str:
    """The page with other results between its markers."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise ValueError(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{results}\n{END}{after}"


def text(records: Records) -> str:
    """The generated part of the page."""
    parts = [_machine(records), "## Goals\n\n" + goals(records)]
    for name, kept in records.items():
        if kept is not None:
            parts.append(f"## {name.replace('_', ' ').capitalize()}\n\n{tables(kept)}")
    return "\n\n".join(parts) + "\n"


def _machine(records: Records) -> str:
    kept = next(kept for kept in records.values() if kept is not None)
    machine = kept["machine"]
    limits = middle([Limits(**one) for r in records.values() if r for one in _limits(r)])
    peaks = ", ".join(f"{isa} {rate / 1e9:.0f} GOP/s" for isa, rate in limits.int8.items())
    floats = ", ".join(f"{isa} {rate / 1e9:.0f} GFLOP/s" for isa, rate in limits.fp32.items())
    return (
        f"Measured on: {machine['processor']}, {machine['threads']} threads of "
        f"{machine['cores']} cores, {machine['system']}. Medians of its limits over all rounds: "
        f"read {limits.read / 1e9:.1f} GB/s ({limits.read_one / 1e9:.1f} with one thread), "
        f"int8 {peaks}, fp32 {floats}."
    )


def _limits(kept: dict[str, Any]) -> list[dict[str, Any]]:
    return [limit for group in kept["groups"] for limit in group["limits"]]


def goals(records: Records) -> str:
    """The table of goals."""
    lines = ["| figure | goal | measured | | benchmark |", "|---|---|---|---|---|"]
    for goal in GOALS:
        value = goal.measure(records)
        shown = "not measured" if value is None else number(goal, value)
        mark = "" if value is None else "met" if goal.met(value) else "missed"
        sign = "≥" if goal.least else "≤"
        lines.append(
            f"| {goal.text} | {sign} {number(goal, goal.goal)} | {shown} | {mark} "
            f"| `{goal.benchmark}` |"
        )
    return "\n".join(lines)


def number(goal: Goal, value: float) -> str:
    """A value as its goal is written: a small part as 1/n, else with two decimals."""
    if goal.goal < 0.2:
        return f"1/{1 / value:.0f}" if value > 0 else "nothing measurable"
    return f"{value:.2f}"


def tables(kept: dict[str, Any]) -> str:
    """The figures of one record, a table for each group."""
    parts = []
    for group in kept["groups"]:
        lines = [
            f"{group['name']}: `{group.get('command', kept['command'])}`",
            "",
            "| engine | what | median | ratio | spread | bandwidth | int8 peak |",
            "|---|---|---|---|---|---|---|",
        ]
        first = None
        for figure in record.figures({"groups": [group]}):
            first = first or figure
            shown = f"{figure.value / 1e6:.0f} MB"
            if figure.unit == "s":
                shown = f"{figure.value * 1e3:.2f} ms"
            what = ", ".join(f"{k} {v}" for k, v in figure.parameters.items())
            lines.append(
                f"| {figure.peer} | {what} | {shown} | {figure.value / first.value:.2f} "
                f"| {figure.spread:.0%} | {_percent(figure.bandwidth)} | {_percent(figure.peak)} |"
            )
        for case in group["cases"]:
            if "failure" in case:
                lines.append(f"| {case['peer']} | failed: {case['failure'][:80]} | | | | | |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _percent(part: float | None) -> str:
    return "" if part is None else f"{part:.0%}"


if __name__ == "__main__":
    main()
