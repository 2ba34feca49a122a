"""The picture of docs/performance.md: a decoded token by depth, and the part of each limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.goals import Records
from benchmarks.harness import record


def draw(records: Records, path: Path) -> None:
    """Write an SVG of what the records hold; a panel without figures stays empty."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "arkinfer"  # the same figures, the same file
    from matplotlib import pyplot

    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(14, 4.4))
    for name, points in by_depth(records).items():
        left.plot(
            [depth / 1024 for depth, _ in points],
            [seconds * 1e3 for _, seconds in points],
            marker="o",
            label=name,
        )
    left.set(
        xlabel="depth, thousands of tokens (1,024)",
        ylabel="ms per token and layer",
        title="Decoding, by depth",
    )
    left.set_yscale("log")
    if left.lines:
        left.legend(fontsize=7)
    _bars(middle, "Decode: part of the read bandwidth", parts(records, "decode", "bandwidth"))
    _bars(right, "Prefill 512: part of the int8 peak", parts(records, "prefill", "peak"))
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def by_depth(records: Records) -> dict[str, list[tuple[int, float]]]:
    """Seconds per token and layer of each engine, by depth, in two-layer slices."""
    found: dict[str, dict[int, float]] = {}
    for figure in record.figures(records.get("depth") or {"groups": []}):
        if figure.group.startswith("decode slice2") and "real" not in figure.group:
            name = " ".join(filter(None, [figure.peer, figure.parameters.get("kv")]))
            found.setdefault(name, {})[figure.parameters["depth"]] = figure.value / 2
    return {name: sorted(points.items()) for name, points in found.items()}


def parts(records: Records, benchmark: str, limit: str) -> dict[str, float]:
    """The part of a limit that each engine uses, of the largest shape it was measured with."""
    found = {}
    for figure in record.figures(records.get(benchmark) or {"groups": []}):
        part = getattr(figure, limit)
        if part is not None:  # later groups are larger shapes
            found[figure.peer] = part
    return found


def _bars(axes: Any, title: str, values: dict[str, float]) -> None:
    names = list(values)[::-1]
    drawn = axes.barh(names, [values[name] for name in names])
    axes.bar_label(drawn, [f"{values[name]:.0%}" for name in names], padding=3)
    axes.set(title=title, xlim=(0, 1.1))
