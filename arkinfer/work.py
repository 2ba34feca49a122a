"""What the steps of a plan have to do: bytes to read and operations, for any tokens and depth.

An operation is a multiplication or an addition. Counted are matrix products, attention and the
selection of blocks, and the weights and caches that they read; activations stay in caches close
to the processor, and what is done to them one element at a time is small beside the products.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from arkinfer import kv_types
from arkinfer.config import ModelConfig, SparseConfig
from arkinfer.errors import InvalidBundleError
from arkinfer.kv_types import KvType

Key = tuple[str, str]
"""A step's kernel and its stage, the number of the layer left out."""

_LAYER = re.compile(r"\blayers\.\d+\.")
_ATTENTION = ("attention", "block_sparse_attention")
# Operands whose elements are numbers of products; scales and offsets go with them.
_FACTORS = ("codes", "weight")
# Coarse windows are as many times longer and fewer.
_COARSE = 4


@dataclass(frozen=True)
class Work:
    """What one kind of step does, all layers together.

    Attributes:
        steps: how many there are of the kind.
        weights: bytes of weights, read once however many tokens there are.
        cache: bytes of the caches that are read.
        products: operations of matrix products with weights.
        attention: operations of attention and selection.
    """

    steps: int
    weights: int
    cache: int
    products: int
    attention: int

    @property
    def bytes(self) -> int:
        """Bytes read."""
        return self.weights + self.cache


def key_of(kernel: str, stage: str) -> Key:
    """The kind of a step."""
    return kernel, _LAYER.sub("layers.*.", stage)


@dataclass
class _Kind:
    """All steps of a kind: how many, and their weights."""

    kernel: str
    head: bool
    count: int = 0
    bytes: int = 0
    factors: int = 0


class PlanWork:
    """The work of a plan's steps, by their kind.

    Args:
        plan: the content of ``plan.json``.
        model: what it runs.

    Raises:
        InvalidBundleError: the plan is not what docs/bundle.md describes.
    """

    def __init__(self, plan: Mapping[str, Any], model: ModelConfig) -> None:
        self._model = model
        self._kinds: dict[Key, _Kind] = {}
        try:
            weights = {weight["name"]: weight for weight in plan["weights"]}
            for part in ("body", "head"):
                for step in plan[part]:
                    key = key_of(step["kernel"], step.get("stage", ""))
                    kind = self._kinds.setdefault(key, _Kind(step["kernel"], part == "head"))
                    kind.count += 1
                    _add_weights(kind, step, weights)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise InvalidBundleError(f"plan.json cannot be read: {error!r}") from None

    def at(self, past: int, kv: KvType, tokens: int = 1, outputs: int = 1) -> dict[Key, Work]:
        """The work of running ``tokens`` tokens after ``past`` others, by kind of step.

        Args:
            outputs: tokens whose logits are wanted; the head does not run for none.
        """
        found = {}
        for key, kind in self._kinds.items():
            rows = outputs if kind.head else tokens
            if rows == 0:
                continue
            cache, attention = _caches(kind.kernel, self._model, past, kv, tokens)
            found[key] = Work(
                steps=kind.count,
                weights=kind.bytes,
                cache=kind.count * cache,
                products=2 * rows * kind.factors,
                attention=kind.count * attention,
            )
        return found


def visited(sparse: SparseConfig | None, past: int) -> tuple[int, int]:
    """Tokens and fine compressed windows that attention reads after ``past`` tokens."""
    if sparse is None or past + 1 < sparse.dense_len:
        return past, 0
    fine = max(past - sparse.kernel_size, 0) // sparse.kernel_stride
    return min(past, sparse.max_blocks * sparse.block_size), fine


def _add_weights(kind: _Kind, step: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Weights that a step reads; the embedding only looks rows up in its own."""
    if kind.kernel == "embed":
        return
    for name, operand in step["operands"].items():
        if "weight" not in operand:
            continue
        weight = weights[operand["weight"]]
        kind.bytes += int(weight["bytes"])
        # Parts of a matrix are called codes.0, codes.1, ...
        if name.partition(".")[0] in _FACTORS and len(weight["shape"]) == 2:
            kind.factors += math.prod(map(int, weight["shape"]))


def _caches(kernel: str, model: ModelConfig, past: int, kv: KvType, tokens: int) -> tuple[int, int]:
    """Bytes and operations of one attention or selection for ``tokens`` queries, of all heads."""
    seen, windows = visited(model.sparse, past + (tokens - 1) // 2)
    per_query = 2 * model.num_heads * model.head_dim  # of one score per key
    if kernel in _ATTENTION:
        block = kv_types.key_block_bytes(kv, model.head_dim)
        block += kv_types.value_block_bytes(kv, model.head_dim)
        # Queries of a chunk choose blocks of their own, but none is read twice.
        keys = seen if tokens == 1 else min(past + tokens, seen * tokens)
        # Scores are one product per key, the sum of values another.
        operations = 2 * per_query * seen * tokens
        return model.num_kv_heads * keys * block // kv_types.BLOCK, operations
    if kernel == "select_blocks":
        block = windows * kv_types.compressed_block_bytes(kv, model.head_dim)
        passes = windows
        if model.sparse is not None:
            # The normaliser is summed over coarse windows, or over all fine ones again.
            passes += windows // _COARSE if model.sparse.lse == "coarse" else windows
        read = model.num_kv_heads * block // kv_types.BLOCK
        return read, per_query * passes * tokens
    return 0, 0
