"""What is wrong is said in one line, with exit code 1."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arkinfer import errors, memory
from arkinfer.bundle import Bundle
from arkinfer.cli import app
from tests.support.command_line import KIND, Run, assert_one_line, stdin
from tests.support.tiny_models import write_tiny_hf


def test_missing_paths(run: Run, tmp_path: Path) -> None:
    missing = tmp_path / "nothing"
    for command in ("run", "inspect", "bench"):
        assert str(missing) in assert_one_line(run(command, missing), "InputNotFound")
    assert_one_line(run("compile", missing, "--target", "null"), "InputNotFound")
    assert_one_line(run("verify", missing, "--against", missing), "InputNotFound")


def test_folder_without_config(run: Run, tmp_path: Path) -> None:
    assert_one_line(
        run("compile", tmp_path, "--target", "null", "-o", tmp_path / "x.ark"), "CheckpointFormat"
    )
    assert_one_line(run("run", tmp_path, "hi"), "InvalidBundle")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        if value is None:
            del config[key]
        else:
            config[key] = value
    path.write_text(json.dumps(config))


def test_damaged_checkpoints(run: Run, tmp_path: Path) -> None:
    def damaged(name: str, change: Callable[[Path], object]) -> tuple[int, str, str]:
        folder = write_tiny_hf(tmp_path / name, KIND)
        change(folder)
        return run("compile", folder, "--target", "null", "-o", tmp_path / f"{name}.ark")

    def truncate(folder: Path) -> None:
        path = folder / "model.safetensors"
        os.truncate(path, path.stat().st_size - 1000)

    def claim_a_long_header(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes((1 << 62).to_bytes(8, "little") + path.read_bytes()[8:])

    unknown = damaged("type", lambda f: edit_config(f, model_type="unheard"))
    assert "unheard" in assert_one_line(unknown, "UnknownModelType")
    assert_one_line(damaged("short", truncate), "DamagedCheckpoint")
    assert_one_line(damaged("header", claim_a_long_header), "DamagedCheckpoint")
    shape = damaged("shape", lambda f: edit_config(f, intermediate_size=8))
    assert "mlp.down_proj.weight" in assert_one_line(shape, "CheckpointTensors")
    rope = damaged("rope", lambda f: edit_config(f, rope_scaling={"rope_type": "longrope"}))
    assert "factor" in assert_one_line(rope, "Config")
    assert not list(tmp_path.glob("*.ark"))


def test_bad_compile_options(
    run: Run, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder, output = tiny_checkpoint(KIND), tmp_path / "x.ark"
    for option, value, name in (
        ("--quant", "w3g7", "UnsupportedQuantization|InvalidOption"),
        ("--target", "toaster", "UnknownBackend"),
        ("--context", "0", "InvalidOption"),
        ("--chunk", "0", "InvalidOption"),
    ):
        assert_one_line(
            run("compile", folder, "--target", "null", option, value, "-o", output), f"(?:{name})"
        )
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    taken = run("compile", folder, "--target", "null", "-o", tmp_path / "taken")
    assert_one_line(taken, "OutputExists")
    assert (tmp_path / "taken" / "file").exists()


@pytest.mark.parametrize("name", ["manifest.json", "vocabulary.bin", "DIGEST", "tokenizer.json"])
def test_flipped_byte(run: Run, copy: Path, name: str) -> None:
    path = copy / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert name in assert_one_line(run("run", copy, "hi"), "DamagedBundle")


def test_bundle_of_a_newer_version(run: Run, copy: Path) -> None:
    path = copy / "manifest.json"
    path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 99'))
    assert "99" in assert_one_line(run("run", copy, "hi"), "BundleVersion")


def test_bad_prompts(run: Run, null_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_one_line(run("run", null_bundle, ""), "Prompt")
    assert_one_line(run("run", null_bundle, " \n"), "Prompt")
    assert_one_line(run("run", null_bundle, "", "--raw"), "Prompt")
    assert_one_line(run("run", null_bundle, "\udcff"), "Prompt")
    for data in (b"", b"\n", b"ab\xff\n"):
        stdin(monkeypatch, data)
        assert_one_line(run("run", null_bundle), "Prompt")


def test_prompt_longer_than_the_context(run: Run, null_bundle: Path) -> None:
    line = assert_one_line(run("run", null_bundle, "abc" * 40, "--context", 64), "ContextOverflow")
    assert "64" in line


@pytest.mark.parametrize(
    "option",
    [
        ["--temperature", "-1"],
        ["--top-p", "0"],
        ["--top-k", "-1"],
        ["--min-p", "2"],
        ["--repetition-penalty", "0"],
        ["--max-tokens", "0"],
        ["--seed", "-1"],
        ["--stop", ""],
        ["--threads", "0"],
        ["--context", "0"],
        ["--context", "999999"],
    ],
)
def test_bad_run_options(run: Run, null_bundle: Path, option: list[str]) -> None:
    assert_one_line(run("run", null_bundle, "hi", *option), "InvalidOption")


def test_unknown_backend(run: Run, null_bundle: Path) -> None:
    line = assert_one_line(run("run", null_bundle, "hi", "--backend", "toaster"), "UnknownBackend")
    assert "null" in line


def test_context_larger_than_memory(
    run: Run, tiny_bundle: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tiny_bundle(KIND, compile={"context": 32768})
    table = memory.table(bundle.manifest, 8192)
    monkeypatch.setattr(memory, "available_memory", lambda: table.total - table.process)
    line = assert_one_line(run("run", bundle.path, "hi"), "MemoryBudget")
    assert "8192" in line
    code, _, _ = run("run", bundle.path, "hi", "--context", 8192, "--max-tokens", 1)
    assert code == 0


def test_missing_extra_names_the_command_that_installs_it(
    run: Run, tiny_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "onnx" else find(name, *a)
    )
    line = assert_one_line(
        run("compile", tiny_checkpoint(KIND), "-o", tmp_path / "x.ark"), "MissingExtra"
    )
    assert "pip install 'arkinfer[compile]'" in line


@pytest.mark.parametrize("position", [0, 1, 3])
def test_debug_shows_where(run: Run, tmp_path: Path, position: int) -> None:
    arguments = ["run", str(tmp_path / "nothing"), "hi"]
    arguments.insert(position, "--debug")
    code, _, err = run(*arguments)
    assert code == 1
    assert err.startswith("Traceback")
    assert err.splitlines()[-1].startswith("error: InputNotFound: ")


def test_debug_after_two_dashes_is_a_prompt(run: Run, null_bundle: Path) -> None:
    code, _, err = run("run", "--max-tokens", 1, null_bundle, "--", "--debug")
    assert (code, "Traceback" in err) == (0, False)


def test_errors_are_one_line_whatever_they_quote() -> None:
    hostile = errors.ConfigError("a\nb\x1b[31m\x00")
    assert app.describe(hostile) == "error: Config: a b\\x1b[31m\\x00"
    assert app.describe(ValueError("x\ny")).startswith("error: Internal: ValueError: x y;")
    full = OSError(28, "No space left on device", "/x")
    assert app.describe(full) == "error: Storage: No space left on device: /x"
