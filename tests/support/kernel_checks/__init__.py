"""Random calls of every kernel with what must come out: shared by all platforms' kernel tests."""

from __future__ import annotations

from tests.support.kernel_checks.attention import block_rows, check_attention, check_block_sparse
from tests.support.kernel_checks.caches import (
    check_cache_append,
    check_compress_keys,
    compression_call,
)
from tests.support.kernel_checks.check import Array, Check, Results, close, run_checks
from tests.support.kernel_checks.elementwise import (
    check_rms_norm,
    check_rope,
    check_rope_table,
    check_swiglu,
)
from tests.support.kernel_checks.products import (
    check_embed,
    check_fused_matmul,
    check_matmul,
    check_rows_alone,
)
from tests.support.kernel_checks.selection import (
    check_selection,
    check_windows,
    mask_of,
    selection_call,
)
from tests.support.kernel_checks.small import small_checks
from tests.support.kernel_checks.weights import (
    CACHE_TYPES,
    FLOAT_TYPES,
    TERNARY_KINDS,
    WEIGHT_KINDS,
    Weight,
    random_weight,
)

__all__ = [
    "Array",
    "CACHE_TYPES",
    "Check",
    "FLOAT_TYPES",
    "Results",
    "TERNARY_KINDS",
    "WEIGHT_KINDS",
    "Weight",
    "block_rows",
    "check_attention",
    "check_block_sparse",
    "check_cache_append",
    "check_compress_keys",
    "check_embed",
    "check_fused_matmul",
    "check_matmul",
    "check_rms_norm",
    "check_rope",
    "check_rope_table",
    "check_rows_alone",
    "check_selection",
    "check_swiglu",
    "check_windows",
    "close",
    "compression_call",
    "mask_of",
    "random_weight",
    "run_checks",
    "selection_call",
    "small_checks",
]
