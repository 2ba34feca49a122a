"""What nvcc makes of the kernels at the 8B shape: no spilled registers, and blocks that fit."""

from __future__ import annotations

from typing import Any

import pytest

from arkinfer.backends._steps.plan import Buffer, Cache, View
from arkinfer.backends.cuda import modules, nvcc
from arkinfer.errors import MissingExtraError
from arkinfer.kernels.attention import cuda as attention
from arkinfer.kernels.matmul import cuda as matmul
from arkinfer.kernels.rms_norm import cuda as rms_norm
from arkinfer.kernels.select_blocks import cuda as select_blocks
from arkinfer.quantize.schemes import GroupScheme
from arkinfer.tir.matrix import Matrix

pytestmark = pytest.mark.platform

HIDDEN, INNER, HEADS, KV_HEADS, HEAD_DIM = 4096, 16384, 32, 2, 128
RULE = {
    "kernel_size": 32,
    "kernel_stride": 16,
    "init_blocks": 1,
    "block_size": 64,
    "local_blocks": 32,
    "topk": 64,
    "dense_len": 8192,
    "generation": 1,
    "exact_lse": 0,
}
MOST = RULE["topk"] + RULE["local_blocks"]
REGISTERS, SHARED = 65536, 48 << 10  # of a multiprocessor; of a block


def whole(columns: int) -> View:
    return View.whole(Buffer("buffer", columns))


def product(
    scheme: GroupScheme,
    outputs: int,
    inputs: int,
    added: bool = False,
    normed: bool = False,
    gated: bool = False,
) -> Any:
    y = whole(outputs // 2 if gated else outputs)
    matrix = Matrix(outputs, inputs, scheme)
    addend, epsilon = y if added else None, 1e-6 if normed else None
    return matmul.macros(matrix, whole(inputs), y, addend, 1.0, epsilon, gated)


def attend(splits: int) -> Any:
    key = Cache("key", "key", KV_HEADS, HEAD_DIM)
    scale = HEAD_DIM**-0.5
    return attention.macros(key, HEADS, scale, whole(HIDDEN), whole(HIDDEN), splits)


def select() -> Any:
    fine = Cache("fine", "compressed", KV_HEADS, HEAD_DIM)
    attributes = {"heads": HEADS, "scale": HEAD_DIM**-0.5, **RULE}
    return select_blocks.macros(fine, attributes, whole(HIDDEN), whole(KV_HEADS * (1 + MOST)))


# Operator, macros, and threads of the entries that have the most.
SHAPES: dict[str, tuple[str, Any, int]] = {
    "w4g32": ("matmul", product(GroupScheme(4, 32), HIDDEN, INNER, added=True), matmul.LANES),
    "w4g32 gated": (
        "matmul",
        product(GroupScheme(4, 32), 2 * INNER, HIDDEN, normed=True, gated=True),
        matmul.LANES,
    ),
    "w4g128z": (
        "matmul",
        product(GroupScheme(4, 128, "zero_point"), HIDDEN, HIDDEN, normed=True),
        matmul.LANES,
    ),
    "w4g128": ("matmul", product(GroupScheme(4, 128), HIDDEN, INNER, added=True), matmul.LANES),
    "w8g128": ("matmul", product(GroupScheme(8, 128), 73448, HIDDEN, normed=True), matmul.LANES),
    "w4g32 wide": ("matmul", product(GroupScheme(4, 32), HIDDEN, INNER, normed=True), 256),
    "ternary": (
        "matmul",
        product(GroupScheme(2, HIDDEN, "symmetric", "fp32"), HIDDEN, HIDDEN, added=True),
        matmul.LANES,
    ),
    "dense": ("attention", attend(32), attention.LANES),
    "sparse": (
        "block_sparse_attention",
        attend(32) | {"ARK_MOST": MOST, "ARK_BLOCK_SIZE": RULE["block_size"]},
        attention.LANES,
    ),
    "selection": ("select_blocks", select(), select_blocks.LANES),
    "norm": ("rms_norm", rms_norm.macros(whole(HIDDEN), whole(HIDDEN), 1e-6), rms_norm.LANES),
}


@pytest.mark.parametrize("arch", ["sm_87", "sm_89", "sm_90"])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_spills(shape: str, arch: str) -> None:
    try:
        compiler = nvcc.find()
    except MissingExtraError as missing:
        pytest.skip(f"needs nvcc: {missing}")
    operator, defines, lanes = SHAPES[shape]
    unit = modules.hand_written(operator, defines)
    found = unit.build(compiler, nvcc.Architecture.of(arch)).resources
    assert found
    for name, used in found.items():
        print(f"{shape} {arch} {name}: {used}")
        assert used.spill_bytes == 0, (name, used)
        assert used.registers * lanes <= REGISTERS and used.shared_bytes <= SHARED, (name, used)
