"""The functions of the Python face: compile a checkpoint, load a bundle."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from arkinfer import kv_types, memory
from arkinfer.bundle import Bundle
from arkinfer.errors import InvalidOptionError, MemoryBudgetError
from arkinfer.extras import require
from arkinfer.runtime.executor import Executor
from arkinfer.runtime.model import Model, ModelInfo
from arkinfer.runtime.native_session import NativeModel, NativeSession, SessionOptions

if TYPE_CHECKING:
    from arkinfer.backends import ExecutorOptions
    from arkinfer.compiler import Progress


def compile(
    path: str | os.PathLike[str],
    target: str = "cpu",
    quant: str | None = None,
    context: int | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    chunk: int = 512,
    sparse: str = "auto",
    kv: str | None = None,
    kernels: str | None = None,
    dump: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Turn a checkpoint into a bundle.

    Args:
        path: a Hugging Face folder with safetensors, or a GGUF file.
        target: a device profile (``arkinfer devices`` lists them; ``":cpu"`` or ``":gpu"`` behind
            it for that processor), the path of one, or a backend.
        quant: ``"w4g128"`` and so on (bits, group size; ``z`` behind for
            asymmetric), ``"ternary"`` for -1, 0 and 1 with a scale per row
            (``"ternaryg64"``: per group), ``"none"`` for the stored floats,
            ``"keep"`` for the checkpoint's own quantized or ternary values. By
            default ``"keep"`` where there are such, else what the device recommends, or
            ``"w4g128"``.
        context: the most tokens that a session may hold.
        output: the bundle's folder; by default beside the current folder's
            other files, named after the checkpoint.
        chunk: tokens that prefill runs at once.
        sparse: ``"auto"`` follows the checkpoint, ``"on"``, ``"off"``, or
            ``"force"`` for models that were not trained for sparse attention.
        kv: the KV cache's number type that the bundle is run with unless told otherwise;
            ``"fp16"`` by default.
        kernels: ``"tvm"`` adds kernels that TVM compiles for a CPU target, for its instruction set
            or for one that is named (``"tvm:avx2"``); None leaves the runtime its own.
        dump: a folder that receives the graph after each pass.
        progress: told what is being done.

    Returns:
        The finished bundle.

    Raises:
        MissingExtraError: the ``compile`` extra is not installed.
        ArkInferError: one of its children names what is wrong with the input.
    """
    require("compile", "compiling a checkpoint")
    from arkinfer.compiler import compile as compile_checkpoint

    return compile_checkpoint(
        path,
        target=target,
        quant=quant,
        context=context,
        output=output,
        chunk=chunk,
        sparse=sparse,
        kv=kv,
        kernels=kernels,
        dump=None if dump is None else Path(dump),
        progress=progress,
    )


def load(
    path: str | os.PathLike[str],
    context: int | None = None,
    threads: int | None = None,
    backend: str | None = None,
    kv: str | None = None,
    activations: str = "int8",
    *,
    isa: str | None = None,
    kernels: str = "tuned",
    on: str = "faster",
) -> Model:
    """Open a bundle and check that it fits before anything large is mapped.

    Args:
        path: a bundle folder.
        context: tokens that each session holds; the bundle's own by default.
        threads: threads that compute; one per core by default.
        backend: another backend than the bundle was compiled for, as in
            ``"onnxruntime"`` for the reference.
        kv: the KV cache's number type: ``"fp16"``, ``"fp32"``, ``"int8"`` or ``"int4"``; what the
            bundle was compiled for by default, else ``"fp16"``.
        activations: ``"int8"``, or ``"fp32"`` for exact products at about half the speed.
        isa: a kernel set (``arkinfer devices`` lists them) instead of the best one.
        kernels: of a bundle that brings compiled kernels, ``"compiled"`` takes those,
            ``"builtin"`` the runtime's own, and ``"tuned"`` what ``arkinfer tune`` found faster.
        on: of a bundle for a device, ``"device"`` runs it there or says why not, ``"cpu"`` on the
            CPU, and ``"faster"`` where the first load measured it to be faster; sessions name it
            (:attr:`Session.choice`).

    Returns:
        A model that makes sessions and answers.

    Raises:
        InputNotFoundError, InvalidBundleError, DamagedBundleError, BundleVersionError:
            there is no such bundle, or it cannot be used. Weights that do not match their
            checksum are told by the first answer, because they are read beside it.
        MemoryBudgetError: the context does not fit; names the largest that does.
        InvalidOptionError: a value outside its range.
        UnknownBackendError, MissingExtraError: the backend is not there.
        NativeLibraryError: the native library is missing.
    """
    if threads is not None and threads < 1:
        raise InvalidOptionError(f"threads is {threads}", "at least 1")
    if context is not None and context < 1:
        raise InvalidOptionError(f"context is {context}", "at least 1 token")
    kv_type = None if kv is None else kv_types.parse(kv)
    options = SessionOptions(context or 0, threads or 0, kv_type, activations, isa, kernels, on)
    bundle = Bundle.open(path)
    table = memory.table(bundle.manifest, context, kv_type, on == "cpu")
    name = backend or bundle.manifest.backend
    native_plans = {"plan.json", "launches.json"} & bundle.manifest.files.keys()
    if name == bundle.manifest.backend and native_plans:
        memory.check(bundle.manifest, context, kv_type, on_cpu=on == "cpu")
        reason = ""
        if on == "faster" and not _fits_on_cpu(bundle, context, kv_type):
            options = dataclasses.replace(options, on="device")
            reason = "weights repacked for the CPU would not fit into free memory"
        native = NativeModel(bundle.path)
        info = ModelInfo(bundle.manifest, bundle.digest, name, table.context, table.kv, table.total)
        return Model(
            bundle,
            native,
            lambda: NativeSession(native, options, reason),
            info,
            lambda: native.kept_choice(options),
        )
    from arkinfer.backends import ExecutorOptions

    make = _python_executor(bundle, name, ExecutorOptions(table.context, threads, kv_type))
    info = ModelInfo(bundle.manifest, bundle.digest, name, table.context, table.kv, None)
    return Model(bundle, NativeModel(bundle.path), make, info)


def _fits_on_cpu(bundle: Bundle, context: int | None, kv: kv_types.KvType | None) -> bool:
    """Whether there is memory for repacked weights, where the CPU would need them."""
    if bundle.manifest.memory.host is None:
        return True
    try:
        memory.check(bundle.manifest, context, kv, on_cpu=True)
    except MemoryBudgetError:
        return False
    return True


def _python_executor(bundle: Bundle, name: str, options: ExecutorOptions) -> Callable[[], Executor]:
    """What makes executors of a backend that runs in Python."""
    from arkinfer import backends

    backend = backends.get(name)

    def make() -> Executor:
        executor = backend.executor(bundle, options)
        if executor is None:
            raise InvalidOptionError(
                f"the {name} backend cannot run a bundle that was compiled for "
                f"{bundle.manifest.backend}",
                remedy="compile the checkpoint for it, or leave the backend out",
            )
        return executor

    return make
