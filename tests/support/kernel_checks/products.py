"""Calls of matmul and embed."""

from __future__ import annotations

import numpy as np

from arkinfer.kernels.embed.reference import embed
from arkinfer.kernels.matmul.reference import gated_matmul, matmul, quantize_activations
from arkinfer.kernels.rms_norm.reference import rms_norm
from tests.support.kernel_checks.check import Array, Check, Results, close
from tests.support.kernel_checks.weights import Weight, random_weight
from tests.support.kernel_runner import Call, Runner


def check_rows_alone(
    runner: Runner, isa: str, kind: str, activations: int, inputs: int = 2304
) -> None:
    """A token has the same bits whether it was decoded alone or prefilled in a chunk."""
    rng = np.random.default_rng(3)
    weight = random_weight(rng, 70, inputs, kind, 128)
    x = rng.standard_normal((275, inputs)) * np.exp(rng.standard_normal((275, inputs)))
    x = x.astype(np.float32)  # with outliers, so that some groups have fine codes

    def call(rows: Array) -> Call:
        result = Call("matmul", len(rows), attributes={"activations": activations}).add("x", rows)
        weight.add_to(result)
        return result.skip().add("y", np.zeros((len(rows), 70), np.float32))

    together = runner.run([(call(x), isa, 2)])[0]["y"]
    for start, count in (
        (0, 1),
        (0, 2),
        (7, 3),
        (31, 4),
        (40, 11),
        (60, 16),
        (97, 30),
        (255, 2),
        (274, 1),
    ):
        alone = runner.run([(call(x[start : start + count]), isa, 1)])[0]["y"]
        assert np.array_equal(alone, together[start : start + count]), (isa, kind, start, count)


def check_matmul(
    rng: np.random.Generator,
    weight: Weight,
    tokens: int,
    activations: int,
    residual: str = "none",
    scale: float = 1.0,
) -> Check:
    """``residual``: "none", "apart", or "in place" (the memory of y)."""
    outputs, inputs = weight.values.shape
    call = Call("matmul", tokens, attributes={"scale": scale, "activations": activations})
    wide = rng.standard_normal((tokens, inputs + 5)).astype(np.float32)
    wide *= np.exp(rng.standard_normal((tokens, inputs + 5))).astype(np.float32)
    x = wide[:, 3 : 3 + inputs]
    start = rng.standard_normal((tokens, outputs + 7)).astype(np.float32)
    other = rng.standard_normal((tokens, outputs)).astype(np.float32)
    call.buffers["wide"] = wide
    call.buffers["out"] = start
    call.view("wide", 3, inputs)
    weight.add_to(call)
    if residual == "apart":
        call.add("other", other)
    elif residual == "in place":
        call.view("out", 4, outputs)
    else:
        call.skip()
    call.view("out", 4, outputs)
    added = {"none": None, "apart": other, "in place": start[:, 4 : 4 + outputs]}[residual]
    quantized = weight.quantized and activations == 0
    used = quantize_activations(x, weight.group) if quantized else x
    expected = matmul(used, weight.values, added, scale)
    # Rounding of fp32 sums, relative to the sum of magnitudes: blocks of 128 and then the blocks.
    tolerance = 1e-6 * abs(scale) * (np.abs(used).astype(np.float64) @ weight.magnitude.T) + 1e-6

    def verify(results: Results) -> None:
        close(results["out"][:, 4 : 4 + outputs], expected, tolerance)
        untouched = np.ones(outputs + 7, bool)
        untouched[4 : 4 + outputs] = False
        assert np.array_equal(results["out"][:, untouched], start[:, untouched])

    return Check(call, verify)


def check_fused_matmul(
    rng: np.random.Generator, weight: Weight, tokens: int, activations: int
) -> Check:
    """A product that normalizes its input and gates its outputs."""
    outputs, inputs = weight.values.shape
    attributes = {"activations": activations, "epsilon": 1e-5, "gated": 1}
    call = Call("matmul", tokens, attributes=attributes)
    x = rng.standard_normal((tokens, inputs)).astype(np.float32)
    norm = (0.5 * rng.uniform(0.5, 1.5, inputs) / np.sqrt(inputs)).astype(np.float32)
    call.add("x", x)
    weight.add_to(call)
    call.skip().add("y", np.zeros((tokens, outputs // 2), np.float32)).add("norm", norm)
    normalized = rms_norm(x, norm, 1e-5).astype(np.float32)
    quantized = weight.quantized and activations == 0
    used = quantize_activations(normalized, weight.group) if quantized else normalized
    expected = gated_matmul(used, weight.values)
    tolerance = 2e-6 * (np.abs(used).astype(np.float64) @ weight.magnitude.T) + 1e-6
    if quantized:  # a value between two codes may take either
        tolerance += np.abs(normalized).max() / 127 * weight.magnitude.max()
    largest = np.abs(matmul(used, weight.values)) + tolerance
    gates, ups = np.split(largest, 2, axis=1)
    wrong_gate, wrong_up = np.split(tolerance, 2, axis=1)
    # The slope of silu is at most 1.1, and silu(g) at most |g|.
    bound = 1.1 * wrong_gate * ups + gates * wrong_up + 1e-6 * gates * ups

    def verify(results: Results) -> None:
        close(results["y"], expected, bound)

    return Check(call, verify)


def check_embed(rng: np.random.Generator, weight: Weight, tokens: int, scale: float) -> Check:
    vocabulary, hidden = weight.values.shape
    ids = rng.integers(0, vocabulary, (tokens, 1)).astype(np.int32)
    call = Call("embed", tokens, attributes={"scale": scale}).add("ids", ids)
    weight.add_to(call)
    call.add("y", np.zeros((tokens, hidden), np.float32))
    expected = embed(ids[:, 0], weight.values, scale)
    tolerance = 4e-7 * abs(scale) * embed(ids[:, 0], weight.magnitude) + 1e-7
    return Check(call, lambda results: close(results["y"], expected, tolerance))
