"""One quick pass through everything: if this fails, nothing else is worth reading."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

import arkinfer
from tests.support.tiny_models import SMALL_SPARSE


def test_checkpoint_to_tokens(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """A sparse MiniCPM4.1 of two layers: compiled, verified, and asked."""
    checkpoint = tiny_checkpoint("minicpm4.1-8b", sparse=SMALL_SPARSE)
    bundle = arkinfer.compile(
        checkpoint, target="cpu", quant="w4g32", context=256, output=tmp_path / "tiny.ark"
    )
    tokens = np.random.default_rng(0).integers(3, 300, 200).tolist()

    exact = arkinfer.load(bundle.path, activations="fp32", kv="fp32").session()
    reference = arkinfer.load(bundle.path, backend="onnxruntime").session()
    logits = exact.append(tokens, all_logits=True)
    expected = reference.append(tokens, all_logits=True)
    assert np.abs(logits - expected).max() <= 1e-4 * np.abs(expected).max()
    for layer in range(2):
        pairs = zip(exact.selected_blocks(layer), reference.selected_blocks(layer), strict=True)
        assert all(np.array_equal(ours, theirs) for ours, theirs in pairs)

    model = arkinfer.load(bundle.path)
    answer = model.chat([{"role": "user", "content": "hello"}], temperature=0, max_tokens=8)
    text = "".join(piece.text for piece in answer)
    assert 1 <= len(answer.tokens) <= 8
    assert model.tokenizer.decode(answer.tokens).startswith(text)
