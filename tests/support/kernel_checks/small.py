"""A few calls of every kernel."""

from __future__ import annotations

import numpy as np

from arkinfer.config import SparseConfig
from arkinfer.kernels.cache_append import layout
from tests.support.kernel_checks.attention import check_attention, check_block_sparse
from tests.support.kernel_checks.caches import check_cache_append, check_compress_keys
from tests.support.kernel_checks.check import Check
from tests.support.kernel_checks.elementwise import (
    check_rms_norm,
    check_rope,
    check_rope_table,
    check_swiglu,
)
from tests.support.kernel_checks.products import check_embed, check_fused_matmul, check_matmul
from tests.support.kernel_checks.selection import check_selection
from tests.support.kernel_checks.weights import (
    CACHE_TYPES,
    TERNARY_KINDS,
    WEIGHT_KINDS,
    random_weight,
)


def small_checks(seed: int, heavy: bool = True) -> list[Check]:
    """A few calls of every kernel at odd sizes, for platforms where each call is slow."""
    rng = np.random.default_rng(seed)
    checks: list[Check] = []
    for kind in WEIGHT_KINDS + TERNARY_KINDS:
        quantized = " " in kind
        for tokens, activations in ((1, 0), (1, 1), (3, 0), (19, 1)):
            group = int(rng.choice([16, 32, 64, 128])) if quantized else 0
            inputs = 256 if quantized else int(rng.integers(1, 200))
            weight = random_weight(rng, int(rng.integers(1, 60)), inputs, kind, group)
            residual = ("none", "apart", "in place")[int(rng.integers(3))]
            checks.append(check_matmul(rng, weight, tokens, activations, residual, 0.7))
        weight = random_weight(rng, 32, 128, kind, 32)
        checks += [check_fused_matmul(rng, weight, tokens, 0) for tokens in (1, 3, 18)]
        weight = random_weight(rng, 37, 128, kind, 32)
        checks.append(check_embed(rng, weight, 3, 12.0))
    if heavy:
        weight = random_weight(rng, 150, 4352, "u4 zero f16", 128)
        checks.append(check_matmul(rng, weight, 140, 0))
    checks += [check_rms_norm(rng, 2, n) for n in (1, 16, 37, 576)]
    checks += [check_swiglu(rng, 2, n) for n in (1, 48, 4099)]
    checks.append(check_rope_table(rng, 3, 64, 100, 103, 0))
    checks.append(check_rope_table(rng, 3, 128, 131000, 131072, 65536))
    checks.append(check_rope_table(rng, 4, 16, 9000, 9004, 0, (-1, 0, 0, -1)))
    checks += [check_rope(rng, 2, 3, d) for d in (2, 26, 128)]
    for cache_type in layout.CACHE_TYPES:
        checks.append(check_cache_append(rng, 70, 61, 2, 40, cache_type))
        checks.append(check_cache_append(rng, 1, 64, 3, 64, cache_type))
        checks.append(check_compress_keys(rng, 90, 100, 2, 24, cache_type))
        checks.append(check_compress_keys(rng, 90, 200, 1, 24, cache_type, 128, 64))
    for cache_type in layout.CACHE_TYPES:
        checks.append(check_attention(rng, 1, 700, 2, 16, 128, cache_type))
        checks.append(check_attention(rng, 5, 130, 2, 3, 64, cache_type))
        checks.append(check_attention(rng, 66, 20, 1, 1, 20, cache_type))
        checks.append(check_block_sparse(rng, 1, 1000, 2, 16, 128, cache_type))
        checks.append(check_block_sparse(rng, 4, 600, 2, 2, 36, cache_type))
        checks.append(check_block_sparse(rng, 3, 40, 1, 1, 1, cache_type, 4, 4))
        tree = (-1, 0, 0, 1, -1, 4)
        checks.append(check_attention(rng, 6, 125, 2, 2, 32, cache_type, tree))
        checks.append(check_block_sparse(rng, 6, 125, 2, 2, 32, cache_type, 16, 5, tree))
    for dtype in CACHE_TYPES:
        for generation, lse in (("A", "exact"), ("B", "coarse")):
            sparse = SparseConfig(
                window_size=128, topk=4, dense_len=-1, generation=generation, lse=lse
            )
            keys = rng.standard_normal((2, 1300, 64)).astype(CACHE_TYPES[dtype])
            q = rng.standard_normal((3, 8, 64)).astype(np.float32) * 2
            checks.append(check_selection(q, keys, 1297, sparse))
            if dtype == "f32":
                checks.append(check_selection(q, keys, 1297, sparse, dtype="i8"))
                checks.append(check_selection(q, keys, 1297, sparse, parents=(-1, -1, 0)))
    return checks
