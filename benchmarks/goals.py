"""What was aimed at, and how each figure follows from the records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from arkinfer import kv_types
from benchmarks.harness.record import Figure, find

Records = dict[str, dict[str, Any] | None]
OURS, FINE, DENSE = "arkinfer w4g128", "arkinfer w4g32", "arkinfer w4g128 dense"
LLAMA = ("llama.cpp Q4_0", "llama.cpp Q4_0 flash")
# The largest depth leaves room for the tokens that are measured.
LONGEST = 130048


@dataclass(frozen=True)
class Goal:
    """One figure with its goal.

    Attributes:
        least: the figure should be at least ``goal``; else at most.
        measure: the figure from the records; None where something was not measured.
        benchmark: the script that measures it.
    """

    text: str
    goal: float
    least: bool
    benchmark: str
    measure: Callable[[Records], float | None]

    def met(self, value: float) -> bool:
        return value >= self.goal if self.least else value <= self.goal


def _best(
    record: dict[str, Any] | None, peers: tuple[str, ...], group: str, **what: Any
) -> Figure | None:
    """The fastest of some peers' figures: of an engine's flags the better one."""
    found = [figure for peer in peers if (figure := find(record, peer, group, **what))]
    return min(found, key=lambda figure: figure.value, default=None)


def _ratio(over: Figure | None, under: Figure | None) -> float | None:
    return over.value / under.value if over and under else None


def _added(
    record: dict[str, Any] | None, peers: tuple[str, ...], group: str, depth: int, **what: Any
) -> float | None:
    """Seconds that a depth adds to a decoded token; of several peers the least."""
    added = []
    for peer in peers:
        deep = find(record, peer, group, depth=depth, **what)
        empty = find(record, peer, group, depth=0, **what)
        if deep and empty:
            added.append(deep.value - empty.value)
    return min(added, default=None)


def faster(
    benchmark: str, group: str, ours: str, *theirs: str, **what: Any
) -> Callable[[Records], float | None]:
    """How many times the best of ``theirs`` takes longer than ``ours``."""

    def measure(records: Records) -> float | None:
        record = records.get(benchmark)
        return _ratio(_best(record, theirs, group), find(record, ours, group, **what))

    return measure


def limit(benchmark: str, group: str, peer: str, part: str) -> Callable[[Records], float | None]:
    """The part of a limit (``"bandwidth"`` or ``"peak"``) that a peer uses."""

    def measure(records: Records) -> float | None:
        figure = find(records.get(benchmark), peer, group)
        value: float | None = getattr(figure, part) if figure else None
        return value

    return measure


def deeper(kv: str) -> Callable[[Records], float | None]:
    """A token at the largest depth over one at 0, ours, of the whole model."""

    def measure(records: Records) -> float | None:
        record, group = records.get("depth"), f"decode 8b {kv}"
        deep = find(record, OURS, group, depth=LONGEST)
        return _ratio(deep, find(record, OURS, group, depth=0))

    return measure


def attention(ours: str, kv: str) -> Callable[[Records], float | None]:
    """What 32K tokens add to a decoded token, ours over llama.cpp's better flag."""

    def measure(records: Records) -> float | None:
        record, group = records.get("depth"), "decode slice2 32K"
        mine = _added(record, (ours,), group, 32768, kv=kv)
        theirs = _added(record, LLAMA, group, 32768)
        return mine / theirs if mine is not None and theirs else None

    return measure


def chunk(depth: int) -> Callable[[Records], float | None]:
    """A chunk of 512 tokens behind ``depth`` others against llama.cpp's better flag."""
    kv = kv_types.DEFAULT
    return faster("depth", f"prefill slice2 {depth // 1024}K", OURS, *LLAMA, kv=kv)


def rows(count: int) -> Callable[[Records], float | None]:
    """``count`` rows over one row."""

    def measure(records: Records) -> float | None:
        record = records.get("verify")
        return _ratio(find(record, OURS, "8b", rows=count), find(record, OURS, "8b", rows=1))

    return measure


def part_of(benchmark: str, group: str) -> Callable[[Records], float | None]:
    """Ours over llama.cpp: memory, or seconds."""

    def measure(records: Records) -> float | None:
        record = records.get(benchmark)
        return _ratio(find(record, OURS, group), find(record, LLAMA[0], group))

    return measure


GOALS = (
    Goal(
        "decode 8B w4 g128, depth 0: part of the read bandwidth",
        0.92,
        True,
        "decode",
        limit("decode", "8b", OURS, "bandwidth"),
    ),
    Goal(
        "decode 8B w4 g128 against llama.cpp Q4_0",
        1.8,
        True,
        "decode",
        faster("decode", "8b", OURS, *LLAMA),
    ),
    Goal(
        "decode w4 g128 against onnxruntime block 128, 6 layers",
        1.3,
        True,
        "decode",
        faster("decode", "slice6", OURS, "onnxruntime b128"),
    ),
    Goal(
        "decode 8B w4 g32 against llama.cpp Q4_0",
        1.6,
        True,
        "decode",
        faster("decode", "8b", FINE, *LLAMA),
    ),
    Goal(
        "prefill 512 8B w4 g128: part of the int8 peak",
        0.60,
        True,
        "prefill",
        limit("prefill", "8b", OURS, "peak"),
    ),
    Goal(
        "prefill 512 8B w4 g128 against llama.cpp Q4_0",
        4.5,
        True,
        "prefill",
        faster("prefill", "8b", OURS, *LLAMA),
    ),
    Goal(
        "prefill 512 w4 g128 against OpenVINO g128, 6 layers",
        2.0,
        True,
        "prefill",
        faster("prefill", "slice6", OURS, "openvino g128"),
    ),
    Goal(
        "prefill 512 8B w4 g32: part of the int8 peak",
        0.48,
        True,
        "prefill",
        limit("prefill", "8b", FINE, "peak"),
    ),
    Goal(
        "decode 8B at depth 32K against llama.cpp, int8 KV",
        5.0,
        True,
        "depth",
        faster("depth", "decode 8b 32K", OURS, *LLAMA),
    ),
    Goal(
        "decode 8B at depth 128K against llama.cpp, int8 KV",
        15.0,
        True,
        "depth",
        faster("depth", "decode 8b 128K", OURS, *LLAMA),
    ),
    Goal(
        "decode 8B at 128K over 0, int8 KV",
        1.12,
        False,
        "depth",
        deeper("int8"),
    ),
    Goal(
        "decode 8B at 128K over 0, fp16 KV",
        1.22,
        False,
        "depth",
        deeper("fp16"),
    ),
    Goal(
        "attention and selection at 32K over llama.cpp's, int8 KV",
        1 / 60,
        False,
        "depth",
        attention(OURS, "int8"),
    ),
    Goal(
        "attention and selection at 32K over llama.cpp's, fp16 KV",
        1 / 30,
        False,
        "depth",
        attention(OURS, "fp16"),
    ),
    Goal(
        "dense attention at 32K over llama.cpp's, fp16 KV",
        1 / 7,
        False,
        "depth",
        attention(DENSE, "fp16"),
    ),
    Goal(
        "prefill chunk of 512 at 16K against llama.cpp",
        5.0,
        True,
        "depth",
        chunk(16384),
    ),
    Goal(
        "prefill chunk of 512 at 32K against llama.cpp",
        8.0,
        True,
        "depth",
        chunk(32768),
    ),
    Goal(
        "prefill chunk of 512 at 64K against llama.cpp",
        13.0,
        True,
        "depth",
        chunk(65536),
    ),
    Goal(
        "ternary decode 8B against our w4 g128",
        1.8,
        True,
        "ternary",
        faster("ternary", "decode 8b", "arkinfer ternary", OURS),
    ),
    Goal(
        "verify 4 rows over 1, 8B",
        1.1,
        False,
        "verify",
        rows(4),
    ),
    Goal(
        "verify 8 rows over 1, 8B",
        1.25,
        False,
        "verify",
        rows(8),
    ),
    Goal(
        "verify 16 rows over 1, 8B",
        2.1,
        False,
        "verify",
        rows(16),
    ),
    Goal(
        "peak memory of 8B w4 at 4K context over llama.cpp Q4_0",
        0.55,
        False,
        "memory",
        part_of("memory", "8b"),
    ),
    Goal(
        "cold start to first token, 8B, over llama.cpp",
        0.7,
        False,
        "cold_start",
        part_of("cold_start", "8b cold"),
    ),
    Goal(
        "SmolLM2-135M decode against llama.cpp",
        2.0,
        True,
        "smollm2",
        faster("smollm2", "decode", "arkinfer Q4_1", "llama.cpp Q4_1", "llama.cpp Q4_1 flash"),
    ),
    Goal(
        "SmolLM2-135M prefill 512 against OpenVINO",
        1.5,
        True,
        "smollm2",
        faster("smollm2", "prefill", "arkinfer Q4_1", "openvino g32"),
    ),
)
