"""``arkinfer chat``."""

from __future__ import annotations

import builtins
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from arkinfer.cli import repl
from tests.support.command_line import Run, assert_one_line


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``ask(line, ...)``: a terminal in which these lines are typed; an exception is raised."""

    def prepare(*lines: str | type[BaseException]) -> None:
        remaining: Iterator[str | type[BaseException]] = iter([*lines, EOFError])

        def read(_prompt: str) -> str:
            line = next(remaining)
            if isinstance(line, str):
                return line
            raise line

        monkeypatch.setattr(builtins, "input", read)
        monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": lambda _: True})())

    return prepare


def test_chat_keeps_what_it_has_computed(
    run: Run, null_bundle: Path, ask: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from arkinfer.backends.null import NullExecutor

    appended: list[list[int]] = []
    append = NullExecutor.append

    def spy(self: NullExecutor, tokens: Any, all_logits: bool = False) -> Any:
        appended.append(list(tokens))
        return append(self, tokens, all_logits)

    monkeypatch.setattr(NullExecutor, "append", spy)
    ask("abcdefghijklmnopqrstuvwxyz", "", "A", "/exit")
    code, out, err = run("run", null_bundle, "--max-tokens", 1)
    assert code == 0
    assert out.count("\n") == 2
    # Two prompts; the second holds the first one, and only its new tokens are run.
    assert len(appended) == 2
    assert len(appended[1]) < len(appended[0])
    assert re.search(r"answer 2 tokens", err)


def test_chat_goes_on_after_an_error_and_after_ctrl_c(
    run: Run, null_bundle: Path, ask: Callable[..., None]
) -> None:
    ask("x" * 600, KeyboardInterrupt, "a")
    code, out, err = run("run", null_bundle, "--max-tokens", 1)
    assert code == 0
    assert out.count("\n") == 1
    assert "error: ContextOverflow: " in err


def test_chat_needs_no_json(run: Run, null_bundle: Path, ask: Callable[..., None]) -> None:
    ask()
    assert_one_line(run("run", null_bundle, "--json"), "InvalidOption")


def test_reasoning_is_not_part_of_the_history() -> None:
    assert repl.without_reasoning("<think>\nlong</think>\n\nshort") == "short"
    assert repl.without_reasoning("short") == "short"
