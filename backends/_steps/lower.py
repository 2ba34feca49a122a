"""From the neutral graph to steps: one walk over its nodes in topological order.

Each operator has a handler that takes what is known of its inputs (``facts.py``)
and gives what is then known of its outputs, adding steps on the way. Structures are
recognised by their operators alone; anything else is refused with its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar, cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from arkinfer.backends._steps.facts import (
    CacheFact,
    Constant,
    Fact,
    Ids,
    Matrix,
    Part,
    PartName,
)
from arkinfer.backends._steps.fuse import Computes, always, fuse
from arkinfer.backends._steps.plan import Buffer, Cache, Operand, Plan, Step, View, WeightRef
from arkinfer.errors import LoweringError
from arkinfer.graph.graph import Graph, WeightSpec, input_names
from arkinfer.quantize.schemes import GroupScheme

Handler = Callable[["Lowering", ir.Node], tuple[Fact, ...]]
_F = TypeVar("_F")


@dataclass
class Lowering:
    """The walk's state, and what handlers share.

    Attributes:
        graph: what is lowered.
        facts: what is known of each value so far.
        steps: steps so far, of the body or, later, of the head.
        rows: the kind of rows that steps work on now.
        caches: caches in the order of their first use.
        weights: weights in the order of their first use.
        vectors: float32 vectors that are no weights of the checkpoint (RoPE frequencies).
        producers: the step that wrote an activation, and its number.
    """

    graph: Graph
    facts: dict[ir.Value, Fact] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    rows: str = "tokens"
    caches: list[Cache] = field(default_factory=list)
    weights: dict[str, WeightSpec] = field(default_factory=dict)
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    producers: dict[ir.Value, tuple[Step, int]] = field(default_factory=dict)
    groups: dict[ir.Value, View] = field(default_factory=dict)
    tables: dict[tuple[Any, ...], View] = field(default_factory=dict)
    token_ids: Buffer = field(default_factory=lambda: Buffer("token_ids", 1, dtype="i32"))
    names: set[str] = field(default_factory=lambda: {"token_ids", "head_input", "head_rows"})

    def fact(self, value: ir.Value | None) -> Fact | None:
        """What is known of a value."""
        if value is None:
            return None
        if value not in self.facts and value.const_value is not None:
            self.facts[value] = Constant(value.const_value.numpy())
        return self.facts.get(value)

    def need(self, node: ir.Node, index: int, kind: type[_F], what: str) -> _F:
        """The fact of an input, which must be of a kind.

        Raises:
            LoweringError: it is another, or there is no such input.
        """
        value = node.inputs[index] if index < len(node.inputs) else None
        known = self.fact(value)
        if not isinstance(known, kind):
            found = "missing" if value is None else f"{value.name}"
            refuse(node, f"input {index} ({found}) is not {what}")
        return known

    def absent(self, node: ir.Node, *indices: int) -> None:
        """Refuse optional inputs that no kernel has."""
        for index in indices:
            if index < len(node.inputs) and node.inputs[index] is not None:
                refuse(node, f"input {index} is given")

    def buffer(self, name: str, columns: int, dtype: str = "f32") -> Buffer:
        """A new buffer of the current kind of rows."""
        unique, number = name, 1
        while unique in self.names:
            number += 1
            unique = f"{name}.{number}"
        self.names.add(unique)
        return Buffer(unique, columns, self.rows, dtype)  # type: ignore[arg-type]

    def emit(self, step: Step, value: ir.Value | None = None) -> Step:
        """Add a step; ``value`` is the graph's value that its ``y`` holds."""
        self.steps.append(step)
        if value is not None:
            step.stage = str(value.name)
            self.producers[value] = (step, len(self.steps) - 1)
        return step

    def matrix_operands(self, spec: WeightSpec) -> dict[str, Operand]:
        """``codes`` and, for a quantized weight, ``scales`` and ``offsets``."""
        self.weights.setdefault(spec.name, spec)
        if not isinstance(spec.storage, GroupScheme):
            return {"codes": WeightRef(spec.name)}
        keys = ("codes", "scales", "offsets")
        names = input_names(spec)
        return {key: WeightRef(name) for key, name in zip(keys, names, strict=False)}

    def vector(self, name: str, values: NDArray[np.float32]) -> WeightRef:
        """A float32 vector that goes to ``weights.bin``; equal ones are stored once."""
        for known, old in self.vectors.items():
            if np.array_equal(old, values):
                return WeightRef(known)
        unique = name if name not in self.vectors else f"{name}.{len(self.vectors)}"
        self.vectors[unique] = values
        return WeightRef(unique)


def refuse(node: ir.Node, why: str) -> NoReturn:
    """Raise :class:`LoweringError` for a node."""
    operator = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    raise LoweringError(
        f"the cpu backend cannot lower {operator} '{node.name}': {why}",
        "",
        "compile for another backend, or add the operator to backends/cpu",
    )


def lower(graph: Graph, fused: bool = True, computes: Computes = always) -> tuple[Plan, Lowering]:
    """Turn a graph into a plan without addresses.

    Args:
        graph: what to lower.
        fused: let products take over norms and gates, as this backend's kernels can.
        computes: which of those steps the backend at hand has a kernel for.

    Returns:
        The plan, and the walk that made it, which knows the weights.

    Raises:
        LoweringError: names the node and the operator that has no place in a plan.
    """
    from arkinfer.backends._steps.handlers import HANDLERS

    walk = Lowering(graph)
    _enter(walk)
    body = graph.model.graph
    head_nodes, head_value = _find_head(graph)
    for node in body:
        if node not in head_nodes:
            _visit(walk, node, HANDLERS)
    body_steps, walk.steps, walk.rows = walk.steps, [], "outputs"
    source = walk.facts.get(head_value)
    if not isinstance(source, View) or not source.is_whole or source.buffer.dtype != "f32":
        raise LoweringError(f"the head starts from {head_value.name}, which is no activation")
    rows = Buffer("head_rows", source.columns, "outputs")
    walk.facts[head_value] = View.whole(rows)
    for node in head_nodes:
        _visit(walk, node, HANDLERS)
    logits = _check_outputs(walk)
    kept = (walk.token_ids, source.buffer, logits)
    plan = Plan(
        token_ids=walk.token_ids,
        head_input=source.buffer,
        head_rows=rows,
        logits=logits,
        body=fuse(body_steps, kept, computes) if fused else body_steps,
        head=fuse(walk.steps, kept, computes) if fused else walk.steps,
        caches=walk.caches,
    )
    plan.write_in_place()
    return plan, walk


def _visit(walk: Lowering, node: ir.Node, handlers: Mapping[tuple[str, str], Handler]) -> None:
    handler = handlers.get((node.domain, node.op_type))
    if handler is None:
        refuse(node, "there is no kernel for this operator")
    facts = handler(walk, node)
    walk.facts.update(zip(node.outputs, facts, strict=True))


def _enter(walk: Lowering) -> None:
    """What is known of the graph's inputs, by their names (see :class:`Graph`)."""
    parts: dict[str, Fact] = {}
    for spec in walk.graph.weights.values():
        names = input_names(spec)
        if len(names) == 1:
            parts[names[0]] = Matrix(spec) if spec.storage == "f32" else Part(spec, "values")
        else:
            for name in names:
                kind = name.removeprefix(f"{spec.name}.")
                parts[name] = Part(spec, cast(PartName, kind))
    for value in walk.graph.model.graph.inputs:
        name = str(value.name)
        if name == "input_ids":
            walk.facts[value] = Ids()
        elif name in parts:
            walk.facts[value] = parts[name]
        elif name.startswith(("past_key.", "past_value.")):
            kind, _, layer = name.removeprefix("past_").partition(".")
            shape = value.shape
            if shape is None or not (isinstance(shape[1], int) and isinstance(shape[3], int)):
                raise LoweringError(f"the graph's input {name} has no fixed heads and head size")
            cache = Cache(f"layers.{layer}.{kind}", cast(Any, kind), shape[1], shape[3])
            walk.facts[value] = CacheFact(cache, appended=False)
        else:
            raise LoweringError(f"the graph has an input {name} that the cpu backend cannot fill")


def _find_head(graph: Graph) -> tuple[list[ir.Node], ir.Value]:
    """The nodes between the last mixing of tokens and the logits, and the value in front.

    They work row by row, so they run only for the rows whose logits are wanted.
    """
    value = graph.model.graph.outputs[0]
    nodes: list[ir.Node] = []
    while True:
        node = value.producer()
        if node is None or node.op_type not in ("MatMul", "Mul", "RMSNormalization"):
            break
        if nodes and len(value.uses()) != 1:
            break
        first = node.inputs[0]
        if node.op_type == "Mul" and first is not None and first.const_value is not None:
            first = node.inputs[1]
        if first is None:
            break
        nodes.insert(0, node)
        value = first
    if not nodes:
        raise LoweringError(
            f"the graph's first output {value.name} is not the product of a head",
            "a MatMul that computes the logits",
        )
    return nodes, value


def _check_outputs(walk: Lowering) -> Buffer:
    logits, *presents = walk.graph.model.graph.outputs
    fact = walk.facts.get(logits)
    if not isinstance(fact, View) or not fact.is_whole:
        raise LoweringError(f"the graph's output {logits.name} is not what a step writes")
    for value in presents:
        cache = walk.facts.get(value)
        if not isinstance(cache, CacheFact) or not cache.appended:
            raise LoweringError(f"the graph's output {value.name} is not an updated cache")
    return fact.buffer
