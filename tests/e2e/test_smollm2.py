"""A real language model with its own Q4_1 bits, against transformers and llama.cpp.

The goldens and the scripts that made them are in ``tests/golden/smollm2``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import arkinfer
from arkinfer.runtime.model import Model

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "smollm2"
PROMPTS: dict[str, Any] = json.loads((GOLDEN / "prompts.json").read_text(encoding="utf-8"))
GREEDY = 64

Logits = NDArray[np.float32]


@pytest.fixture(scope="module")
def transformers() -> dict[str, NDArray[Any]]:
    with np.load(GOLDEN / "transformers.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def llamacpp() -> dict[str, NDArray[Any]]:
    with np.load(GOLDEN / "llamacpp.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def exact(smollm2_bundle: Path) -> Iterator[Model]:
    """float32 activations and cache: nothing is rounded but float32 arithmetic itself."""
    model = arkinfer.load(smollm2_bundle, context=2048, activations="fp32", kv="fp32")
    yield model
    model.close()


@pytest.fixture(scope="module")
def default(smollm2_bundle: Path) -> Iterator[Model]:
    """What a user gets: 8-bit activations and a float16 cache."""
    model = arkinfer.load(smollm2_bundle, context=2048)
    yield model
    model.close()


def logits_of(model: Model, tokens: list[int]) -> Logits:
    """float32 [tokens, vocab]."""
    session = model.session()
    try:
        return session.append(tokens, all_logits=True)
    finally:
        session.close()


def logsumexp(logits: Logits) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    top = wide.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = np.log(np.exp(wide - top).sum(axis=-1)) + top[..., 0]
    return result


def greedy(model: Model, prompt: list[int], count: int) -> tuple[list[int], Logits]:
    """The most likely continuation, and the logits that each token was taken from."""
    session = model.session()
    rows = [session.append(prompt)[0]]
    tokens = [int(rows[0].argmax())]
    while len(tokens) < count:
        rows.append(session.append([tokens[-1]])[0])
        tokens.append(int(rows[-1].argmax()))
    session.close()
    return tokens, np.stack(rows)


@pytest.mark.parametrize("name", PROMPTS)
def test_tokens_are_llamacpps(default: Model, name: str) -> None:
    """Chat template and tokenizer, against another implementation."""
    assert default.encode_chat(PROMPTS[name]["messages"]) == PROMPTS[name]["token_ids"]


def test_text_tokens_are_llamacpps(default: Model, llamacpp: dict[str, NDArray[Any]]) -> None:
    expected = llamacpp["tokens"].tolist()
    text = (GOLDEN / "text.txt").read_text(encoding="utf-8")
    assert default.encode(text)[: len(expected)] == expected


@pytest.mark.parametrize("name", PROMPTS)
def test_fp32_logits_are_those_of_transformers(
    exact: Model, transformers: dict[str, NDArray[Any]], name: str
) -> None:
    """1e-4 of the largest logit: float32 sums in another order, over 30 layers."""
    logits = logits_of(exact, PROMPTS[name]["token_ids"])
    golden = transformers[f"{name}.logits"]
    assert np.abs(logits[:, transformers["columns"]] - golden).max() <= 1e-4 * np.abs(golden).max()
    np.testing.assert_allclose(logsumexp(logits), transformers[f"{name}.logsumexp"], rtol=1e-4)


@pytest.mark.parametrize("name", PROMPTS)
def test_fp32_greedy_text_is_that_of_transformers(
    exact: Model, transformers: dict[str, NDArray[Any]], name: str
) -> None:
    tokens, _ = greedy(exact, PROMPTS[name]["token_ids"], GREEDY)
    golden, gaps = transformers[f"{name}.greedy"].tolist(), transformers[f"{name}.greedy_gap"]
    same = next((i for i in range(GREEDY) if tokens[i] != golden[i]), GREEDY)
    # A float32 tie may fall either way; everything after it is another text.
    assert same == GREEDY or gaps[same] < 1e-3


@pytest.fixture(scope="module")
def text_logits(
    exact: Model, default: Model, llamacpp: dict[str, NDArray[Any]]
) -> tuple[Logits, Logits]:
    """Logits of the 2,000 tokens of text: float32, and default."""
    tokens = llamacpp["tokens"].tolist()
    return logits_of(exact, tokens), logits_of(default, tokens)


@pytest.fixture(scope="module")
def measured_error(text_logits: tuple[Logits, Logits]) -> float:
    """How far default logits stray from float32 ones: the 99.9th percentile over real text.

    Measured on other text than the prompts, so that a prompt cannot excuse itself.
    """
    exact_logits, default_logits = text_logits
    return float(np.quantile(np.abs(exact_logits[::4] - default_logits[::4]), 0.999))


@pytest.mark.parametrize("name", PROMPTS)
def test_default_greedy_text_is_the_fp32_text(
    exact: Model, default: Model, measured_error: float, name: str
) -> None:
    """Identical over 64 tokens, but where the best two logits lie closer than the error."""
    prompt = PROMPTS[name]["token_ids"]
    expected, logits = greedy(exact, prompt, GREEDY)
    best = np.sort(logits, axis=-1)[:, -2:]
    near_tie = best[:, 1] - best[:, 0] < measured_error

    free, _ = greedy(default, prompt, GREEDY)
    first = next((i for i in range(GREEDY) if free[i] != expected[i]), GREEDY)
    assert first == GREEDY or near_tie[first]

    # The same text fed to both: every other choice must agree too.
    rows = logits_of(default, prompt + expected[:-1])[len(prompt) - 1 :]
    other = rows.argmax(axis=-1) != np.array(expected)
    assert not (other & ~near_tie).any()


def test_top1_agreement_over_real_text(
    text_logits: tuple[Logits, Logits],
    transformers: dict[str, NDArray[Any]],
    llamacpp: dict[str, NDArray[Any]],
) -> None:
    reference = transformers["text.top1"]
    exact_logits, default_logits = text_logits
    ours = float((default_logits.argmax(axis=-1) == reference).mean())
    theirs = float((llamacpp["top1"] == reference).mean())
    assert float((exact_logits.argmax(axis=-1) == reference).mean()) >= 0.999
    assert ours >= 0.97
    assert ours >= theirs


def test_answer_to_a_factual_question(default: Model) -> None:
    pieces = default.chat(PROMPTS["english-fact"]["messages"], temperature=0, max_tokens=48)
    text = "".join(piece.text for piece in pieces)
    assert "Paris" in text
    assert pieces.finish_reason in ("stop", "length")


@pytest.mark.parametrize("threads", [1, 2])
def test_same_seed_same_text(smollm2_bundle: Path, default: Model, threads: int) -> None:
    """For any number of threads, and from run to run."""
    settings: dict[str, Any] = {"temperature": 0.8, "top_p": 0.9, "seed": 7, "max_tokens": 24}
    messages = PROMPTS["english-advice"]["messages"]
    expected = default.chat(messages, **settings)
    list(expected)
    model = arkinfer.load(smollm2_bundle, context=512, threads=threads)
    again = model.chat(messages, **settings)
    list(again)
    assert again.tokens == expected.tokens
