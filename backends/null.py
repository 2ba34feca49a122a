"""The backend that computes nothing: it checks what it is given, and counts tokens.

Compiler, bundles, generation and the command line are tested with it, without a
kernel or a device. Its logits depend on the tokens alone, so its text is predictable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from arkinfer.backends import CompileOptions, ExecutorOptions
from arkinfer.backends._sequence import TokenSequence
from arkinfer.bundle import Bundle
from arkinfer.bundle_writer import BundleWriter
from arkinfer.checkpoint import Checkpoint
from arkinfer.devices import Device
from arkinfer.errors import LoweringError

if TYPE_CHECKING:
    from arkinfer.graph.graph import Graph


class NullBackend:
    """See the module."""

    name = "null"
    needs: tuple[str, ...] = ()

    def compile(
        self,
        graph: Graph,
        checkpoint: Checkpoint,
        device: Device,
        options: CompileOptions,
        writer: BundleWriter,
    ) -> None:
        """Check that graph and checkpoint fit each other; write the names of all operators.

        Raises:
            LoweringError: they do not, or the options are out of range.
        """
        problems = list(_problems(graph, checkpoint, options))
        if problems:
            raise LoweringError("; ".join(problems))
        operators = [f"{node.domain}::{node.op_type}" for node in graph.model.graph]
        with writer.open_file("operators.json") as file:
            file.write(json.dumps(operators).encode())

    def executor(self, bundle: Bundle, options: ExecutorOptions) -> NullExecutor:
        """An executor whose next token is the last one plus one."""
        model = bundle.manifest.model
        return NullExecutor(model.vocab_size, options.context, model.num_kv_heads)


class NullExecutor(TokenSequence):
    """Its logits are 1 at the last token's successor and 0 elsewhere."""

    def __init__(self, vocab_size: int, context: int, kv_heads: int) -> None:
        super().__init__(vocab_size, context)
        self._kv_heads = kv_heads

    def append(self, tokens: Sequence[int], all_logits: bool = False) -> NDArray[np.float32]:
        """See :class:`arkinfer.runtime.executor.Executor`."""
        self.check(tokens)
        self._length += len(tokens)
        wanted = tokens if all_logits else tokens[-1:]
        logits = np.zeros((len(wanted), self.vocab_size), np.float32)
        successors = (np.asarray(wanted, np.int64) + 1) % self.vocab_size
        logits[np.arange(len(wanted)), successors] = 1.0
        return logits

    def selected_blocks(self, layer: int) -> list[NDArray[np.int32]]:
        """Every block of 64 tokens, for each KV head."""
        blocks = np.arange(-(-self.length // 64), dtype=np.int32)
        return [blocks] * self._kv_heads


def _problems(graph: Graph, checkpoint: Checkpoint, options: CompileOptions) -> Iterator[str]:
    from arkinfer.graph.graph import input_names
    from arkinfer.quantize import materialize

    if not 1 <= options.chunk <= options.context:
        yield f"chunk {options.chunk} with context {options.context}"
    declared = {value.name for value in graph.model.graph.inputs}
    for name, spec in graph.weights.items():
        missing = [source for source in spec.sources if source not in checkpoint.tensors]
        if missing:
            yield f"{name} has no source {', '.join(missing)}"
            continue
        rows = sum(checkpoint.tensors[source].shape[0] for source in spec.sources)
        if rows != spec.shape[0]:
            yield f"{name} has {spec.shape[0]} rows, its sources {rows}"
        absent = set(input_names(spec)) - declared
        if absent:
            yield f"the graph has no input {', '.join(sorted(absent))}"
        # One row shows that the weight can be made in its storage.
        materialize.rows(spec, checkpoint, slice(0, 1))


BACKEND = NullBackend()
