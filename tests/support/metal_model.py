"""A Metal bundle on the CPU: its launches, over the text of its kernels (metal_runner.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arkinfer.backends._device.table import SCALARS, Facts, TableLaunch, TableStep, bytes_of
from arkinfer.backends._device.table_reader import read
from arkinfer.backends._sequence import TokenSequence
from arkinfer.bundle import Bundle
from arkinfer.tir.sizes import evaluate
from tests.support.metal_runner import MetalText

Array = NDArray[Any]


class MetalOnCpu(TokenSequence):
    """An :class:`~arkinfer.runtime.executor.Executor` as native/src/device/metal_run.mm is."""

    def __init__(self, bundle: Bundle, context: int) -> None:
        manifest = bundle.manifest
        super().__init__(manifest.model.vocab_size, context)
        model, raw = manifest.model, np.fromfile(bundle.file("weights.bin"), np.uint8)
        facts = Facts(
            manifest.chunk, model.vocab_size, model.num_layers, model.num_kv_heads, raw.size
        )
        table = read(bundle.read_text("launches.json"), "launches.json", facts)
        self._table, self._heads = table, model.num_kv_heads
        self._text = MetalText(bundle.read_text("kernels.metal"))
        self._capacity = -(-context // 64) * 64
        self._memory = {
            "slot": [self._zeros(size) for size in table.slots],
            "cache": [self._zeros(cache.size) for cache in table.caches],
            "weight": [
                raw[w.offset : w.offset + bytes_of(w.size, 0, w.name)] for w in table.weights
            ],
        }
        self._kept: dict[int, Array] = {}

    def append(self, tokens: Sequence[int], all_logits: bool = False) -> NDArray[np.float32]:
        """See the protocol."""
        self.check(tokens)
        total, table, found = self.length + len(tokens), self._table, []
        for start in range(0, len(tokens), table.chunk):
            part = np.array(tokens[start : start + table.chunk], np.int32)
            self._floats(table.token_ids).view(np.int32)[: part.size] = part
            self._steps(table.body, part.size, self.length, total)
            rows = range(part.size) if all_logits else range(part.size - 1, part.size)
            found = (found if all_logits else []) + [self._logits(row) for row in rows]
            self._length += part.size
        return np.stack(found)

    def selected_blocks(self, layer: int) -> list[NDArray[np.int32]]:
        """See the protocol; for layers that choose blocks."""
        rows = self._kept[layer].reshape(self._heads, -1)
        every = np.arange(-(-self.length // self._block_size), dtype=np.int32)
        return [every if row[0] < 0 else row[1 : 1 + row[0]] for row in rows]

    def _logits(self, row: int) -> NDArray[np.float32]:
        table, width = self._table, self._table.head_columns
        given = self._floats(table.head_input)[row * width : (row + 1) * width]
        self._floats(table.head_rows)[:width] = given
        self._steps(table.head, 1, 0, 0)
        return self._floats(table.logits)[: self.vocab_size].copy()

    def _steps(self, steps: Sequence[TableStep], tokens: int, past: int, total: int) -> None:
        values = dict(zip(SCALARS, (tokens, past, total, self._capacity), strict=True))
        for step in steps:
            for launch in step.launches:
                if launch.used(tokens):
                    self._launch(launch, values)
            kept = step.kept
            if kept is not None:
                self._block_size = kept.block_size
                start = (tokens - 1) * kept.stride + kept.column
                row = self._floats(kept.slot).view(np.int32)[start : start + kept.columns]
                self._kept[kept.layer] = row.copy()

    def _launch(self, launch: TableLaunch, values: dict[str, int]) -> None:
        buffers = [
            self._memory[a.holder][a.index] for a in launch.arguments if a.holder != "scalar"
        ]
        scalars = [values[a.scalar] for a in launch.arguments if a.holder == "scalar"]
        groups = [evaluate(size, values) for size in launch.groups]
        self._text.launch(launch.kernel, buffers, scalars, groups, launch.lanes)

    def _zeros(self, size: Any) -> Array:
        return np.zeros(bytes_of(size, self._capacity, "memory"), np.uint8)

    def _floats(self, slot: int) -> NDArray[np.float32]:
        return self._memory["slot"][slot].view(np.float32)
