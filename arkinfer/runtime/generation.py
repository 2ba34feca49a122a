"""Generation by the native sampler and stop rules, above any executor."""

from __future__ import annotations

import ctypes
import secrets
import weakref
from collections.abc import Callable, Iterator, Sequence
from ctypes import byref, c_char_p, c_int32, c_void_p, sizeof
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from arkinfer.errors import InvalidOptionError, PromptError
from arkinfer.runtime import abi, library
from arkinfer.runtime.executor import Executor
from arkinfer.runtime.native_session import (
    NativeModel,
    NativeSession,
    int32_pointer,
    token_array,
)

FinishReason = Literal["stop", "length", "context", "cancelled"]

_FINISH: dict[int, FinishReason] = {
    abi.FINISH_STOP_ID: "stop",
    abi.FINISH_STOP_STRING: "stop",
    abi.FINISH_LENGTH: "length",
    abi.FINISH_CONTEXT: "context",
    abi.FINISH_CANCELLED: "cancelled",
}
_CANCELLED = 8


class SamplingArguments(TypedDict, total=False):
    """Keyword arguments of ``chat`` and ``generate``; see :class:`Sampling`."""

    max_tokens: int | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    seed: int | None
    stop: Sequence[str] | str


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen and when generation ends.

    Attributes:
        max_tokens: most tokens to generate; None until the context is full.
        temperature: 0 takes the most likely token; otherwise logits are divided by it.
        top_k: keep the k most likely tokens; 0 keeps all.
        top_p: keep the most likely tokens whose probabilities reach this sum; 1 keeps all.
        min_p: keep tokens with at least this share of the best one's probability; 0 keeps all.
        repetition_penalty: divides positive and multiplies negative logits of all tokens
            so far, the prompt's too; 1 changes nothing.
        seed: of the random numbers; None draws one.
        stop: texts that end the answer and are not part of it.
        stop_ids: tokens that end the answer and are not part of it.

    Raises:
        InvalidOptionError: a value outside its range.
    """

    max_tokens: int | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_ids: tuple[int, ...] = field(default=())

    def __post_init__(self) -> None:
        checks: tuple[tuple[str, Any, str, Callable[[Any], bool]], ...] = (
            ("max_tokens", self.max_tokens, "at least 1", lambda v: v is None or 1 <= v < 2**31),
            ("temperature", self.temperature, "from 0 to 100", lambda v: 0 <= v <= 100),
            ("top_k", self.top_k, "0 (off) or more", lambda v: 0 <= v < 2**31),
            ("top_p", self.top_p, "above 0 and at most 1", lambda v: 0 < v <= 1),
            ("min_p", self.min_p, "from 0 to 1", lambda v: 0 <= v <= 1),
            ("repetition_penalty", self.repetition_penalty, "above 0", lambda v: 0 < v <= 100),
            ("seed", self.seed, "from 0 to 2**64 - 1", lambda v: v is None or 0 <= v < 2**64),
            ("stop", self.stop, "texts without zero bytes that are not empty", _are_texts),
        )
        for name, value, expected, accepted in checks:
            try:
                fine = accepted(value)
            except TypeError:
                fine = False
            if not fine:
                raise InvalidOptionError(f"{name} is {value!r}", expected)


def _are_texts(values: Sequence[str]) -> bool:
    """Whether C can take all of them as stop strings."""
    return all(value and "\0" not in value for value in values)


@dataclass(frozen=True)
class Piece:
    """One step of an answer.

    Attributes:
        text: complete characters that became certain with this step; may be empty
            while a character or a possible stop text is held back.
        token: the token id, or None for a piece that only carries held-back text.
        finish_reason: None until the last piece; then ``"stop"``, ``"length"``
            (max_tokens), ``"context"`` (the context is full) or ``"cancelled"``.
    """

    text: str
    token: int | None
    finish_reason: FinishReason | None


@dataclass(frozen=True)
class Timings:
    """Seconds and token counts of one generation."""

    prefill_seconds: float
    decode_seconds: float
    prompt_tokens: int
    generated_tokens: int

    @property
    def prefill_tokens_per_second(self) -> float:
        """Prompt tokens per second; 0 before the prompt was run."""
        return self.prompt_tokens / self.prefill_seconds if self.prefill_seconds > 0 else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """Generated tokens per second; the first one comes from the prompt's logits."""
        steps = max(self.generated_tokens - 1, 0)
        return steps / self.decode_seconds if self.decode_seconds > 0 else 0.0


class _PythonTable:
    """The callback table around a Python executor; remembers what it raised."""

    def __init__(self, executor: Executor) -> None:
        self.failure: BaseException | None = None
        vocab_size = executor.vocab_size

        def append(_user: Any, tokens: Any, count: int, logits: Any) -> int:
            try:
                ids = np.ctypeslib.as_array(tokens, shape=(count,)).tolist()
                rows = executor.append(ids)
                if logits:
                    np.ctypeslib.as_array(logits, shape=(vocab_size,))[:] = rows[-1]
                return 0
            except BaseException as error:
                self.failure = error
                return 1

        def rollback(_user: Any, length: int) -> int:
            try:
                executor.rollback(length)
                return 0
            except BaseException as error:
                self.failure = error
                return 1

        def length(_user: Any) -> int:
            return executor.length

        self.struct = abi.ExecutorTable(
            sizeof(abi.ExecutorTable),
            None,
            vocab_size,
            executor.context,
            abi.AppendFunction(append),
            abi.RollbackFunction(rollback),
            abi.LengthFunction(length),
        )


class Generation(Iterator[Piece]):
    """An answer being generated: iterate over its pieces.

    Each step runs the model when it is asked for, so an answer that nobody
    reads costs nothing. The last piece has a ``finish_reason``.

    Attributes:
        tokens: the token ids so far.
        finish_reason: why it ended, or None while it has not.
    """

    def __init__(
        self,
        model: NativeModel,
        executor: Executor,
        prompt: Sequence[int],
        sampling: Sampling,
        history: Sequence[int] = (),
    ) -> None:
        """Start an answer to ``prompt``, behind the ``history`` that the executor holds."""
        if len(prompt) == 0:
            raise PromptError("the prompt is empty", "at least one token")
        self.tokens: list[int] = []
        self.finish_reason: FinishReason | None = None
        self._library = library.load()
        self._python: _PythonTable | None = None
        if isinstance(executor, NativeSession):
            self._table = executor.table()
        else:
            self._python = _PythonTable(executor)
            self._table = self._python.struct
        ids = token_array(prompt)
        handle = c_void_p()
        library.check(
            self._library.ark_generation_create(
                model.handle,
                byref(self._table),
                int32_pointer(ids),
                len(ids),
                byref(_options(sampling, np.asarray(history, np.int32))),
                byref(handle),
            )
        )
        self._handle = handle
        # The generation reads the executor's table and the model's vocabulary until it is freed.
        self._finalizer = weakref.finalize(
            self, _free, self._library, handle, (self._table, self._python, executor, model)
        )

    def __next__(self) -> Piece:
        if self.finish_reason is not None:
            raise StopIteration
        struct = abi.PieceStruct(sizeof(abi.PieceStruct))
        status = self._library.ark_generation_next(self._handle, byref(struct))
        failure = self._python.failure if self._python is not None else None
        if failure is not None:
            raise failure
        if status == _CANCELLED:
            self.finish_reason = "cancelled"
            return Piece("", None, "cancelled")
        library.check(status)
        text = ""
        if struct.text_bytes:
            text = ctypes.string_at(struct.text, struct.text_bytes).decode("utf-8", "replace")
        token = struct.token if struct.token >= 0 else None
        if token is not None:
            self.tokens.append(token)
        self.finish_reason = _FINISH.get(struct.finish)
        return Piece(text, token, self.finish_reason)

    def cancel(self) -> None:
        """End the answer at the next chunk or token; may be called from any thread."""
        self._library.ark_generation_cancel(self._handle)

    @property
    def timings(self) -> Timings:
        """Seconds and tokens so far."""
        struct = abi.Timings(sizeof(abi.Timings))
        library.check(self._library.ark_generation_timings(self._handle, byref(struct)))
        return Timings(
            struct.prefill_seconds,
            struct.decode_seconds,
            struct.prompt_tokens,
            struct.generated_tokens,
        )


def _free(native: ctypes.CDLL, handle: c_void_p, _keep: object) -> None:
    native.ark_generation_free(handle)


def _options(sampling: Sampling, history: NDArray[np.int32]) -> abi.GenerateOptions:
    """The C struct; the library copies ids and strings, which ctypes keeps until then."""
    ids = (c_int32 * max(len(sampling.stop_ids), 1))(*sampling.stop_ids)
    strings = (c_char_p * max(len(sampling.stop), 1))(*(s.encode("utf-8") for s in sampling.stop))
    seed = secrets.randbits(64) if sampling.seed is None else sampling.seed
    return abi.GenerateOptions(
        sizeof(abi.GenerateOptions),
        sampling.max_tokens or 0,
        sampling.temperature,
        sampling.top_k,
        sampling.top_p,
        sampling.min_p,
        sampling.repetition_penalty,
        seed,
        ids,
        len(sampling.stop_ids),
        strings,
        len(sampling.stop),
        int32_pointer(history),
        len(history),
    )
