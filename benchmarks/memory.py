"""Peak resident memory: a process loads, prefills 512 tokens at 4K context and decodes 16.

Mapped files count with the pages that were touched. Nothing is repeated: it does not vary.
"""

from __future__ import annotations

from benchmarks.harness.benchmark import Benchmark, parser
from benchmarks.harness.engines import open_engine
from benchmarks.harness.measure import Case

CONTEXT = 4096


def main() -> None:
    benchmark = Benchmark("memory", parser("memory", __doc__ or "").parse_args())
    for shape in ("slice2",) if benchmark.options.quick else ("slice2", "8b"):
        with benchmark.group(shape) as wanted:
            if wanted:
                names = ("arkinfer w4g128", "arkinfer w4g32", "llama.cpp Q4_0")
                cases = [
                    Case(
                        name, {"method": "peak_rss", "unit": "bytes"}, Peak(benchmark, name, shape)
                    )
                    for name in names
                ]
                benchmark.measure(shape, cases, rounds=1, warm=False)


class Peak:
    """Measures one engine in a fresh process."""

    def __init__(self, benchmark: Benchmark, name: str, shape: str) -> None:
        self._benchmark, self._name, self._shape = benchmark, name, shape

    def __call__(self) -> float:
        options = self._benchmark.options
        with open_engine(
            self._name, self._shape, CONTEXT, options.cache, options.threads
        ) as worker:
            self._benchmark.peers[self._name] = worker.info
            worker.call("prefill", tokens=512)
            worker.call("decode", steps=16, depth=512)
            return float(worker.call("peak_rss"))


if __name__ == "__main__":
    main()
