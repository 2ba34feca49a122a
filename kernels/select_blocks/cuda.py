"""How select_blocks is launched on CUDA where the caches are fp16."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from arkinfer.backends._steps.plan import Cache, Step, View

if TYPE_CHECKING:
    from arkinfer.backends._device.launches import Launch, Source
    from arkinfer.backends.cuda.kernels import CudaKernels
    from arkinfer.tir.sizes import Size

WINDOWS = 64  # of a block
MANY_TOKENS = 4  # of a block, where there are many
LANES = 256  # of choose()
_FEW = 8
_COARSER = 4  # coarse windows are that many times as long and as far apart
_RULE = {
    "ARK_KERNEL_SIZE": "kernel_size",
    "ARK_KERNEL_STRIDE": "kernel_stride",
    "ARK_INIT_BLOCKS": "init_blocks",
    "ARK_BLOCK_SIZE": "block_size",
    "ARK_LOCAL_BLOCKS": "local_blocks",
    "ARK_TOPK": "topk",
    "ARK_DENSE_LEN": "dense_len",
    "ARK_GENERATION": "generation",
    "ARK_EXACT": "exact_lse",
}


def macros(
    fine: Cache, attributes: dict[str, float], q: View, y: View
) -> dict[str, int | float | str] | None:
    """What ``cuda.cu`` is compiled with, or None where tensor cores do not hold the heads."""
    heads = int(attributes["heads"])
    if heads // fine.kv_heads > 16 or fine.head_dim % 16 or fine.head_dim > 128:
        return None
    return {
        "ARK_HEADS": heads,
        "ARK_KV_HEADS": fine.kv_heads,
        "ARK_HEAD_DIM": fine.head_dim,
        "ARK_SCALE": float(attributes["scale"]),
        "ARK_Q_STRIDE": q.buffer.columns,
        "ARK_Q_START": q.column,
        "ARK_Y_STRIDE": y.buffer.columns,
        "ARK_Y_START": y.column,
        **{macro: int(attributes[name]) for macro, name in _RULE.items()},
    }


def launches(
    kernels: CudaKernels, step: Step, portable: Callable[[], list[Launch]]
) -> list[Launch] | None:
    """See ``backends/cuda/kernels.py``: parts of normalizers, scores of windows, choice."""
    from arkinfer.backends._device.launches import Launch, Scratch, cache_of, view_of
    from arkinfer.backends.cuda.kernels import Entry

    q, y, fine = view_of(step, "q"), view_of(step, "y"), cache_of(step, "fine")
    defines = macros(fine, step.attributes, q, y)
    if defines is None or kernels.dtype != "f16":
        return None
    stride, size = (int(step.attributes[name]) for name in ("kernel_stride", "block_size"))
    exact = bool(step.attributes["exact_lse"])
    basis = fine if exact else cache_of(step, "coarse")
    basis_stride = stride if exact else stride * _COARSER
    heads, each = int(step.attributes["heads"]), kernels.chunk * fine.kv_heads * 4
    parts = Scratch(
        "score_parts", ["*", _tiles("capacity", basis_stride), kernels.chunk * heads * 8]
    )
    windows = Scratch("scores", ["*", _tiles("capacity", stride), each * WINDOWS])
    blocks: Size = ["/", ["+", "capacity", size - 1], size]
    keys = Scratch("score_keys", ["*", blocks, each])

    found = []
    for function, cache, to, step_of in (
        ("normalize", basis, {"parts": parts}, basis_stride),
        ("score", fine, {"parts": parts, "windows": windows}, stride),
    ):
        arguments = ("q", "cache", *to, "tokens", "past", "capacity")
        tiles = _for_sparse(_tiles(["+", "past", "tokens"], step_of), defines)
        for way, tokens, least, most in (("few", 1, 1, _FEW), ("many", MANY_TOKENS, _FEW + 1, 0)):
            rows: Size = ["*", ["/", ["+", "tokens", tokens - 1], tokens], fine.kv_heads]
            entry = Entry(
                "select_blocks",
                f"{function}_{way}",
                defines,
                arguments,
                (tiles, rows, 1),
                tokens * 32,
            )
            sources: dict[str, Source] = {"q": q, "cache": cache, **to}
            name = kernels.add(entry)
            found.append(
                Launch(name, sources, least, most) if most else Launch(name, sources, least)
            )
    choose = Entry(
        "select_blocks",
        "choose",
        defines,
        ("windows", "keys", "y", "past", "capacity"),
        ("tokens", fine.kv_heads, 1),
        LANES,
    )
    return [*found, Launch(kernels.add(choose), {"windows": windows, "keys": keys, "y": y})]


def _tiles(tokens: Size, stride: int) -> Size:
    """Tiles of windows that hold those of ``tokens``; of a capacity, all of its places."""
    return ["+", ["/", tokens, stride * WINDOWS], 1]


def _for_sparse(tiles: Size, defines: Mapping[str, Any]) -> Size:
    """The tiles, or none while all tokens are in front of the length where selection begins."""
    least = defines["ARK_DENSE_LEN"] - 1
    if least <= 0:
        return tiles
    behind: Size = ["max", 0, ["-", ["+", "past", "tokens"], least]]
    return ["*", tiles, ["min", 1, behind]]
