"""``plan.json``: the steps of a plan, and every buffer's place in one arena (docs/bundle.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arkinfer.backends._steps.plan import (
    Buffer,
    Cache,
    Operand,
    Plan,
    Rows,
    Step,
    WeightRef,
    last_uses,
)
from arkinfer.backends.cpu.arena import Lifetime, place
from arkinfer.backends.cpu.weights import PackedTensor

VERSION = 1
_BYTES = 4  # of float32 and int32, the only types of buffers


def content(
    plan: Plan, chunk: int, output_rows: int, weights: Sequence[PackedTensor]
) -> dict[str, Any]:
    """The content of ``plan.json``, with every buffer placed."""
    plan.head_input.name = "head_input"
    plan.head_rows.name = "head_rows"
    buffers, arena_bytes = _place(plan, {"tokens": chunk, "outputs": output_rows})
    return {
        "version": VERSION,
        "chunk": chunk,
        "output_rows": output_rows,
        "arena_bytes": arena_bytes,
        "buffers": buffers,
        "weights": [tensor.entry() for tensor in weights],
        "caches": [_cache_entry(cache) for cache in plan.caches],
        "body": [_step_entry(step) for step in plan.body],
        "head": [_step_entry(step) for step in plan.head],
        "logits": plan.logits.name,
    }


def _place(plan: Plan, rows: Mapping[Rows, int]) -> tuple[list[dict[str, Any]], int]:
    steps = plan.body + plan.head
    first: dict[Buffer, int] = {plan.token_ids: 0}
    last = last_uses(steps)
    for index, step in enumerate(steps):
        for view in step.views():
            first.setdefault(view.buffer, index)
    # The runtime copies rows of head_input to head_rows before each run of the head, which
    # may run several times; logits are read after its last step.
    first[plan.head_rows] = len(plan.body)
    last[plan.head_input] = last[plan.logits] = len(steps)
    lives = [
        Lifetime(rows[b.rows] * b.columns * _BYTES, first[b], last.get(b, first[b])) for b in first
    ]
    offsets, total = place(lives)
    entries = [
        {"name": b.name, "dtype": b.dtype, "rows": b.rows, "columns": b.columns, "offset": o}
        for b, o in zip(first, offsets, strict=True)
    ]
    return entries, total


def _cache_entry(cache: Cache) -> dict[str, Any]:
    base = {
        "name": cache.name,
        "kind": cache.kind,
        "kv_heads": cache.kv_heads,
        "head_dim": cache.head_dim,
    }
    return base | ({"window": cache.window, "stride": cache.stride} if cache.window else {})


def _step_entry(step: Step) -> dict[str, Any]:
    entry: dict[str, Any] = {"kernel": step.kernel}
    if step.stage:
        entry["stage"] = step.stage
    entry["operands"] = {name: _operand_entry(o) for name, o in step.operands.items()}
    if step.attributes:
        entry["attributes"] = step.attributes
    if step.keep_layer is not None:
        entry["keep"] = {"operand": "y", "layer": step.keep_layer}
    return entry


def _operand_entry(operand: Operand) -> dict[str, Any]:
    if isinstance(operand, WeightRef):
        return {"weight": operand.name}
    if isinstance(operand, Cache):
        return {"cache": operand.name}
    entry: dict[str, Any] = {"buffer": operand.buffer.name}
    if not operand.is_whole:
        entry |= {"column": operand.column, "columns": operand.columns}
    return entry
