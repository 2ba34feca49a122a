"""What tests of the command line share."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Callable

import pytest

KIND = "minicpm4.1-8b"
GREEDY = ("--temperature", 0)

# ``run("inspect", path)`` gives exit code, stdout and stderr.
Run = Callable[..., tuple[int, str, str]]


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Let the process read this."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def assert_one_line(result: tuple[int, str, str], name: str) -> str:
    """Exit code 1, nothing on stdout, one ``error: name: ...`` on stderr; gives that line."""
    code, out, err = result
    assert (code, out) == (1, "")
    assert re.fullmatch(rf"error: {name}: [^\n]+\n", err), err
    return err
