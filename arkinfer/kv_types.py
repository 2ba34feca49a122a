"""Number types of the KV cache: their names and their sizes (docs/bundle.md)."""

from __future__ import annotations

from typing import Literal, get_args

from arkinfer.errors import InvalidOptionError

KvType = Literal["fp16", "fp32", "int8", "int4"]
NAMES: tuple[KvType, ...] = get_args(KvType)
DEFAULT: KvType = "fp16"
"""What a bundle that names no type of its own is run with."""

BLOCK = 64
_GROUP = 32  # dimensions that share a scale and a minimum in int4
_ELEMENT_BYTES = {"fp16": 2, "fp32": 4}


def parse(name: object) -> KvType:
    """The type of that name, which may come from a file or a caller's mistake.

    Raises:
        InvalidOptionError: there is none.
    """
    for known in NAMES:
        if name == known:
            return known
    raise InvalidOptionError(f"kv is {str(name)[:60]!r}", " or ".join(NAMES))


def key_block_bytes(kv: KvType, head_dim: int) -> int:
    """Bytes of the keys of 64 tokens and one head."""
    if kv == "int8":  # four dimensions at a time, and a float32 scale per token
        return BLOCK * (_round_up(head_dim, 4) + 4)
    if kv == "int4":  # a float16 scale and a float16 minimum per group
        groups = -(-head_dim // _GROUP)
        return BLOCK * groups * (_GROUP // 2 + 4)
    return BLOCK * head_dim * _ELEMENT_BYTES[kv]


def value_block_bytes(kv: KvType, head_dim: int) -> int:
    """Bytes of the values of 64 tokens and one head."""
    if kv == "int8":  # whole vectors of 16 dimensions, and a float32 scale per token
        return BLOCK * (_round_up(head_dim, 16) + 4)
    return key_block_bytes(kv, head_dim)


def compressed_block_bytes(kv: KvType, head_dim: int) -> int:
    """Bytes of 64 compressed keys of one head, beside a cache of type ``kv``."""
    return key_block_bytes("int8" if kv == "int4" else kv, head_dim)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
