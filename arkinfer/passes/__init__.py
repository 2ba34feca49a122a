"""Graph rewriting: one pass per file, run in the order of :data:`PASSES`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from arkinfer.checkpoint import TensorInfo
from arkinfer.errors import StorageError
from arkinfer.graph.graph import Graph
from arkinfer.passes._context import PassContext, PassOptions
from arkinfer.passes.bind_weights import bind_weights
from arkinfer.passes.fold_constants import fold_constants
from arkinfer.passes.merge_projections import merge_projections
from arkinfer.passes.quantize_weights import quantize_weights

__all__ = ["PASSES", "PassContext", "PassOptions", "run"]

Pass = Callable[[Graph, PassContext], None]

PASSES: tuple[Pass, ...] = (
    bind_weights,
    fold_constants,
    merge_projections,
    quantize_weights,
)
"""Each changes the graph in place. Later passes ask how weights are stored, so binding is first."""


def run(graph: Graph, tensors: Mapping[str, TensorInfo], options: PassOptions) -> Graph:
    """Run all passes on a copy of the graph; no weight is read.

    Args:
        graph: as :func:`arkinfer.models.build` makes it.
        tensors: the checkpoint's, by name.
        options: with ``dump``, that folder receives the graph as it was built and after
            each pass, as ONNX files numbered in order.

    Raises:
        CheckpointTensorsError: the tensors are not those of the graph.
        InvalidOptionError, UnsupportedQuantizationError: the quantization asked for.
        StorageError: the dump cannot be written.
    """
    graph = Graph(graph.model.clone(), graph.config, dict(graph.weights))
    context = PassContext(tensors, options)
    _dump(graph, options.dump, 0, "built")
    for number, run_pass in enumerate(PASSES, start=1):
        run_pass(graph, context)
        _dump(graph, options.dump, number, run_pass.__name__)
    return graph


def _dump(graph: Graph, folder: Path | None, number: int, name: str) -> None:
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        graph.save(folder / f"{number:02d}_{name}.onnx")
    except OSError as error:
        raise StorageError(f"cannot write the dump to {folder} ({error.strerror})") from error
