"""A real model: SmolLM2-135M-Instruct in its own Q4_1 bits, decoded and prefilled.

llama.cpp reads the same GGUF file. OpenVINO runs layers of the same shape with random 4-bit weights
in groups of 32, without embedding and head.
"""

from __future__ import annotations

from pathlib import Path

import arkinfer
from benchmarks.harness.benchmark import Benchmark, case, parser
from benchmarks.harness.files import make_once, remove, sources_digest
from benchmarks.harness.measure import Case
from benchmarks.harness.shapes import SHAPES
from benchmarks.harness.workers import Worker
from benchmarks.models.bundle import COMPILER
from tests.support import smollm2

_CONTEXT = 1024


def main() -> None:
    benchmark = Benchmark("smollm2", parser("smollm2", __doc__ or "").parse_args())
    for method, amount in (("decode", {"steps": 64}), ("prefill", {"tokens": 512})):
        with benchmark.group(method) as wanted:
            if wanted:
                benchmark.measure(method, cases(benchmark, method, amount))


def cases(benchmark: Benchmark, method: str, amount: dict[str, int]) -> list[Case]:
    options = benchmark.options
    gguf = smollm2.path()
    workers = {
        "arkinfer Q4_1": benchmark.adopt(
            "arkinfer Q4_1",
            Worker(
                "arkinfer_",
                path=str(compiled(options.cache, gguf)),
                context=_CONTEXT,
                threads=options.threads,
            ),
        )
    }
    for name, flash in (("llama.cpp Q4_1", False), ("llama.cpp Q4_1 flash", True)):
        workers[name] = benchmark.adopt(
            name,
            Worker(
                "llama_cpp",
                path=str(gguf),
                context=_CONTEXT,
                threads=options.threads,
                flash=flash,
            ),
        )
    if method == "prefill":
        stack = benchmark.engine("openvino g32", "smollm2", _CONTEXT)
        if stack is not None:
            workers["openvino g32"] = stack
    work: dict[str, dict[str, int]] = {}
    if method == "decode":
        read = workers["arkinfer Q4_1"].call("bytes_per_token", depth=amount["steps"] // 2)
        work["arkinfer Q4_1"] = {"bytes": read}
    else:
        operations = SHAPES["smollm2"].operations(amount["tokens"], 1)
        work = {name: {"operations": operations} for name in workers}
    return [
        case(name, worker, method, amount, **work.get(name, {})) for name, worker in workers.items()
    ]


def compiled(cache: Path, gguf: Path) -> Path:
    """The GGUF file as a bundle, its bits kept."""
    path = cache / f"smollm2-{sources_digest(*COMPILER)}.ark"
    if not path.exists():
        for old in cache.glob("smollm2-*.ark*"):
            remove(old)

    def make(temporary: Path) -> None:
        arkinfer.compile(gguf, target="cpu", quant="keep", context=_CONTEXT, output=temporary)

    return make_once(path, make)


if __name__ == "__main__":
    main()
