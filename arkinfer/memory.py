"""What running a bundle takes, for any context, before anything is loaded.

The numbers are those of the runtime's own allocations: caches are allocated in blocks
of 64 tokens (docs/bundle.md), weights are mapped, activations live in one arena.
"""

from __future__ import annotations

from dataclasses import dataclass

from arkinfer import kv_types
from arkinfer.config import ModelConfig
from arkinfer.errors import InvalidOptionError, MemoryBudgetError
from arkinfer.kv_types import BLOCK, KvType
from arkinfer.manifest import Manifest
from arkinfer.system import available_memory

# The interpreter with what `arkinfer run` imports; measured as resident bytes on Linux.
PROCESS_BYTES = 48 << 20
_SMALLEST_CONTEXT = 2048  # of those that tables show
_COARSE = 4  # coarse windows and strides are this many fine ones


@dataclass(frozen=True)
class MemoryTable:
    """Bytes by what they are for, at one context length.

    ``weights`` are mapped from the file and shared by processes; ``process``
    is the interpreter itself.
    """

    context: int
    kv: KvType
    weights: int
    kv_cache: int
    compressed_keys: int
    arena: int
    tokenizer: int
    process: int

    @property
    def rows(self) -> dict[str, int]:
        """Name and bytes, in the order to print them."""
        return {
            "weights": self.weights,
            "kv cache": self.kv_cache,
            "compressed keys": self.compressed_keys,
            "arena": self.arena,
            "tokenizer": self.tokenizer,
            "process": self.process,
        }

    @property
    def total(self) -> int:
        """The sum of all rows."""
        return sum(self.rows.values())


def kv_cache_bytes(config: ModelConfig, context: int, kv: KvType) -> int:
    """Bytes of the key and value caches: both hold whole blocks of 64 tokens."""
    blocks = -(-context // BLOCK)
    per_block = kv_types.key_block_bytes(kv, config.head_dim)
    per_block += kv_types.value_block_bytes(kv, config.head_dim)
    return blocks * config.num_layers * config.num_kv_heads * per_block


def compressed_key_bytes(config: ModelConfig, context: int, kv: KvType) -> int:
    """Bytes of the fine and coarse compressed keys; 0 for a model without sparse attention."""
    if config.sparse is None:
        return 0
    blocks, tokens = 0, -(-context // BLOCK) * BLOCK
    for factor in (1, _COARSE):
        count = tokens // (config.sparse.kernel_stride * factor) + 1
        blocks += -(-count // BLOCK)
    per_block = kv_types.compressed_block_bytes(kv, config.head_dim)
    return blocks * config.num_layers * config.num_kv_heads * per_block


def table(
    manifest: Manifest,
    context: int | None = None,
    kv: KvType | None = None,
    on_cpu: bool = False,
) -> MemoryTable:
    """The memory table of a bundle.

    Args:
        manifest: the bundle's manifest.
        context: tokens; the bundle's own context when None.
        kv: number type of the caches; the bundle's own when None.
        on_cpu: of a bundle for a device that the CPU runs in its place, with weights repacked.

    Raises:
        InvalidOptionError: a context below 1 or beyond what the bundle was compiled for.
    """
    tokens = manifest.context if context is None else context
    if not 1 <= tokens <= manifest.context:
        raise InvalidOptionError(
            f"context {tokens}",
            f"1 to {manifest.context}, which the bundle was compiled for",
            "compile it again with a larger --context" if tokens > 1 else "",
        )
    kv = kv or manifest.kv or kv_types.DEFAULT
    facts = manifest.memory
    host = facts.host if on_cpu and facts.host is not None else facts
    return MemoryTable(
        context=tokens,
        kv=kv,
        weights=host.weights,
        kv_cache=kv_cache_bytes(manifest.model, tokens, kv),
        compressed_keys=compressed_key_bytes(manifest.model, tokens, kv),
        arena=host.arena,
        tokenizer=facts.tokenizer,
        process=PROCESS_BYTES,
    )


def contexts(largest: int) -> list[int]:
    """What tables show: powers of two from 2,048 up to the largest context, which comes last."""
    below = []
    tokens = _SMALLEST_CONTEXT
    while tokens < largest:
        below.append(tokens)
        tokens *= 2
    return [*below, largest]


def largest_context(
    manifest: Manifest, available: int, kv: KvType | None = None, on_cpu: bool = False
) -> int:
    """The largest context whose table fits in ``available`` bytes; 0 when none does.

    The process itself is already there and does not count.
    """
    low, high = 0, manifest.context
    while low < high:
        middle = (low + high + 1) // 2
        needed = table(manifest, middle, kv, on_cpu)
        if needed.total - needed.process <= available:
            low = middle
        else:
            high = middle - 1
    return low


def check(
    manifest: Manifest,
    context: int | None = None,
    kv: KvType | None = None,
    available: int | None = None,
    on_cpu: bool = False,
) -> MemoryTable:
    """The memory table, once it is known to fit.

    Args:
        available: bytes that can be taken; what the machine has free when None.
        on_cpu: as of :func:`table`.

    Raises:
        MemoryBudgetError: it does not fit; names the largest context that does.
        InvalidOptionError: as :func:`table`.
    """
    needed = table(manifest, context, kv, on_cpu)
    free = available_memory() if available is None else available
    if available is None and free == 0:  # the system does not say
        return needed
    if needed.total - needed.process > free:
        best = largest_context(manifest, free, kv, on_cpu)
        raise MemoryBudgetError(
            f"context {needed.context} needs {_gib(needed.total - needed.process)}",
            f"at most {_gib(free)}, which is free",
            f"the largest context that fits is {best} tokens"
            if best
            else "not even one token fits: free memory, or quantize to fewer bits",
        )
    return needed


def _gib(value: int) -> str:
    return f"{value / 2**30:.2f} GiB" if value >= 1 << 28 else f"{value / 2**20:.1f} MiB"
