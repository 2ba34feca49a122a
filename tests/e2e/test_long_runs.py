"""Two thousand tokens behind 64K others: no memory lost, no time lost, the same for any threads."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import pytest
from numpy.typing import NDArray

import arkinfer
from arkinfer import kv_types
from arkinfer.bundle import Bundle
from arkinfer.runtime.session import Session
from tests.support.tiny_models import RELEASED_SPARSE

DEPTH = 65536
STEPS = 2000
CONTEXT = DEPTH + 2048
PART = 500
TOKENS: list[int] = np.random.default_rng(5).integers(3, 320, STEPS).tolist()


@pytest.fixture(scope="module")
def deep(tiny_bundle: Callable[..., Bundle]) -> Bundle:
    """MiniCPM4.1's structure: 32 heads over 2, 512 blocks and more of which 97 are attended to."""
    return tiny_bundle(
        "minicpm4.1-8b",
        hidden=512,
        sparse=RELEASED_SPARSE,
        overrides={"max_position_embeddings": 131072},
        compile={"quant": "w4g32", "context": CONTEXT},
    )


def filled(bundle: Bundle, kv: str, threads: int = 2) -> Session:
    session = arkinfer.load(bundle.path, kv=kv, threads=threads).session()
    session.fill_random(DEPTH)
    return session


def decode(session: Session, tokens: list[int]) -> tuple[list[float], NDArray[np.float32]]:
    """Seconds of each step, and the logits of every hundredth [steps / 100, vocab]."""
    seconds, logits = [], []
    for index, token in enumerate(tokens):
        start = time.perf_counter()
        row = session.append([token])
        seconds.append(time.perf_counter() - start)
        if index % 100 == 99:
            logits.append(row[0])
    return seconds, np.stack(logits)


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("kv", ["fp16", "int8"])
def test_two_thousand_steps_lose_nothing(deep: Bundle, kv: str) -> None:
    session = filled(deep, kv)
    # The first round touches the caches' last pages, and fills Python's own pools.
    seconds, first = decode(session, TOKENS)
    assert np.isfinite(first).all()
    session.rollback(DEPTH)
    before = resident_bytes()
    repeated, second = decode(session, TOKENS)
    grown = resident_bytes() - before
    assert np.array_equal(first, second)  # a rolled back session is as good as new
    assert session.length == DEPTH + STEPS
    assert grown < STEPS * 256  # bytes: a leak of one small object per step is more
    # Other processes disturb single rounds; what really gets slower does so in all of them.
    slower = []
    while (ratio := median(repeated[-PART:]) / median(repeated[:PART])) > 1.15:
        slower.append(ratio)
        assert len(slower) < 4, f"the last {PART} steps take {slower} times the first {PART}"
        session.rollback(DEPTH)
        repeated, _ = decode(session, TOKENS)


@pytest.mark.parametrize("kv", kv_types.NAMES)
def test_threads_do_not_change_results(deep: Bundle, kv: str) -> None:
    """Bit for bit: decoded tokens, a prompt's rows, and the blocks that they chose."""
    results = []
    for threads in (1, 2, 4, 8):
        session = filled(deep, kv, threads)
        _, decoded = decode(session, TOKENS[:100])
        prompt = session.append(TOKENS[100:230], all_logits=True)
        chosen = [head for layer in range(2) for head in session.selected_blocks(layer)]
        assert all(32 < len(head) < 128 for head in chosen)
        results.append([decoded, prompt, *chosen])
        session.close()
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("kv", kv_types.NAMES)
def test_rollback_at_depth(deep: Bundle, kv: str) -> None:
    """To the inside of a block, of a compressed window, and of what was filled."""
    session, plain = filled(deep, kv), filled(deep, kv)
    session.append(TOKENS[:300])
    session.rollback(DEPTH + 37)
    session.append(TOKENS[500:600])
    plain.append(TOKENS[:37])
    plain.append(TOKENS[500:600])
    assert np.array_equal(session.append([9]), plain.append([9]))
    for each in (session, plain):
        each.rollback(DEPTH - 1000)
    assert np.array_equal(
        session.append(TOKENS[:70], all_logits=True), plain.append(TOKENS[:70], all_logits=True)
    )
