"""The plan while it is being made: steps over buffers, then one arena (docs/bundle.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from arkinfer.backends.cpu.arena import Lifetime, place
from arkinfer.backends.cpu.weights import PackedTensor

Rows = Literal["tokens", "outputs"]
VERSION = 1
_BYTES = 4  # of float32 and int32, the only types of buffers


@dataclass(eq=False)
class Buffer:
    """Activations: ``rows`` times ``columns`` elements of float32 or int32."""

    name: str
    columns: int
    rows: Rows = "tokens"
    dtype: Literal["f32", "i32"] = "f32"


@dataclass(frozen=True)
class View:
    """Columns of a buffer."""

    buffer: Buffer
    column: int
    columns: int

    @staticmethod
    def whole(buffer: Buffer) -> View:
        """All columns."""
        return View(buffer, 0, buffer.columns)

    @property
    def is_whole(self) -> bool:
        """Whether no column is left out."""
        return self.columns == self.buffer.columns


@dataclass(frozen=True)
class WeightRef:
    """A tensor of ``weights.bin`` by name."""

    name: str


@dataclass(frozen=True)
class Cache:
    """One cache of one layer; ``window`` and ``stride`` only for compressed keys."""

    name: str
    kind: Literal["key", "value", "compressed"]
    kv_heads: int
    head_dim: int
    window: int = 0
    stride: int = 0

    def entry(self) -> dict[str, Any]:
        """As it is written in ``plan.json``."""
        base = {
            "name": self.name,
            "kind": self.kind,
            "kv_heads": self.kv_heads,
            "head_dim": self.head_dim,
        }
        return base | ({"window": self.window, "stride": self.stride} if self.window else {})


Operand = View | WeightRef | Cache


@dataclass(eq=False)
class Step:
    """One kernel call. ``stage`` names the graph's value that it computes, if it has a name."""

    kernel: str
    operands: dict[str, Operand]
    attributes: dict[str, float] = field(default_factory=dict)
    stage: str = ""
    keep_layer: int | None = None

    def views(self) -> list[View]:
        """The operands that are buffers."""
        return [o for o in self.operands.values() if isinstance(o, View)]

    def view(self, name: str) -> View | None:
        """The operand of a name, where it is a buffer."""
        operand = self.operands.get(name)
        return operand if isinstance(operand, View) else None


@dataclass
class Plan:
    """Steps of a graph; buffers are found in them."""

    token_ids: Buffer
    head_input: Buffer
    head_rows: Buffer
    logits: Buffer
    body: list[Step]
    head: list[Step]
    caches: list[Cache]

    def write_in_place(self) -> None:
        """Let a residual sum take the place of its addend wherever nobody needs that again."""
        steps = self.body + self.head
        last = _last_uses(steps)
        renamed: dict[Buffer, Buffer] = {}

        def resolve(buffer: Buffer) -> Buffer:
            while buffer in renamed:
                buffer = renamed[buffer]
            return buffer

        for index, step in enumerate(steps):
            old, new = step.view("residual"), step.view("y")
            if old is None or new is None or not (old.is_whole and new.is_whole):
                continue
            others = [v for name, v in step.operands.items() if name not in ("residual", "y")]
            read = any(isinstance(v, View) and v.buffer is old.buffer for v in others)
            if last[old.buffer] == index and not read and old.buffer.columns == new.buffer.columns:
                renamed[new.buffer] = old.buffer
        for step in steps:
            for name, operand in step.operands.items():
                if isinstance(operand, View):
                    step.operands[name] = View(
                        resolve(operand.buffer), operand.column, operand.columns
                    )
        self.head_input = resolve(self.head_input)

    def to_json(
        self, chunk: int, output_rows: int, weights: Sequence[PackedTensor]
    ) -> dict[str, Any]:
        """The content of ``plan.json``, with every buffer placed."""
        self.head_input.name = "head_input"
        self.head_rows.name = "head_rows"
        buffers, arena_bytes = self._place({"tokens": chunk, "outputs": output_rows})
        return {
            "version": VERSION,
            "chunk": chunk,
            "output_rows": output_rows,
            "arena_bytes": arena_bytes,
            "buffers": buffers,
            "weights": [tensor.entry() for tensor in weights],
            "caches": [cache.entry() for cache in self.caches],
            "body": [_step_entry(step) for step in self.body],
            "head": [_step_entry(step) for step in self.head],
            "logits": self.logits.name,
        }

    def _place(self, rows: Mapping[Rows, int]) -> tuple[list[dict[str, Any]], int]:
        steps = self.body + self.head
        first: dict[Buffer, int] = {self.token_ids: 0}
        last = _last_uses(steps)
        for index, step in enumerate(steps):
            for view in step.views():
                first.setdefault(view.buffer, index)
        # The runtime copies rows of head_input to head_rows before each run of the head, which
        # may run several times; logits are read after its last step.
        first[self.head_rows] = len(self.body)
        last[self.head_input] = last[self.logits] = len(steps)
        lives = [
            Lifetime(rows[b.rows] * b.columns * _BYTES, first[b], last.get(b, first[b]))
            for b in first
        ]
        offsets, total = place(lives)
        entries = [
            {"name": b.name, "dtype": b.dtype, "rows": b.rows, "columns": b.columns, "offset": o}
            for b, o in zip(first, offsets, strict=True)
        ]
        return entries, total


def _last_uses(steps: Sequence[Step]) -> dict[Buffer, int]:
    return {view.buffer: index for index, step in enumerate(steps) for view in step.views()}


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
