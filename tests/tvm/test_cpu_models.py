"""Whole models with kernels that TVM compiled into the bundle, against the runtime's own."""

from __future__ import annotations

import importlib.util
import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arkinfer
from arkinfer.errors import (
    DamagedBundleError,
    InvalidBundleError,
    InvalidOptionError,
    LinkerError,
)
from arkinfer.runtime.session import Session
from tests.support.manifests import reseal
from tests.support.tiny_models import SMALL_SPARSE
from tests.support.two_backends import TINY_MODELS, TOLERANCE, error, follow

pytestmark = pytest.mark.platform
if importlib.util.find_spec("tvm") is None:
    pytest.skip("needs TVM: pip install 'arkinfer[tvm]'", allow_module_level=True)
if platform.machine() != "x86_64":
    pytest.skip("compiles for AVX2 and runs it", allow_module_level=True)

# A set that no CPU here has.
FOREIGN = "neon"


def compiled(source: Path, output: Path, **options: Any) -> Path:
    """The path of a bundle with kernels for AVX2."""
    bundle = arkinfer.compile(source, target="cpu", kernels="tvm:avx2", output=output, **options)
    return bundle.path


def sessions(bundle: Path, **options: Any) -> list[Session]:
    """One with the bundle's kernels, one with the runtime's."""
    return [
        arkinfer.load(bundle, activations="fp32", kernels=kernels, **options).session()
        for kernels in ("compiled", "builtin")
    ]


@TINY_MODELS
def test_tiny_models(
    kind: str, kv: str, quant: str, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Prefill in chunks, few tokens, decoding, rollback and a tree of drafts; chosen blocks too."""
    sparse = SMALL_SPARSE if kind.endswith("8b") else None
    source = tiny_checkpoint(kind, sparse=sparse)
    options: dict[str, Any] = {"context": 512, "chunk": 32, "quant": quant, "kv": kv}
    both = sessions(compiled(source, tmp_path / "a.ark", **options), threads=2)
    prompt = [int(i) for i in np.random.default_rng(3).integers(3, 300, 100)]
    found, expected = (session.append(prompt, all_logits=True) for session in both)
    assert error(found, expected) < TOLERANCE[kv]
    for layer in range(2 if sparse else 0):
        chosen = [session.selected_blocks(layer) for session in both]
        assert all(np.array_equal(a, b) for a, b in zip(*chosen, strict=True))
    verified = [session.append(prompt[:5], all_logits=True) for session in both]
    assert error(*verified) < TOLERANCE[kv]
    drafts = [session.verify_tree([5, 6, 7], [-1, 0, 0]) for session in both]
    assert error(*drafts) < TOLERANCE[kv]
    for session in both:
        session.accept([0, 2])
        session.rollback(70)
    follow(both, [session.append([9])[-1] for session in both], 8, TOLERANCE[kv])


def test_smollm2(smollm2_gguf: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"context": 256, "chunk": 32, "quant": "keep", "kv": "fp32"}
    bundle = compiled(smollm2_gguf, tmp_path / "a.ark", **options)
    prompt = arkinfer.load(bundle).encode("The capital of France is")
    both = sessions(bundle)
    follow(both, [session.append(prompt)[-1] for session in both], 16, TOLERANCE["fp32"])


def test_results_do_not_depend_on_threads(compiled_llama: Path) -> None:
    tokens = list(range(3, 40))
    one, three = (
        arkinfer.load(compiled_llama, threads=threads, kernels="compiled").session().append(tokens)
        for threads in (1, 3)
    )
    assert np.array_equal(one, three)


def test_caches_of_another_type_keep_the_runtimes_attention(compiled_llama: Path) -> None:
    both = [
        arkinfer.load(compiled_llama, activations="fp32", kernels=kernels, kv="int8").session()
        for kernels in ("compiled", "builtin")
    ]
    found, expected = (session.append(list(range(3, 40))) for session in both)
    assert error(found, expected) < 2e-2


def test_two_bundles_in_one_process(
    compiled_llama: Path, tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Each keeps its own library, also when the file that was loaded first is long closed."""
    other = compiled(tiny_checkpoint("minicpm4-0.5b"), tmp_path / "b.ark", context=64, chunk=16)
    first = arkinfer.load(compiled_llama, kernels="compiled").session()
    before = first.append([5, 6, 7])
    second = arkinfer.load(other, kernels="compiled").session()
    expected = arkinfer.load(other, activations="fp32", kernels="builtin").session().append([5, 6])
    assert error(second.append([5, 6]), expected) < TOLERANCE["fp16"]
    first.rollback(0)
    assert np.array_equal(first.append([5, 6, 7]), before)


def test_what_cannot_be_compiled_is_refused(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, output = tiny_checkpoint("llama"), tmp_path / "a.ark"
    with pytest.raises(InvalidOptionError, match="tvm:avx2"):
        arkinfer.compile(source, kernels="tvm:mmx", output=output)
    with pytest.raises(InvalidOptionError, match="backend null"):
        arkinfer.compile(source, target="null", kernels="tvm", output=output)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(LinkerError, match="no C compiler that links for x86_64"):
        arkinfer.compile(source, kernels="tvm:avx2", output=output)
    monkeypatch.setenv("ARKINFER_CC", "/no/such/cc")
    with pytest.raises(LinkerError, match="/no/such/cc"):
        arkinfer.compile(source, kernels="tvm:avx2", output=output)
    assert not output.exists()


def _set(place: list[Any], value: Any) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        for key in place[:-1]:
            table = table[key]
        table[place[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set(["version"], 2), "another version"),
        (_set(["isa"], "mmx"), "the name of a kernel set"),
        (_set(["kv"], "int4"), "kv"),
        (_set(["workspace"], -1), "workspace"),
        (_set(["workspace"], 1 << 40), "workspace"),
        (_set(["scratch", 0], ["^", 1, 2]), "the operator '\\^'"),
        (_set(["body"], []), "0 steps"),
        (_set(["body", 0, "shape"], 1 << 20), "shape"),
        (_set(["body", 0, "launches", 0, "arguments", 0], {"operand": "none"}), "'none'"),
        (_set(["body", 0, "launches", 0, "arguments", 0], {"scratch": 99}), "scratch"),
        (_set(["body", 0, "launches", 0, "arguments", 0], {"scalar": "cost"}), "tokens, past"),
        (_set(["body", 0, "launches", 0, "least"], 0), "least"),
    ],
)
def test_tables_that_lie_are_refused(
    change: Callable[[Any], None], says: str, compiled_llama: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "lying.ark"
    shutil.copytree(compiled_llama, copied)
    table = json.loads((copied / "kernels.json").read_text())
    change(table)
    reseal(copied, {"kernels.json": json.dumps(table).encode()})
    with pytest.raises(InvalidBundleError, match=says):
        arkinfer.load(copied)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set(["isa"], FOREIGN), "holds code for neon"),
        (_set(["body", 0, "launches", 0, "function"], "none"), "no function 'none'"),
        (_set(["scratch", 0], ["-", 1, 2]), "a size of -1"),
        (_set(["scratch", 0], 1 << 49), "scratch"),
    ],
)
def test_code_that_does_not_fit_is_refused_unless_it_is_not_wanted(
    change: Callable[[Any], None], says: str, compiled_llama: Path, tmp_path: Path
) -> None:
    copied = tmp_path / "lying.ark"
    shutil.copytree(compiled_llama, copied)
    table = json.loads((copied / "kernels.json").read_text())
    change(table)
    reseal(copied, {"kernels.json": json.dumps(table).encode()})
    with pytest.raises(InvalidBundleError, match=says):
        arkinfer.load(copied).session()
    assert arkinfer.load(copied, kernels="builtin").session().append([5]).shape[0] == 1


def test_code_is_checked_before_it_is_loaded(compiled_llama: Path, tmp_path: Path) -> None:
    copied = tmp_path / "changed.ark"
    shutil.copytree(compiled_llama, copied)
    code = bytearray((copied / "kernels.so").read_bytes())
    code[len(code) // 2] ^= 1
    (copied / "kernels.so").write_bytes(code)
    with pytest.raises(DamagedBundleError, match="kernels.so"):
        arkinfer.load(copied)
    reseal(copied, {"kernels.so": b"no library"})
    with pytest.raises(InvalidBundleError, match="kernels.so cannot be loaded"):
        arkinfer.load(copied).session()
