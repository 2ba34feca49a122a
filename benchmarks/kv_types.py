"""What each type of the KV cache costs and saves: decoding at 0, 32K and 128K, ours alone."""

from __future__ import annotations

from benchmarks.depth import KV, ours
from benchmarks.harness.benchmark import Benchmark, parser

DEPTHS = (32768, 130048)


def main() -> None:
    benchmark = Benchmark("kv_types", parser("kv_types", __doc__ or "").parse_args())
    for name in ("arkinfer w4g128", "arkinfer w4g128 dense"):
        for depth in DEPTHS[:1] if benchmark.options.quick else DEPTHS:
            group = f"{'dense' if name.endswith('dense') else 'sparse'} {depth}"
            with benchmark.group(group) as wanted:
                if wanted:
                    cases = []
                    for kv in ("fp32", *KV):
                        cases += ours(benchmark, "slice2", name, kv, depth)
                    benchmark.measure(group, cases)


if __name__ == "__main__":
    main()
