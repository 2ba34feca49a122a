"""Backends: each turns the neutral graph into what one kind of target runs.

A backend is a module or package in this folder, or an entry point of the group
``arkinfer.backends``, that holds an object named ``BACKEND``. Its name is the module's
(or the entry point's). Nothing else has to be touched to add one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol, cast, runtime_checkable

from numpy.typing import NDArray

from arkinfer.errors import UnknownBackendError

if TYPE_CHECKING:
    from arkinfer.bundle import Bundle
    from arkinfer.bundle_writer import BundleWriter
    from arkinfer.checkpoint import Checkpoint
    from arkinfer.devices import Device
    from arkinfer.graph.graph import Graph
    from arkinfer.kv_types import KvType
    from arkinfer.runtime.executor import Executor

GROUP = "arkinfer.backends"


@dataclass(frozen=True)
class CompileOptions:
    """What a bundle is planned for.

    Attributes:
        context: the most tokens that a session may hold.
        chunk: tokens that prefill runs at once, at most ``context``.
        kv: number type that the KV cache is to have; None leaves it to the backend.
        kernels: ``"tvm"``, or ``"tvm:avx2"`` and so on, for kernels that TVM compiles for a CPU;
            None for the runtime's own.
    """

    context: int
    chunk: int = 512
    kv: KvType | None = None
    kernels: str | None = None


@dataclass(frozen=True)
class ExecutorOptions:
    """How a bundle is run.

    Attributes:
        context: tokens that a session may hold.
        threads: threads that compute; None lets the backend choose.
        kv: number type of the KV cache; None is what the backend has.
    """

    context: int
    threads: int | None = None
    kv: KvType | None = None


class Backend(Protocol):
    """What every backend provides.

    Attributes:
        name: as users write it, and as the registry finds it.
        needs: what must be there to use it besides a plain install, in words
            (``"a CUDA device"``); empty for backends that run anywhere.
    """

    name: str
    needs: tuple[str, ...]

    def compile(
        self,
        graph: Graph,
        checkpoint: Checkpoint,
        device: Device,
        options: CompileOptions,
        writer: BundleWriter,
    ) -> None:
        """Write this backend's files into the bundle; the compiler writes all others.

        Raises:
            LoweringError: the graph holds something that this backend cannot run.
            UnsupportedQuantizationError: so does a weight.
        """
        ...

    def executor(self, bundle: Bundle, options: ExecutorOptions) -> Executor | None:
        """An executor with an empty sequence, or None where the native runtime runs the bundle.

        Raises:
            MissingExtraError: it needs an optional dependency that is not installed.
        """
        ...


@runtime_checkable
class PlansSteps(Protocol):
    """A backend that can say what it would run before it has seen a weight."""

    def plan(self, graph: Graph, options: CompileOptions) -> tuple[dict[str, Any], int]:
        """The content of ``plan.json``, and the bytes of activations and scratch.

        Raises:
            LoweringError, UnsupportedQuantizationError: as :meth:`Backend.compile`.
        """
        ...


@runtime_checkable
class KeepsWeights(Protocol):
    """A backend whose bundles still hold the weights of the neutral graph."""

    def weights(self, bundle: Bundle, name: str) -> dict[str, NDArray[Any]]:
        """The values of one weight, by the names of the graph inputs that it fills.

        A float weight fills ``name``; a quantized one ``name.codes`` and ``name.scales``,
        and ``name.zero_points`` or ``name.minimums`` where its scheme has them (see
        :class:`arkinfer.graph.graph.WeightSpec`). Codes and zero points are uint8, one
        per element, scales and minimums of any float type.
        """
        ...


def names() -> list[str]:
    """The backends that exist, sorted; none of them is imported."""
    here = {m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")}
    return sorted(here | {point.name for point in _entry_points()})


def get(name: str) -> Backend:
    """The backend of a name.

    Raises:
        UnknownBackendError: nothing provides it, or what does holds no backend.
    """
    if name not in names():
        raise UnknownBackendError(
            f"unknown backend {name[:60]!r}",
            f"one of {', '.join(names())}",
            f"install a package that provides it in the entry-point group {GROUP}",
        )
    point = next((point for point in _entry_points() if point.name == name), None)
    module = point.load() if point else importlib.import_module(f"{__name__}.{name}")
    backend = getattr(module, "BACKEND", None)
    if backend is None or getattr(backend, "name", None) != name:
        raise UnknownBackendError(
            f"{module.__name__} is no backend", f"an object BACKEND with the name {name!r} in it"
        )
    return cast(Backend, backend)


def _entry_points() -> Iterator[metadata.EntryPoint]:
    yield from metadata.entry_points(group=GROUP)
