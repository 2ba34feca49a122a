"""Decoding and prefilling behind a long context, against dense attention.

Caches are filled without computing them: ours with random numbers, llama.cpp's with copies of
1,024 computed cells, onnxruntime's with zeros. The groups named "real" prefill instead, to show
that this makes no difference. Every group measures depth 0 too, so that what attention adds to a
layer is the difference of two figures of one run.
"""

from __future__ import annotations

from typing import Any

from arkinfer import kv_types
from arkinfer.system import available_memory
from benchmarks.harness import record
from benchmarks.harness.benchmark import Benchmark, case, parser
from benchmarks.harness.measure import Case
from benchmarks.harness.shapes import SHAPES
from benchmarks.harness.workers import Worker, WorkerError

LLAMA = ("llama.cpp Q4_0", "llama.cpp Q4_0 flash")
KV = ("fp16", "int8", "int4")
# One decoded token of a dense engine takes seconds at the largest depths.
_STEPS = 8
_MARGIN = 1024
# The position embedding ends there, and the cache with it.
_LONGEST = 131072


def main() -> None:
    benchmark = Benchmark("depth", parser("depth", __doc__ or "").parse_args())
    quick = benchmark.options.quick
    for depth in (4096, 32768) if quick else (4096, 16384, 32768, 65536, _LONGEST):
        depth = min(depth, _LONGEST - _MARGIN)
        name = f"decode slice2 {_kibi(depth)}"
        with benchmark.group(name) as wanted:
            if wanted:
                benchmark.measure(name, decode_slice(benchmark, depth), rounds=_rounds(benchmark))
    for depth in (16384,) if quick else (16384, 32768, 65536):
        name = f"prefill slice2 {_kibi(depth)}"
        with benchmark.group(name) as wanted:
            if wanted:
                benchmark.measure(name, prefill_slice(benchmark, depth), rounds=3)
    for depth in (4096,) if quick else (4096, 16384):
        name = f"decode slice2 real {_kibi(depth)}"
        with benchmark.group(name) as wanted:
            if wanted:
                benchmark.measure(name, real_prefill(benchmark, depth), rounds=3)
    if not quick:
        whole_model(benchmark)


def decode_slice(benchmark: Benchmark, depth: int) -> list[Case]:
    cases = []
    for kv in KV:
        cases += ours(benchmark, "slice2", "arkinfer w4g128", kv, depth)
    for kv in ("fp16", "int8"):
        cases += ours(benchmark, "slice2", "arkinfer w4g128 dense", kv, depth)
    for name in (*LLAMA, "onnxruntime b128"):
        cases += theirs(benchmark, "slice2", name, depth)
    return cases


def ours(benchmark: Benchmark, shape: str, name: str, kv: str, depth: int) -> list[Case]:
    worker = benchmark.engine(name, shape, context=_MARGIN, kv=kv, label=f"{name} {kv}")
    if worker is None or not fill(worker, depth):
        return []
    return [
        case(
            name,
            worker,
            "decode",
            {"steps": _STEPS, "depth": at},
            kv=kv,
            bytes=worker.call("bytes_per_token", depth=at),
        )
        for at in (0, depth)
    ]


def theirs(benchmark: Benchmark, shape: str, name: str, depth: int) -> list[Case]:
    """Two workers: one stays at depth 0."""
    cases = []
    for at in (0, depth):
        # One row at a time needs no room for more: 32 heads times depth times rows of scores.
        extra: dict[str, Any] = {"ubatch": 32} if name.startswith("llama.cpp") else {}
        context = at + _MARGIN
        worker = benchmark.engine(name, shape, context, label=f"{name} at {at}", **extra)
        if worker is not None and fill(worker, at):
            cases.append(case(name, worker, "decode", {"steps": _STEPS, "depth": at}))
    return cases


def prefill_slice(benchmark: Benchmark, depth: int) -> list[Case]:
    """A chunk of 512 tokens; all engines compute all layers for all rows."""
    cases = []
    for kv in dict.fromkeys(("fp16", "int8", kv_types.DEFAULT)):
        name = "arkinfer w4g128"
        worker = benchmark.engine(name, "slice2", _MARGIN, kv=kv, label=f"{name} {kv}")
        if worker is not None and fill(worker, depth):
            cases.append(case(name, worker, "prefill", {"tokens": 512, "depth": depth}, kv=kv))
    for name in LLAMA:
        worker = benchmark.engine(name, "slice2", depth + _MARGIN)
        if worker is not None and fill(worker, depth):
            cases.append(case(name, worker, "prefill_all", {"tokens": 512, "depth": depth}))
    return cases


def real_prefill(benchmark: Benchmark, depth: int) -> list[Case]:
    """Decoding after a prompt that was really computed."""
    cases = []
    for name in ("arkinfer w4g128", *LLAMA):
        kv = {"kv": "fp16"} if name.startswith("arkinfer") else {}
        worker = benchmark.engine(name, "slice2", depth + _MARGIN, **kv)
        if worker is None:
            continue
        worker.call("prefill", tokens=depth)
        cases.append(case(name, worker, "decode", {"steps": _STEPS, "depth": depth}, **kv))
    return cases


def whole_model(benchmark: Benchmark) -> None:
    """The 8B shape: ours at all depths in turn, and beside llama.cpp where both fit."""
    depths = [32768, _LONGEST - _MARGIN]
    for kv in ("fp16", "int8"):
        name = f"decode 8b {kv}"
        with benchmark.group(name) as wanted:
            if not wanted or not room(name, 5.0e9 + SHAPES["8b"].kv_bytes(sum(depths))):
                continue
            worker = benchmark.engine("arkinfer w4g128", "8b", context=_MARGIN, kv=kv)
            if worker is None:
                continue
            for depth in depths:
                fill(worker, depth)
            cases = []
            for at in (0, *depths):
                arguments = {"steps": _STEPS, "depth": at}
                read = worker.call("bytes_per_token", depth=at)
                cases.append(
                    case("arkinfer w4g128", worker, "decode", arguments, kv=kv, bytes=read)
                )
            benchmark.measure(name, cases)
    for depth in depths:
        name = f"decode 8b {_kibi(depth)}"
        with benchmark.group(name) as wanted:
            # Ours in int8, and llama.cpp's mapped file, its repacked copy and its fp16 cache.
            if not wanted or not room(name, 14.0e9 + 1.5 * SHAPES["8b"].kv_bytes(depth)):
                continue
            found = []
            worker = benchmark.engine("arkinfer w4g128", "8b", context=_MARGIN, kv="int8")
            if worker is not None and fill(worker, depth):
                arguments = {"steps": _STEPS, "depth": depth}
                found.append(case("arkinfer w4g128", worker, "decode", arguments, kv="int8"))
            flag = better_flag(benchmark, depth)
            worker = benchmark.engine(flag, "8b", depth + _MARGIN, ubatch=32)
            if worker is not None and fill(worker, depth):
                found.append(case(flag, worker, "decode", {"steps": 2, "depth": depth}))
            benchmark.measure(name, found, rounds=3)


def better_flag(benchmark: Benchmark, depth: int) -> str:
    """llama.cpp with the flag that was faster in the slice at this depth."""
    group = f"decode slice2 {_kibi(depth)}"
    found = {name: record.find(benchmark.record, name, group, depth=depth) for name in LLAMA}
    known = {name: figure.value for name, figure in found.items() if figure}
    return min(known, key=lambda name: known[name], default=LLAMA[0])


def fill(worker: Worker, depth: int) -> bool:
    """Whether the cache could be filled."""
    try:
        worker.call("fill", depth=depth)
    except WorkerError as error:
        print(f"  {error}")
        return False
    return True


def room(name: str, needed: float) -> bool:
    """Whether there is memory for a group; says so when there is not."""
    free = available_memory()
    if free and free < needed:
        print(f"  {name} is left out: it needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} are free")
        return False
    return True


def _rounds(benchmark: Benchmark) -> int:
    return min(benchmark.rounds, 5)


def _kibi(depth: int) -> str:
    """``131072`` stands for the largest depth, of which a little is left for what is measured."""
    return f"{-(-depth // 4096) * 4}K"


if __name__ == "__main__":
    main()
