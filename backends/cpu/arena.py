"""Placing activation buffers in one arena: buffers share bytes when no step needs both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

ALIGNMENT = 64


@dataclass(frozen=True)
class Lifetime:
    """A buffer of ``size`` bytes that steps ``first`` to ``last`` (both included) need."""

    size: int
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Whether one step needs both."""
        return self.first <= other.last and other.first <= self.last


def place(lifetimes: Sequence[Lifetime]) -> tuple[list[int], int]:
    """Offsets (multiples of 64) for each buffer, and the size of the arena.

    Largest first, each at the lowest offset that is free for its whole life:
    the usual greedy answer to an NP-hard problem, and near the lower bound here.
    """
    offsets = [0] * len(lifetimes)
    placed: list[int] = []
    for index in sorted(range(len(lifetimes)), key=lambda i: (-lifetimes[i].size, i)):
        life = lifetimes[index]
        size = _align(life.size)
        offset = 0
        for other in sorted(placed, key=lambda i: offsets[i]):
            if not life.overlaps(lifetimes[other]):
                continue
            if offset + size <= offsets[other]:
                break
            offset = max(offset, offsets[other] + _align(lifetimes[other].size))
        offsets[index] = offset
        placed.append(index)
    total = max((o + _align(b.size) for o, b in zip(offsets, lifetimes, strict=True)), default=0)
    return offsets, total


def _align(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
