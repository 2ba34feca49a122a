"""KV caches on devices: shapes, and TIR expressions of their elements.

Blocks of 64 tokens, as the CPU has them (docs/bundle.md): keys
[kv_heads, blocks, head_dim / n, 64] and values [kv_heads, blocks * 64, head_dim / n], where an
element is a float32 or, on CPUs, an fp16 (n = 1), or else a word of the fp16 of two consecutive
dimensions (n = 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from tvm.script import tirx as T

from arkinfer.tir import halves

BLOCK = 64


@dataclass(frozen=True)
class Caches:
    """The caches of one layer.

    Attributes:
        dtype: what they hold.
        kv_heads: heads.
        head_dim: numbers of a head; even.
        halves: whether an fp16 is an element of its own.
        native: whether words are taken apart by the device's own fp16.
    """

    dtype: Literal["f32", "f16"]
    kv_heads: int
    head_dim: int
    halves: bool = False
    native: bool = False

    @property
    def element(self) -> str:
        """The TIR type of a buffer."""
        if self.dtype == "f32":
            return "float32"
        return "float16" if self.halves else "uint32"

    @property
    def single(self) -> bool:
        """Whether an element holds one number."""
        return self.dtype == "f32" or self.halves

    @property
    def pairs(self) -> int:
        """Pairs of dimensions of a head."""
        return self.head_dim // 2

    def key_at(self, capacity: Any, head: Any, token: Any, pair: Any) -> Any:
        """Where a pair of a key begins; its second number may be 64 elements later."""
        width = self.head_dim if self.single else self.pairs
        row = 2 * pair if self.single else pair
        block = head * (capacity // BLOCK) + token // BLOCK
        return (block * width + row) * BLOCK + token % BLOCK

    def value_at(self, capacity: Any, head: Any, token: Any, pair: Any) -> Any:
        """Where a pair of a value begins; its second number may be right behind."""
        if self.single:
            return (head * capacity + token) * self.head_dim + 2 * pair
        return (head * capacity + token) * self.pairs + pair

    def load(self, cache: Any, at: Any, is_key: bool) -> tuple[Any, Any]:
        """The two numbers of a pair."""
        if self.single:
            both = cache[at], cache[at + (BLOCK if is_key else 1)]
            return T.Cast("float32", both[0]), T.Cast("float32", both[1])
        return halves.low(cache[at], self.native), halves.high(cache[at], self.native)

    def rounded(self, value: Any) -> Any:
        """A float32 as an element of one number; beyond the largest half, that."""
        if self.dtype == "f32":
            return value
        most = T.float32(65504)
        return T.Cast("float16", T.max(T.min(value, most), T.float32(0) - most))

    def store(self, cache: Any, at: Any, is_key: bool, first: Any, second: Any) -> None:
        """Write a pair."""
        if self.single:
            T.buffer_store(cache, self.rounded(first), [at])
            T.buffer_store(cache, self.rounded(second), [at + (BLOCK if is_key else 1)])
        else:
            T.buffer_store(cache, halves.pack(first, second), [at])
