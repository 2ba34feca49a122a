"""Calls of rms_norm, swiglu, rope_table and rope."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from arkinfer.kernels.rms_norm.reference import rms_norm
from arkinfer.kernels.rope.reference import rope
from arkinfer.kernels.rope_table.reference import rope_table
from arkinfer.kernels.swiglu.reference import swiglu
from tests.support.kernel_checks.check import Check, close
from tests.support.kernel_runner import Call


def check_rms_norm(rng: np.random.Generator, tokens: int, hidden: int) -> Check:
    x = (rng.standard_normal((tokens, hidden)) * 3).astype(np.float32)
    weight = rng.standard_normal(hidden).astype(np.float32)
    call = Call("rms_norm", tokens, attributes={"epsilon": 1e-5}).add("x", x).add("weight", weight)
    call.add("y", np.zeros_like(x))
    expected = rms_norm(x, weight, 1e-5)
    return Check(
        call, lambda results: close(results["y"], expected, 2e-6 * np.abs(expected) + 1e-7)
    )


def check_swiglu(rng: np.random.Generator, tokens: int, columns: int) -> Check:
    both = (rng.standard_normal((tokens, 2 * columns)) * 20).astype(np.float32)
    both[0, 0] = 3000.0
    both[-1, columns - 1] = -3000.0
    call = Call("swiglu", tokens, buffers={"both": both})
    call.view("both", 0, columns).view("both", columns, columns)
    call.add("y", np.zeros((tokens, columns), np.float32))
    expected = swiglu(both[:, :columns], both[:, columns:])
    # exp(-gate) is clamped at e^88: what is smaller than that times up vanishes.
    return Check(
        call, lambda results: close(results["y"], expected, 1e-6 * np.abs(expected) + 1e-30)
    )


def check_rope_table(
    rng: np.random.Generator,
    tokens: int,
    head_dim: int,
    past: int,
    total: int,
    original_max: int,
    parents: Sequence[int] | None = None,
) -> Check:
    short = (10000.0 ** -(np.arange(head_dim // 2) * 2 / head_dim)).astype(np.float32)
    long = (short / rng.uniform(1, 30, head_dim // 2)).astype(np.float32)
    attributes = {"original_max": original_max, "attention_factor": 1.25}
    call = Call("rope_table", tokens, past, total, attributes).add("short", short)
    call.add("long", long).add("y", np.zeros((tokens, head_dim), np.float32))
    if parents is not None:
        call.tree(parents)
    depths = None if call.depths is None else call.depths.tolist()
    expected = rope_table(past, tokens, total, short, long, original_max, 1.25, depths)
    return Check(call, lambda results: close(results["y"], expected, 3e-7))


def check_rope(rng: np.random.Generator, tokens: int, heads: int, head_dim: int) -> Check:
    buffer = rng.standard_normal((tokens, heads * head_dim + 3)).astype(np.float32)
    table = rng.uniform(-1, 1, (tokens, head_dim)).astype(np.float32)
    call = Call("rope", tokens, attributes={"head_dim": head_dim}, buffers={"x": buffer})
    call.view("x", 2, heads * head_dim).add("table", table)
    expected = buffer.astype(np.float64)
    inside = slice(2, 2 + heads * head_dim)
    expected[:, inside] = rope(buffer[:, inside], table, head_dim)
    return Check(call, lambda results: close(results["x"], expected, 1e-6))
