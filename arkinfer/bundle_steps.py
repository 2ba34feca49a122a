"""What a bundle runs, read from its plan or its table of launches (docs/bundle.md)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from arkinfer.bundle import Bundle
from arkinfer.errors import InvalidBundleError

PLAN = "plan.json"
HOST_PLAN = "plan.cpu.json"
# Of the native runtime, and of executors in Python.
_TABLES = ("launches.json", "dispatches.json")
_WRONG = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError)


@dataclass(frozen=True)
class CodeUse:
    """The device code of all steps of one kind.

    Attributes:
        kernel: the kind, with what it takes over: ``"matmul (norm, gate)"``.
        steps: how many there are.
        functions: entry points that they launch.
        unresolved: steps of which a function is in no module, or which launch nothing.
        registers: the most that a thread of one of the functions has.
        spill_bytes: what all functions together write and read because registers do not suffice.
    """

    kernel: str
    steps: int
    functions: int
    unresolved: int
    registers: int
    spill_bytes: int


@dataclass(frozen=True)
class DeviceCode:
    """The compiled code of a bundle: ``"sm_87"``, and its use by kind of step."""

    architecture: str
    form: str
    toolkit: str
    uses: tuple[CodeUse, ...]

    @property
    def unresolved(self) -> int:
        """Steps that cannot run."""
        return sum(use.unresolved for use in self.uses)


def has_steps(bundle: Bundle) -> bool:
    """Whether a bundle says what it runs."""
    return PLAN in bundle.manifest.files or _table(bundle) is not None


def steps_of(bundle: Bundle, on_cpu: bool = False) -> dict[str, Any]:
    """Weights and steps in the form of ``plan.json``, as :class:`arkinfer.work.PlanWork` takes it.

    Args:
        on_cpu: of a bundle for a device those of the CPU in its place.

    Raises:
        InvalidBundleError: the bundle holds neither file, or one that cannot be read.
    """
    if PLAN in bundle.manifest.files:
        return _read(bundle, PLAN)
    if on_cpu and HOST_PLAN in bundle.manifest.files:
        return _read(bundle, HOST_PLAN)
    table = _table(bundle)
    if table is None:
        raise InvalidBundleError(
            f"bundles of the {bundle.manifest.backend} backend hold no plan",
            "a bundle of a native backend",
        )
    content = _read(bundle, table)
    try:
        weights = [{"shape": [], **weight} for weight in content["weights"]]
        matrices = {weight["name"] for weight in weights if len(weight["shape"]) == 2}
        parts = {
            part: [
                {
                    "kernel": step["kernel"],
                    "stage": step["stage"],
                    "operands": _operands(step, matrices),
                }
                for step in content[part]
            ]
            for part in ("body", "head")
        }
    except _WRONG as error:
        raise InvalidBundleError(f"{table} cannot be read: {error!r}") from None
    return {"weights": weights, **parts}


def code_of(bundle: Bundle) -> DeviceCode | None:
    """The compiled code of a bundle; None where it has none.

    Raises:
        InvalidBundleError: its table cannot be read.
    """
    table = _table(bundle)
    if table is None:
        return None
    content = _read(bundle, table)
    if "code" not in content:
        return None
    try:
        code = content["code"]
        modules = [module["kernels"] for module in code["modules"]]
        kinds: dict[str, list[Mapping[str, Any]]] = {}
        for step in [*content["body"], *content["head"]]:
            kinds.setdefault(kind_of(step), []).append(step)
        known = code["form"] != "ptx"  # of PTX nobody knows what its kernels will use
        uses = tuple(_use(kernel, steps, modules, known) for kernel, steps in kinds.items())
        toolkit = f"{int(code['toolkit']) // 1000}.{int(code['toolkit']) % 1000 // 10}"
        return DeviceCode(str(code["architecture"]), str(code["form"]), toolkit, uses)
    except _WRONG as error:
        raise InvalidBundleError(f"{table} cannot be read: {error!r}") from None


def _table(bundle: Bundle) -> str | None:
    return next((name for name in _TABLES if name in bundle.manifest.files), None)


def kind_of(step: Mapping[str, Any]) -> str:
    """A step of a table: its kernel, and what it takes over from its neighbours."""
    operands, attributes = step.get("operands", {}), step.get("attributes", {})
    taken = {
        "norm": "norm" in operands,
        "gate": bool(attributes.get("gated")),
        "residual": "residual" in operands,
        "rotation": step["kernel"] == "cache_append" and "table" in operands,
    }
    names = ", ".join(name for name, there in taken.items() if there)
    return f"{step['kernel']} ({names})" if names else str(step["kernel"])


def _use(
    kernel: str,
    steps: list[Mapping[str, Any]],
    modules: list[Mapping[str, Any]],
    known: bool,
) -> CodeUse:
    functions: dict[tuple[int, str], Mapping[str, Any]] = {}
    unresolved = 0
    for step in steps:
        missing = not step["launches"]
        for launch in step["launches"]:
            module, name = int(launch.get("module", 0)), str(launch["kernel"])
            found = modules[module].get(name) if 0 <= module < len(modules) else None
            missing = missing or (found is None and known)
            functions[module, name] = found or {}
        unresolved += missing
    return CodeUse(
        kernel=kernel,
        steps=len(steps),
        functions=len(functions),
        unresolved=unresolved,
        registers=max((int(f.get("registers", 0)) for f in functions.values()), default=0),
        spill_bytes=sum(int(f.get("spill_bytes", 0)) for f in functions.values()),
    )


def _operands(step: Mapping[str, Any], matrices: set[str]) -> dict[str, dict[str, str]]:
    """The weights that a step reads, each once however many launches read it."""
    return {
        f"codes.{index}" if name in matrices else f"vector.{index}": {"weight": name}
        for index, name in enumerate(dict.fromkeys(_weights_of(step)))
    }


def _weights_of(step: Mapping[str, Any]) -> Iterator[str]:
    for launch in step["launches"]:
        for argument in launch["arguments"]:
            if "weight" in argument:
                yield argument["weight"]


def _read(bundle: Bundle, name: str) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(bundle.read_text(name))
    except (ValueError, RecursionError) as error:
        raise InvalidBundleError(f"{name} cannot be read: {error!r}") from None
    return content
