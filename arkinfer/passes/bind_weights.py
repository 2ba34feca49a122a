"""First pass: the checkpoint's tensors are the graph's weights, and say how they are stored."""

from __future__ import annotations

from collections.abc import Iterable

from arkinfer.errors import CheckpointTensorsError
from arkinfer.graph.graph import Graph
from arkinfer.passes._context import PassContext
from arkinfer.passes._weights import set_storage

_LISTED = 40
_DERIVED = ("rotary_emb.inv_freq",)
"""Buffers that some checkpoints carry and that follow from the config."""


def bind_weights(graph: Graph, context: PassContext) -> None:
    """Take over each weight's storage from the checkpoint.

    Raises:
        CheckpointTensorsError: names every missing, surplus and misshapen tensor.
    """
    tensors = context.tensors
    missing = [name for name in graph.weights if name not in tensors]
    surplus = [name for name in tensors if name not in graph.weights and not _expected(name, graph)]
    misshapen = [
        f"{name} {list(tensors[name].shape)} instead of {list(spec.shape)}"
        for name, spec in graph.weights.items()
        if name in tensors and tensors[name].shape != spec.shape
    ]
    problems = [
        f"{len(names)} {kind}: {_list(names)}"
        for kind, names in (("missing", missing), ("surplus", surplus), ("misshapen", misshapen))
        if names
    ]
    if problems:
        raise CheckpointTensorsError(
            "tensors that do not fit the config: " + "; ".join(problems),
            "",
            "check that config.json and the weights belong together",
        )
    for name in list(graph.weights):
        set_storage(graph, name, tensors[name].storage)


def _expected(name: str, graph: Graph) -> bool:
    """Whether a tensor that is no weight of the graph may be there all the same."""
    # Some tied checkpoints carry the head a second time.
    copy_of_embedding = graph.config.tie_word_embeddings and name == "lm_head.weight"
    return copy_of_embedding or name.endswith(_DERIVED)


def _list(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _LISTED
    return ", ".join(listed[:_LISTED]) + (f" and {more} more" if more > 0 else "")
