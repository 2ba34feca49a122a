"""What a hostile plan could ask of a kernel is refused before it runs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import pytest

from arkinfer.config import SparseConfig
from tests.support import kernel_checks as checks
from tests.support.kernel_runner import DTYPES, Call, LibraryRunner, Operand, RefusedCall


def _sound_calls() -> dict[str, Call]:
    rng = np.random.default_rng(1)
    weight = checks.random_weight(rng, 20, 64, "u4 zero f16", 32)
    sparse = SparseConfig(window_size=64, topk=2, dense_len=-1)
    keys = rng.standard_normal((2, 200, 16)).astype(np.float32)
    q = rng.standard_normal((3, 4, 16)).astype(np.float32)
    found = [
        checks.check_matmul(rng, weight, 3, 0, "apart"),
        checks.check_embed(rng, weight, 3, 1.0),
        checks.check_rms_norm(rng, 3, 24),
        checks.check_swiglu(rng, 3, 24),
        checks.check_rope_table(rng, 3, 16, 5, 8, 4),
        checks.check_rope(rng, 3, 2, 16),
        checks.check_cache_append(rng, 3, 70, 2, 16, "f16"),
        checks.check_compress_keys(rng, 3, 70, 2, 16, "f16"),
        checks.check_attention(rng, 3, 70, 2, 2, 16, "f16"),
        checks.check_block_sparse(rng, 3, 70, 2, 2, 16, "f16"),
        checks.check_selection(q, keys, 197, sparse),
    ]
    return {check.call.kernel: check.call for check in found}


CALLS = _sound_calls()
Change = Callable[[Operand], Operand]


def _changes(operand: Operand) -> dict[str, Change]:
    """Ways to break one operand. A view may lie in a wider buffer, so a stride may also grow."""

    def with_shape(index: int, value: int) -> Change:
        shape = tuple(value if i == index else n for i, n in enumerate(operand.shape))
        return lambda o: dataclasses.replace(o, shape=shape)

    found: dict[str, Change] = {"dtype": lambda o: dataclasses.replace(o, dtype="bad")}
    found["rank"] = lambda o: dataclasses.replace(
        o, shape=(*o.shape, 1)[: 4 if len(o.shape) < 4 else 3]
    )
    for i, n in enumerate(operand.shape):
        found[f"dimension {i} one less"] = with_shape(i, n - 1)
        found[f"dimension {i} negative"] = with_shape(i, -n)
        found[f"dimension {i} huge"] = with_shape(i, 2**62)
    if len(operand.shape) == 2:
        found["stride 0"] = lambda o: dataclasses.replace(o, stride=0)
        found["stride negative"] = lambda o: dataclasses.replace(o, stride=-o.stride)
    return found


# Caches that the kernel takes as long as they come: one block less is another sound call.
ANY_LENGTH = {
    ("compress_keys", 0),
    ("compress_keys", 1),
    ("select_blocks", 1),
    ("select_blocks", 2),
}
# Weights are packed: their stride means nothing. A buffer may have more rows than a call's tokens.
WEIGHTS = {"codes", "scales", "offsets", "weight", "short", "long"}


def _allowed(kernel: str, operand: Operand) -> set[str]:
    """Types that may stand in an operand's place when the others stay as they are."""
    if kernel == "compress_keys":
        return {"f32", "f16", "i8"} | ({"u4"} if operand.buffer == "key" else set())
    if operand.buffer == "scales":
        return {"f16", "f32"}
    if operand.buffer == "offsets":
        return {"u8", "f16", "f32"}  # zero points of 4-bit codes, or minimums
    return {operand.dtype, "i8"} if operand.buffer == "codes" else {operand.dtype}


def _cases() -> list[tuple[str, int, str]]:
    cases = []
    for kernel, call in CALLS.items():
        for index, operand in enumerate(call.operands):
            if operand is None:
                continue
            packed = operand.buffer in WEIGHTS
            for name in _changes(operand):
                if name == "dimension 1 one less" and (kernel, index) in ANY_LENGTH:
                    continue
                if packed and name.startswith("stride"):
                    continue
                if not packed and len(operand.shape) == 2 and name == "dimension 0 huge":
                    continue
                cases.append((kernel, index, name))
    return cases


@pytest.mark.parametrize(("kernel", "index", "name"), _cases())
def test_broken_operands_are_refused(
    kernels: LibraryRunner, isas: list[str], kernel: str, index: int, name: str
) -> None:
    call = CALLS[kernel]
    operand = call.operands[index]
    assert operand is not None
    operands = list(call.operands)
    changed = _changes(operand)[name](operand)
    types = [changed.dtype]
    if name == "dtype":
        types = [dtype for dtype in DTYPES if dtype not in _allowed(kernel, operand)]
    for dtype in types:
        operands[index] = dataclasses.replace(changed, dtype=dtype)
        broken = dataclasses.replace(call, operands=operands)
        for isa in isas:
            with pytest.raises(RefusedCall, match=kernel):
                kernels.run([(broken, isa, 1)])


@pytest.mark.parametrize("kernel", sorted(CALLS))
def test_missing_operands_are_refused(kernels: LibraryRunner, isas: list[str], kernel: str) -> None:
    call = CALLS[kernel]
    for index, operand in enumerate(call.operands):
        if operand is None or operand.buffer in ("offsets", "other"):
            continue
        operands: list[Operand | None] = list(call.operands)
        operands[index] = None
        broken = dataclasses.replace(call, operands=operands)
        with pytest.raises(RefusedCall):
            kernels.run([(broken, isas[0], 1)])


BAD_ATTRIBUTES = {
    "matmul": {
        "scale": [np.nan, np.inf],
        "activations": [0.5, 2, -1, np.nan],
        "epsilon": [-1, np.nan, np.inf],
        "gated": [0.5, 1, 2, np.nan],
    },
    "embed": {"scale": [np.nan]},
    "rms_norm": {"epsilon": [-1, np.nan, np.inf]},
    "rope_table": {"original_max": [-1, 0.5, np.nan, 1e30], "attention_factor": [np.inf]},
    "rope": {"head_dim": [0, 1, 15, 17, -16, 1e30, np.nan]},
    "compress_keys": {"window": [0, -32, 1.5, 1e30, np.nan], "stride": [0, -16, np.nan, np.inf]},
    "attention": {"heads": [0, -4, 3, 5, 8, 1e30, np.nan], "scale": [np.nan]},
    "block_sparse_attention": {
        "heads": [0, 3, 8, np.nan],
        "scale": [np.inf],
        "block_size": [0, -64, 3, 63, 128, 0.5, np.nan],
    },
    "select_blocks": {
        "heads": [0, 3, 8, np.nan],
        "scale": [np.nan],
        "block_size": [0, 3, 128, np.nan],
        "kernel_size": [0, -1, 1e30, np.nan],
        "kernel_stride": [0, -16, 3, 128, np.nan],
        "init_blocks": [-1, 0.5, 1e30],
        "local_blocks": [0, -1, 2, np.nan],
        "topk": [-1, 3, 1e30],
        "dense_len": [-2, 0.5, 1e30, np.nan],
        "generation": [-1, 2, 0.5],
        "exact_lse": [-1, 2],
    },
}


@pytest.mark.parametrize("kernel", sorted(BAD_ATTRIBUTES))
def test_bad_attributes_are_refused(kernels: LibraryRunner, isas: list[str], kernel: str) -> None:
    call = CALLS[kernel]
    for name, values in BAD_ATTRIBUTES[kernel].items():
        for value in values:
            broken = dataclasses.replace(call, attributes={**call.attributes, name: value})
            with pytest.raises(RefusedCall, match=re.escape(kernel)):
                kernels.run([(broken, isas[0], 1)])
                raise AssertionError(f"{name}={value} was accepted")


@pytest.mark.parametrize("kernel", ["matmul", "embed"])
def test_ternary_shapes_of_a_hostile_plan_are_refused(
    kernels: LibraryRunner, isas: list[str], kernel: str
) -> None:
    """Groups that are no multiple of 16 or leave inputs over, no scales, and offsets."""
    rng = np.random.default_rng(3)
    weight = checks.random_weight(rng, 20, 192, "u2 symmetric f16", 64)
    make = checks.check_matmul if kernel == "matmul" else checks.check_embed
    sound = make(rng, weight, 3, 1).call
    kernels.run([(sound, isas[0], 1)])
    index = {name: i for i, name in enumerate(("x", "codes", "scales", "offsets"))}
    scales = sound.operands[index["scales"]]
    assert scales is not None
    changes: list[tuple[str, Operand | None]] = [("scales", None), ("offsets", scales)]
    changes += [
        ("scales", dataclasses.replace(scales, shape=(20, n))) for n in (0, 5, 7, 8, 24, 2**40)
    ]
    for name, changed in changes:
        operands = list(sound.operands)
        operands[index[name]] = changed
        with pytest.raises(RefusedCall, match=kernel):
            kernels.run([(dataclasses.replace(sound, operands=operands), isas[0], 1)])


def test_fewer_tokens_than_rows_are_sound_and_more_are_refused(
    kernels: LibraryRunner, isas: list[str]
) -> None:
    for call in CALLS.values():
        kernels.run([(dataclasses.replace(call, tokens=2), isas[0], 2)])
        if call.kernel != "compress_keys":  # it has no rows of tokens
            with pytest.raises(RefusedCall):
                kernels.run([(dataclasses.replace(call, tokens=4), isas[0], 2)])


def test_block_lists_of_a_hostile_plan_stay_inside_the_cache(
    kernels: LibraryRunner, isas: list[str]
) -> None:
    """Counts and ids are data that no check sees: they are taken for what they are worth."""
    call = CALLS["block_sparse_attention"]
    shape = call.buffers["blocks"].shape
    rng = np.random.default_rng(2)
    for value in (2**31 - 1, -(2**31), 12345, -2):
        for noise in (False, True):
            blocks = np.full(shape, value, np.int32)
            if noise:
                blocks = rng.integers(-(2**31), 2**31, shape).astype(np.int32)
            broken = dataclasses.replace(call, buffers={**call.buffers, "blocks": blocks})
            for isa in isas:
                y = kernels.run([(broken, isa, 2)])[0]["y"]
                assert np.isfinite(y).all()
