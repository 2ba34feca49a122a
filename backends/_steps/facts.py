"""What lowering knows of each value of the graph.

A value is either an activation, which a step has written to columns of a buffer, or
something that a later step will take in: a weight on its way to a product, lengths
and positions on their way to the rotary table, caches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from arkinfer.backends._steps.plan import Cache, View
from arkinfer.graph.graph import WeightSpec


@dataclass(frozen=True, eq=False)
class Constant:
    """A tensor that the graph holds."""

    array: NDArray[Any]

    def scalar(self) -> float | None:
        """Its one element, if it has exactly one."""
        return float(self.array.reshape(-1)[0]) if self.array.size == 1 else None


@dataclass(frozen=True)
class Ids:
    """The token ids, [1, tokens]."""


@dataclass(frozen=True)
class Length:
    """A length in tokens, as a scalar or in a vector of one: past + tokens = total."""

    what: Literal["past", "tokens", "total"]


@dataclass(frozen=True)
class Positions:
    """past, past + 1, ... total - 1, in any type and with any axes of length 1."""


@dataclass(frozen=True)
class LongerThan:
    """Whether the total length is above a limit."""

    limit: int


@dataclass(frozen=True, eq=False)
class Frequencies:
    """float32 [head_dim / 2]; ``long`` holds once the total length is above the limit."""

    short: NDArray[np.float32]
    long: NDArray[np.float32]
    limit: int = 0


@dataclass(frozen=True, eq=False)
class Angles:
    """Positions times frequencies."""

    frequencies: Frequencies


@dataclass(frozen=True, eq=False)
class Waves:
    """Cosines or sines of angles, times a factor."""

    part: Literal["cos", "sin"]
    frequencies: Frequencies
    factor: float = 1.0


PartName = Literal["values", "codes", "scales", "zero_points", "minimums"]


@dataclass(frozen=True)
class Part:
    """An input of the graph that holds one part of a weight, as stored or made ready."""

    spec: WeightSpec
    part: PartName


@dataclass(frozen=True)
class Matrix:
    """A whole weight as real numbers, [outputs, inputs] or transposed."""

    spec: WeightSpec
    transposed: bool = False


@dataclass(frozen=True)
class Unshifted:
    """A weight whose minimums are still to be added."""

    spec: WeightSpec


@dataclass(frozen=True)
class Scaled:
    """An activation whose factor the next product takes over."""

    view: View
    factor: float


@dataclass(frozen=True)
class Swished:
    """x * sigmoid(x) of an activation, to be multiplied by another."""

    gate: View


@dataclass(frozen=True)
class Heads:
    """An activation divided in heads: [1, tokens, heads, d], or [1, heads, tokens, d]."""

    view: View
    heads: int
    heads_first: bool = False


@dataclass(frozen=True)
class CacheFact:
    """A cache: as it entered the graph, or with the new tokens appended."""

    cache: Cache
    appended: bool


@dataclass(frozen=True)
class Blocks:
    """The blocks that each token and key-value head attends to."""

    view: View
    block_size: int


Fact = (
    Constant
    | Ids
    | Length
    | Positions
    | LongerThan
    | Frequencies
    | Angles
    | Waves
    | Part
    | Matrix
    | Unshifted
    | View
    | Scaled
    | Swished
    | Heads
    | CacheFact
    | Blocks
)
