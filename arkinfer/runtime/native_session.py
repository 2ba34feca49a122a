"""Models and sessions of the native library behind the Python executor interface."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from ctypes import byref, c_int32, c_size_t, c_void_p, sizeof
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from arkinfer import kv_types
from arkinfer.errors import InvalidOptionError
from arkinfer.runtime import abi, choice, library
from arkinfer.runtime.choice import Choice


@dataclass(frozen=True)
class Step:
    """One executed step of the plan.

    Attributes:
        kernel: the kernel's name, as in ``"matmul"``.
        stage: the value of the neutral graph that the step computed; may be empty.
        seconds: how long it took.
        values: float32 [rows, columns] that it wrote; valid only during the
            callback (copy what is to be kept); None for other types.
    """

    kernel: str
    stage: str
    seconds: float
    values: NDArray[np.float32] | None


@dataclass(frozen=True)
class SessionOptions:
    """How a native session is made.

    Attributes:
        context: tokens; 0 for the bundle's context.
        threads: 0 for one per core.
        kv: the KV cache's number type, ``"fp16"``, ``"fp32"``, ``"int8"`` or ``"int4"``; None
            for the bundle's.
        activations: ``"int8"`` (fast) or ``"fp32"`` in matrix products with quantized weights.
        isa: a kernel set of :func:`library.instruction_sets`, or None for the best.
        kernels: ``"tuned"``, ``"builtin"`` or ``"compiled"``, of a bundle with kernels of its own.
        on: ``"faster"``, ``"device"`` or ``"cpu"``, of a bundle for a device.
    """

    context: int = 0
    threads: int = 0
    kv: str | None = None
    activations: str = "int8"
    isa: str | None = None
    kernels: str = "tuned"
    on: str = "faster"

    def __post_init__(self) -> None:
        for name, number in (("context", self.context), ("threads", self.threads)):
            if not 0 <= number < 2**31:
                raise InvalidOptionError(f"{name} is {number}", "a number of at least 1")
        if self.kv is not None:
            kv_types.parse(self.kv)
        if self.activations not in abi.ACTIVATIONS:
            raise InvalidOptionError(
                f"activations is {self.activations!r}", " or ".join(abi.ACTIVATIONS)
            )

        if self.kernels not in abi.KERNELS:
            raise InvalidOptionError(f"kernels is {self.kernels!r}", " or ".join(abi.KERNELS))
        if self.on not in abi.ON:
            raise InvalidOptionError(f"on is {self.on!r}", " or ".join(abi.ON))

    def struct(self) -> abi.SessionOptions:
        """The C struct; it borrows nothing but ``isa``, which ctypes keeps alive."""
        return abi.SessionOptions(
            sizeof(abi.SessionOptions),
            self.context,
            self.threads,
            abi.KV_DEFAULT if self.kv is None else abi.KV_TYPES[self.kv],
            abi.ACTIVATIONS[self.activations],
            None if self.isa is None else self.isa.encode(),
            abi.KERNELS[self.kernels],
            abi.ON[self.on],
        )


def token_array(tokens: Sequence[int]) -> NDArray[np.int32]:
    """Token ids as int32 [tokens].

    Raises:
        InvalidOptionError: no tokens, or something that is no token id.
    """
    try:
        array = np.asarray(tokens)
    except ValueError as error:  # rows of different lengths
        raise InvalidOptionError(f"token ids are not a list of integers: {error}") from None
    if array.ndim != 1 or array.size == 0:
        raise InvalidOptionError("there are no tokens to append", "a list of at least one token id")
    if array.dtype.kind not in "iu":
        raise InvalidOptionError(f"token ids are of type {array.dtype}", "integers")
    if array.min() < 0 or array.max() >= 2**31:
        raise InvalidOptionError(
            f"token ids from {array.min()} to {array.max()}", "ids inside the vocabulary"
        )
    return np.ascontiguousarray(array, dtype=np.int32)


def index_array(indices: Sequence[int]) -> NDArray[np.int32]:
    """Indices of draft tokens as int32 [n]; n may be 0.

    Raises:
        InvalidOptionError: something that is no index.
    """
    try:
        array = np.asarray(indices, dtype=np.int64 if len(indices) == 0 else None)
    except (ValueError, OverflowError) as error:
        raise InvalidOptionError(f"indices of draft tokens: {error}", "integers") from None
    wrong = array.ndim != 1 or array.dtype.kind not in "iu"
    if wrong or (array.size and (array.min() < -1 or array.max() >= 2**31)):
        raise InvalidOptionError(
            "indices of draft tokens that are none", "a list of integers of at least -1"
        )
    return np.ascontiguousarray(array, dtype=np.int32)


def int32_pointer(array: NDArray[np.int32]) -> Any:
    """A C pointer to an int32 array, which the caller keeps alive."""
    return array.ctypes.data_as(ctypes.POINTER(c_int32))


class NativeModel:
    """A mapped bundle. Its sessions keep it alive.

    Args:
        path: the bundle's folder.
        checksum: when the weights are compared with their checksum: ``"beside"`` the first tokens
            (the session that would give logits raises DamagedBundleError), ``"before"`` loading
            ends, or ``"skip"``. Everything else that the runtime reads is always checked before.

    Raises:
        DamagedBundleError, InvalidBundleError, BundleVersionError, NativeLibraryError:
            from loading.
    """

    def __init__(
        self, path: Path, checksum: Literal["beside", "before", "skip"] = "beside"
    ) -> None:
        self._library = library.load()
        handle = c_void_p()
        options = abi.ModelOptions(sizeof(abi.ModelOptions), abi.CHECKSUM[checksum])
        library.check(
            self._library.ark_model_load(os.fsencode(path), byref(options), byref(handle))
        )
        self.handle = handle
        self._finalizer = weakref.finalize(self, self._library.ark_model_free, handle)
        self.info = abi.ModelInfo(sizeof(abi.ModelInfo))
        library.check(self._library.ark_model_get_info(handle, byref(self.info)))

    def kept_choice(self, options: SessionOptions) -> Choice | None:
        """What a session would run on, as far as earlier loads measured it; None without a choice.

        The device's driver is asked for its name, and nothing runs.
        """
        found = abi.Choice(sizeof(abi.Choice))
        query = self._library.ark_model_kept_choice
        library.check(query(self.handle, byref(options.struct()), byref(found)))
        return choice.from_struct(found)

    def close(self) -> None:
        """Free the model now instead of when the object goes."""
        self._finalizer()


class NativeSession:
    """A session of the native runtime; implements :class:`DraftExecutor`.

    Args:
        reason: why ``options.on`` is what it is, where nobody asked for it.
    """

    def __init__(self, model: NativeModel, options: SessionOptions, reason: str = "") -> None:
        self._reason = reason
        self._library = library.load()
        handle = c_void_p()
        library.check(
            self._library.ark_session_create(model.handle, byref(options.struct()), byref(handle))
        )
        self._handle = handle
        self._finalizer = weakref.finalize(self, self._library.ark_session_free, handle)
        self._kv_heads = int(model.info.kv_heads)
        self._vocab_size = int(model.info.vocab_size)

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def context(self) -> int:
        return int(self._library.ark_session_context(self._handle))

    @property
    def length(self) -> int:
        return int(self._library.ark_session_length(self._handle))

    @property
    def threads(self) -> int:
        """Threads that compute, the caller's included."""
        return int(self._library.ark_session_threads(self._handle))

    @property
    def isa(self) -> str:
        """The kernel set in use, as in ``"avx2"``."""
        name: bytes = self._library.ark_session_isa(self._handle)
        return name.decode("ascii")

    @property
    def choice(self) -> Choice | None:
        """What the session runs on; None for a bundle that leaves no choice."""
        found = abi.Choice(sizeof(abi.Choice))
        library.check(self._library.ark_session_get_choice(self._handle, byref(found)))
        made = choice.from_struct(found)
        return dataclasses.replace(made, why=self._reason) if made and self._reason else made

    def append(self, tokens: Sequence[int], all_logits: bool = False) -> NDArray[np.float32]:
        ids = token_array(tokens)
        rows = len(ids) if all_logits else 1
        logits = np.empty((rows, self._vocab_size), dtype=np.float32)
        library.check(
            self._library.ark_session_append(
                self._handle,
                int32_pointer(ids),
                len(ids),
                int(all_logits),
                logits.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            )
        )
        return logits

    def rollback(self, length: int) -> None:
        if length < 0:
            raise InvalidOptionError(f"cannot roll back to length {length}", "0 or more")
        library.check(self._library.ark_session_rollback(self._handle, length))

    def verify_tree(self, tokens: Sequence[int], parents: Sequence[int]) -> NDArray[np.float32]:
        ids, above = token_array(tokens), index_array(parents)
        if len(ids) != len(above):
            raise InvalidOptionError(
                f"{len(above)} parents for {len(ids)} draft tokens", "one each"
            )
        logits = np.empty((len(ids), self._vocab_size), dtype=np.float32)
        library.check(
            self._library.ark_session_verify_tree(
                self._handle,
                int32_pointer(ids),
                int32_pointer(above),
                len(ids),
                logits.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            )
        )
        return logits

    def accept(self, path: Sequence[int]) -> None:
        nodes = index_array(path)
        library.check(
            self._library.ark_session_accept(self._handle, int32_pointer(nodes), len(nodes))
        )

    def fill_random(self, length: int, seed: int = 0) -> None:
        """See :meth:`arkinfer.runtime.session.Session.fill_random`."""
        if length < 0 or not 0 <= seed < 2**64:
            raise InvalidOptionError(
                f"a fill to length {length} with seed {seed}",
                "both at least 0, the seed below 2^64",
            )
        library.check(self._library.ark_session_fill_random(self._handle, length, seed))

    def selected_blocks(self, layer: int) -> list[NDArray[np.int32]]:
        result = []
        for head in range(self._kv_heads):
            count = c_size_t()
            query = self._library.ark_session_selected_blocks
            library.check(query(self._handle, layer, head, None, 0, byref(count)))
            blocks = np.empty(count.value, dtype=np.int32)
            library.check(
                query(self._handle, layer, head, int32_pointer(blocks), len(blocks), byref(count))
            )
            result.append(blocks)
        return result

    def cancel(self) -> None:
        """Ask the running append or generation to stop; may be called from any thread."""
        self._library.ark_session_cancel(self._handle)

    @contextlib.contextmanager
    def trace(self, on_step: Callable[[Step], None]) -> Iterator[None]:
        """Call ``on_step`` after every step of the plan while the context is open.

        An exception from ``on_step`` is raised when the context closes.
        """
        failures: list[BaseException] = []

        def callback(
            _user: Any,
            kernel: bytes | None,
            stage: bytes | None,
            seconds: float,
            values: Any,
            rows: int,
            columns: int,
            stride: int,
        ) -> None:
            try:
                array = None
                if values and rows and columns:
                    flat = np.ctypeslib.as_array(values, shape=((rows - 1) * stride + columns,))
                    array = np.lib.stride_tricks.as_strided(
                        flat, (rows, columns), (4 * stride, 4), writeable=False
                    )
                on_step(Step((kernel or b"").decode(), (stage or b"").decode(), seconds, array))
            except BaseException as error:
                failures.append(error)

        pointer = abi.TraceFunction(callback)
        self._library.ark_session_set_trace(self._handle, pointer, None)
        try:
            yield
        finally:
            self._library.ark_session_set_trace(self._handle, abi.TraceFunction(), None)
        if failures:
            raise failures[0]

    def table(self) -> abi.ExecutorTable:
        """The callback table that drives this session; valid while the session lives."""
        table = abi.ExecutorTable()
        table.size = sizeof(abi.ExecutorTable)
        library.check(self._library.ark_session_executor(self._handle, byref(table)))
        return table

    def close(self) -> None:
        """Free the session now instead of when the object goes."""
        self._finalizer()
