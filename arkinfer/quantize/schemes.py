"""How the numbers of one weight are stored: a scheme, and a tensor that follows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Offset = Literal["symmetric", "zero_point", "minimum"]


@dataclass(frozen=True)
class GroupScheme:
    """Unsigned codes with one scale per group of consecutive inputs.

    The value of code c in a group is

    - ``symmetric``:  ``scale * (c - middle)``
    - ``zero_point``: ``scale * (c - zero_point)``
    - ``minimum``:    ``scale * c + minimum``

    Attributes:
        bits: 4 or 8, or 2 for ternary weights: their codes 0, 1 and 2 stand for
            -1, 0 and 1 (and 3, which no quantizer writes, for 2).
        group_size: inputs per scale: 16, 32, 64 or 128; of ternary weights any
            multiple of 16, up to a whole row.
        offset: where the zero of a group lies.
        scale_dtype: ``"fp16"`` or ``"fp32"``: the narrowest that holds the
            scales (and minimums) exactly.
    """

    bits: Literal[2, 4, 8]
    group_size: int
    offset: Offset = "symmetric"
    scale_dtype: Literal["fp16", "fp32"] = "fp16"

    def __str__(self) -> str:
        suffix = {"symmetric": "", "zero_point": "z", "minimum": "m"}[self.offset]
        kind = "ternary" if self.bits == 2 else f"w{self.bits}"
        return f"{kind}g{self.group_size}{suffix}"

    @property
    def middle(self) -> int:
        """The code that stands for zero in a symmetric group."""
        return 1 if self.bits == 2 else 1 << (self.bits - 1)


@dataclass(frozen=True)
class QuantizedTensor:
    """A weight of shape [outputs, inputs] under a :class:`GroupScheme`.

    Attributes:
        codes: uint8 [outputs, inputs], one code per byte.
        scales: float32 [outputs, inputs / group_size].
        offsets: None (symmetric), uint8 zero points, or float32 minimums, of
            the shape of ``scales``.
    """

    scheme: GroupScheme
    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    offsets: NDArray[np.uint8] | NDArray[np.float32] | None = None

    def dequantize(self) -> NDArray[np.float32]:
        """Return the float32 values, [outputs, inputs]."""
        rows, columns = self.codes.shape
        shape = (rows, columns // self.scheme.group_size, self.scheme.group_size)
        grouped = self.codes.reshape(shape).astype(np.float32)
        scales = self.scales[:, :, None]
        if self.scheme.offset == "minimum":
            assert self.offsets is not None
            values = grouped * scales + self.offsets[:, :, None].astype(np.float32)
        elif self.scheme.offset == "zero_point":
            assert self.offsets is not None
            values = (grouped - self.offsets[:, :, None].astype(np.float32)) * scales
        else:
            values = (grouped - np.float32(self.scheme.middle)) * scales
        return np.ascontiguousarray(values.reshape(rows, columns), dtype=np.float32)
