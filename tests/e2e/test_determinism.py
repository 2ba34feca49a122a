"""The same seed gives the same output: for any number of threads, and in every run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import arkinfer
from arkinfer.bundle import Bundle
from tests.support.tiny_models import SMALL_SPARSE

PROMPT = "Write a short story about a lighthouse keeper and a whale."


def answer(bundle: Path, threads: int, seed: int) -> list[int]:
    """Token ids of a sampled answer in a process of its own."""
    command = [sys.executable, "-m", "arkinfer", "run", str(bundle), PROMPT, "--json"]
    options = f"--temperature 1 --top-p 0.95 --max-tokens 48 --seed {seed} --threads {threads}"
    done = subprocess.run([*command, *options.split()], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tokens: list[int] = json.loads(done.stdout)["token_ids"]
    return tokens


def test_sampled_answers_repeat(smollm2_bundle: Path) -> None:
    first = answer(smollm2_bundle, threads=1, seed=7)
    assert len(first) > 8
    assert answer(smollm2_bundle, threads=1, seed=7) == first
    assert answer(smollm2_bundle, threads=2, seed=7) == first
    assert answer(smollm2_bundle, threads=2, seed=8) != first


@pytest.mark.parametrize("quant", ["none", "w4g32"])
@pytest.mark.parametrize("activations", ["int8", "fp32"])
def test_logits_do_not_depend_on_threads(
    tiny_bundle: Callable[..., Bundle], quant: str, activations: str
) -> None:
    """Bit for bit, through dense and sparse attention, prefill and decode."""
    bundle = tiny_bundle("minicpm4.1-8b", compile={"quant": quant}, sparse=SMALL_SPARSE)
    tokens = np.random.default_rng(0).integers(0, 320, 200).tolist()
    results = []
    for threads in (1, 2, 3):
        model = arkinfer.load(bundle.path, threads=threads, activations=activations)
        session = model.session()
        prefill = session.append(tokens[:190], all_logits=True)
        decode = [session.append([token]) for token in tokens[190:]]
        results.append(np.concatenate([prefill, *decode]))
    assert np.isfinite(results[0]).all()
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_a_rolled_back_session_is_as_good_as_new(tiny_bundle: Callable[..., Bundle]) -> None:
    bundle = tiny_bundle("minicpm4.1-8b", sparse=SMALL_SPARSE)
    tokens = np.random.default_rng(1).integers(0, 320, 160).tolist()
    model = arkinfer.load(bundle.path)
    fresh, used = model.session(), model.session()
    used.append(tokens[:100])
    used.append([5] * 60)
    used.rollback(100)
    fresh.append(tokens[:100])
    assert np.array_equal(
        fresh.append(tokens[100:], all_logits=True), used.append(tokens[100:], all_logits=True)
    )


def test_a_continued_session_answers_as_a_new_one(smollm2_bundle: Path) -> None:
    """What a session keeps of the last turn counts for the repetition penalty too."""
    model = arkinfer.load(smollm2_bundle, context=256)
    session = model.session()
    first = model.encode_chat([{"role": "user", "content": "Name three colours."}])
    for _ in model.generate(first, session=session, temperature=0, max_tokens=12):
        pass
    second = [*session.tokens, *model.encode("\nName three colours again.")]
    settings = {"temperature": 0, "repetition_penalty": 1.8, "max_tokens": 24}
    continued = model.generate(second, session=session, **settings)  # type: ignore[arg-type]
    fresh = model.generate(second, **settings)  # type: ignore[arg-type]
    assert [piece.token for piece in continued] == [piece.token for piece in fresh]
