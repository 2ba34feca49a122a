"""Answers on the terminal: streamed, ended by Ctrl-C without ending the program, summed up."""

from __future__ import annotations

import contextlib
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

from arkinfer.runtime.generation import FinishReason, Generation, Piece, Timings
from arkinfer.runtime.model import Model
from arkinfer.runtime.session import Session


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


def conversation(system: str | None, prompt: str) -> list[dict[str, Any]]:
    """The messages of a first turn."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return [*first, {"role": "user", "content": prompt}]


def open_session(model: Model) -> Session:
    """A session; says on stderr what a bundle for a device runs on, and what takes long before."""
    announce(model)
    session = model.session()
    if session.choice is not None:
        print(session.choice, file=sys.stderr)
    return session


def announce(model: Model) -> None:
    """Say on stderr that the first load on a device takes longer than others."""
    kept = model.kept_choice()
    if kept is not None and kept.on == "faster":
        print(f"testing and measuring {kept.device} and the CPU, once", file=sys.stderr)


def report(answers: list[Answer], load_seconds: float, model: Model, session: Session) -> None:
    """Print speed and memory on stderr."""
    from arkinfer.cli.show import size
    from arkinfer.runtime.process import peak_rss_bytes

    timings = [answer.timings for answer in answers]
    prompt = sum(t.prompt_tokens for t in timings)
    prefill = sum(t.prefill_seconds for t in timings)
    tokens = sum(t.generated_tokens for t in timings)
    steps = sum(max(t.generated_tokens - 1, 0) for t in timings)
    decode = sum(t.decode_seconds for t in timings)
    promised = model.promised_bytes(session)
    promise = "" if promised is None else f", at most {size(promised)} with a full context"
    # Nobody can say what a driver takes, which was opened to ask for the device.
    if promise and session.choice is not None and session.choice.device:
        promise += " beside the driver"
    print(
        f"prompt {prompt} tokens, {_rate(prompt, prefill)}; "
        f"answer {tokens} tokens, {_rate(steps, decode)}; "
        f"loaded in {load_seconds:.2f} s; "
        f"memory {size(peak_rss_bytes())} peak{promise}",
        file=sys.stderr,
    )


def _rate(tokens: int, seconds: float) -> str:
    return f"{tokens / seconds:.1f} tokens/s" if seconds > 0 else "- tokens/s"


def write(text: str) -> None:
    """Print a part of an answer at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def end_line(text: str) -> None:
    """End the line that a printed answer left open."""
    if not text.endswith("\n"):
        write("\n")
