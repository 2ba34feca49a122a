"""What every backend must do, whatever it runs on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import arkinfer
from arkinfer import backends
from arkinfer.bundle import Bundle
from arkinfer.errors import ContextOverflowError, InvalidOptionError

CONTEXT = 96


def everywhere() -> list[str]:
    """The registered backends that need nothing but a plain install."""
    return [name for name in backends.names() if not backends.get(name).needs]


def check_bundle(name: str, checkpoint: Path, quant: str, output: Path) -> Bundle:
    """The backend compiles, and twice the same."""
    first, second = (
        arkinfer.compile(
            checkpoint, target=name, quant=quant, context=CONTEXT, output=output / part
        )
        for part in ("first.ark", "second.ark")
    )
    first.check()
    assert first.manifest.backend == name
    assert first.manifest.context == CONTEXT
    assert "graph.onnx" in first.manifest.files
    assert first.manifest.files == second.manifest.files
    assert sorted(path.name for path in output.iterdir()) == ["first.ark", "second.ark"]
    return Bundle.open(first.path)


def check_executor(name: str, bundle: Bundle) -> None:
    """The backend's executor keeps the promises of :class:`arkinfer.runtime.executor.Executor`."""
    executor = backends.get(name).executor(bundle, backends.ExecutorOptions(CONTEXT, 1))
    if executor is None:
        # The native runtime runs it, and that needs a plan.
        assert {"plan.json", "weights.bin"} <= set(bundle.manifest.files)
        return
    model = bundle.manifest.model
    tokens = [int(t) for t in np.random.default_rng(0).integers(0, model.vocab_size, 60)]
    assert (executor.length, executor.context) == (0, CONTEXT)
    assert executor.vocab_size == model.vocab_size

    logits = executor.append(tokens, all_logits=True)
    assert logits.shape == (60, model.vocab_size) and logits.dtype == np.float32
    assert np.isfinite(logits).all() and executor.length == 60
    blocks = executor.selected_blocks(model.num_layers - 1)
    assert len(blocks) == model.num_kv_heads
    for found in blocks:
        assert found.dtype == np.int32 and (np.diff(found) > 0).all() and found[0] >= 0

    executor.rollback(17)
    assert executor.length == 17
    last = executor.append(tokens[17:])
    assert last.shape == (1, model.vocab_size)
    assert np.abs(last - logits[-1]).max() <= 1e-5 * np.abs(logits).max()

    for wrong in ([], [-1], [model.vocab_size]):
        with pytest.raises(InvalidOptionError):
            executor.append(wrong)
    for length in (-1, 61):
        with pytest.raises(InvalidOptionError):
            executor.rollback(length)
    with pytest.raises(ContextOverflowError, match=str(CONTEXT)):
        executor.append([1] * (CONTEXT - 59))
    assert executor.length == 60
    executor.append([1] * (CONTEXT - 60))
    assert executor.length == CONTEXT
