"""A graph at any stage of the passes, with its checkpoint's weights, in onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from arkinfer.checkpoint import Checkpoint
from arkinfer.graph import export
from arkinfer.graph.graph import Graph


def run_graph(
    graph: Graph,
    checkpoint: Checkpoint,
    tokens: list[int],
    folder: Path,
    weights: Mapping[str, NDArray[Any]] | None = None,
) -> NDArray[np.float32]:
    """Logits [tokens, vocab] of one call; ``weights`` overrides float weights by name."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / export.DATA, "wb") as file:
        arrays = (
            {name: weights[name]} if weights is not None else export.weight_arrays(spec, checkpoint)
            for name, spec in graph.weights.items()
        )
        export.export(graph.model.clone(), arrays, file.write, folder / export.MODEL)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        str(folder / export.MODEL), options, providers=["CPUExecutionProvider"]
    )
    config = graph.config
    empty = np.zeros((1, config.num_kv_heads, 0, config.head_dim), np.float32)
    feeds = {
        f"past_{kind}.{layer}": empty
        for kind in ("key", "value")
        for layer in range(config.num_layers)
    }
    found = session.run(["logits"], feeds | {"input_ids": np.array([tokens])})
    return np.asarray(found[0][0])
