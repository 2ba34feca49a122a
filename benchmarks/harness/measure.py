"""Interleaved measurement: every round measures the limits, then each case once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.harness.limits import Limits, Meter
from benchmarks.harness.workers import WorkerError

# Threads of some engines wait actively for a moment after their work.
_PAUSE_SECONDS = 0.05
_LEAST_ROUNDS = 3


@dataclass
class Case:
    """One thing that is measured.

    Attributes:
        peer: who does it.
        what: the figure and its parameters, as they are found again in the record.
        run: does it once and gives the seconds of one unit (or another number, of the unit
            that ``what`` names).
    """

    peer: str
    what: dict[str, Any]
    run: Callable[[], float]
    samples: list[float] = field(default_factory=list)
    failure: str | None = None

    def record(self) -> dict[str, Any]:
        """What the record keeps."""
        kept: dict[str, Any] = {"peer": self.peer, **self.what, "samples": self.samples}
        return kept if self.failure is None else {**kept, "failure": self.failure}


def interleave(
    cases: list[Case], meter: Meter, rounds: int, minutes: float, warm: bool = True
) -> list[Limits]:
    """Run all cases ``rounds`` times in turn; fills their samples and gives each round's limits.

    After ``minutes`` no further round begins, once there are three. A case that fails is left
    out of the later rounds. Where ``warm`` is set, a first round is not counted.
    """
    start = time.monotonic()
    limits = []
    for round_ in range(-1 if warm else 0, rounds):
        late = time.monotonic() - start > 60 * minutes
        if round_ >= _LEAST_ROUNDS and late:
            break
        measured = meter.sample()
        if round_ >= 0:
            limits.append(measured)
        for case in cases:
            if case.failure is not None:
                continue
            time.sleep(_PAUSE_SECONDS)
            try:
                sample = case.run()
            except WorkerError as error:
                case.failure = str(error)[:500]
                print(f"  {case.peer} {case.what}: {case.failure}", file=sys.stderr)
                continue
            if round_ >= 0:
                case.samples.append(sample)
    return limits
