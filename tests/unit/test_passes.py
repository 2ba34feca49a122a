"""Each pass keeps what the graph computes, and leaves a valid graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from arkinfer import converters, models, passes
from arkinfer.checkpoint import Checkpoint, TensorInfo
from arkinfer.errors import (
    CheckpointTensorsError,
    InvalidOptionError,
    StorageError,
    UnsupportedQuantizationError,
)
from arkinfer.graph.graph import Graph, input_names
from arkinfer.passes import PassContext, PassOptions
from arkinfer.passes.bind_weights import bind_weights
from arkinfer.quantize import materialize
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor
from tests.support.graph_session import run_graph
from tests.support.tiny_models import KINDS, SMALL_SPARSE

QUANTS = ["none", "w4g32", "w4g32z", "w8g64", "w8g128z", "ternary", "ternaryg64"]
TOKENS = [int(t) for t in np.random.default_rng(3).integers(0, 320, 130)]


@pytest.fixture
def checkpoint(tiny_checkpoint: Callable[..., Path]) -> Checkpoint:
    return converters.open(tiny_checkpoint("minicpm4-8b", dtype="bf16", sparse=SMALL_SPARSE))


def build(checkpoint: Checkpoint) -> Graph:
    return models.build(checkpoint.config, checkpoint.config.sparse)


def renamed(checkpoint: Checkpoint, **changes: TensorInfo | None) -> dict[str, TensorInfo]:
    tensors = dict(checkpoint.tensors)
    for name, info in changes.items():
        if info is None:
            del tensors[name]
        else:
            tensors[name] = info
    return tensors


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_dump_is_valid_onnx(
    tiny_checkpoint: Callable[..., Path], kind: str, quant: str, tmp_path: Path
) -> None:
    checkpoint = converters.open(tiny_checkpoint(kind, dtype="bf16"))
    graph = passes.run(build(checkpoint), checkpoint.tensors, PassOptions(quant, tmp_path))
    dumps = sorted(tmp_path.iterdir())
    assert [dump.name for dump in dumps] == [
        "00_built.onnx",
        "01_bind_weights.onnx",
        "02_fold_constants.onnx",
        "03_merge_projections.onnx",
        "04_quantize_weights.onnx",
    ]
    for dump in dumps:
        onnx.checker.check_model(str(dump), full_check=True)
    inputs = [str(value.name) for value in graph.model.graph.inputs]
    state = 1 + 2 * graph.config.num_layers
    assert inputs[state:] == [n for spec in graph.weights.values() for n in input_names(spec)]


def test_passes_change_a_copy(checkpoint: Checkpoint) -> None:
    graph = build(checkpoint)
    before = [str(node.name) for node in graph.model.graph]
    passes.run(graph, checkpoint.tensors, PassOptions("w4g32"))
    assert [str(node.name) for node in graph.model.graph] == before
    assert {spec.storage for spec in graph.weights.values()} == {"f32"}


def test_binding_takes_over_storage_and_keeps_results(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    graph = build(checkpoint)
    original = run_graph(graph, checkpoint, TOKENS, tmp_path / "built")
    bind_weights(graph, PassContext(checkpoint.tensors, PassOptions("none")))
    assert {spec.storage for spec in graph.weights.values()} == {"bf16"}
    assert np.array_equal(run_graph(graph, checkpoint, TOKENS, tmp_path / "bound"), original)


def test_folding_leaves_the_inverse_frequencies(checkpoint: Checkpoint) -> None:
    graph = passes.run(build(checkpoint), checkpoint.tensors, PassOptions("none"))
    value = graph.model.graph.initializers["rope.short"]
    assert value.const_value is not None
    factors = np.array(checkpoint.config.rope.short_factors)
    half = len(factors)
    expected = 10000.0 ** (-np.arange(half) / half) / factors
    assert value.const_value.numpy() == pytest.approx(expected, rel=3e-7)
    op_types = [node.op_type for node in graph.model.graph]
    assert "Reciprocal" not in op_types


def test_merged_equals_unmerged(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PassOptions("none")
    merged = passes.run(build(checkpoint), checkpoint.tensors, options)
    kept = tuple(p for p in passes.PASSES if p.__name__ != "merge_projections")
    monkeypatch.setattr(passes, "PASSES", kept)
    unmerged = passes.run(build(checkpoint), checkpoint.tensors, options)
    qkv = merged.weights["model.layers.0.self_attn.qkv_proj.weight"]
    assert qkv.shape == (256 + 16 + 16, 256)
    assert [source.split(".")[-2] for source in qkv.sources] == ["q_proj", "k_proj", "v_proj"]
    assert merged.weights["model.layers.1.mlp.gate_up_proj.weight"].shape == (1024, 256)
    assert len(merged.weights) == len(unmerged.weights) - 2 * 3
    found, expected = (
        run_graph(graph, checkpoint, TOKENS, tmp_path / name)
        for name, graph in (("merged", merged), ("unmerged", unmerged))
    )
    # The same products; only the matrix library's blocking may differ.
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_projections_stored_differently_stay_apart(checkpoint: Checkpoint) -> None:
    name = "model.layers.0.self_attn.v_proj.weight"
    other = dataclasses.replace(checkpoint.tensors[name], storage="f16")
    tensors = renamed(checkpoint, **{name: other})
    graph = passes.run(build(checkpoint), tensors, PassOptions("none"))
    assert name in graph.weights
    assert "model.layers.0.self_attn.qkv_proj.weight" not in graph.weights
    assert "model.layers.1.self_attn.qkv_proj.weight" in graph.weights


def float_weights(graph: Graph, checkpoint: Checkpoint) -> dict[str, Any]:
    """The values that a quantized graph's weights stand for."""
    values = {}
    for name, spec in graph.weights.items():
        rows = materialize.rows(spec, checkpoint)
        values[name] = (
            rows.dequantize() if isinstance(rows, QuantizedTensor) else rows.astype(np.float32)
        )
    return values


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("kind", ["minicpm4.1-8b", "minicpm4-0.5b"])
def test_quantized_equals_dequantized(
    tiny_checkpoint: Callable[..., Path], kind: str, quant: str, tmp_path: Path
) -> None:
    checkpoint = converters.open(tiny_checkpoint(kind, dtype="f16"))
    graph = passes.run(build(checkpoint), checkpoint.tensors, PassOptions(quant))
    floats = {
        name: dataclasses.replace(info, storage="f32") for name, info in checkpoint.tensors.items()
    }
    plain = passes.run(build(checkpoint), floats, PassOptions("none"))
    assert list(plain.weights) == list(graph.weights)
    found = run_graph(graph, checkpoint, TOKENS, tmp_path / "quantized")
    values = float_weights(graph, checkpoint)
    expected = run_graph(plain, checkpoint, TOKENS, tmp_path / "float", values)
    assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("bits", [4, 8])
def test_minimums(checkpoint: Checkpoint, bits: Any, tmp_path: Path) -> None:
    scheme = GroupScheme(bits, 32, "minimum", "fp32")
    rng = np.random.default_rng(bits)

    class Reader:
        def read_float(self, name: str, rows: slice) -> Any:
            return checkpoint.reader.read_float(name, rows)

        def read_quantized(self, name: str, rows: slice) -> QuantizedTensor:
            return tensors[name].rows(rows)

    @dataclasses.dataclass
    class Stored:
        whole: QuantizedTensor

        def rows(self, rows: slice) -> QuantizedTensor:
            w = self.whole
            assert w.offsets is not None
            return QuantizedTensor(w.scheme, w.codes[rows], w.scales[rows], w.offsets[rows])

    tensors = {}
    infos = dict(checkpoint.tensors)
    for name, info in checkpoint.tensors.items():
        if "proj" not in name:
            continue
        outputs, inputs = info.shape
        grouped = (outputs, inputs // 32)
        codes = rng.integers(0, 1 << bits, info.shape).astype(np.uint8)
        scales = rng.uniform(0.001, 0.002, grouped).astype(np.float32)
        minimums = rng.uniform(-0.02, 0.0, grouped).astype(np.float32)
        tensors[name] = Stored(QuantizedTensor(scheme, codes, scales, minimums))
        infos[name] = dataclasses.replace(info, storage=scheme)
    quantized = dataclasses.replace(checkpoint, tensors=infos, reader=Reader())
    graph = passes.run(build(checkpoint), infos, PassOptions("keep", tmp_path / "dump"))
    onnx.checker.check_model(str(tmp_path / "dump" / "04_quantize_weights.onnx"), full_check=True)
    assert graph.weights["model.layers.0.self_attn.qkv_proj.weight"].storage == scheme
    floats = {name: dataclasses.replace(info, storage="f32") for name, info in infos.items()}
    plain = passes.run(build(checkpoint), floats, PassOptions("none"))
    found = run_graph(graph, quantized, TOKENS, tmp_path / "quantized")
    values = float_weights(graph, quantized)
    expected = run_graph(plain, quantized, TOKENS, tmp_path / "float", values)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_roles_get_what_the_policy_says(checkpoint: Checkpoint) -> None:
    graph = passes.run(build(checkpoint), checkpoint.tensors, PassOptions("w4g32"))
    storages = {name: str(spec.storage) for name, spec in graph.weights.items()}
    assert storages.pop("model.embed_tokens.weight") == "bf16"
    assert storages.pop("lm_head.weight") == "w8g32"
    for name, storage in storages.items():
        assert storage == ("f32" if "norm" in name else "w4g32"), name


def test_a_tied_embedding_is_stored_as_the_head(tiny_checkpoint: Callable[..., Path]) -> None:
    checkpoint = converters.open(tiny_checkpoint("minicpm4-0.5b", dtype="bf16"))
    graph = passes.run(build(checkpoint), checkpoint.tensors, PassOptions("w4g32"))
    assert str(graph.weights["model.embed_tokens.weight"].storage) == "w8g32"
    assert "lm_head.weight" not in graph.weights


def test_all_wrong_tensors_are_named_at_once(checkpoint: Checkpoint) -> None:
    down = "model.layers.1.mlp.down_proj.weight"
    tensors = renamed(
        checkpoint,
        **{
            "model.norm.weight": None,
            "model.layers.0.self_attn.q_proj.weight": None,
            "model.layers.2.mlp.up_proj.weight": TensorInfo("x", (512, 256), "bf16"),
            down: dataclasses.replace(checkpoint.tensors[down], shape=(256, 511)),
        },
    )
    with pytest.raises(CheckpointTensorsError) as caught:
        passes.run(build(checkpoint), tensors, PassOptions("none"))
    text = str(caught.value)
    assert "2 missing: model.layers.0.self_attn.q_proj.weight, model.norm.weight" in text
    assert "1 surplus: model.layers.2.mlp.up_proj.weight" in text
    assert f"1 misshapen: {down} [256, 511] instead of [256, 512]" in text
    assert "\n" not in text


def test_harmless_surplus_is_ignored(tiny_checkpoint: Callable[..., Path]) -> None:
    checkpoint = converters.open(tiny_checkpoint("minicpm4-0.5b"))
    buffer = "model.layers.0.self_attn.rotary_emb.inv_freq"
    extra = {
        "lm_head.weight": checkpoint.tensors["model.embed_tokens.weight"],
        buffer: TensorInfo(buffer, (4,), "f32"),
    }
    graph = passes.run(build(checkpoint), dict(checkpoint.tensors) | extra, PassOptions("none"))
    assert not set(extra) & set(graph.weights)


def test_refused_options(checkpoint: Checkpoint, tmp_path: Path) -> None:
    graph = build(checkpoint)
    with pytest.raises(UnsupportedQuantizationError, match="keep"):
        passes.run(graph, checkpoint.tensors, PassOptions("keep"))
    with pytest.raises(InvalidOptionError, match="w3g7"):
        passes.run(graph, checkpoint.tensors, PassOptions("w3g7"))
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="dump"):
        passes.run(graph, checkpoint.tensors, PassOptions("none", tmp_path / "file" / "dump"))
