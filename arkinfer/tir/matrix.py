"""Weights for GPUs: rows of 32-bit words, and one scale word (or two) per group of inputs.

A row of codes lies in order: code i of a row has bits ``i % n * bits`` and up of word ``i // n``,
with n = 32 / bits codes in a word. Float weights of 16 bits lie two in a word. A group's scale and
its second number (zero point, or minimum) are two halves of one word where both are exact in
fp16, else two float32 words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor

Words = NDArray[np.uint32]
Storage = Literal["f32", "f16", "bf16"]
_FLOAT_BITS: dict[str, int] = {"f32": 32, "f16": 16, "bf16": 16}


@dataclass(frozen=True)
class Matrix:
    """A weight [outputs, inputs] in words."""

    outputs: int
    inputs: int
    storage: Storage | GroupScheme

    @property
    def bits(self) -> int:
        """Bits of one element."""
        if isinstance(self.storage, GroupScheme):
            return self.storage.bits
        return _FLOAT_BITS[self.storage]

    @property
    def per_word(self) -> int:
        """Elements of one word."""
        return 32 // self.bits

    @property
    def words(self) -> int:
        """Words of one row of codes."""
        return self.inputs // self.per_word

    @property
    def holdable(self) -> bool:
        """Whether rows fill words, and words do not cross groups."""
        group = self.storage.group_size if isinstance(self.storage, GroupScheme) else self.inputs
        whole = self.inputs % self.per_word == 0 and group >= 1 and self.inputs % group == 0
        return whole and group % self.per_word == 0

    @property
    def group(self) -> int:
        """Inputs that share a scale."""
        return self.storage.group_size if isinstance(self.storage, GroupScheme) else self.inputs

    @property
    def scale_words(self) -> int:
        """Words of one group's scale and second number; 0 for float weights."""
        if not isinstance(self.storage, GroupScheme):
            return 0
        return 1 if self.storage.scale_dtype == "fp16" else 2

    @property
    def code_bytes(self) -> int:
        """Size of all codes."""
        return self.outputs * self.words * 4

    @property
    def scale_bytes(self) -> int:
        """Size of all scales."""
        return self.outputs * (self.inputs // self.group) * self.scale_words * 4

    def pack(self, rows: NDArray[Any] | QuantizedTensor) -> tuple[Words, Words | None]:
        """Codes [rows, words] and scales [rows, groups * scale_words] of some rows."""
        if not isinstance(rows, QuantizedTensor):
            return np.ascontiguousarray(rows).view(np.uint32), None
        count = rows.codes.shape[0]
        parts = rows.codes.astype(np.uint32).reshape(count, self.words, self.per_word)
        shifts = np.arange(self.per_word, dtype=np.uint32) * np.uint32(self.bits)
        words = np.bitwise_or.reduce(parts << shifts, axis=2)
        second: NDArray[Any] = np.full_like(rows.scales, rows.scheme.middle)
        if rows.offsets is not None:
            second = rows.offsets.astype(np.float32)
        both = np.stack([rows.scales, second], axis=-1).astype(np.float32)
        if self.scale_words == 1:
            both = both.astype(np.float16)
        return words, np.ascontiguousarray(both).reshape(count, -1).view(np.uint32)
