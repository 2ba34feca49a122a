"""``launches.json``: launches with what they are bound to, and the memory that buffers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arkinfer.backends._device.launches import Kernels, Launch, Scratch, Source, parts_of_step
from arkinfer.backends._device.weights import DeviceTensor, matrix_entry
from arkinfer.backends._steps.plan import Buffer, Cache, Operand, Plan, Step, View, WeightRef
from arkinfer.errors import LoweringError
from arkinfer.tir.caches import BLOCK
from arkinfer.tir.emit import Kernel
from arkinfer.tir.sizes import Size

VERSION = 1
_BYTES = 4  # of float32, int32 and words


class Writer:
    """Collects what ``launches.json`` holds.

    Args:
        keep_blocks: whether the blocks that layers choose stay in memory of their own, where they
            can be read when all steps are done.
    """

    def __init__(
        self,
        plan: Plan,
        kernels: Kernels,
        chunk: int,
        output_rows: int,
        keep_blocks: bool = False,
    ) -> None:
        self._plan = plan
        self._keep_blocks = keep_blocks
        self._kernels = kernels
        self._counts = {"tokens": chunk, "outputs": output_rows}
        self._steps = [(step, kernels.launches(step)) for step in plan.body + plan.head]
        self._slots: list[Size] = []
        self._buffers: dict[Buffer, int] = {}
        self._scratch: dict[str, int] = {}
        self._place_buffers()

    @property
    def slot_bytes(self) -> list[Size]:
        """Sizes of the pieces of memory that buffers and scratch lie in."""
        return self._slots

    @property
    def sizes(self) -> list[tuple[str, Size]]:
        """All memory beside weights: what it is for, and its bytes."""
        slots = [(f"the activations in slot {i}", size) for i, size in enumerate(self._slots)]
        caches = [self._cache(cache) for cache in self._plan.caches]
        return slots + [(f"the cache {entry['name']}", entry["bytes"]) for entry in caches]

    def content(
        self, emitted: Mapping[str, Kernel], weights: Sequence[DeviceTensor]
    ) -> dict[str, Any]:
        """Everything, once kernels are emitted and weights placed."""
        bound = [self._step(step, launches, emitted) for step, launches in self._steps]
        plan, split = self._plan, len(self._plan.body)
        return {
            "version": VERSION,
            "chunk": self._counts["tokens"],
            "output_rows": self._counts["outputs"],
            "kv": {"f32": "fp32", "f16": "fp16"}[self._kernels.dtype],
            "slots": self._slots,
            "weights": [_weight(weight) for weight in weights],
            "caches": [self._cache(cache) for cache in plan.caches],
            "body": bound[:split],
            "head": bound[split:],
            "token_ids": self._buffers[plan.token_ids],
            "head_input": self._buffers[plan.head_input],
            "head_rows": self._buffers[plan.head_rows],
            "head_columns": plan.head_rows.columns,
            "logits": self._buffers[plan.logits],
        }

    def _place_buffers(self) -> None:
        """Let buffers share a slot when no step needs both."""
        plan = self._plan
        first: dict[Buffer, int] = {plan.token_ids: 0, plan.head_rows: len(plan.body)}
        last: dict[Buffer, int] = {}
        kept_buffers: list[Buffer] = []
        for index, (step, launches) in enumerate(self._steps):
            for view in step.views():
                first.setdefault(view.buffer, index)
                last[view.buffer] = index
            kept = step.view("y") if step.keep_layer is not None else None
            if self._keep_blocks and kept is not None:
                kept_buffers.append(kept.buffer)
            for launch in launches:
                for source in launch.sources.values():
                    if isinstance(source, Scratch) and source.name not in self._scratch:
                        self._scratch[source.name] = len(self._slots)
                        self._slots.append(source.size)
        # The head may run several times, and logits are read after its last step.
        last[plan.head_input] = last[plan.logits] = len(self._steps)
        last[plan.head_rows] = len(self._steps)
        last |= dict.fromkeys(kept_buffers, len(self._steps))
        free_from: dict[int, int] = {}
        for buffer in sorted(first, key=lambda b: first[b]):
            size = self._counts[buffer.rows] * buffer.columns * _BYTES
            free = [slot for slot, end in free_from.items() if end < first[buffer]]
            slot = min(free, key=lambda s: self._growth(s, size), default=len(self._slots))
            if slot == len(self._slots):
                self._slots.append(0)
            self._slots[slot] = max(self._fixed(slot), size)
            self._buffers[buffer] = slot
            free_from[slot] = last.get(buffer, first[buffer])

    def _fixed(self, slot: int) -> int:
        size = self._slots[slot]
        assert isinstance(size, int)
        return size

    def _growth(self, slot: int, size: int) -> tuple[int, int]:
        """The best slot grows least, and then is the smallest."""
        return max(size - self._fixed(slot), 0), self._fixed(slot)

    def _cache(self, cache: Cache) -> dict[str, Any]:
        each = cache.kv_heads * cache.head_dim * (4 if self._kernels.dtype == "f32" else 2)
        places: Size = "capacity"
        if cache.kind == "compressed":
            # As ``window_capacity`` computes it.
            places = ["+", ["/", "capacity", cache.stride], BLOCK]
            places = ["*", ["/", places, BLOCK], BLOCK]
        return {
            "name": cache.name,
            "kind": cache.kind,
            "bytes": ["*", places, each],
            "kv_heads": cache.kv_heads,
            "head_dim": cache.head_dim,
        }

    def _step(
        self, step: Step, launches: Sequence[Launch], emitted: Mapping[str, Kernel]
    ) -> dict[str, Any]:
        entry: dict[str, Any] = {"kernel": step.kernel, "stage": step.stage}
        output = step.view("y") or step.view("x")
        if output is not None:
            entry["output"] = self._view(output)
        if step.keep_layer is not None:
            entry["keep_layer"] = step.keep_layer
            entry["block_size"] = int(step.attributes["block_size"])
        # Scales and second numbers come with the codes that they belong to.
        entry["operands"] = {
            name: self._operand(step, name, operand)
            for name, operand in step.operands.items()
            if name not in ("scales", "offsets")
        }
        entry["attributes"] = step.attributes
        entry["launches"] = [self._launch(launch, emitted[launch.kernel]) for launch in launches]
        return entry

    def _view(self, view: View) -> dict[str, Any]:
        return {
            "slot": self._buffers[view.buffer],
            "type": view.buffer.dtype,
            "stride": view.buffer.columns,
            "column": view.column,
            "columns": view.columns,
        }

    def _operand(self, step: Step, name: str, operand: Operand) -> dict[str, Any]:
        """What the step computes from, under the name that the CPU's kernel has for it."""
        if name == "codes":
            return {
                "matrix": matrix_entry([part for part, _ in parts_of_step(self._kernels, step)])
            }
        if isinstance(operand, View):
            return self._view(operand)
        return {"weight" if isinstance(operand, WeightRef) else "cache": operand.name}

    def _launch(self, launch: Launch, kernel: Kernel) -> dict[str, Any]:
        arguments: list[Any] = []
        for name in kernel.arguments:
            if name in kernel.scalars:
                arguments.append({"scalar": name})
            elif name in launch.sources:
                argument = self._argument(launch.sources[name])
                arguments.append(argument | ({"as": "image"} if name in kernel.images else {}))
            else:
                raise LoweringError(f"{kernel.name} reads {name}, which its step does not have")
        entry = {
            "kernel": kernel.name,
            "arguments": arguments,
            "groups": list(kernel.groups),
            "lanes": kernel.lanes,
            "shared_bytes": kernel.shared_bytes,
            "least": launch.least,
            "most": launch.most,
        }
        if kernel.module:
            entry["module"] = kernel.module
        if kernel.dynamic_bytes:
            entry["dynamic_bytes"] = kernel.dynamic_bytes
        return entry

    def _argument(self, source: Source) -> dict[str, Any]:
        if isinstance(source, View):
            return {"slot": self._buffers[source.buffer]}
        if isinstance(source, Scratch):
            return {"slot": self._scratch[source.name]}
        if isinstance(source, WeightRef):
            return {"weight": source.name}
        return {"cache": source.name}


def _weight(weight: DeviceTensor) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": weight.name, "offset": weight.offset, "bytes": weight.bytes}
    return entry | ({"shape": list(weight.shape)} if weight.shape else {})
