"""How select_blocks is launched on devices."""

from __future__ import annotations

from arkinfer.backends._device.launches import (
    Kernels,
    Launch,
    Scratch,
    cache_of,
    rows_of,
    view_of,
)
from arkinfer.backends._steps.plan import Step
from arkinfer.config import SparseConfig
from arkinfer.kernels.select_blocks import tir
from arkinfer.tir.caches import BLOCK
from arkinfer.tir.sizes import Size


def launches(kernels: Kernels, step: Step) -> list[Launch]:
    """Log-sum-exp of each query, scores of windows, and the choice of blocks."""
    q, y, fine = view_of(step, "q"), view_of(step, "y"), cache_of(step, "fine")
    a = {name: int(value) for name, value in step.attributes.items() if name != "scale"}
    sparse = SparseConfig(
        kernel_size=a["kernel_size"],
        kernel_stride=a["kernel_stride"],
        init_blocks=a["init_blocks"],
        block_size=a["block_size"],
        window_size=a["local_blocks"] * a["block_size"],
        topk=a["topk"],
        dense_len=a["dense_len"],
        generation="AB"[a["generation"]],
        lse="exact" if a["exact_lse"] else "coarse",
    )
    layout = kernels.caches(fine)
    selection = tir.Selection(layout, a["heads"], step.attributes["scale"], sparse)
    each = kernels.chunk * fine.kv_heads * 4
    lse = Scratch("lse", kernels.chunk * a["heads"] * 4)
    # As ``window_capacity`` and ``block_capacity`` compute them of a context.
    places: Size = ["+", ["/", "capacity", sparse.kernel_stride], BLOCK]
    windows = Scratch("windows", ["*", ["*", ["/", places, BLOCK], BLOCK], each])
    blocks: Size = ["/", ["+", "capacity", sparse.block_size - 1], sparse.block_size]
    keys = Scratch("keys", ["*", blocks, each])
    basis = fine if selection.exact else cache_of(step, "coarse")
    return [
        Launch(
            kernels.name(tir.normalizers, selection, rows_of(q)),
            {"q": q, "basis": basis, "lse": lse},
        ),
        Launch(
            kernels.name(tir.window_scores, selection, rows_of(q)),
            {"q": q, "fine": fine, "lse": lse, "windows": windows},
        ),
        Launch(
            kernels.name(tir.choose_blocks, selection, rows_of(y)),
            {"windows": windows, "keys": keys, "y": y},
        ),
    ]
