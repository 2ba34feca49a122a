"""Fixtures of the tests of the command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from arkinfer.bundle import Bundle
from arkinfer.cli.app import main
from tests.support.command_line import KIND, Run
from tests.support.tiny_models import SMALL_SPARSE


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """``run("inspect", path)`` gives exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def null_bundle(tiny_bundle: Callable[..., Bundle]) -> Path:
    """A bundle whose answers are the tokens after the prompt's last one."""
    return tiny_bundle(KIND, compile={"target": "null"}, sparse=SMALL_SPARSE).path


@pytest.fixture
def copy(null_bundle: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return shutil.copytree(null_bundle, tmp_path / "copy.ark")
