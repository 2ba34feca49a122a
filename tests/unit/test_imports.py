"""Who imports whom, and what is loaded when."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "arkinfer"
EXTRAS = ("onnx", "onnx_ir", "onnxruntime", "tvm", "wgpu", "torch", "transformers")

# What a folder may not import; the core's types are open to all.
FORBIDDEN = {
    "converters": ("backends", "models", "passes", "graph", "runtime", "compiler", "cli"),
    "devices": ("backends", "models", "passes", "graph", "runtime", "compiler", "cli"),
    "models": ("backends", "runtime", "compiler", "cli"),
    "graph": ("backends", "runtime", "compiler", "cli"),
    "passes": ("backends", "runtime", "compiler", "cli"),
    "backends": ("compiler", "cli", "converters"),
    "runtime": ("backends", "converters", "models", "graph", "passes", "compiler", "cli"),
    "quantize": ("backends", "models", "passes", "runtime", "compiler", "cli"),
}


def imported(path: Path) -> Iterator[str]:
    """Modules that a file imports anywhere but for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_import_rules(folder: str) -> None:
    files = sorted((PACKAGE / folder).rglob("*.py"))
    assert files
    for path in files:
        for module in imported(path):
            for forbidden in FORBIDDEN[folder]:
                name = f"arkinfer.{forbidden}"
                assert module != name and not module.startswith(f"{name}."), f"{path}: {module}"


def test_the_rule_above_sees_imports(tmp_path: Path) -> None:
    file = tmp_path / "file.py"
    file.write_text(
        "from typing import TYPE_CHECKING\nfrom arkinfer import cli\n"
        "if TYPE_CHECKING:\n    import onnx\ndef f():\n    import arkinfer.models.llama\n"
    )
    assert {"arkinfer.cli", "arkinfer.models.llama"} <= set(imported(file))
    assert "onnx" not in set(imported(file))


def modules_after(code: str) -> set[str]:
    """Modules that a fresh interpreter holds after running ``code``."""
    code = f"import sys\n{code}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "import arkinfer",
        "import arkinfer; arkinfer.load; arkinfer.compile; arkinfer.Model; arkinfer.Session",
        "import arkinfer.runtime.model, arkinfer.runtime.library, arkinfer.tokenizer",
        "import arkinfer.cli.app, arkinfer.cli.run, arkinfer.cli.inspect, arkinfer.cli.bench",
        "import arkinfer.cli.compile, arkinfer.cli.verify, arkinfer.cli.devices, arkinfer.cli.repl",
    ],
)
def test_no_extra_is_imported(code: str) -> None:
    assert not {name.split(".")[0] for name in modules_after(code)} & set(EXTRAS)


def test_importing_arkinfer_loads_nothing_else_of_it() -> None:
    ours = {name for name in modules_after("import arkinfer") if name.startswith("arkinfer")}
    assert ours == {"arkinfer"}
    assert "numpy" not in modules_after("import arkinfer")


def test_commands_are_imported_only_when_they_run() -> None:
    loaded = modules_after("from arkinfer.cli.app import main; main(['devices', '--json'])")
    assert "arkinfer.cli.devices" in loaded
    for name in ("run", "compile", "verify", "inspect", "bench"):
        assert f"arkinfer.cli.{name}" not in loaded


def test_every_public_name_exists() -> None:
    import arkinfer

    for name in arkinfer.__all__:
        assert getattr(arkinfer, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = arkinfer.nothing  # type: ignore[attr-defined]
