"""One token sequence on a WebGPU device: the launches of a step in one command encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import wgpu
from numpy.typing import NDArray

from arkinfer.backends._device.table import Argument, Kept, TableLaunch, TableStep, bytes_of
from arkinfer.backends._sequence import TokenSequence
from arkinfer.backends.webgpu.limits import capacity_of, groups_of
from arkinfer.backends.webgpu.loaded import Loaded
from arkinfer.errors import InvalidOptionError
from arkinfer.manifest import Manifest

# Of a kernel's scalars: offsets of uniform buffers are multiples of 256 on any device.
_UNIFORM_BYTES = 256
_DENSE_BLOCK = 64
_MEMORY = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_DST | wgpu.BufferUsage.COPY_SRC


@dataclass(frozen=True)
class _Bound:
    """A launch with its kernel and its buffers; ``place`` is its row of the uniforms."""

    launch: TableLaunch
    pipeline: Any
    group: Any
    scalars: tuple[str, ...]
    place: int


@dataclass(frozen=True)
class _BoundStep:
    step: TableStep
    launches: tuple[_Bound, ...]


class WebGpuExecutor(TokenSequence):
    """See :class:`arkinfer.runtime.executor.Executor`; caches and activations are on the device."""

    def __init__(self, loaded: Loaded, manifest: Manifest, context: int) -> None:
        super().__init__(manifest.model.vocab_size, context)
        self._loaded = loaded
        self._gpu = loaded.gpu
        self._table = table = loaded.table
        self._model = manifest.model
        self._capacity = capacity_of(context)
        self._seen = 0  # tokens when blocks were last chosen
        self._memory = {
            "slot": [self._allocate(size, f"slot {i}") for i, size in enumerate(table.slots)],
            "cache": [self._allocate(c.size, f"the cache {c.name}") for c in table.caches],
            "weight": list(loaded.weights),
        }
        steps = (*table.body, *table.head)
        count = sum(len(step.launches) for step in steps)
        self._uniforms = np.zeros((count, _UNIFORM_BYTES // 4), np.int32)
        self._uniform_buffer = self._gpu.buffer(
            max(self._uniforms.nbytes, _UNIFORM_BYTES),
            wgpu.BufferUsage.UNIFORM | wgpu.BufferUsage.COPY_DST,
            "scalars",
        )
        self._logits = self._gpu.buffer(
            table.output_rows * self.vocab_size * 4,
            wgpu.BufferUsage.MAP_READ | wgpu.BufferUsage.COPY_DST,
            "logits on the host",
        )
        # The last row of what each layer chose.
        kept = [step.kept for step in steps if step.kept is not None]
        self._kept: dict[int, tuple[Kept, Any]] = {
            k.layer: (k, self._allocate(4 * k.columns, f"blocks of layer {k.layer}")) for k in kept
        }
        self._body = self._bind(table.body, 0)
        self._head = self._bind(table.head, sum(len(step.launches) for step in table.body))

    def append(self, tokens: Sequence[int], all_logits: bool = False) -> NDArray[np.float32]:
        """See :class:`arkinfer.runtime.executor.Executor`.

        Raises:
            DeviceError: the device was lost or had no memory left; says at what.
        """
        self.check(tokens)
        before, chunk = self._length, self._table.chunk
        self._seen = 0
        found: list[NDArray[np.float32]] = []
        try:
            for start in range(0, len(tokens), chunk):
                part = np.array(tokens[start : start + chunk], np.int32)
                wanted = len(part) if all_logits else int(start + len(part) == len(tokens))
                rows = range(len(part) - wanted, len(part))
                found += self._run(part, before + len(tokens), rows)
                self._length += len(part)
        except BaseException:
            self._length = before
            raise
        self._seen = self._length
        return np.concatenate(found)

    def selected_blocks(self, layer: int) -> list[NDArray[np.int32]]:
        """See :class:`arkinfer.runtime.executor.Executor`; dense layers report blocks of 64.

        Raises:
            InvalidOptionError: no such layer, or nothing was appended yet.
        """
        if not 0 <= layer < self._model.num_layers:
            raise InvalidOptionError(f"layer {layer}", f"0 to {self._model.num_layers - 1}")
        if self._seen == 0:
            raise InvalidOptionError("no token has been appended", "an append before this call")
        heads = self._model.num_kv_heads
        if layer not in self._kept:
            return [np.arange(-(-self._seen // _DENSE_BLOCK), dtype=np.int32)] * heads
        kept, buffer = self._kept[layer]
        with self._gpu.during(f"reading the blocks of layer {layer}"):
            raw = self._gpu.device.queue.read_buffer(buffer)
        rows = np.frombuffer(raw, np.int32).reshape(heads, -1)
        every = np.arange(-(-self._seen // kept.block_size), dtype=np.int32)
        return [every if row[0] < 0 else row[1 : 1 + min(row[0], len(row) - 1)] for row in rows]

    def close(self) -> None:
        """Free the caches and activations now instead of when the object goes."""
        for buffer in self._memory["slot"] + self._memory["cache"]:
            buffer.destroy()

    def _run(
        self, tokens: NDArray[np.int32], total: int, rows: Sequence[int]
    ) -> list[NDArray[np.float32]]:
        """Run the body for tokens, and the head for those of ``rows``; gives their logits."""
        queue, table, past = self._gpu.device.queue, self._table, self._length
        what = f"the step for tokens {past} to {past + len(tokens) - 1}"
        with self._gpu.during(what):
            queue.write_buffer(self._memory["slot"][table.token_ids], 0, tokens)
            encoder = self._gpu.device.create_command_encoder()
        self._encode(encoder, self._body, {"tokens": len(tokens), "past": past, "total": total})
        found = []
        for start in range(0, len(rows), table.output_rows):
            part = rows[start : start + table.output_rows]
            if start:
                encoder = self._gpu.device.create_command_encoder()
            self._encode_head(encoder, part[0], len(part))
            with self._gpu.during(what):
                queue.submit([encoder.finish()])
                found.append(self._read_logits(len(part)))
        if not rows:
            with self._gpu.during(what):
                queue.submit([encoder.finish()])
        return found

    def _encode_head(self, encoder: Any, row: int, count: int) -> None:
        table, slots = self._table, self._memory["slot"]
        width = 4 * table.head_columns
        with self._gpu.during("choosing rows for the logits"):
            encoder.copy_buffer_to_buffer(
                slots[table.head_input], row * width, slots[table.head_rows], 0, count * width
            )
        self._encode(encoder, self._head, {"tokens": count, "past": 0, "total": 0})
        with self._gpu.during("copying the logits"):
            size = 4 * count * self.vocab_size
            encoder.copy_buffer_to_buffer(slots[table.logits], 0, self._logits, 0, size)

    def _encode(self, encoder: Any, steps: Sequence[_BoundStep], scalars: dict[str, int]) -> None:
        """Write down the launches of steps, and send their scalars."""
        scalars = scalars | {"capacity": self._capacity}
        tokens = scalars["tokens"]
        compute = encoder.begin_compute_pass()
        for step in steps:
            with self._gpu.during(step.step.place):
                for bound in step.launches:
                    if bound.launch.used(tokens):
                        self._dispatch(compute, step, bound, scalars)
                if step.step.kept is not None:
                    compute.end()
                    self._keep(encoder, step.step.kept, tokens)
                    compute = encoder.begin_compute_pass()
        compute.end()
        places = [bound.place for step in steps for bound in step.launches]
        if not places:
            return
        with self._gpu.during("sending scalars"):
            self._gpu.device.queue.write_buffer(
                self._uniform_buffer,
                places[0] * _UNIFORM_BYTES,
                self._uniforms[places[0] : places[-1] + 1],
            )

    def _dispatch(
        self, compute: Any, step: _BoundStep, bound: _Bound, scalars: dict[str, int]
    ) -> None:
        x, y, _ = groups_of(bound.launch, scalars, step.step.place)
        if x == 0 or y == 0:
            return
        values = [*(scalars[name] for name in bound.scalars), x - 1]
        self._uniforms[bound.place, : len(values)] = values
        across = min(x, self._gpu.limits.groups)
        compute.set_pipeline(bound.pipeline)
        compute.set_bind_group(0, bound.group)
        compute.dispatch_workgroups(across, y, -(-x // across))

    def _keep(self, encoder: Any, kept: Kept, tokens: int) -> None:
        offset = 4 * ((tokens - 1) * kept.stride + kept.column)
        source, target = self._memory["slot"][kept.slot], self._kept[kept.layer][1]
        encoder.copy_buffer_to_buffer(source, offset, target, 0, 4 * kept.columns)

    def _read_logits(self, count: int) -> NDArray[np.float32]:
        size = 4 * count * self.vocab_size
        self._logits.map_sync(wgpu.MapMode.READ, 0, size)
        values = np.frombuffer(self._logits.read_mapped(0, size), np.float32)
        self._logits.unmap()
        return values.reshape(count, self.vocab_size)

    def _bind(self, steps: Sequence[TableStep], place: int) -> list[_BoundStep]:
        """Bind groups of all launches, which last as long as the sequence."""
        bound = []
        for step in steps:
            launches = []
            with self._gpu.during(step.place):
                for launch in step.launches:
                    launches.append(self._bind_launch(launch, place))
                    place += 1
            bound.append(_BoundStep(step, tuple(launches)))
        return bound

    def _bind_launch(self, launch: TableLaunch, place: int) -> _Bound:
        pipeline = self._loaded.pipelines[launch.kernel]
        scalars = self._loaded.shaders[launch.kernel].scalars
        buffers = [self._resource(a) for a in launch.arguments if a.holder != "scalar"]
        uniforms = {
            "buffer": self._uniform_buffer,
            "offset": place * _UNIFORM_BYTES,
            "size": 4 * (len(scalars) + 1),
        }
        entries = [{"binding": i, "resource": r} for i, r in enumerate([*buffers, uniforms])]
        layout = pipeline.get_bind_group_layout(0)
        group = self._gpu.device.create_bind_group(layout=layout, entries=entries)
        return _Bound(launch, pipeline, group, scalars, place)

    def _resource(self, argument: Argument) -> dict[str, Any]:
        return {"buffer": self._memory[argument.holder][argument.index]}

    def _allocate(self, size: Any, what: str) -> Any:
        return self._gpu.buffer(bytes_of(size, self._capacity, what), _MEMORY, what)
