"""What the machine can give: native/tools/machine_limits.cc, compiled on its own and asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness.files import ROOT

SOURCE = ROOT / "native" / "tools" / "machine_limits.cc"


@dataclass(frozen=True)
class Limits:
    """One measurement.

    Attributes:
        threads: how many threads worked at once.
        read_one, read: bytes per second that one and that all threads read from memory.
        int8: operations per second by instruction set; a product and a sum are two.
        fp32: the same of fused multiply-add.
    """

    threads: int
    read_one: float
    read: float
    int8: dict[str, float]
    fp32: dict[str, float]

    @property
    def int8_peak(self) -> float:
        """The best of the machine's int8 instructions; 0 where it has none."""
        return max(self.int8.values(), default=0.0)


def parse(text: str) -> Limits:
    """What the tool printed.

    Raises:
        ValueError: it is not what the tool prints.
    """
    try:
        found: dict[str, Any] = json.loads(text)
        threads = int(found["threads"])
        read = {int(count): float(rate) for count, rate in found["read_bytes_per_s"].items()}
        int8 = {str(isa): float(rate) for isa, rate in found["int8"].items()}
        fp32 = {str(isa): float(rate) for isa, rate in found["fp32"].items()}
        limits = Limits(threads, read[1], read[threads], int8, fp32)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"machine_limits printed something else: {error!r}: {text[:200]!r}"
        ) from None
    rates = [limits.read_one, limits.read, *int8.values(), *fp32.values()]
    if not all(rate > 0 for rate in rates):
        raise ValueError(f"machine_limits measured a rate that is not positive: {text[:200]!r}")
    return limits


def middle(samples: Sequence[Limits]) -> Limits:
    """The median of each rate."""
    if not samples:
        raise ValueError("no limits were measured")

    def each(table: list[dict[str, float]]) -> dict[str, float]:
        return {isa: median(row[isa] for row in table) for isa in table[0]}

    return Limits(
        threads=samples[0].threads,
        read_one=median(s.read_one for s in samples),
        read=median(s.read for s in samples),
        int8=each([s.int8 for s in samples]),
        fp32=each([s.fp32 for s in samples]),
    )


@dataclass
class Meter:
    """Measures the limits again and again; made with the folder that the tool is compiled into."""

    cache: Path
    threads: int
    seconds: float = 0.15

    def sample(self) -> Limits:
        """Measure once."""
        command = [str(self._tool()), str(self.threads), str(self.seconds), "512"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return parse(done.stdout)

    def _tool(self) -> Path:
        tool = self.cache / "machine_limits"
        if tool.exists() and tool.stat().st_mtime >= SOURCE.stat().st_mtime:
            return tool
        compiler = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
        if compiler is None:
            raise SystemExit("a C++ compiler is needed to measure the machine's limits; set CXX")
        self.cache.mkdir(parents=True, exist_ok=True)
        flags = ["-O2", "-std=c++17", "-pthread"]
        subprocess.run([compiler, *flags, str(SOURCE), "-o", str(tool)], check=True)
        return tool
