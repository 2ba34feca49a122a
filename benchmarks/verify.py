"""Checking several rows at once, as speculative decoding does, over one row."""

from __future__ import annotations

from benchmarks.harness.benchmark import Benchmark, case, parser

ROWS = (1, 2, 4, 8, 12, 16, 32, 64)


def main() -> None:
    benchmark = Benchmark("verify", parser("verify", __doc__ or "").parse_args())
    quick = benchmark.options.quick
    for shape in ("slice2",) if quick else ("slice2", "8b"):
        with benchmark.group(shape) as wanted:
            if not wanted:
                continue
            cases = []
            rows = (1, 4, 8, 16) if quick or shape == "8b" else ROWS
            for name in ("arkinfer w4g128", "arkinfer w4g32", "llama.cpp Q4_0"):
                if shape == "8b" and name != "arkinfer w4g128":
                    continue
                worker = benchmark.engine(name, shape, context=1024)
                if worker is not None:
                    cases += [case(name, worker, "verify", {"rows": count}) for count in rows]
            benchmark.measure(shape, cases, rounds=None if shape == "8b" else 3 * benchmark.rounds)


if __name__ == "__main__":
    main()
