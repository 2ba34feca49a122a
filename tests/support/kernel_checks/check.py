"""A call of a kernel with the test of its results, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.kernel_runner import Call, Runner

Array = NDArray[Any]
Results = dict[str, Array]


@dataclass
class Check:
    """A call and the test of its results."""

    call: Call
    verify: Callable[[Results], None]


def run_checks(
    runner: Runner, checks: Iterable[Check], isas: Iterable[str], threads: Iterable[int] = (1, 2)
) -> None:
    """Run every check with every kernel set; all thread counts must give the same bits."""
    for check in checks:
        for isa in isas:
            results = runner.run([(check.call, isa, count) for count in threads])
            for other in results[1:]:
                for name, data in results[0].items():
                    assert data.tobytes() == other[name].tobytes(), f"{check.call.kernel} {isa}"
            try:
                check.verify(results[0])
            except AssertionError as error:
                place = f"{check.call.kernel} {isa} {check.call.attributes}"
                raise AssertionError(f"{place}: {error}") from error


def close(actual: Array, expected: Array, tolerance: Array | float) -> None:
    """Assert |actual - expected| <= tolerance everywhere."""
    error = np.abs(np.asarray(actual, np.float64) - expected)
    worst = np.unravel_index(np.argmax(error - tolerance), error.shape) if error.size else None
    assert error.size == 0 or bool((error <= tolerance).all()), (
        f"at {worst}: {actual[worst]} is not {expected[worst]} (tolerance {np.max(tolerance)})"
    )
