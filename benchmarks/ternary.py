"""Ternary weights against our own 4-bit ones, and against llama.cpp's TQ2_0."""

from __future__ import annotations

from benchmarks.decode import cases
from benchmarks.harness.benchmark import Benchmark, parser
from benchmarks.prefill import cases as prefill_cases

ENGINES = ("arkinfer w4g128", "arkinfer ternary", "arkinfer ternaryg128", "llama.cpp TQ2_0")


def main() -> None:
    benchmark = Benchmark("ternary", parser("ternary", __doc__ or "").parse_args())
    quick = benchmark.options.quick
    for shape in ("slice2",) if quick else ("slice2", "8b"):
        names = ENGINES if shape != "8b" else ENGINES[:2]
        with benchmark.group(f"decode {shape}") as wanted:
            if wanted:
                benchmark.measure(f"decode {shape}", cases(benchmark, shape, names))
    with benchmark.group("prefill slice2") as wanted:
        if wanted:
            tokens = 128 if quick else 512
            found = prefill_cases(benchmark, "slice2", ENGINES, tokens, warm=False)
            benchmark.measure("prefill slice2", found)


if __name__ == "__main__":
    main()
