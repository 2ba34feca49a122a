"""Rotary embedding and the write to the caches behind it as one step."""

from __future__ import annotations

from collections.abc import Sequence

from arkinfer.backends._steps.plan import Operand, Step, View


def join_rotation(steps: Sequence[Step]) -> list[Step]:
    """Let ``cache_append`` rotate, where nothing else reads the rotated keys.

    The joined step has, besides its own operands, ``x`` (the queries, rotated in place) and
    ``table``; its ``k`` is not rotated yet and stays so.

    Args:
        steps: of the body, in order.
    """
    joined: list[Step] = []
    for index, step in enumerate(steps):
        queries = _queries(joined[-1], step, steps[index + 1 :]) if joined else None
        if queries is None:
            joined.append(step)
            continue
        rope = joined.pop()
        operands: dict[str, Operand] = {"x": queries, "table": rope.operands["table"]}
        joined.append(Step("cache_append", operands | step.operands, step.attributes))
    return joined


def _queries(rope: Step, append: Step, behind: Sequence[Step]) -> View | None:
    """The columns that are rotated besides the keys, where the two can be joined."""
    if (rope.kernel, append.kernel) != ("rope", "cache_append"):
        return None
    x, k = rope.view("x"), append.view("k")
    if x is None or k is None or x.buffer is not k.buffer or x.columns <= k.columns:
        return None
    if x.column + x.columns != k.column + k.columns:
        return None
    if any(_overlap(view, k) for step in behind for view in step.views()):
        return None
    return View(x.buffer, x.column, x.columns - k.columns)


def _overlap(one: View, other: View) -> bool:
    return (
        one.buffer is other.buffer
        and one.column < other.column + other.columns
        and other.column < one.column + one.columns
    )
