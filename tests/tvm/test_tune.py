"""``arkinfer tune``: what it writes, what follows it, and what is not believed."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import arkinfer
from arkinfer import tune, tuning
from arkinfer.bundle import Bundle
from arkinfer.cli import app
from arkinfer.errors import InvalidBundleError, StorageError

pytestmark = pytest.mark.platform
if importlib.util.find_spec("tvm") is None:
    pytest.skip("needs TVM: pip install 'arkinfer[tvm]'", allow_module_level=True)
if platform.machine() != "x86_64":
    pytest.skip("compiles for AVX2 and runs it", allow_module_level=True)

TOKENS = list(range(3, 16))


@pytest.fixture(scope="module")
def tuned(compiled_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a table, not to be changed."""
    copied = tmp_path_factory.mktemp("tuned") / "a.ark"
    shutil.copytree(compiled_llama, copied)
    bundle = Bundle.open(copied)
    tuning.write(bundle, tune.measure(bundle, tune.Settings((1, 8), 16, 2)))
    return copied


@pytest.fixture
def copied(tuned: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    shutil.copytree(tuned, tmp_path / "a.ark")
    return tmp_path / "a.ark"


def change(folder: Path, edit: Callable[[Any], None]) -> None:
    table = json.loads((folder / "tuning.json").read_text())
    edit(table)
    (folder / "tuning.json").write_text(json.dumps(table))


def use(kind: str) -> Callable[[Any], None]:
    def edit(table: Any) -> None:
        for shape in table["shapes"]:
            shape["use"] = {name: [kind] * 2 for name in ("int8", "fp32")}

    return edit


def logits(folder: Path, kernels: str) -> NDArray[np.float32]:
    """With int8 activations, so that the two kinds of kernels differ."""
    return arkinfer.load(folder, kernels=kernels).session().append(TOKENS, all_logits=True)


def test_a_table_decides_which_kernels_run(copied: Path) -> None:
    builtin, compiled = logits(copied, "builtin"), logits(copied, "compiled")
    assert not np.array_equal(builtin, compiled)
    change(copied, use("builtin"))
    assert np.array_equal(logits(copied, "tuned"), builtin)
    change(copied, use("compiled"))
    assert np.array_equal(logits(copied, "tuned"), compiled)
    Bundle.open(copied).check()


def test_counts_of_tokens_decide_apart(copied: Path) -> None:
    """From 8 tokens on compiled kernels, below the runtime's."""

    def edit(table: Any) -> None:
        for shape in table["shapes"]:
            shape["use"] = {name: ["builtin", "compiled"] for name in ("int8", "fp32")}

    change(copied, edit)
    for count, kind in ((1, "builtin"), (7, "builtin"), (8, "compiled"), (12, "compiled")):
        stages: dict[str, NDArray[np.float32]] = {}
        for kernels in ("tuned", kind):
            session = arkinfer.load(copied, kernels=kernels).session()
            with session.trace() as steps:
                session.append(TOKENS[:count])
            stages[kernels] = next(s.values for s in steps[::-1] if s.kernel == "swiglu")
        assert np.array_equal(stages["tuned"], stages[kind])


def test_the_command_line(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "tuning.json").unlink()
    assert app.main(["inspect", str(copied)]) == 0
    assert "not tuned" in capsys.readouterr().out.replace("\n", " ")
    options = ["--tokens", "1", "--tokens", "8", "--depth", "8", "--repeat", "1", "--json"]
    assert app.main(["tune", str(copied), *options]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["tokens"] == [1, 8] and written["bundle"] == Bundle.open(copied).digest
    assert any(shape["shape"].startswith("matmul") for shape in written["shapes"])
    assert all(min(shape["compiled"]) > 0 for shape in written["shapes"])
    assert sorted(os.listdir(copied))[-2:] == ["vocabulary.bin", "weights.bin"]
    assert app.main(["inspect", str(copied), "--json"]) == 0
    assert "tuned on" in json.loads(capsys.readouterr().out)["kernels"]
    assert app.main(["tune", str(copied), *options[:-1]]) == 0
    assert "tuning.json" in capsys.readouterr().out
    assert app.main(["tune", str(copied), "--repeat", "0"]) == 1
    assert "InvalidOption" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("cpu", "another CPU", "tuned on another CPU"), ("bundle", "0" * 64, "an earlier bundle")],
)
def test_a_table_for_something_else_is_noticed(
    key: str, value: str, says: str, copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change(copied, use("builtin"))
    change(copied, lambda table: table.update({key: value}))
    assert np.array_equal(logits(copied, "tuned"), logits(copied, "compiled"))
    assert app.main(["run", str(copied), "a b", "--raw", "--max-tokens", "2"]) == 0
    assert says in capsys.readouterr().err
    assert says in tuning.state(Bundle.open(copied))


@pytest.mark.parametrize(
    "edit",
    [
        lambda table: table.update(version=2),
        lambda table: table.update(tokens=[]),
        lambda table: table.update(tokens=[8, 1]),
        lambda table: table.update(tokens=[0, 1]),
        lambda table: table["shapes"].pop(),
        lambda table: table["shapes"][0].update(shape="other"),
        lambda table: table["shapes"][0]["use"].pop("fp32"),
        lambda table: table["shapes"][0]["use"].update(int8=["compiled"]),
        lambda table: table["shapes"][0]["use"].update(int8=["compiled", "fastest"]),
    ],
)
def test_tables_that_lie_are_refused_and_replaced(
    edit: Callable[[Any], None], copied: Path
) -> None:
    change(copied, edit)
    with pytest.raises(InvalidBundleError, match="tuning.json"):
        arkinfer.load(copied).session()
    assert arkinfer.load(copied, kernels="builtin").session().append([5]).shape[0] == 1


def test_a_table_that_is_no_json_is_replaced(copied: Path) -> None:
    (copied / "tuning.json").write_text("{")
    bundle = Bundle.open(copied)
    with pytest.raises(InvalidBundleError, match="arkinfer tune"):
        tuning.state(bundle)
    tuning.write(bundle, tune.measure(bundle, tune.Settings((1,), 0, 1)))
    assert tuning.state(bundle) and arkinfer.load(copied).session()


def test_a_write_that_fails_leaves_the_old_table(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = Bundle.open(copied)
    before = (copied / "tuning.json").read_bytes()
    table = tuning.read(bundle)
    assert table is not None

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(StorageError, match="No space left"):
        tuning.write(bundle, table)
    assert (copied / "tuning.json").read_bytes() == before
    assert not list(copied.glob("*.partial")) and not list(copied.glob(".*"))
