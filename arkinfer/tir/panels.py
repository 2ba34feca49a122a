"""Weights in the CPU's panels of 16 outputs (docs/bundle.md), as TIR expressions.

A vector register holds one input of 16 outputs. Codes come in words of 32 bits, one per output:
code j of a word has the bits ``8 * (j % 4) + bits * (j // 4)`` and up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.script import tirx as T

from arkinfer.quantize.schemes import GroupScheme
from arkinfer.tir import halves
from arkinfer.tir.loops import ceil_div
from arkinfer.tir.matrix import Storage

PANEL = 16
_FLOATS = {"f32": "float32", "f16": "float16", "bf16": "uint16"}


@dataclass(frozen=True)
class Panels:
    """A weight [outputs, inputs].

    A number is ``scale * code + second`` with the second number of its group; numbers of float
    weights are codes without groups.
    """

    outputs: int
    inputs: int
    storage: Storage | GroupScheme

    @property
    def scheme(self) -> GroupScheme | None:
        """How it is quantized, if it is."""
        return self.storage if isinstance(self.storage, GroupScheme) else None

    @property
    def panels(self) -> int:
        """Panels, the last of which may be padded."""
        return int(ceil_div(self.outputs, PANEL))

    @property
    def per_word(self) -> int:
        """Inputs of one word of codes; 1 for float weights."""
        return 32 // self.scheme.bits if self.scheme else 1

    @property
    def group(self) -> int:
        """Inputs that share a scale; all of a float weight."""
        return self.scheme.group_size if self.scheme else self.inputs

    @property
    def groups(self) -> int:
        """Groups of one output."""
        return self.inputs // self.group

    @property
    def codes_type(self) -> str:
        """The TIR type of the buffer of codes."""
        return "uint32" if isinstance(self.storage, GroupScheme) else _FLOATS[self.storage]

    @property
    def scales_type(self) -> str:
        """The TIR type of the buffer of scales, and of that of minimums."""
        return "float32" if self.scheme and self.scheme.scale_dtype == "fp32" else "float16"

    @property
    def offsets_type(self) -> str:
        """The TIR type of the buffer of minimums or zero points."""
        if self.scheme is None or self.scheme.offset != "zero_point":
            return self.scales_type
        return "int8" if self.scheme.bits == 8 else "uint8"

    def word_at(self, panel: Any, word: Any, output: Any) -> Any:
        """Where a word of codes, or an input of a float weight, of a panel's output lies."""
        return (panel * (self.inputs // self.per_word) + word) * PANEL + output

    def group_at(self, panel: Any, group: Any, output: Any) -> Any:
        """Where the scale and the offset of a group lie."""
        return (panel * self.groups + group) * PANEL + output

    def code(self, word: Any, place: int) -> Any:
        """The number at a place of a word, as float32."""
        if isinstance(self.storage, GroupScheme):
            bits, shift = self.storage.bits, 8 * (place % 4) + self.storage.bits * (place // 4)
            if bits == 8:  # stored as code - 128
                moved = T.reinterpret("int32", word << halves.u32(24 - shift))
                return T.Cast("float32", moved >> T.int32(24))
            masked = (word >> halves.u32(shift)) & halves.u32((1 << bits) - 1)
            return T.Cast("float32", T.reinterpret("int32", masked))
        if self.storage == "bf16":
            return halves.bf16(T.Cast("uint32", word))
        return T.Cast("float32", word)

    def second(self, scale: Any, offset: Any) -> Any:
        """The second number of a group; ``offset`` is not looked at where there is none."""
        assert self.scheme is not None
        if self.scheme.offset == "minimum":
            minimum = T.Cast("float32", offset)
            return minimum + scale * T.float32(128) if self.scheme.bits == 8 else minimum
        if self.scheme.offset == "zero_point":
            return T.float32(0) - scale * T.Cast("float32", offset)
        middle = 0 if self.scheme.bits == 8 else self.scheme.middle
        return scale * T.float32(-middle)
