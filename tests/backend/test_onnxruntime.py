"""The oracle: the neutral graph in stock onnxruntime against transformers, and its executor."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import arkinfer
from arkinfer import backends, converters, extras
from arkinfer.backends import ExecutorOptions
from arkinfer.backends import onnxruntime as backend
from arkinfer.bundle import Bundle
from arkinfer.errors import (
    ContextOverflowError,
    DamagedBundleError,
    InvalidBundleError,
    InvalidOptionError,
    MissingExtraError,
)
from arkinfer.graph import export
from arkinfer.graph.graph import Graph
from arkinfer.passes import PassOptions
from tests.support.tiny_models import SMALL_SPARSE
from tests.support.transformers_golden import CASES, Case

# Products of a few hundred float32 terms, twice over: far more than their rounding.
TOLERANCE = 1e-4
ALWAYS_ALL: dict[str, Any] = SMALL_SPARSE | {"topk": 64, "dense_len": -1}

Compile = Callable[..., Bundle]


@pytest.fixture(autouse=True)
def forget_sessions() -> Iterator[None]:
    yield
    backend._session.cache_clear()


@pytest.fixture
def compile_case(tmp_path: Path) -> Compile:
    def compile(case: Case, sparse: dict[str, Any] | None = None, **options: Any) -> Bundle:
        arguments = {"target": "onnxruntime", "quant": "none", "context": 256} | options
        folder = case.write(tmp_path / "checkpoint", sparse)
        return arkinfer.compile(folder, output=tmp_path / "x.ark", **arguments)

    return compile


def open_executor(bundle: Bundle, context: int = 256) -> backend.OnnxRuntimeExecutor:
    executor = backends.get("onnxruntime").executor(bundle, ExecutorOptions(context, 2))
    assert isinstance(executor, backend.OnnxRuntimeExecutor)
    return executor


def relative(found: Any, expected: Any) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_agrees_with_transformers(case: Case, compile_case: Compile) -> None:
    executor = open_executor(compile_case(case))
    logits = executor.append(case.tokens(), all_logits=True)
    expected = case.logits()
    assert relative(logits[list(case.rows)], expected) <= TOLERANCE


@pytest.mark.parametrize("case", CASES[:3], ids=lambda case: case.name)
def test_sparse_with_all_blocks_agrees_with_transformers(case: Case, compile_case: Compile) -> None:
    bundle = compile_case(case, ALWAYS_ALL)
    assert bundle.manifest.model.sparse is not None
    executor = open_executor(bundle)
    logits = executor.append(case.tokens(), all_logits=True)
    assert relative(logits[list(case.rows)], case.logits()) <= TOLERANCE
    assert [blocks.tolist() for blocks in executor.selected_blocks(0)] == [list(range(13))] * 2


@pytest.mark.parametrize("case", CASES[:1], ids=lambda case: case.name)
def test_sparse_differs_where_blocks_are_left_out(case: Case, compile_case: Compile) -> None:
    executor = open_executor(compile_case(case, SMALL_SPARSE))
    logits = executor.append(case.tokens(), all_logits=True)[list(case.rows)]
    # 1 + 2 + 2 blocks of 16 are everything up to token 79.
    early = [index for index, row in enumerate(case.rows) if row < 80]
    assert relative(logits[early], case.logits()[early]) <= TOLERANCE
    assert relative(logits[-1], case.logits()[-1]) > 1e-2
    assert [len(blocks) for blocks in executor.selected_blocks(1)] == [5, 5]


@pytest.mark.parametrize("sparse", [None, SMALL_SPARSE], ids=["dense", "sparse"])
@pytest.mark.parametrize("case", [CASES[1], CASES[3]], ids=lambda case: case.name)
def test_appending_in_pieces_equals_the_whole(
    case: Case, sparse: dict[str, Any] | None, compile_case: Compile
) -> None:
    tokens = case.tokens()
    executor = open_executor(compile_case(case, sparse, chunk=50))
    whole = executor.append(tokens, all_logits=True)
    selected = [blocks.tolist() for blocks in executor.selected_blocks(1)]
    executor.rollback(0)
    pieces = []
    # Lengths 15 mod 16 and 63 mod 64, across dense_len (64) and the chunk (50).
    edges = [0, 1, 15, 31, 50, 62, 63, 64, 65, 127, 191, 199, 200]
    for start, end in zip(edges, edges[1:], strict=False):
        pieces.append(executor.append(tokens[start:end], all_logits=True))
    assert relative(np.concatenate(pieces), whole) <= 1e-5
    assert [blocks.tolist() for blocks in executor.selected_blocks(1)] == selected
    executor.rollback(127)
    assert relative(executor.append(tokens[127:]), whole[-1:]) <= 1e-5
    assert [blocks.tolist() for blocks in executor.selected_blocks(1)] == selected


def test_longrope_factors_follow_the_length_of_the_append(compile_case: Compile) -> None:
    short, long = (case for case in CASES if case.name.startswith("longrope"))
    executor = open_executor(compile_case(long, chunk=16))
    logits = executor.append(long.tokens(), all_logits=True)
    assert relative(logits[list(long.rows)], long.logits()) <= TOLERANCE
    assert relative(logits[list(short.rows)], short.logits()) > 1e-3


def test_stages(compile_case: Compile) -> None:
    case = CASES[0]
    executor = open_executor(compile_case(case, SMALL_SPARSE))
    names = ["embedding", "layers.0.attention", "layers.1.blocks", "layers.1.fine", "logits"]
    assert set(names) <= set(executor.stage_names)
    found = executor.stages(case.tokens(), names)
    assert list(found) == names
    embedding = case.tensors()["model.embed_tokens.weight"][case.tokens()] * 12
    assert relative(found["embedding"][0], embedding) <= 1e-6
    assert found["layers.0.attention"].shape == (1, 200, 256)
    assert found["layers.1.blocks"].shape == (1, 2, 200, 13)
    assert found["layers.1.blocks"].dtype == np.bool_
    assert found["layers.1.fine"].shape == (1, 2, (200 - 8) // 4 + 1, 8)
    assert executor.length == 200
    assert relative(found["logits"][0, -1], executor_logits(executor, case)) <= 1e-6
    with pytest.raises(InvalidOptionError, match="no stage layers.9.attention"):
        executor.stages([1], ["layers.9.attention"])


def executor_logits(executor: backend.OnnxRuntimeExecutor, case: Case) -> Any:
    executor.rollback(0)
    return executor.append(case.tokens())[0]


def test_refused_calls(compile_case: Compile) -> None:
    executor = open_executor(compile_case(CASES[3]), context=8)
    with pytest.raises(InvalidOptionError, match="append before"):
        executor.selected_blocks(0)
    with pytest.raises(ContextOverflowError, match="at most the context of 8"):
        executor.append([1] * 9)
    executor.append([1, 2])
    with pytest.raises(InvalidOptionError, match="layer 2"):
        executor.selected_blocks(2)
    assert executor.length == 2


def test_exported_model_is_an_ordinary_onnx_file(compile_case: Compile) -> None:
    import onnx

    bundle = compile_case(CASES[0], SMALL_SPARSE, quant="w4g32z")
    model = bundle.path / export.MODEL
    onnx.checker.check_model(str(model), full_check=True)
    inputs = [value.name for value in onnx.load(model, load_external_data=False).graph.input]
    assert inputs == ["input_ids"] + [
        f"past_{kind}.{layer}" for layer in (0, 1) for kind in ("key", "value")
    ]


class Keeper:
    """A backend that stores the float weights of the graph as they are."""

    name = "keeper"
    needs = ()

    def compile(self, graph: Any, checkpoint: Any, device: Any, options: Any, writer: Any) -> None:
        for spec in graph.weights.values():
            arrays = export.weight_arrays(spec, checkpoint)
            np.savez(writer.folder / f"{spec.name}.npz", **arrays)

    def executor(self, bundle: Bundle, options: ExecutorOptions) -> None:
        return None

    def weights(self, bundle: Bundle, name: str) -> dict[str, Any]:
        with np.load(bundle.file(f"{name}.npz")) as stored:
            return dict(stored)


@pytest.mark.parametrize("quant", ["none", "w4g32", "w8g32z"])
def test_runs_bundles_of_backends_that_keep_weights(
    quant: str, compile_case: Compile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = Keeper()
    real = backends.get
    monkeypatch.setattr(backends, "get", lambda n: keeper if n == "keeper" else real(n))
    monkeypatch.setattr(backends, "names", lambda: ["keeper", "onnxruntime"])
    case = CASES[0]
    expected = open_executor(compile_case(case, SMALL_SPARSE, quant=quant)).append(case.tokens())
    folder = tmp_path / "checkpoint"
    kept = arkinfer.compile(
        folder, target="keeper", quant=quant, context=256, output=tmp_path / "kept.ark"
    )
    assert np.array_equal(open_executor(kept).append(case.tokens()), expected)


def test_refuses_bundles_without_weights(compile_case: Compile) -> None:
    bundle = compile_case(CASES[3], target="null")
    with pytest.raises(InvalidOptionError, match="null.*--target onnxruntime"):
        open_executor(bundle)


@pytest.mark.parametrize("name", ["graph.onnx", export.MODEL, export.DATA])
def test_damage_is_noticed(name: str, compile_case: Compile, tmp_path: Path) -> None:
    bundle = compile_case(CASES[3])
    copy = tmp_path / "copy.ark"
    shutil.copytree(bundle.path, copy)
    raw = bytearray((copy / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / name).write_bytes(raw)
    with pytest.raises(DamagedBundleError, match=name):
        open_executor(Bundle.open(copy))


def test_a_sealed_graph_that_is_no_graph_is_refused(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper, real = Keeper(), backends.get
    monkeypatch.setattr(backends, "get", lambda n: keeper if n == "keeper" else real(n))
    monkeypatch.setattr(backends, "names", lambda: ["keeper", "onnxruntime"])
    # Digests are right: whoever made this bundle wanted it so.
    monkeypatch.setattr(Graph, "save", lambda _graph, path: path.write_bytes(b"\xffnot a graph"))
    bundle = arkinfer.compile(tiny_checkpoint("llama"), target="keeper", output=tmp_path / "x.ark")
    bundle.check()
    with pytest.raises(InvalidBundleError, match="graph.onnx cannot be read"):
        open_executor(bundle)


def test_values_that_do_not_fit_the_graph_are_refused(
    tmp_path: Path, tiny_checkpoint: Callable[..., Path]
) -> None:
    from arkinfer import models, passes

    checkpoint = converters.open(tiny_checkpoint("llama"))
    graph = passes.run(
        models.build(checkpoint.config, None), checkpoint.tensors, PassOptions("none")
    )
    right = {name: {name: checkpoint.read(name)} for name in checkpoint.tensors}
    norm = "model.norm.weight"

    def attempt(weights: Any) -> None:
        export.export(graph.model.clone(), weights, lambda _: None, tmp_path / "x.onnx")

    with pytest.raises(InvalidBundleError, match="no weight input model.norm2"):
        attempt([{"model.norm2": np.zeros(1, np.float32)}])
    with pytest.raises(InvalidBundleError, match=r"shape \[3\] for model.norm.weight"):
        attempt([{norm: np.zeros(3, np.float32)}])
    with pytest.raises(InvalidBundleError, match="no values for .*model.embed_tokens.weight"):
        attempt([right[norm]])


def test_missing_onnxruntime_names_the_extra(
    compile_case: Compile, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = compile_case(CASES[3])
    find = extras.importlib.util.find_spec
    monkeypatch.setattr(
        extras.importlib.util, "find_spec", lambda n: None if n == "onnxruntime" else find(n)
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'arkinfer\[compile\]'"):
        open_executor(bundle)
