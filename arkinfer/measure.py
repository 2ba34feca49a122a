"""What this machine reaches, measured in a second: reading memory, and multiplying."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from arkinfer.bench import read_bandwidth
from arkinfer.predict import EFFICIENCIES, Rates

_SIZE = 768
_REPEATS = 24
# int8 operations per float32 operation of the same width and rate, by kernel set: a vector holds
# four times as many int8, which dot products sum in one instruction; smmla and AMX do more.
_INT8_PER_FP32 = {
    "scalar": 1,
    "neon": 1,
    "avx2": 4,
    "avxvnni": 4,
    "avx512": 4,
    "avx512vnni": 4,
    "dotprod": 4,
    "i8mm": 8,
    "amx": 32,
}


@dataclass(frozen=True)
class Measured:
    """Bytes per second that all threads read, and operations per second in float32 and int8.

    ``int8`` follows from ``fp32`` and the kernel set; it is not measured itself.
    """

    threads: int
    bandwidth: float
    fp32: float
    int8: float

    @property
    def rates(self) -> Rates:
        """For predictions of this machine's CPU."""
        return Rates(
            bandwidth=self.bandwidth,
            products=("int8", self.int8),
            attention=("fp32", self.fp32),
            efficiency=EFFICIENCIES["measured"],
            origin="measured here",
        )


def measure(threads: int, kernel_sets: Sequence[str]) -> Measured:
    """Measure this machine's CPU.

    Args:
        threads: that read together. Products are multiplied with as many as numpy takes.
        kernel_sets: that the native library runs here, or the processor's features.
    """
    # First: numpy's threads go on spinning for a while after a product.
    bandwidth = read_bandwidth(threads)
    fp32 = _product_rate()
    factor = max((_INT8_PER_FP32.get(name, 1) for name in kernel_sets), default=1)
    return Measured(threads, bandwidth, fp32, fp32 * factor)


def _product_rate() -> float:
    """Operations per second of numpy's float32 matrix product."""
    left = np.ones((_SIZE, _SIZE), np.float32)
    right = np.ones((_SIZE, _SIZE), np.float32)
    best = float("inf")
    for _ in range(_REPEATS):
        start = time.perf_counter()
        left @ right
        best = min(best, time.perf_counter() - start)
    return 2 * _SIZE**3 / best
