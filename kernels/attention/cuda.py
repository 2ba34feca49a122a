"""How attention, dense or block-sparse, is launched on CUDA where the cache is fp16."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from arkinfer.backends._steps.plan import Cache, Step, View

if TYPE_CHECKING:
    from arkinfer.backends._device.launches import Launch, Source
    from arkinfer.backends.cuda.kernels import CudaKernels

LANES = 128
ROWS = 16  # of mma; query heads of a key-value head, of one token or of several
FLASH_ROWS = 64  # of a block of flash()
FEW = 8
# Blocks that keep every multiprocessor reading: Orin has up to 16, cards a hundred and more.
_BLOCKS = {87: 32}
_BLOCKS_OF_CARDS = 256
_MOST_SPLITS = 64


def macros(
    key: Cache, heads: int, scale: float, q: View, y: View, splits: int
) -> dict[str, int | float | str] | None:
    """What ``cuda.cu`` is compiled with, or None where tensor cores do not hold the heads."""
    if heads // key.kv_heads > ROWS or key.head_dim % 16 or key.head_dim > 128:
        return None
    return {
        "ARK_HEADS": heads,
        "ARK_KV_HEADS": key.kv_heads,
        "ARK_HEAD_DIM": key.head_dim,
        "ARK_SCALE": float(scale),
        "ARK_SPLITS": splits,
        "ARK_Q_STRIDE": q.buffer.columns,
        "ARK_Q_START": q.column,
        "ARK_Y_STRIDE": y.buffer.columns,
        "ARK_Y_START": y.column,
    }


def splits_of(capability: int, kv_heads: int) -> int:
    """Blocks that share the keys of one token and key-value head."""
    blocks = _BLOCKS.get(capability, _BLOCKS_OF_CARDS)
    return max(1, min(_MOST_SPLITS, blocks // kv_heads))


def launches(
    kernels: CudaKernels, step: Step, portable: Callable[[], list[Launch]]
) -> list[Launch] | None:
    """See ``backends/cuda/kernels.py``."""
    from arkinfer.backends._device.launches import Launch, cache_of
    from arkinfer.backends.cuda.kernels import Entry

    heads, kv_heads = int(step.attributes["heads"]), cache_of(step, "key").kv_heads
    few = split_launches(kernels, step, "attention", {}, ROWS // max(1, heads // kv_heads))
    if few is None:
        return None
    defines, found = few
    tokens = FLASH_ROWS // (heads // kv_heads)
    bands = ["/", ["+", "tokens", tokens - 1], tokens]
    arguments = ("q", "key", "value", "y", "tokens", "past", "capacity")
    entry = Entry("attention", "flash", defines, arguments, (bands, kv_heads, 1), LANES)
    return [*found, Launch(kernels.add(entry), dict(step.operands), FEW + 1)]


def split_launches(
    kernels: CudaKernels,
    step: Step,
    operator: str,
    more: dict[str, int | float | str],
    group_tokens: int,
) -> tuple[dict[str, int | float | str], list[Launch]] | None:
    """For up to 8 tokens: blocks that split keys, and what joins them; with the macros they have.

    Args:
        kernels: where entries go.
        step: of attention or of block_sparse_attention.
        operator: whose ``cuda.cu``.
        more: macros besides those of :func:`macros`.
        group_tokens: tokens of a block.
    """
    from arkinfer.backends._device.launches import Launch, Scratch, cache_of, view_of
    from arkinfer.backends.cuda.kernels import Entry

    q, y, key = view_of(step, "q"), view_of(step, "y"), cache_of(step, "key")
    heads, splits = int(step.attributes["heads"]), splits_of(kernels.capability, key.kv_heads)
    shape = macros(key, heads, step.attributes["scale"], q, y, splits)
    if shape is None or kernels.dtype != "f16":
        return None
    defines = shape | more
    partials = Scratch("split_partials", FEW * heads * splits * (2 + key.head_dim) * 4)
    to: Source = partials if splits > 1 else y
    bands = ["/", ["+", "tokens", group_tokens - 1], group_tokens]
    attend = Entry(
        operator,
        "attend",
        defines,
        arguments_of(operator),
        (bands, key.kv_heads * splits, 1),
        LANES,
    )
    found = [Launch(kernels.add(attend), {**step.operands, "to": to}, 1, FEW)]
    if splits > 1:
        combine = Entry(operator, "combine", defines, ("to", "y"), ("tokens", heads, 1), LANES)
        found.append(Launch(kernels.add(combine), {"to": partials, "y": y}, 1, FEW))
    return defines, found


def arguments_of(operator: str) -> tuple[str, ...]:
    """The arguments of an operator's entry ``attend``."""
    blocks = ("blocks",) if operator == "block_sparse_attention" else ()
    return ("q", "key", "value", *blocks, "to", "tokens", "past", "capacity")
