"""The examples of README.md do what they say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from arkinfer.bundle import Bundle
from arkinfer.runtime import library
from tests.support.tiny_models import SMALL_SPARSE

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = "path/to/MiniCPM4.1-8B"

C_PROGRAM = """
#include <stdio.h>
#include "arkinfer.h"
static int32_t on_piece(void* user, const ark_piece* piece) {
  (void)user;
  if (piece->token >= 0) printf("%d ", (int)piece->token);
  return 0;
}
int main(void) {
  int32_t prompt[] = {1, 40, 50};
  size_t prompt_tokens = 3;
  EXAMPLE
  ark_session_free(session);
  ark_model_free(model);
  return 0;
}
"""


def example(language: str) -> str:
    """The only block of a language in the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return str(block)


@pytest.fixture
def folder(
    tmp_path: Path, tiny_checkpoint: Callable[..., Path], tiny_bundle: Callable[..., Bundle]
) -> Path:
    """A working folder in which the example's paths exist."""
    checkpoint = tiny_checkpoint("minicpm4.1-8b", sparse=SMALL_SPARSE)
    (tmp_path / CHECKPOINT).parent.mkdir(parents=True)
    (tmp_path / CHECKPOINT).symlink_to(checkpoint)
    return tmp_path


def test_python_example(folder: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n" + example("python")
    code += "\nassert logits.shape == (3, 320), logits.shape\nassert session.length == 2\n"
    # A random model need not stop by itself.
    code = code.replace("temperature=0.7", "temperature=0.7, max_tokens=16")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_shell_example(folder: Path) -> None:
    lines = [line.split("#")[0].strip() for line in example("sh").splitlines()]
    commands = [line for line in lines if line.startswith("arkinfer ")]
    assert len(commands) >= 4
    for command in commands:
        words = shlex.split(command)
        prompt = None
        if words[1] == "run":
            prompt = "hello" if len(words) == 3 else None  # from a pipe; a chat needs a terminal
            words += ["--max-tokens", "8"]
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            input=prompt,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"


def test_c_example(tmp_path: Path, tiny_bundle: Callable[..., Bundle]) -> None:
    (tmp_path / "minicpm.ark").symlink_to(tiny_bundle("minicpm4.1-8b").path)
    source = tmp_path / "example.c"
    source.write_text(C_PROGRAM.replace("EXAMPLE", example("c").replace("\n", "\n  ")))
    program, shared = tmp_path / "example", library.find()
    compiler = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", str(source), "-o", str(program)]
    compiler += [f"-I{ROOT / 'native' / 'include'}", str(shared), f"-Wl,-rpath,{shared.parent}"]
    subprocess.run(compiler, check=True)
    done = subprocess.run([str(program)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert 1 <= len(done.stdout.split()) <= 64
