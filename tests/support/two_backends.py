"""The same model on a device and on the CPU: sessions over both, and comparisons of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import arkinfer
from arkinfer.runtime.executor import Executor
from arkinfer.runtime.session import Session

Side = Session | Executor

# Both sides multiply the same codes in float32 and differ by the order of sums. fp16 caches differ
# besides where that moves a number across the middle of two halves.
TOLERANCE = {"fp32": 5e-5, "fp16": 5e-3}
# Products that a device computes in fp16, which rounds their inputs and the sums of a few.
HALF_PRODUCTS = 1e-2

# Kind, type of the KV cache and quantization: both generations of sparse attention and none.
TINY_MODELS = pytest.mark.parametrize(
    ("kind", "kv", "quant"),
    [
        ("minicpm4.1-8b", "fp32", "w4g32"),
        ("minicpm4-8b", "fp16", "w8g32"),
        ("minicpm4-0.5b", "fp16", "none"),
    ],
)


def sessions(
    target: str, source: Path, folder: Path, kv: str, quant: str | None = None
) -> list[Session]:
    """One on ``target``, one on the CPU; the bundles are called after their targets."""
    options: dict[str, Any] = {"context": 512, "chunk": 32, "quant": quant, "kv": kv}
    made = []
    for name in (target, "cpu"):
        bundle = arkinfer.compile(
            source, target=name, output=folder / f"{Path(name).stem}.ark", **options
        )
        on = "faster" if name == "cpu" else "device"
        made.append(arkinfer.load(bundle.path, activations="fp32", on=on).session())
    return made


def error(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference, of the largest value."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def follow(both: Sequence[Side], last: list[NDArray[Any]], steps: int, tolerance: float) -> None:
    """Greedy decoding on both sides: the same tokens, near-ties apart."""
    for _ in range(steps):
        device, cpu = last
        assert error(device, cpu) < tolerance
        token = int(cpu.argmax())
        near = cpu.max() - np.sort(cpu)[-2] < tolerance * np.abs(cpu).max()
        assert int(device.argmax()) == token or near
        last = [session.append([token])[-1] for session in both]


def compare_whole(
    both: Sequence[Side], sparse: bool, tolerance: float, others: float = 0.0
) -> None:
    """Prefill in chunks, verify-sized appends, decoding and rollback; selected blocks too.

    ``others`` is the share of the prompt's rows that may differ by more: those whose blocks, all
    but equal in score, are chosen differently.
    """
    prompt = [int(i) for i in np.random.default_rng(3).integers(3, 300, 100)]
    device, cpu = (session.append(prompt, all_logits=True) for session in both)
    rows = np.abs(device - cpu).max(axis=1) / np.abs(cpu).max()
    assert (rows >= tolerance).mean() <= others
    for layer in range(2 if sparse else 0):
        found, expected = (session.selected_blocks(layer) for session in both)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    verified = [session.append(prompt[:5], all_logits=True) for session in both]
    assert error(*verified) < tolerance
    for session in both:
        session.rollback(70)
    follow(both, [session.append([9])[-1] for session in both], 8, tolerance)
