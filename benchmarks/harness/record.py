"""What a benchmark measured, as JSON, and the figures that follow from it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness.limits import Limits


@dataclass(frozen=True)
class Figure:
    """One case of one group.

    Attributes:
        value: the median, in ``unit``; seconds are those of a token of decode, a whole prompt, an
            append.
        spread: the range of the samples over the median.
        bandwidth: the part of the read bandwidth that was used, each round against its own limit.
        peak: the same of the int8 peak.
    """

    group: str
    peer: str
    parameters: dict[str, Any]
    value: float
    unit: str
    spread: float
    bandwidth: float | None
    peak: float | None


def figures(record: dict[str, Any]) -> Iterator[Figure]:
    """The figures of a record; cases that failed have none."""
    for group in record["groups"]:
        limits = [Limits(**limit) for limit in group["limits"]]
        for case in group["cases"]:
            samples = case["samples"]
            if not samples or "failure" in case:
                continue
            middle = median(samples)
            known = {"peer", "samples", "unit", "bytes", "operations"}
            yield Figure(
                group=group["name"],
                peer=case["peer"],
                parameters={k: v for k, v in case.items() if k not in known},
                value=middle,
                unit=case.get("unit", "s"),
                spread=(max(samples) - min(samples)) / middle,
                bandwidth=_part(case.get("bytes"), samples, [limit.read for limit in limits]),
                peak=_part(case.get("operations"), samples, [limit.int8_peak for limit in limits]),
            )


def _part(work: float | None, samples: list[float], limits: list[float]) -> float | None:
    """The median of work per second over its limit; None without either."""
    if not work or not all(limits[: len(samples)]):
        return None
    return median(work / s / limit for s, limit in zip(samples, limits, strict=False))


def find(record: dict[str, Any] | None, peer: str, group: str, **parameters: Any) -> Figure | None:
    """The figure of a peer in a group whose parameters hold these; None where there is none."""
    for figure in figures(record) if record else ():
        if figure.peer == peer and figure.group == group:
            if all(figure.parameters.get(k) == v for k, v in parameters.items()):
                return figure
    return None


def machine(threads: int) -> dict[str, Any]:
    """What computes, as far as it can be read."""
    from arkinfer import devices
    from arkinfer.system import available_memory

    found: dict[str, Any] = {
        "processor": devices.detect().description or platform.machine(),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "threads": threads,
        "free_memory": available_memory(),
        "load": os.getloadavg()[0],
    }
    for key, file in (
        ("governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        ("huge_pages", "/sys/kernel/mm/transparent_hugepage/enabled"),
    ):
        if os.access(file, os.R_OK):
            found[key] = Path(file).read_text().strip()
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text()
        wanted = ("model name", "cpu family", "model", "flags", "Features")
        lines = (line.partition(":") for line in cpuinfo.split("\n\n")[0].splitlines())
        found["cpuinfo"] = {k.strip(): v.strip() for k, _, v in lines if k.strip() in wanted}
    except OSError:
        pass
    return found


def group(
    name: str, limits: list[Limits], peers: dict[str, Any], cases: list[dict[str, Any]]
) -> dict[str, Any]:
    """One group of a record: cases that were interleaved."""
    return {
        "name": name,
        "limits": [asdict(limit) for limit in limits],
        "peers": peers,
        "cases": cases,
    }


def load(path: Path) -> dict[str, Any] | None:
    """A record that was written before; None where there is none."""
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def save(path: Path, record: dict[str, Any]) -> None:
    """Write a record whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(json.dumps(record, indent=1) + "\n")
    temporary.rename(path)


def text(record: dict[str, Any]) -> str:
    """A table of all figures for a terminal; ratios are over the group's first case."""
    lines = []
    first: Figure | None = None
    for figure in figures(record):
        if first is None or first.group != figure.group:
            first = figure
            lines.append(f"{record['benchmark']} {figure.group}")
        parameters = ", ".join(f"{k} {v}" for k, v in figure.parameters.items())
        limits = [
            f"{part:5.0%} of {what}"
            for part, what in ((figure.bandwidth, "bandwidth"), (figure.peak, "int8 peak"))
            if part is not None
        ]
        value = f"{figure.value / 1e6:11.1f} MB"
        if figure.unit == "s":
            value = f"{figure.value * 1e3:11.3f} ms"
        lines.append(
            f"  {figure.peer:24} {parameters:34} {value}  "
            f"x{figure.value / first.value:<7.2f} spread {figure.spread:4.0%}  " + ", ".join(limits)
        )
    return "\n".join(lines)
