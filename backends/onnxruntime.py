"""The oracle: the neutral graph in stock onnxruntime, with nothing of ours installed in it.

It runs bundles that were compiled for it, and those of every backend that can give
back its weights (:class:`arkinfer.backends.KeepsWeights`).
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arkinfer import backends
from arkinfer.backends import CompileOptions, ExecutorOptions, KeepsWeights
from arkinfer.backends._sequence import TokenSequence
from arkinfer.bundle import Bundle
from arkinfer.bundle_writer import BundleWriter
from arkinfer.checkpoint import Checkpoint
from arkinfer.devices import Device
from arkinfer.errors import InvalidBundleError, InvalidOptionError
from arkinfer.extras import require
from arkinfer.system import total_memory

if TYPE_CHECKING:
    import onnxruntime  # type: ignore[import-untyped]

    from arkinfer.graph.graph import Graph

_REMEDY = "copy the bundle again, or compile the checkpoint again"
_DENSE_BLOCK = 64


class OnnxRuntimeBackend:
    """See the module."""

    name = "onnxruntime"
    needs: tuple[str, ...] = ()

    def compile(
        self,
        graph: Graph,
        checkpoint: Checkpoint,
        device: Device,
        options: CompileOptions,
        writer: BundleWriter,
    ) -> None:
        """Write the graph with its weights as an ordinary ONNX model."""
        from arkinfer.graph import export

        with writer.open_file(export.DATA) as file:
            export.export(
                graph.model.clone(),
                (export.weight_arrays(spec, checkpoint) for spec in graph.weights.values()),
                file.write,
                writer.folder / export.MODEL,
            )
        writer.weights_bytes = (writer.folder / export.DATA).stat().st_size

    def executor(self, bundle: Bundle, options: ExecutorOptions) -> OnnxRuntimeExecutor:
        """An executor for a bundle of this backend, or of one that keeps its weights.

        Raises:
            MissingExtraError: onnxruntime is not installed.
            InvalidOptionError: the bundle's weights cannot be had.
            DamagedBundleError, InvalidBundleError: it is not what was compiled.
        """
        require("compile", "running a bundle in onnxruntime")
        session = _session(bundle.path, bundle.digest, options.threads or 0)
        return OnnxRuntimeExecutor(bundle, session, options.context)


class OnnxRuntimeExecutor(TokenSequence):
    """One sequence; its KV cache is float32 in numpy."""

    def __init__(self, bundle: Bundle, session: onnxruntime.InferenceSession, context: int) -> None:
        config = bundle.manifest.model
        super().__init__(config.vocab_size, context)
        self._config = config
        self._chunk = bundle.manifest.chunk
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._presents = [
            f"present_{kind}.{layer}"
            for layer in range(config.num_layers)
            for kind in ("key", "value")
        ]
        self._blocks = [name for name in self._outputs if name.endswith(".blocks")]
        self._selected: dict[str, NDArray[Any]] = {}
        self._seen = 0
        empty = np.zeros((1, config.num_kv_heads, 0, config.head_dim), np.float32)
        self._caches = [empty] * len(self._presents)

    def append(self, tokens: Sequence[int], all_logits: bool = False) -> NDArray[np.float32]:
        """See :class:`arkinfer.runtime.executor.Executor`."""
        self.check(tokens)
        rows: list[NDArray[np.float32]] = []
        for chunk in self._chunks(tokens):
            logits = self._run(chunk, ["logits"])["logits"][0]
            if all_logits:
                rows.append(logits)
            else:
                rows = [logits[-1:]]
        return np.concatenate(rows)

    def rollback(self, length: int) -> None:
        """See :class:`arkinfer.runtime.executor.Executor`."""
        super().rollback(length)
        self._caches = [cache[:, :, :length] for cache in self._caches]

    def selected_blocks(self, layer: int) -> list[NDArray[np.int32]]:
        """See :class:`arkinfer.runtime.executor.Executor`; dense layers report blocks of 64.

        Raises:
            InvalidOptionError: no such layer, or nothing was appended yet.
        """
        if not 0 <= layer < self._config.num_layers:
            raise InvalidOptionError(f"layer {layer}", f"0 to {self._config.num_layers - 1}")
        if self._seen == 0:
            raise InvalidOptionError("no token has been appended", "an append before this call")
        mask = self._selected.get(f"layers.{layer}.blocks")
        if mask is None:
            every = np.arange(-(-self._seen // _DENSE_BLOCK), dtype=np.int32)
            return [every] * self._config.num_kv_heads
        return [np.flatnonzero(row).astype(np.int32) for row in mask]

    def stages(self, tokens: Sequence[int], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Append tokens in one step and return the named values of the graph for them.

        Args:
            tokens: ids to append.
            names: of stages, such as ``layers.0.attention`` or ``logits``.

        Raises:
            InvalidOptionError: a name that the graph does not have, or bad tokens.
            ContextOverflowError: the context holds fewer tokens.
        """
        self.check(tokens)
        unknown = [name for name in names if name not in self._outputs]
        if unknown:
            raise InvalidOptionError(
                f"no stage {', '.join(unknown)}"[:400], "a name in stage_names"
            )
        return self._run(tokens, names)

    @property
    def stage_names(self) -> list[str]:
        """What :meth:`stages` can return, in the order of the graph; the logits come first."""
        return [name for name in self._outputs if name not in self._presents]

    def _run(self, tokens: Sequence[int], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        feeds: dict[str, NDArray[Any]] = {"input_ids": np.array([tokens], np.int64)}
        for name, cache in zip(self._presents, self._caches, strict=True):
            feeds[name.replace("present", "past", 1)] = cache
        wanted = list(dict.fromkeys([*names, *self._presents, *self._blocks]))
        found = dict(zip(wanted, self._session.run(wanted, feeds), strict=True))
        self._caches = [found[name] for name in self._presents]
        self._selected = {name: found[name][0, :, -1] for name in self._blocks}
        self._length += len(tokens)
        self._seen = self._length
        return {name: found[name] for name in names}

    def _chunks(self, tokens: Sequence[int]) -> Iterator[Sequence[int]]:
        rope = self._config.rope
        end = self._length + len(tokens)
        switches = self._length < rope.original_max_position < end
        if switches and rope.long_factors != rope.short_factors:
            # All tokens of one append are rotated with the factors of its final length.
            yield tokens
            return
        for start in range(0, len(tokens), self._chunk):
            yield tokens[start : start + self._chunk]


@functools.lru_cache(maxsize=1)
def _session(path: Path, digest: str, threads: int) -> onnxruntime.InferenceSession:
    """A session over a checked bundle; sessions hold no state, so sequences share one."""
    from arkinfer.graph import export

    bundle = Bundle.open(path)
    bundle.check()
    if export.MODEL in bundle.manifest.files:
        return _open(bundle.file(export.MODEL), bundle, threads)
    backend = backends.get(bundle.manifest.backend)
    if not isinstance(backend, KeepsWeights):
        raise InvalidOptionError(
            f"a bundle for {backend.name} does not give back its weights",
            "a backend that can",
            "compile the checkpoint with --target onnxruntime",
        )
    with tempfile.TemporaryDirectory(prefix="arkinfer-") as folder:
        model = Path(folder) / export.MODEL
        _export(bundle, backend, model)
        return _open(model, bundle, threads)


def _export(bundle: Bundle, backend: KeepsWeights, path: Path) -> None:
    import onnx_ir as ir

    from arkinfer.graph import export

    try:
        graph = ir.load(bundle.file("graph.onnx"))
    except Exception as error:  # the reader has no error class of its own
        raise InvalidBundleError(
            f"graph.onnx cannot be read ({error})"[:300], "", _REMEDY
        ) from None
    names = export.weight_names(graph)
    with open(path.with_name(export.DATA), "wb") as file:
        weights = (backend.weights(bundle, name) for name in names)
        export.export(graph, weights, file.write, path)


def _open(model: Path, bundle: Bundle, threads: int) -> onnxruntime.InferenceSession:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Beyond the basic level, onnxruntime replaces quantized products by kernels that
    # round activations to 8 bits.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if _float_bytes(bundle) < total_memory() // 4:
        # Dequantize once at load instead of in every step.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    try:
        return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its error classes share no base
        raise InvalidBundleError(
            f"onnxruntime refuses the graph ({error})"[:300], "", _REMEDY
        ) from None


def _float_bytes(bundle: Bundle) -> int:
    """Bytes of all weights as float32."""
    model = bundle.manifest.model
    heads = model.num_heads + model.num_kv_heads
    layer = 2 * model.hidden_size * model.head_dim * heads
    layer += 3 * model.hidden_size * model.intermediate_size
    return 4 * (model.num_layers * layer + 2 * model.vocab_size * model.hidden_size)


BACKEND = OnnxRuntimeBackend()
