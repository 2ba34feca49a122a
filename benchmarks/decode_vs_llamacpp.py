"""ArkInfer against llama.cpp: the same GGUF file, bits, threads and tokens, A B A B in one run.

    make bench
    python benchmarks/decode_vs_llamacpp.py --threads 2 --generate 64 --repeat 7 > record.json

Both run the same tokens, so both do the same work. Each repeat measures the memory bandwidth,
then ArkInfer, then llama.cpp; medians and their ratio are reported. Prints a table on stderr and
one JSON record on stdout.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import arkinfer  # noqa: E402
from arkinfer import bench  # noqa: E402
from tests.support import smollm2  # noqa: E402

Run = Callable[[], None]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", type=Path, help="default: SmolLM2-135M-Instruct, Q4_1")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the prompt")
    parser.add_argument("--generate", type=int, default=64, help="tokens decoded one by one")
    parser.add_argument("--repeat", type=int, default=7)
    return parser.parse_args()


def ours(bundle: Path, context: int, threads: int, prompt: list[int], rest: list[int]) -> list[Run]:
    """Prefill and decode of ArkInfer, in its default mode."""
    session = arkinfer.load(bundle, context=context, threads=threads).session()

    def prefill() -> None:
        session.rollback(0)
        session.append(prompt)

    def decode() -> None:
        session.rollback(len(prompt))
        for token in rest:
            session.append([token])

    return [prefill, decode]


def theirs(gguf: Path, context: int, threads: int, prompt: list[int], rest: list[int]) -> list[Run]:
    """The same of llama.cpp, with its default float16 cache."""
    import llama_cpp

    model = llama_cpp.Llama(
        str(gguf), n_ctx=context, n_threads=threads, n_threads_batch=threads, verbose=False
    )

    def prefill() -> None:
        model.reset()
        model.eval(prompt)

    def decode() -> None:
        model.n_tokens = len(prompt)
        for token in rest:
            model.eval([token])

    return [prefill, decode]


def seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    options = parse()
    gguf = options.gguf or smollm2.path()
    context = options.prompt + options.generate
    with tempfile.TemporaryDirectory() as folder:
        bundle = arkinfer.compile(
            gguf, target="cpu", quant="keep", context=context, output=Path(folder) / "bench.ark"
        )
        record = measure(bundle, gguf, context, options)
    print(json.dumps(record, indent=1))


def measure(bundle: Any, gguf: Path, context: int, options: argparse.Namespace) -> dict[str, Any]:
    """The record of one run."""
    from importlib import metadata

    draw = np.random.default_rng(0)
    tokens = draw.integers(0, bundle.manifest.model.vocab_size, context).tolist()
    prompt, rest = tokens[: options.prompt], tokens[options.prompt :]
    names = ("arkinfer", "llama.cpp")
    runs = (
        ours(bundle.path, context, options.threads, prompt, rest),
        theirs(gguf, context, options.threads, prompt, rest),
    )
    rates: dict[str, dict[str, list[float]]] = {
        kind: {name: [] for name in names} for kind in ("prefill", "decode")
    }
    bandwidths = []
    for repeat in range(options.repeat + 1):
        bandwidths.append(bench.read_bandwidth(options.threads))
        for index, (kind, count) in enumerate((("prefill", prompt), ("decode", rest))):
            for name, pair in zip(names, runs, strict=True):
                rate = len(count) / seconds(pair[index])
                if repeat:  # the first round warms up
                    rates[kind][name].append(rate)
    bandwidth = statistics.median(bandwidths)
    read = bench.bytes_per_token(bundle, options.prompt + options.generate // 2, "fp16")
    record: dict[str, Any] = {
        "machine": {
            "processor": processor(),
            "threads": options.threads,
            "read_bandwidth_bytes_per_s": bandwidth,
        },
        "bundle": {"digest": bundle.digest, "quantization": bundle.manifest.quantization.requested},
        "versions": {
            "arkinfer": arkinfer.__version__,
            "llama-cpp-python": metadata.version("llama-cpp-python"),
        },
        "tokens": {"prompt": len(prompt), "generate": len(rest), "repeat": options.repeat},
        "speculation": False,
    }
    for kind, by_name in rates.items():
        medians = {name: statistics.median(values) for name, values in by_name.items()}
        ratio = medians["arkinfer"] / medians["llama.cpp"]
        record[kind] = {"tokens_per_s": medians, "ratio": ratio, "runs": by_name}
        print(
            f"{kind:8} arkinfer {medians['arkinfer']:8.1f}   llama.cpp "
            f"{medians['llama.cpp']:8.1f} tokens/s   ratio {ratio:.2f}",
            file=sys.stderr,
        )
    fraction = record["decode"]["tokens_per_s"]["arkinfer"] * read / bandwidth
    record["decode"]["bytes_per_token"] = read
    record["decode"]["fraction_of_bandwidth"] = fraction
    print(
        f"decode reads {read / 1e6:.1f} MB per token: {fraction:.0%} of the measured "
        f"{bandwidth / 1e9:.1f} GB/s",
        file=sys.stderr,
    )
    return record


def processor() -> str:
    """What computes, in words."""
    from arkinfer import devices

    return devices.detect().description or platform.machine()


if __name__ == "__main__":
    main()
