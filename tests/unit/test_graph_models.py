"""The neutral graph of every model type: valid ONNX, and what it is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest

from arkinfer import converters, models
from arkinfer.config import ModelConfig, SparseConfig
from arkinfer.errors import ConfigError, UnknownModelTypeError
from arkinfer.graph.graph import Graph
from tests.support.tiny_models import KINDS, SMALL_SPARSE

SPARSE = SparseConfig(8, 4, 1, 16, 32, 3, 64, "A", "exact")


def config_of(make: Callable[..., Path], kind: str) -> ModelConfig:
    return converters.open(make(kind)).config


def op_types(graph: Graph) -> list[str]:
    return [node.op_type for node in graph.model.graph]


@pytest.mark.parametrize("sparse", [None, SPARSE], ids=["dense", "sparse"])
@pytest.mark.parametrize("kind", KINDS)
def test_graphs_are_valid_onnx(
    tiny_checkpoint: Callable[..., Path], kind: str, sparse: SparseConfig | None, tmp_path: Path
) -> None:
    config = config_of(tiny_checkpoint, kind)
    graph = models.build(config, sparse)
    graph.save(tmp_path / "graph.onnx")
    onnx.checker.check_model(str(tmp_path / "graph.onnx"), full_check=True)
    stored = onnx.load(tmp_path / "graph.onnx")
    assert stored.ir_version <= 13
    domains = {item.domain: item.version for item in stored.opset_import}
    assert domains == ({"": 24} if sparse is None else {"": 24, "ai.arkinfer": 1})
    used = {node.op_type for node in stored.graph.node if node.domain == "ai.arkinfer"}
    assert used == {function.name for function in stored.functions}
    assert len(used) == (0 if sparse is None else 3)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_the_checkpoint_tensors(
    tiny_checkpoint: Callable[..., Path], kind: str
) -> None:
    checkpoint = converters.open(tiny_checkpoint(kind))
    graph = models.build(checkpoint.config, None)
    assert set(graph.weights) == set(checkpoint.tensors)
    for name, spec in graph.weights.items():
        assert spec.shape == checkpoint.tensors[name].shape
        assert spec.sources == (name,)
    inputs = [str(value.name) for value in graph.model.graph.inputs]
    state = 1 + 2 * checkpoint.config.num_layers
    assert inputs[0] == "input_ids" and inputs[state:] == list(graph.weights)


def test_lengths_are_symbolic(tiny_checkpoint: Callable[..., Path]) -> None:
    graph = models.build(config_of(tiny_checkpoint, "minicpm4-8b"), SPARSE).model.graph
    shapes = {
        str(value.name): [str(d) if isinstance(d, ir.SymbolicDim) else d for d in value.shape or ()]
        for value in [*graph.inputs, *graph.outputs]
    }
    assert shapes["input_ids"] == [1, "tokens"]
    assert shapes["past_key.0"] == [1, 2, "past", 8]
    assert shapes["present_value.1"] == [1, 2, "total", 8]
    assert shapes["logits"] == [1, "tokens", 320]


def test_stages_are_named(tiny_checkpoint: Callable[..., Path]) -> None:
    graph = models.build(config_of(tiny_checkpoint, "minicpm4-8b"), SPARSE).model.graph
    values = {str(value.name) for node in graph for value in node.outputs}
    layer = "input_norm q k v fine coarse blocks attention attention_residual".split()
    layer += "post_norm gate up gated output".split()
    expected = {f"layers.{index}.{name}" for index in (0, 1) for name in layer}
    assert expected | {"embedding", "final_norm", "logits"} <= values


def test_mup_scales_are_there_once_each(tiny_checkpoint: Callable[..., Path]) -> None:
    config = config_of(tiny_checkpoint, "minicpm4-8b")
    plain = dataclasses.replace(config, embedding_scale=1.0, residual_scale=1.0, logit_scale=1.0)
    scaled, unscaled = (op_types(models.build(c, None)).count("Mul") for c in (config, plain))
    assert scaled - unscaled == 1 + 2 * config.num_layers + 1


def test_equal_longrope_factors_need_no_choice(tiny_checkpoint: Callable[..., Path]) -> None:
    config = config_of(tiny_checkpoint, "minicpm4-8b")
    assert "Where" not in op_types(models.build(config, None))
    longer = tuple(2.0 * factor for factor in config.rope.short_factors)
    rope = dataclasses.replace(config.rope, long_factors=longer)
    changed = models.build(dataclasses.replace(config, rope=rope), None)
    assert op_types(changed).count("Where") == 1


def test_sparse_settings_are_sealed_into_the_graph(tiny_checkpoint: Callable[..., Path]) -> None:
    config = config_of(tiny_checkpoint, "minicpm4-8b")
    graph = models.build(config, SPARSE)
    assert graph.config.sparse == SPARSE
    node = next(node for node in graph.model.graph if node.op_type == "SelectBlocks")
    found = {name: attribute.value for name, attribute in node.attributes.items()}
    assert found.pop("scale") == pytest.approx(8**-0.5)
    assert found == {
        "block_size": 16,
        "kernel_size": 8,
        "kernel_stride": 4,
        "init_blocks": 1,
        "local_blocks": 2,
        "topk": 3,
        "dense_len": 64,
        "generation": "A",
        "lse": "exact",
    }
    dense = converters.open(tiny_checkpoint("minicpm4-8b", sparse=SMALL_SPARSE)).config
    assert dense.sparse is not None
    assert models.build(dense, None).config.sparse is None


def test_unknown_model_type(tiny_checkpoint: Callable[..., Path]) -> None:
    config = dataclasses.replace(config_of(tiny_checkpoint, "llama"), model_type="abacus")
    with pytest.raises(UnknownModelTypeError, match="abacus.*llama, minicpm"):
        models.build(config, None)
    private = dataclasses.replace(config, model_type="_decoder")
    with pytest.raises(UnknownModelTypeError):
        models.build(private, None)


def test_llama_has_no_scales(tiny_checkpoint: Callable[..., Path]) -> None:
    config = dataclasses.replace(config_of(tiny_checkpoint, "llama"), logit_scale=0.5)
    with pytest.raises(ConfigError, match="muP"):
        models.build(config, None)
