"""What peers need of their own process."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from arkinfer.runtime.process import peak_rss_bytes


class Process:
    """Base of the peers: the process's memory, and tokens that are the same for all."""

    def peak_rss(self) -> int:
        return peak_rss_bytes()


def tokens(vocab: int, count: int) -> list[int]:
    """Token ids from a fixed seed."""
    drawn: list[int] = np.random.default_rng(0).integers(3, vocab, count).tolist()
    return drawn


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
