"""Every kernel that is described in TIR, at the shape of MiniCPM4.1-8B; needs TVM."""

from __future__ import annotations

from typing import Any

from arkinfer.config import SparseConfig
from arkinfer.kernels.attention.tir import Shape, attend, combine
from arkinfer.kernels.cache_append.tir import cache_append
from arkinfer.kernels.cache_append.tir_rotated import rotate_and_append
from arkinfer.kernels.compress_keys.tir import compress_keys
from arkinfer.kernels.embed.tir import embed
from arkinfer.kernels.logit_statistics.tir import logit_statistics
from arkinfer.kernels.matmul.tir import few_rows, many_rows
from arkinfer.kernels.rms_norm.tir import rms_norm
from arkinfer.kernels.rope.tir import rope
from arkinfer.kernels.rope_table.tir import rope_table
from arkinfer.kernels.select_blocks.tir import (
    Selection,
    choose_blocks,
    normalizers,
    window_scores,
)
from arkinfer.kernels.swiglu.tir import swiglu
from arkinfer.quantize.schemes import GroupScheme
from arkinfer.tir.caches import Caches
from arkinfer.tir.loops import Loops, Rows
from arkinfer.tir.matrix import Matrix


def descriptions(loops: Loops) -> dict[str, Any]:
    """Every kernel, at the shape of MiniCPM4.1-8B."""
    rows = Rows(4096, 4096)
    caches = Caches("f16", 2, 128)
    dense = Shape(caches, 32, 128**-0.5, splits=8)
    chosen = Shape(caches, 32, 128**-0.5, splits=8, most=96)
    selection = Selection(caches, 32, 128**-0.5, SparseConfig())
    matrix = Matrix(4096, 4096, GroupScheme(4, 128))
    width = 2 * (1 + selection.most)
    return {
        "embed": embed(loops, matrix, rows, 12.0),
        "rms_norm": rms_norm(loops, rows, rows, 1e-6),
        "few_rows": few_rows(loops, matrix, rows, rows, "in_place", None, 0.2),
        "many_rows": many_rows(loops, matrix, rows, rows, "in_place", None, 0.2),
        "ternary": few_rows(loops, Matrix(64, 4096, GroupScheme(2, 4096)), rows, rows),
        "rope_table": rope_table(loops, 128, 65536, 1.19),
        "rope": rope(loops, rows, 128),
        "swiglu": swiglu(loops, rows, rows, rows),
        "cache_append": cache_append(loops, caches, Rows(256, 512), Rows(256, 512, 256)),
        "rotate_and_append": rotate_and_append(
            loops, caches, Rows(4096, 4608), Rows(256, 4608, 4096), Rows(256, 4608, 4352)
        ),
        "compress_keys": compress_keys(loops, caches, 32, 16),
        "attend": attend(loops, dense, rows, rows),
        "attend_chosen": attend(loops, chosen, rows, rows),
        "combine": combine(loops, dense, rows),
        "normalizers": normalizers(loops, selection, rows),
        "window_scores": window_scores(loops, selection, rows),
        "choose_blocks": choose_blocks(loops, selection, Rows(width, width)),
        "logit_statistics": logit_statistics(loops, Rows(73448, 73448)),
    }
