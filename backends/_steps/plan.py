"""Steps over buffers: what lowering makes, and what a backend writes in its own form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Rows = Literal["tokens", "outputs"]


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
        last = last_uses(steps)
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


def last_uses(steps: Sequence[Step]) -> dict[Buffer, int]:
    """The last step that reads or writes each buffer."""
    return {view.buffer: index for index, step in enumerate(steps) for view in step.views()}
