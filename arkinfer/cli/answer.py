"""Streaming one answer to the terminal, with Ctrl-C ending the answer and not the program."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from arkinfer.runtime.generation import FinishReason, Generation, Piece, Timings


@dataclass(frozen=True)
class Answer:
    """A finished answer."""

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    timings: Timings


def stream(generation: Generation, write: Callable[[str], None]) -> Answer:
    """Run a generation to its end and hand each text to ``write`` as it comes.

    The generation runs in a thread of its own, because Python handles signals
    in the main thread and only between native calls: so Ctrl-C also ends a
    long prefill.
    """
    pieces: list[Piece] = []
    # A text, or what ended the thread: None or an exception.
    channel: queue.SimpleQueue[str | BaseException | None] = queue.SimpleQueue()

    def produce() -> None:
        try:
            for piece in generation:
                pieces.append(piece)
                channel.put(piece.text)
            channel.put(None)
        except BaseException as error:
            channel.put(error)

    thread = threading.Thread(target=produce, name="generation", daemon=True)
    with _interrupt(generation.cancel):
        thread.start()
        try:
            while (item := channel.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                if item:
                    write(item)
        except BaseException:
            generation.cancel()
            raise
        finally:
            if generation.finish_reason is None:
                thread.join(timeout=1)
    return Answer(
        "".join(piece.text for piece in pieces),
        list(generation.tokens),
        generation.finish_reason or "cancelled",
        generation.timings,
    )


@contextlib.contextmanager
def _interrupt(cancel: Callable[[], None]) -> Iterator[None]:
    """Let the first Ctrl-C call ``cancel``; a second one raises KeyboardInterrupt as usual."""
    main = threading.current_thread() is threading.main_thread()
    previous = signal.getsignal(signal.SIGINT) if main else None
    # Ignored (nohup) and foreign handlers stay as they are.
    if previous is not signal.default_int_handler:
        yield
        return

    def handle(_signal: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        cancel()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
