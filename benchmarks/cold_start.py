"""From starting a process to the first token of a 16-token prompt, the model not in memory.

The model's files are dropped from the page cache first, where the system allows it (the record
says which part stayed). The time holds the start of the Python interpreter, for both engines.
"""

from __future__ import annotations

import time

from benchmarks.harness.benchmark import Benchmark, parser
from benchmarks.harness.engines import model_path, open_engine
from benchmarks.harness.files import cached_part, drop_from_page_cache
from benchmarks.harness.measure import Case

PROMPT = 16


def main() -> None:
    benchmark = Benchmark("cold_start", parser("cold_start", __doc__ or "").parse_args())
    for shape in ("slice2",) if benchmark.options.quick else ("slice2", "8b"):
        for cold in (True, False):
            group = f"{shape} {'cold' if cold else 'warm'}"
            with benchmark.group(group) as wanted:
                if wanted:
                    cases = [
                        start.case()
                        for start in (
                            Start(benchmark, "arkinfer w4g128", shape, cold),
                            Start(benchmark, "llama.cpp Q4_0", shape, cold),
                        )
                    ]
                    benchmark.measure(group, cases, rounds=3, warm=not cold)


class Start:
    """Starts one engine again and again."""

    def __init__(self, benchmark: Benchmark, name: str, shape: str, cold: bool) -> None:
        self._benchmark, self._name, self._shape, self._cold = benchmark, name, shape, cold
        self._what: dict[str, object] = {"method": "first token", "tokens": PROMPT}
        self._path = model_path(name, shape, benchmark.options.cache)

    def case(self) -> Case:
        return Case(self._name, self._what, self._run)

    def _run(self) -> float:
        options = self._benchmark.options
        if self._cold:
            self._what["cached"] = round(drop_from_page_cache(self._path), 3)
        else:
            self._what["cached"] = round(cached_part(self._path), 3)
        start = time.perf_counter()
        with open_engine(self._name, self._shape, 1024, options.cache, options.threads) as worker:
            worker.call("prefill", tokens=PROMPT)
            elapsed = time.perf_counter() - start
            self._benchmark.peers[self._name] = worker.info
        return elapsed


if __name__ == "__main__":
    main()
