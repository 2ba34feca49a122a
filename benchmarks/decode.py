"""Decoding one token after another at depth 0, against every peer and the memory's bandwidth.

The 8B shape against llama.cpp; slices of it also against engines that run stacks of layers.
"""

from __future__ import annotations

from typing import Any

from benchmarks.harness.benchmark import Benchmark, case, parser
from benchmarks.harness.engines import model_path
from benchmarks.harness.measure import Case
from benchmarks.harness.shapes import SHAPES

OURS = ("arkinfer w4g128", "arkinfer w4g32")
STACKS = ("onnxruntime b128", "onnxruntime b32", "openvino g128")


def main() -> None:
    benchmark = Benchmark("decode", parser("decode", __doc__ or "").parse_args())
    groups = {
        "slice2": (*OURS, "llama.cpp Q4_0", *STACKS),
        "slice6": (*OURS, "llama.cpp Q4_0", *STACKS),
        "8b": (*OURS, "llama.cpp Q4_0"),
    }
    if benchmark.options.quick:
        groups = {"slice2": groups["slice2"]}
    for shape, names in groups.items():
        with benchmark.group(shape) as wanted:
            if wanted:
                benchmark.measure(shape, cases(benchmark, shape, names))


def cases(benchmark: Benchmark, shape: str, names: tuple[str, ...]) -> list[Case]:
    steps = max(4, 64 // SHAPES[shape].layers)
    found = []
    for name in names:
        worker = benchmark.engine(name, shape, context=1024)
        if worker is None:
            continue
        what: dict[str, Any] = {}
        if name.startswith("arkinfer"):
            what["bytes"] = worker.call("bytes_per_token", depth=steps // 2)
        elif name.startswith("llama.cpp"):
            embedding = SHAPES[shape].head_weights * 18 // 32  # Q4_0, of which one row is read
            path = model_path(name, shape, benchmark.options.cache)
            what["bytes"] = path.stat().st_size - embedding
        found.append(case(name, worker, "decode", {"steps": steps}, **what))
    return found


if __name__ == "__main__":
    main()
