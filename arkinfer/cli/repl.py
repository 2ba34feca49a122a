"""The chat of ``arkinfer run``: turns over one session, which keeps what it has computed."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any

from arkinfer.cli.answer import Answer, conversation, end_line, open_session, report, stream, write
from arkinfer.cli.app import describe
from arkinfer.errors import ArkInferError

if TYPE_CHECKING:
    from arkinfer.runtime.generation import SamplingArguments
    from arkinfer.runtime.model import Model

_LEAVE = "/exit"


def chat(
    model: Model,
    system: str | None,
    think: bool | None,
    raw: bool,
    sampling: SamplingArguments,
    started: float,
) -> None:
    """Ask for turns and answer them until ``/exit`` or the end of the input.

    Args:
        raw: continue one growing text instead of a conversation.
        started: ``time.perf_counter()`` before the bundle was loaded.
    """
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  gives input() history and editing

    session = open_session(model)
    load_seconds = time.perf_counter() - started
    print(f"{_LEAVE} or Ctrl-D leaves, Ctrl-C ends an answer.", file=sys.stderr)
    messages: list[dict[str, Any]] = []
    text = ""
    answers: list[Answer] = []
    while (line := _ask()) is not None:
        if not line.strip():
            continue
        turn = [*messages, {"role": "user", "content": line}]
        if not messages:
            turn = conversation(system, line)
        try:
            ids = model.encode(text + line) if raw else model.encode_chat(turn, think)
            answer = stream(model.generate(ids, session=session, **sampling), write)
        except ArkInferError as error:
            print(describe(error), file=sys.stderr)
            continue
        end_line(answer.text)
        answers.append(answer)
        text += line + answer.text
        messages = [*turn, {"role": "assistant", "content": without_reasoning(answer.text)}]
        if answer.finish_reason == "context":
            print("The context is full.", file=sys.stderr)
    if answers:
        report(answers, load_seconds, model, session)


def without_reasoning(text: str) -> str:
    """An answer as later turns see it: without what comes up to ``</think>``."""
    _, mark, rest = text.rpartition("</think>")
    return rest.lstrip() if mark else text


def _ask() -> str | None:
    """The next line, or None at the end of the chat. Ctrl-C drops what was typed."""
    while True:
        try:
            line = input("> ")
        except KeyboardInterrupt:
            print(f"\n{_LEAVE} or Ctrl-D leaves.", file=sys.stderr)
            continue
        except EOFError:
            print(file=sys.stderr)
            return None
        return None if line.strip() == _LEAVE else line
