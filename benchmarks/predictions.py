"""How far `arkinfer devices --measure --model X` is from what this machine then does.

    python -m benchmarks.predictions X.ark [--depth TOKENS ...] [--rounds N]

Every round measures the machine, predicts from that, and runs the bundle; medians are printed.
Caches are filled with random numbers up to each depth.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import arkinfer
from arkinfer.measure import measure
from arkinfer.planning import Options, plan
from arkinfer.predict import Workload
from arkinfer.runtime import library
from arkinfer.runtime.native_session import NativeSession

_DECODED = 8
# numpy's threads spin for a while after a product.
_PAUSE = 0.3


def main() -> None:
    """Print one line per depth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--depth", type=int, nargs="+", default=[64])
    parser.add_argument("--prefill", type=int, default=0, metavar="TOKENS")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    room = max(*asked.depth, asked.prefill) + _DECODED
    model = arkinfer.load(asked.bundle, context=room)
    session = model.session()
    if not isinstance(session.executor, NativeSession):
        raise SystemExit("only bundles that the native runtime runs are predicted")
    threads = session.executor.threads
    planned = plan(asked.bundle, Options(context=room, kv=model.info.kv))
    session.append([1])
    for depth in asked.depth:
        session.rollback(0)
        session.fill_random(depth)

        def decode(depth: int = depth) -> None:
            for _ in range(_DECODED):
                session.append([1])
            session.rollback(depth)

        workload = Workload(planned, [depth + _DECODED // 2])
        _compare(
            f"decode after {depth}",
            asked.rounds,
            threads,
            lambda rates, w=workload: w.predict(rates)[0].decode,
            lambda run=decode: _DECODED / _seconds(run),
        )
    if asked.prefill:
        session.rollback(0)
        prompt = [1] * asked.prefill

        def prefill() -> None:
            session.append(prompt)
            session.rollback(0)

        workload = Workload(planned, [asked.prefill])
        _compare(
            f"prefill {asked.prefill}",
            asked.rounds,
            threads,
            lambda rates: workload.predict(rates)[0].prefill or 0.0,
            lambda: asked.prefill / _seconds(prefill),
        )


def _compare(
    name: str,
    rounds: int,
    threads: int,
    predict: Callable[..., float],
    run: Callable[[], float],
) -> None:
    predicted, measured, read = [], [], []
    for _ in range(rounds):
        machine = measure(threads, library.instruction_sets())
        time.sleep(_PAUSE)
        predicted.append(predict(machine.rates))
        read.append(machine.bandwidth / 1e9)
        measured.append(run())
    error = statistics.median(p / m - 1 for p, m in zip(predicted, measured, strict=True))
    print(
        f"{name}: predicted {statistics.median(predicted):.3g}, measured "
        f"{statistics.median(measured):.3g} tokens/s ({min(measured):.3g} to {max(measured):.3g}), "
        f"error {error:+.0%}; {statistics.median(read):.3g} GB/s",
        flush=True,
    )


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
