"""Steps that a product takes over: the norm in front of it, and the gate behind it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from arkinfer.backends._steps.plan import Buffer, Operand, Step, View

_PANEL = 16  # outputs that a kernel computes together (docs/bundle.md)
Computes = Callable[[Step], bool]
"""Whether a backend has a kernel for a step as it would then be."""


def always(_: Step) -> bool:
    """Of a backend whose products take over whatever is fused."""
    return True


def fuse(steps: list[Step], kept: Collection[Buffer], computes: Computes = always) -> list[Step]:
    """Fuse norms and gates into products.

    Every buffer is still written by one step, except that projections of one input may share
    one. What is fused leaves no stage of its own.

    Args:
        steps: of the body or of the head, in order; they are changed.
        kept: buffers that somebody reads after the last step.
        computes: asked before a product takes something over.

    Returns:
        The steps that are left.
    """
    return _fuse_norms(_fuse_gates(steps, kept, computes), kept, computes)


def _readers(steps: list[Step], buffer: Buffer) -> list[tuple[Step, str]]:
    return [
        (step, name)
        for step in steps
        for name, operand in step.operands.items()
        if isinstance(operand, View) and operand.buffer is buffer
    ]


def _with(
    step: Step, operands: Mapping[str, Operand], attributes: Mapping[str, float], stage: str
) -> Step:
    return Step(step.kernel, dict(operands), {**step.attributes, **attributes}, stage)


def _become(step: Step, other: Step) -> None:
    step.operands, step.attributes, step.stage = other.operands, other.attributes, other.stage


def _fuse_gates(steps: list[Step], kept: Collection[Buffer], computes: Computes) -> list[Step]:
    left: list[Step] = []
    for step in steps:
        if step.kernel == "swiglu" and left and _takes_gate(left[-1], step, steps, kept):
            product = left[-1]
            operands = product.operands | {"y": step.operands["y"]}
            fused = _with(product, operands, {"gated": 1.0}, step.stage)
            if computes(fused):
                _become(product, fused)
                continue
        left.append(step)
    return left


def _takes_gate(product: Step, swiglu: Step, steps: list[Step], kept: Collection[Buffer]) -> bool:
    both, gate, up = product.view("y"), swiglu.view("gate"), swiglu.view("up")
    if product.kernel != "matmul" or "residual" in product.operands or both is None:
        return False
    if gate is None or up is None or both.buffer in kept or not both.is_whole:
        return False
    half = both.columns // 2
    return (
        both.columns == 2 * half
        and half % _PANEL == 0
        and gate == View(both.buffer, 0, half)
        and up == View(both.buffer, half, half)
        and len(_readers(steps, both.buffer)) == 3
    )


def _fuse_norms(steps: list[Step], kept: Collection[Buffer], computes: Computes) -> list[Step]:
    left: list[Step] = []
    for step in steps:
        y = step.view("y")
        if step.kernel == "rms_norm" and y is not None and y.buffer not in kept:
            readers = [reader for reader in _readers(steps, y.buffer) if reader[0] is not step]
            if readers and all(
                product.kernel == "matmul" and name == "x" and product.view("x") == y
                for product, name in readers
            ):
                fused = [_normalized(product, step) for product, _ in readers]
                if all(map(computes, fused)):
                    for (product, _), other in zip(readers, fused, strict=True):
                        _become(product, other)
                    continue
        left.append(step)
    return left


def _normalized(product: Step, norm: Step) -> Step:
    """A product that normalizes its input itself."""
    taken = {"x": norm.operands["x"], "norm": norm.operands["weight"]}
    operands = taken | {key: o for key, o in product.operands.items() if key != "x"}
    epsilon = {"epsilon": norm.attributes["epsilon"]}
    return _with(product, operands, epsilon, product.stage)
