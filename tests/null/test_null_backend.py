"""The null backend checks what it is given, and its text is predictable."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import arkinfer
from arkinfer import backends, converters, devices, models, passes
from arkinfer.backends import CompileOptions, ExecutorOptions
from arkinfer.bundle import BundleWriter
from arkinfer.errors import LoweringError


def test_next_token_is_the_successor(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    bundle = arkinfer.compile(
        tiny_checkpoint("llama"), target="null", quant="none", output=tmp_path / "x.ark"
    )
    operators = json.loads(bundle.read_text("operators.json"))
    assert operators.count("::Attention") == 2 and "::RMSNormalization" in operators
    executor = backends.get("null").executor(bundle, ExecutorOptions(100))
    assert executor is not None
    logits = executor.append([5, 318, 319], all_logits=True)
    assert np.argmax(logits, axis=1).tolist() == [6, 319, 0]
    assert [block.tolist() for block in executor.selected_blocks(0)] == [[0]] * 4


def test_graphs_that_do_not_fit_are_refused(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = converters.open(tiny_checkpoint("llama"))
    graph = passes.run(
        models.build(checkpoint.config, None), checkpoint.tensors, passes.PassOptions("none")
    )
    name = "model.norm.weight"
    spec = graph.weights[name]
    graph.weights[name] = dataclasses.replace(spec, sources=("gone",))
    other = "lm_head.weight"
    graph.weights[other] = dataclasses.replace(graph.weights[other], shape=(7, 128))
    output = tmp_path / "x.ark"
    with pytest.raises(LoweringError, match="norm.*gone.*7 rows.*320"):
        with BundleWriter(output) as writer:
            backends.get("null").compile(
                graph, checkpoint, devices.get("cpu"), CompileOptions(64, 64), writer
            )
    assert not output.exists()
    with pytest.raises(LoweringError, match="chunk 65 with context 64"):
        with BundleWriter(output) as writer:
            backends.get("null").compile(
                graph, checkpoint, devices.get("cpu"), CompileOptions(64, 65), writer
            )
