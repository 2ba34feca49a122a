"""The CPU backend: the graph as a flat list of kernel calls, the weights in panels.

The native runtime executes the plan with the kernels of ``kernels/*/cpu.cc``.
"""

from __future__ import annotations

import functools
import json
from typing import Any, Literal

from numpy.typing import NDArray

from arkinfer import devices
from arkinfer.backends import CompileOptions, ExecutorOptions
from arkinfer.backends._steps.plan import Plan
from arkinfer.backends.cpu import plan_file, weights
from arkinfer.bundle import Bundle
from arkinfer.bundle_writer import BundleWriter
from arkinfer.checkpoint import Checkpoint
from arkinfer.devices import Device
from arkinfer.errors import InvalidBundleError, InvalidOptionError
from arkinfer.extras import require
from arkinfer.graph.graph import Graph, WeightSpec

# Rows of logits that one run of the head computes, when logits of many tokens are asked for.
OUTPUT_ROWS = 16


class CpuBackend:
    """See the module."""

    name = "cpu"
    needs: tuple[str, ...] = ()

    def compile(
        self,
        graph: Graph,
        checkpoint: Checkpoint,
        device: Device,
        options: CompileOptions,
        writer: BundleWriter,
    ) -> None:
        """Write ``plan.json`` and ``weights.bin``.

        Weights are written in the order in which the steps read them.

        Raises:
            LoweringError: the graph holds an operator or a structure without a kernel.
            UnsupportedQuantizationError: a weight that the packed layouts cannot hold.
            MissingExtraError, LinkerError, InvalidOptionError: kernels that TVM is to compile.
        """
        isa = None if options.kernels is None else compiled_isa(options.kernels, device)
        content, writer.arena_bytes, specs, vectors, plan = planned(graph, options)
        if isa is not None:
            from arkinfer.backends.cpu import compiled

            dtype: Literal["f32", "f16"] = "f32" if options.kv == "fp32" else "f16"
            by_name = {spec.name: spec for spec in specs}
            compiled.write(writer, plan, by_name, isa, dtype, options.chunk)
        with writer.open_file("plan.json") as file:
            file.write(json.dumps(content, indent=1).encode())
        with writer.open_file("weights.bin") as file:
            for spec in specs:
                weights.write_weight(file, spec, checkpoint)
            for values in vectors.values():
                weights.write_vector(file, values)
            writer.weights_bytes = file.align(1)

    def plan(self, graph: Graph, options: CompileOptions) -> tuple[dict[str, Any], int]:
        """See :class:`arkinfer.backends.PlansSteps`."""
        content, arena_bytes, *_ = planned(graph, options)
        return content, arena_bytes

    def executor(self, bundle: Bundle, options: ExecutorOptions) -> None:
        """None: the native runtime runs these bundles."""
        return None

    def weights(self, bundle: Bundle, name: str) -> dict[str, NDArray[Any]]:
        """See :class:`arkinfer.backends.KeepsWeights`.

        Raises:
            InvalidBundleError: the bundle has no such weight.
        """
        entries = _entries(bundle.read_text("plan.json"))
        inputs = [name, *(f"{name}.{part}" for part in weights.PARTS)]
        path = bundle.file("weights.bin")
        found = {key: weights.read_tensor(path, entries[key]) for key in inputs if key in entries}
        if not found:
            raise InvalidBundleError(f"plan.json has no weight {name}")
        return found


def planned(
    graph: Graph, options: CompileOptions
) -> tuple[dict[str, Any], int, list[WeightSpec], dict[str, NDArray[Any]], Plan]:
    """How the CPU runs a graph.

    Compiled kernels leave norms and gates to steps of their own.

    Returns:
        The content of ``plan.json``, the bytes of activations and scratch, the weights and then the
        vectors that ``weights.bin`` holds, and the plan.

    Raises:
        LoweringError, UnsupportedQuantizationError: as :meth:`CpuBackend.compile`.
    """
    from arkinfer.backends._steps.lower import lower

    plan, walk = lower(graph, fused=options.kernels is None)
    specs = list((walk.weights | graph.weights).values())
    parts = [part for spec in specs for part in weights.tensors_of(spec)]
    extra = [weights.PackedTensor(n, "f32", v.shape) for n, v in walk.vectors.items()]
    tensors = weights.lay_out([*parts, *extra])
    content = plan_file.content(plan, options.chunk, min(OUTPUT_ROWS, options.chunk), tensors)
    arena_bytes = content["arena_bytes"] + _scratch_bytes(plan, options.chunk)
    return content, arena_bytes, specs, walk.vectors, plan


def compiled_isa(kernels: str, device: Device) -> str:
    """The kernel set that compiled kernels are for: the one that is named, else the device's.

    Raises:
        MissingExtraError: TVM is not installed.
        InvalidOptionError: not ``tvm`` or ``tvm:`` and a set that TVM can compile for.
    """
    require("tvm", "compiling kernels with TVM")
    from arkinfer.tir.host import TARGETS

    tool, _, isa = kernels.partition(":")
    if not isa:
        found = device if device.arch in ("x86_64", "aarch64") else devices.detect()
        wide = "avx512" if "avx512" in found.features else "avx2"
        isa = {"x86_64": wide, "aarch64": "neon"}.get(found.arch, "")
    if tool != "tvm" or isa not in TARGETS:
        raise InvalidOptionError(
            f"kernels is {kernels[:60]!r} for {device.name}",
            "tvm, or one of " + ", ".join(f"tvm:{name}" for name in TARGETS),
        )
    return isa


_THREAD_SCRATCH = 288 << 10  # unpacked weights of one thread


def _scratch_bytes(plan: Plan, chunk: int) -> int:
    """What kernels need besides, nearly, with two threads: the greedier of the two that need most.

    Products hold their widest input as two int8 codes, by rows and by tiles, and 40 bytes for each
    group of 32. Attention holds queries, sums and scores: about five times the queries as float32.
    """
    inputs = _widest(plan, "x", "matmul")
    queries = _widest(plan, "q", "attention", "block_sparse_attention")
    return chunk * max(inputs * 4 + inputs * 40 // 32, queries * 20) + 2 * _THREAD_SCRATCH


def _widest(plan: Plan, operand: str, *kernels: str) -> int:
    """The columns of the widest operand of that name."""
    views = [step.view(operand) for step in plan.body if step.kernel in kernels]
    return max((view.columns for view in views if view is not None), default=0)


@functools.lru_cache(maxsize=4)
def _entries(plan: str) -> dict[str, dict[str, Any]]:
    try:
        return {str(entry["name"]): entry for entry in json.loads(plan)["weights"]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidBundleError(f"plan.json lists no weights ({error})") from None


BACKEND = CpuBackend()
