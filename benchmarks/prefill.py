"""Prefill of 512 tokens at depth 0, against every peer and the processor's int8 peak."""

from __future__ import annotations

from benchmarks.harness.benchmark import Benchmark, case, parser
from benchmarks.harness.measure import Case
from benchmarks.harness.shapes import SHAPES

OURS = ("arkinfer w4g128", "arkinfer w4g32")
STACKS = ("onnxruntime b128", "onnxruntime b32", "openvino g128")


def main() -> None:
    options = parser("prefill", __doc__ or "")
    options.add_argument("--tokens", type=int, help="of the prompt; 512, or 128 with --quick")
    benchmark = Benchmark("prefill", options.parse_args())
    quick = benchmark.options.quick
    tokens = benchmark.options.tokens or (128 if quick else 512)
    groups = {
        "slice2": (*OURS, "llama.cpp Q4_0", *STACKS),
        "slice6": (*OURS, "llama.cpp Q4_0", *STACKS),
        "8b": (*OURS, "llama.cpp Q4_0"),
    }
    if quick:
        groups = {"slice2": groups["slice2"]}
    for shape, names in groups.items():
        with benchmark.group(shape) as wanted:
            if wanted:
                large = shape == "8b"
                # One prompt of llama.cpp takes minutes at 8B: three rounds, and a short warming.
                found = cases(benchmark, shape, names, tokens, large)
                benchmark.measure(shape, found, 3 if large else None, warm=not large)


def cases(
    benchmark: Benchmark, shape: str, names: tuple[str, ...], tokens: int, warm: bool
) -> list[Case]:
    found = []
    for name in names:
        worker = benchmark.engine(name, shape, context=max(1024, tokens))
        if worker is None:
            continue
        if warm:
            worker.call("prefill", tokens=4)
        # llama.cpp leaves the last layer's FFN out for rows whose logits nobody wants. In a slice
        # all logits are asked for, which cost nothing there, so that all engines do as much.
        sliced = shape != "8b"
        method = "prefill_all" if sliced and name.startswith("llama.cpp") else "prefill"
        logits = 1 if shape == "8b" else 0
        operations = SHAPES[shape].operations(tokens, logits)
        found.append(case(name, worker, method, {"tokens": tokens}, operations=operations))
    return found


if __name__ == "__main__":
    main()
