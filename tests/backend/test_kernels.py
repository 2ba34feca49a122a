"""Every hand-written kernel against its reference: random shapes, all sets, 1 to 8 threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arkinfer.kernels.cache_append import layout
from tests.support import kernel_checks as checks
from tests.support import packing
from tests.support.kernel_runner import Call, LibraryRunner

THREADS = (1, 2, 5, 8)
examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
seeds = st.integers(0, 2**32 - 1)


def test_small_checks(kernels: LibraryRunner, isas: list[str]) -> None:
    checks.run_checks(kernels, checks.small_checks(1), isas, THREADS)


@examples
@given(
    seed=seeds,
    kind=st.sampled_from(checks.WEIGHT_KINDS),
    group=st.sampled_from([8, 16, 24, 32, 64, 128]),
    groups=st.integers(1, 12),
    outputs=st.integers(1, 90),
    tokens=st.one_of(st.integers(1, 20), st.integers(120, 140)),
    activations=st.integers(0, 1),
    residual=st.sampled_from(["none", "apart", "in place"]),
    scale=st.sampled_from([1.0, 0.2474873734]),
)
def test_matmul(
    kernels: LibraryRunner,
    isas: list[str],
    seed: int,
    kind: str,
    group: int,
    groups: int,
    outputs: int,
    tokens: int,
    activations: int,
    residual: str,
    scale: float,
) -> None:
    rng = np.random.default_rng(seed)
    inputs = group * groups if " " in kind else int(rng.integers(1, 700))
    weight = checks.random_weight(rng, outputs, inputs, kind, group)
    check = checks.check_matmul(rng, weight, tokens, activations, residual, scale)
    checks.run_checks(kernels, [check], isas, THREADS)


@examples
@given(
    seed=seeds,
    kind=st.sampled_from(checks.TERNARY_KINDS),
    group=st.sampled_from([16, 32, 48, 64, 128, 176, 256, 272, 1024]),
    groups=st.integers(1, 3),
    outputs=st.integers(1, 90),
    tokens=st.integers(1, 70),
    activations=st.integers(0, 1),
)
def test_ternary_matmul(
    kernels: LibraryRunner,
    isas: list[str],
    seed: int,
    kind: str,
    group: int,
    groups: int,
    outputs: int,
    tokens: int,
    activations: int,
) -> None:
    """Groups beyond 128 have several activation scales; one group is a scale per row."""
    rng = np.random.default_rng(seed)
    weight = checks.random_weight(rng, outputs, group * groups, kind, group)
    check = checks.check_matmul(rng, weight, tokens, activations)
    checks.run_checks(kernels, [check], isas, (1, 3, 8))


TERNARY = "u2 symmetric f16"


@pytest.mark.parametrize(
    "kind", ["u4 symmetric f16", "u4 zero f16", "i8 symmetric f16", TERNARY, "bf16"]
)
@pytest.mark.parametrize("activations", [0, 1])
def test_matmul_over_several_blocks_of_rows_panels_and_inputs(
    kernels: LibraryRunner, isas: list[str], kind: str, activations: int
) -> None:
    rng = np.random.default_rng(2)
    weight = checks.random_weight(rng, 300, 4480, kind, 128)
    check = checks.check_matmul(rng, weight, 270, activations, "in place")
    checks.run_checks(kernels, [check], isas, (1, 2))


@pytest.mark.parametrize(
    "kind",
    ["u4 symmetric f16", "u4 minimum f16", "i8 symmetric f16", "i8 zero f16", TERNARY, "f16"],
)
@pytest.mark.parametrize("activations", [0, 1])
def test_a_row_of_matmul_does_not_depend_on_the_rows_beside_it(
    kernels: LibraryRunner, isas: list[str], kind: str, activations: int
) -> None:
    for isa in isas:
        checks.check_rows_alone(kernels, isa, kind, activations)


@pytest.mark.parametrize("kind", ["u4 zero f16", "i8 minimum f16", TERNARY, "f16"])
@pytest.mark.parametrize("activations", [0, 1])
@pytest.mark.parametrize("tokens", [1, 2, 7, 16, 19])
def test_a_fused_norm_and_gate_change_no_bit(
    kernels: LibraryRunner, isas: list[str], kind: str, activations: int, tokens: int
) -> None:
    rng = np.random.default_rng(4)
    weight = checks.random_weight(rng, 160, 384, kind, 128)
    x = rng.standard_normal((tokens, 384)).astype(np.float32)
    norm = rng.uniform(0.5, 1.5, 384).astype(np.float32)
    how = {"activations": activations, "scale": 0.05}

    def run(call: Call, isa: str, threads: int) -> np.ndarray:
        return kernels.run([(call, isa, threads)])[0]["y"]

    for isa in isas:
        apart = Call("rms_norm", tokens, attributes={"epsilon": 1e-5}).add("x", x)
        normalized = run(apart.add("weight", norm).add("y", np.zeros_like(x)), isa, 1)
        apart = Call("matmul", tokens, attributes=how).add("x", normalized)
        weight.add_to(apart)
        both = run(apart.skip().add("y", np.zeros((tokens, 160), np.float32)), isa, 1)
        apart = Call("swiglu", tokens).add("gate", both[:, :80]).add("up", both[:, 80:])
        expected = run(apart.add("y", np.zeros((tokens, 80), np.float32)), isa, 1)
        attributes = how | {"epsilon": 1e-5, "gated": 1}
        fused = Call("matmul", tokens, attributes=attributes).add("x", x)
        weight.add_to(fused)
        fused.skip().add("y", np.zeros((tokens, 80), np.float32)).add("norm", norm)
        for threads in (1, 3):
            assert np.array_equal(run(fused, isa, threads), expected), isa


@pytest.mark.parametrize("isa_index", [0, -1])
def test_matmul_extreme_codes_do_not_overflow(
    kernels: LibraryRunner, isas: list[str], isa_index: int
) -> None:
    """All codes and activations at their ends: the largest sums that 16-bit steps must hold."""
    rng = np.random.default_rng(4)
    for kind, high in (("u4 zero f32", 15), ("i8 zero f32", 255)):
        for code in (0, high):
            weight = checks.random_weight(rng, 16, 1024, kind, 1024)
            codes = np.full((16, 1024), code, np.uint8)
            dtype = kind[:2]
            pack = packing.codes4 if dtype == "u4" else packing.codes8
            weight.parts[0] = ("codes", pack(codes), dtype, (16, 1024))
            assert weight.parts[1] is not None and weight.parts[2] is not None
            ones = np.ones((16, 1), np.float32)
            weight.parts[1] = ("scales", packing.panels(ones), "f32", (16, 1))
            zero = weight.parts[2]
            zeros = (
                np.zeros((16, 1), np.uint8) if dtype == "u4" else -128 * np.ones((16, 1), np.int8)
            )
            weight.parts[2] = (
                "offsets",
                packing.panels(zeros.astype(zero[1].dtype)),
                *zero[2:],
            )
            for sign in (1, -1):
                x = np.full((1, 1024), sign * 127, np.float32)
                call = Call("matmul").add("x", x)
                weight.add_to(call)
                call.skip().add("y", np.zeros((1, 16), np.float32))
                y = kernels.run([(call, isas[isa_index], 1)])[0]["y"]
                assert (y == sign * 127.0 * 1024 * code).all()


def test_extreme_ternary_sums_do_not_overflow(kernels: LibraryRunner, isas: list[str]) -> None:
    for code in (0, 1, 2, 3):
        codes = packing.codes2(np.full((16, 4096), code, np.uint8))
        ones = packing.panels(np.ones((16, 1), np.float32))
        for sign in (1, -1):
            x = np.full((1, 4096), sign * 127, np.float32)
            call = Call("matmul").add("x", x).add("codes", codes, "u2", (16, 4096))
            call.add("scales", ones, "f32", (16, 1)).skip().skip()
            call.add("y", np.zeros((1, 16), np.float32))
            for isa in isas:
                y = kernels.run([(call, isa, 1)])[0]["y"]
                assert (y == sign * 127.0 * 4096 * (code - 1)).all()


@examples
@given(
    seed=seeds,
    kind=st.sampled_from(checks.WEIGHT_KINDS + checks.TERNARY_KINDS),
    tokens=st.integers(1, 5),
)
def test_embed(kernels: LibraryRunner, isas: list[str], seed: int, kind: str, tokens: int) -> None:
    rng = np.random.default_rng(seed)
    inputs = 32 * int(rng.integers(1, 9)) if " " in kind else int(rng.integers(1, 200))
    weight = checks.random_weight(rng, int(rng.integers(1, 70)), inputs, kind, 32)
    checks.run_checks(kernels, [checks.check_embed(rng, weight, tokens, 12.0)], isas, THREADS)


def test_embed_of_an_id_outside_the_vocabulary_is_zero(
    kernels: LibraryRunner, isas: list[str]
) -> None:
    rng = np.random.default_rng(5)
    weight = checks.random_weight(rng, 20, 64, "u4 symmetric f16", 32)
    ids = np.array([[-1], [20], [2**31 - 1], [3]], np.int32)
    call = Call("embed", 4).add("ids", ids)
    weight.add_to(call)
    call.add("y", np.ones((4, 64), np.float32))
    for isa in isas:
        y = kernels.run([(call, isa, 1)])[0]["y"]
        assert (y[:3] == 0).all() and (y[3] != 0).any()


@examples
@given(seed=seeds, tokens=st.integers(1, 4), width=st.integers(1, 300), heads=st.integers(1, 5))
def test_elementwise(
    kernels: LibraryRunner, isas: list[str], seed: int, tokens: int, width: int, heads: int
) -> None:
    rng = np.random.default_rng(seed)
    past = int(rng.integers(0, 131072))
    original = int(rng.choice([0, max(1, past - 1), past + tokens, past + tokens + 1]))
    found = [
        checks.check_rms_norm(rng, tokens, width),
        checks.check_swiglu(rng, tokens, width),
        checks.check_rope(rng, tokens, heads, 2 * width),
        checks.check_rope_table(rng, tokens, 2 * width, past, past + tokens, original),
    ]
    checks.run_checks(kernels, found, isas, THREADS)


@examples
@given(
    seed=seeds,
    tokens=st.integers(1, 150),
    past=st.integers(0, 300),
    kv_heads=st.integers(1, 3),
    head_dim=st.integers(1, 70),
    dtype=st.sampled_from(layout.CACHE_TYPES),
)
def test_caches(
    kernels: LibraryRunner,
    isas: list[str],
    seed: int,
    tokens: int,
    past: int,
    kv_heads: int,
    head_dim: int,
    dtype: layout.CacheType,
) -> None:
    rng = np.random.default_rng(seed)
    found = [
        checks.check_cache_append(rng, tokens, past, kv_heads, head_dim, dtype),
        checks.check_compress_keys(rng, tokens, past, kv_heads, head_dim, dtype),
        checks.check_compress_keys(rng, tokens, past, kv_heads, head_dim, dtype, 128, 64),
        checks.check_compress_keys(rng, tokens, past, kv_heads, head_dim, dtype, 2, 1),
        checks.check_compress_keys(rng, tokens, past, kv_heads, head_dim, dtype, 32, 16, "f16"),
    ]
    checks.run_checks(kernels, found, isas, THREADS)


@examples
@given(
    seed=seeds,
    tokens=st.sampled_from([1, 1, 2, 5, 33, 70]),
    past=st.integers(0, 1200),
    kv_heads=st.integers(1, 2),
    group=st.sampled_from([1, 2, 3, 8, 16, 40]),
    head_dim=st.sampled_from([1, 8, 20, 48, 64, 128]),
    dtype=st.sampled_from(layout.CACHE_TYPES),
)
def test_attention(
    kernels: LibraryRunner,
    isas: list[str],
    seed: int,
    tokens: int,
    past: int,
    kv_heads: int,
    group: int,
    head_dim: int,
    dtype: layout.CacheType,
) -> None:
    rng = np.random.default_rng(seed)
    block_size = int(rng.choice([4, 16, 32, 64]))
    shape = (tokens, past, kv_heads, group, head_dim, dtype)
    found = [
        checks.check_attention(rng, *shape),
        checks.check_block_sparse(rng, *shape, block_size, 9),
    ]
    checks.run_checks(kernels, found, isas, THREADS)


@examples
@given(
    seed=seeds,
    tokens=st.integers(1, 64),
    past=st.integers(0, 600),
    group=st.sampled_from([1, 2, 16]),
    head_dim=st.sampled_from([20, 64]),
    dtype=st.sampled_from(layout.CACHE_TYPES),
)
def test_attention_of_draft_trees(
    kernels: LibraryRunner,
    isas: list[str],
    seed: int,
    tokens: int,
    past: int,
    group: int,
    head_dim: int,
    dtype: layout.CacheType,
) -> None:
    rng = np.random.default_rng(seed)
    parents = [int(rng.integers(-1, i)) for i in range(tokens)]
    block_size = int(rng.choice([4, 16, 64]))
    shape = (tokens, past, 2, group, head_dim, dtype)
    found = [
        checks.check_attention(rng, *shape, parents),
        checks.check_block_sparse(rng, *shape, block_size, 9, parents),
    ]
    checks.run_checks(kernels, found, isas, THREADS)


@pytest.mark.parametrize("dtype", layout.CACHE_TYPES)
def test_a_row_of_attention_does_not_depend_on_how_tokens_were_appended(
    kernels: LibraryRunner, isas: list[str], dtype: layout.CacheType
) -> None:
    rng = np.random.default_rng(6)
    check = checks.check_attention(rng, 40, 1300, 2, 16, 64, dtype)
    whole = check.call
    for isa in isas:
        together = kernels.run([(whole, isa, 2)])[0]["y"]
        for start, count in ((0, 1), (0, 7), (13, 1), (30, 10)):
            part = Call("attention", count, 1300 + start, attributes=whole.attributes)
            part.buffers = {**whole.buffers, "q": whole.buffers["q"][start : start + count].copy()}
            part.buffers["y"] = np.zeros((count, together.shape[1]), np.float32)
            part.operands = list(whole.operands)
            view = Call("", buffers=part.buffers).view("q", 5, 32 * 64)
            part.operands[0] = view.operands[0]
            part.operands[3] = Call("").add("y", part.buffers["y"]).operands[0]
            alone = kernels.run([(part, isa, 3)])[0]["y"]
            assert np.array_equal(alone, together[start : start + count])
