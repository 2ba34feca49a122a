"""Compiling tiny checkpoints for the cpu: plans that hold together, weights that come back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

import arkinfer
from arkinfer import compiler, converters, devices, models, passes
from arkinfer.backends._steps.lower import lower
from arkinfer.backends.cpu import BACKEND
from arkinfer.bundle import Bundle
from arkinfer.config import ModelConfig, RopeConfig, SparseConfig
from arkinfer.errors import (
    CheckpointTensorsError,
    InvalidOptionError,
    LoweringError,
    SparseAttentionError,
    StorageError,
    UnknownBackendError,
    UnsupportedQuantizationError,
)
from arkinfer.graph.graph import Graph, input_names
from arkinfer.passes import PassOptions
from arkinfer.quantize import materialize
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor
from tests.support.manifests import CONFIG
from tests.support.tiny_models import (
    KINDS,
    SMALL_SPARSE,
    tiny_config,
    tiny_tensors,
    write_safetensors,
    write_tiny_hf,
)

Make = Callable[..., Path]
QUANTS = ("none", "w4g32", "w8g64z")


def compiled(path: Path, output: Path, **options: Any) -> tuple[Bundle, dict[str, Any]]:
    arguments = {"quant": "none", "context": 256, "chunk": 64} | options
    bundle = arkinfer.compile(path, output=output, **arguments)
    return bundle, json.loads((bundle.path / "plan.json").read_text())


def graph_of(path: Path, quant: str = "none") -> Graph:
    checkpoint = converters.open(path)
    graph = models.build(checkpoint.config, checkpoint.config.sparse)
    return passes.run(graph, checkpoint.tensors, PassOptions(quant))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("quant", QUANTS)
def test_weights_come_back_exactly(
    tiny_checkpoint: Make, tmp_path: Path, kind: str, quant: str
) -> None:
    dtype = "f32" if quant == "none" else "bf16"
    path = tiny_checkpoint(kind, dtype=dtype)
    bundle, _ = compiled(path, tmp_path / "x.ark", quant=quant)
    checkpoint = converters.open(path)
    for name, spec in graph_of(path, quant).weights.items():
        arrays = BACKEND.weights(bundle, name)
        assert sorted(arrays) == sorted(input_names(spec))
        want = materialize.rows(spec, checkpoint)
        if isinstance(want, QuantizedTensor):
            np.testing.assert_array_equal(arrays[f"{name}.codes"], want.codes)
            np.testing.assert_array_equal(arrays[f"{name}.scales"].astype("f4"), want.scales)
            if want.offsets is not None:
                np.testing.assert_array_equal(arrays[f"{name}.zero_points"], want.offsets)
        else:
            assert arrays[name].dtype == want.dtype
            np.testing.assert_array_equal(arrays[name].view("u1"), want.view("u1"))
        assert bundle.manifest.quantization.tensors[name] == str(spec.storage)


def _span(plan: dict[str, Any], operand: dict[str, Any]) -> range:
    """Bytes of the arena that an operand's buffer takes."""
    buffer = next(b for b in plan["buffers"] if b["name"] == operand["buffer"])
    rows = plan["chunk"] if buffer["rows"] == "tokens" else plan["output_rows"]
    return range(buffer["offset"], buffer["offset"] + rows * buffer["columns"] * 4)


def _columns(plan: dict[str, Any], operand: dict[str, Any]) -> range:
    buffer = next(b for b in plan["buffers"] if b["name"] == operand["buffer"])
    start = operand.get("column", 0)
    return range(start, start + operand.get("columns", buffer["columns"] - start))


def check_dataflow(plan: dict[str, Any]) -> None:
    """Walk the steps: what is read was written before, and nothing has been put over it."""
    valid: dict[str, set[int]] = {}

    def write(operand: dict[str, Any]) -> None:
        span = _span(plan, operand)
        assert 0 <= span.start < span.stop <= plan["arena_bytes"]
        for other in list(valid):
            theirs = _span(plan, {"buffer": other})
            clash = span.start < theirs.stop and theirs.start < span.stop
            if other != operand["buffer"] and clash:
                del valid[other]
        valid.setdefault(operand["buffer"], set()).update(_columns(plan, operand))

    def read(step: dict[str, Any], name: str) -> None:
        operand = step["operands"][name]
        known = valid.get(operand["buffer"], set())
        assert set(_columns(plan, operand)) <= known, (step, name)

    write({"buffer": "token_ids"})
    for part in ("body", "head"):
        runs = 1 if part == "body" else 2  # the head runs once per group of rows
        for _ in range(runs):
            if part == "head":
                read({"operands": {"x": {"buffer": "head_input"}}}, "x")
                write({"buffer": "head_rows"})
            for step in plan[part]:
                buffers = [n for n, o in step["operands"].items() if "buffer" in o]
                outputs = [n for n in buffers if n == "y"]
                for name in set(buffers) - set(outputs):
                    read(step, name)
                inputs = [step["operands"][n] for n in buffers if n not in ("y", "residual")]
                for name in outputs:
                    span = _span(plan, step["operands"][name])
                    for other in inputs:
                        theirs = _span(plan, other)
                        assert span.stop <= theirs.start or theirs.stop <= span.start, step
                    write(step["operands"][name])
    read({"operands": {"x": {"buffer": plan["logits"]}}}, "x")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sparse", [False, True])
def test_plans_hold_together(
    tiny_checkpoint: Make, tmp_path: Path, kind: str, sparse: bool
) -> None:
    path = tiny_checkpoint(kind, sparse=SMALL_SPARSE if sparse and "minicpm" in kind else None)
    bundle, plan = compiled(path, tmp_path / "x.ark", quant="w4g32")
    check_dataflow(plan)
    stages = {step["stage"] for part in ("body", "head") for step in plan[part] if "stage" in step}
    for layer in range(2):
        for stage in ("qkv", "attention", "attention_residual", "gated", "output"):
            assert f"layers.{layer}.{stage}" in stages
    assert {"embedding", "logits"} <= stages
    # Norms and gates are the products' own work.
    kernels = {step["kernel"] for part in ("body", "head") for step in plan[part]}
    assert not kernels & {"rms_norm", "swiglu"}
    graph = ir.load(bundle.path / "graph.onnx")
    values = {value.name for node in graph.graph for value in node.outputs}
    assert stages <= values
    kernels = [step["kernel"] for step in plan["body"]]
    assert kernels.count("rope") == 2  # queries and keys at once
    assert kernels.count("matmul") == 4 * 2
    scratch = bundle.manifest.memory.arena - plan["arena_bytes"]
    # At least the widest input once more, as two int8 codes.
    assert scratch >= 2 * plan["chunk"] * bundle.manifest.model.intermediate_size
    assert bundle.manifest.memory.weights == bundle.manifest.files["weights.bin"].bytes
    bundle.check()


def test_weights_lie_apart_in_reading_order(tiny_checkpoint: Make, tmp_path: Path) -> None:
    bundle, plan = compiled(tiny_checkpoint("minicpm4-8b"), tmp_path / "x.ark", quant="w4g32z")
    end = 0
    for weight in plan["weights"]:
        assert weight["offset"] % 64 == 0
        assert end <= weight["offset"] < end + 64
        end = weight["offset"] + weight["bytes"]
    assert end == bundle.manifest.files["weights.bin"].bytes
    used = [o["weight"] for s in plan["body"] for o in s["operands"].values() if "weight" in o]
    matrices = [w["name"] for w in plan["weights"] if w["name"] in used and "rope" not in w["name"]]
    assert matrices == [name for name in dict.fromkeys(used) if "rope" not in name]


def test_a_tied_embedding_is_stored_once(tiny_checkpoint: Make, tmp_path: Path) -> None:
    _, plan = compiled(tiny_checkpoint("minicpm4-0.5b"), tmp_path / "x.ark", quant="w4g32")
    embed, logits = plan["body"][0], plan["head"][-1]
    assert embed["kernel"] == "embed"
    assert embed["operands"]["codes"] == logits["operands"]["codes"]
    # MiniCPM4-0.5B's three muP scales: 12, 1.4 / sqrt(layers) and 1 / (hidden / dim_model_base).
    assert embed["attributes"] == {"scale": 12.0}
    assert logits["attributes"]["scale"] == 0.25
    output = next(s for s in plan["body"] if s.get("stage") == "layers.0.output")
    assert output["attributes"]["scale"] == pytest.approx(1.4 / 2**0.5)


def test_unlike_projections_share_a_buffer(tmp_path: Path) -> None:
    path = write_tiny_hf(tmp_path / "model", "llama")
    config = tiny_config("llama")
    tensors = tiny_tensors(config)
    for name in tensors:
        if "layers.0" in name and ("k_proj" in name or "up_proj" in name):
            tensors[name] = tensors[name].astype(np.float16)
    write_safetensors(path / "model.safetensors", tensors)
    _, plan = compiled(path, tmp_path / "x.ark")
    check_dataflow(plan)
    by_stage = {s["stage"]: s["operands"]["y"] for s in plan["body"] if "stage" in s}
    parts = [by_stage[f"layers.0.{name}"] for name in ("q", "k", "v")]
    assert len({part["buffer"] for part in parts}) == 1
    assert [(p["column"], p["columns"]) for p in parts] == [(0, 128), (128, 64), (192, 64)]
    assert "layers.1.qkv" in by_stage
    assert [s["kernel"] for s in plan["body"]].count("rope") == 2


def test_long_rope_keeps_both_frequencies(tmp_path: Path) -> None:
    config = tiny_config("minicpm4.1-8b")
    scaling = config["rope_scaling"] | {
        "long_factor": [2.0, 3.0, 4.0, 5.0],
        "original_max_position_embeddings": 32,
    }
    path = write_tiny_hf(tmp_path / "model", "minicpm4.1-8b", overrides={"rope_scaling": scaling})
    bundle, plan = compiled(path, tmp_path / "x.ark")
    table = next(s for s in plan["body"] if s["kernel"] == "rope_table")
    assert table["attributes"]["original_max"] == 32
    names = [table["operands"][n]["weight"] for n in ("short", "long")]
    assert len(set(names)) == 2
    entries = {w["name"]: w for w in plan["weights"]}
    from arkinfer.backends.cpu.weights import read_tensor

    long = read_tensor(bundle.path / "weights.bin", entries[names[1]])
    periods = np.power(np.float32(10000.0), np.arange(0, 8, 2, dtype=np.float32) / np.float32(8))
    np.testing.assert_allclose(long, 1 / (np.array([2, 3, 4, 5], "f4") * periods), rtol=1e-6)


def _insert(graph: Graph, after: str, op_type: str) -> ir.Node:
    body = graph.model.graph
    value = next(v for n in body for v in n.outputs if v.name == after)
    node = ir.Node("", op_type, [value], name=f"strange_{op_type}")
    ir.convenience.replace_all_uses_with(value, node.outputs[0])
    node.replace_input_with(0, value)
    body.insert_after(value.producer(), node)
    return node


@pytest.mark.parametrize("after", ["embedding", "layers.0.gated", "layers.1.attention"])
def test_unknown_operators_are_refused_by_name(tiny_checkpoint: Make, after: str) -> None:
    graph = graph_of(tiny_checkpoint("llama"))
    _insert(graph, after, "Softplus")
    with pytest.raises(LoweringError, match="Softplus 'strange_Softplus'"):
        lower(graph)


def test_known_operators_in_strange_places_are_refused(tiny_checkpoint: Make) -> None:
    path = tiny_checkpoint("llama")
    for after, operator in (("layers.0.output", "Swish"), ("layers.0.post_norm", "Cos")):
        graph = graph_of(path)
        _insert(graph, after, operator)
        with pytest.raises(LoweringError, match="cannot lower"):
            lower(graph)
    graph = graph_of(path)
    node = next(n for n in graph.model.graph if n.op_type == "RotaryEmbedding")
    node.attributes["interleaved"] = ir.AttrInt64("interleaved", 1)
    with pytest.raises(LoweringError, match="RotaryEmbedding.*half against half"):
        lower(graph)
    graph = graph_of(path)
    node = next(n for n in graph.model.graph if n.op_type == "Attention")
    node.attributes["is_causal"] = ir.AttrInt64("is_causal", 0)
    with pytest.raises(LoweringError, match="Attention.*causal"):
        lower(graph)


def test_the_model_type_does_not_matter(tiny_checkpoint: Make) -> None:
    graph = graph_of(tiny_checkpoint("minicpm4-8b", sparse=SMALL_SPARSE))
    graph.config = replace(graph.config, model_type="something else")
    plan, _ = lower(graph)
    assert plan.body[-1].kernel == "matmul"


def test_manifest(tiny_checkpoint: Make, tmp_path: Path) -> None:
    seen: list[tuple[str, float]] = []
    path = tiny_checkpoint("minicpm4.1-8b", sparse=SMALL_SPARSE)
    bundle, _ = compiled(
        path, tmp_path / "x.ark", progress=lambda what, part: seen.append((what, part))
    )
    manifest = bundle.manifest
    assert manifest.backend == manifest.device["backend"] == "cpu"
    assert (manifest.context, manifest.chunk) == (256, 64)
    assert manifest.model == converters.open(path).config
    assert manifest.model.sparse is not None
    assert manifest.model.sparse.topk == SMALL_SPARSE["topk"]
    # Two layers of two heads of eight dimensions, which int4 pads to 32 and int8 values to 16.
    sizes = {"fp16": 128, "fp32": 256, "int8": 2 * 2 * (8 + 4 + 16 + 4), "int4": 2 * 2 * 2 * 20}
    assert manifest.memory.kv_bytes_per_token == sizes
    assert set(manifest.memory.compressed_key_bytes_per_token) == set(sizes)
    assert manifest.kv is None
    assert manifest.tokenizer is not None
    assert manifest.tokenizer.bos_id == 1
    assert manifest.source.format == "safetensors"
    assert set(manifest.files) == {
        "graph.onnx",
        "plan.json",
        "weights.bin",
        "tokenizer.json",
        "vocabulary.bin",
        "chat_template.jinja",
    }
    sealed, _ = compiled(path, tmp_path / "y.ark", kv="int4")
    assert sealed.manifest.kv == "int4"
    with pytest.raises(InvalidOptionError, match="fp8"):
        compiled(path, tmp_path / "z.ark", kv="fp8")
    fractions = [part for _, part in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)


def test_context_rules() -> None:
    plain = replace(CONFIG, rope=RopeConfig(10000.0), max_position=4096)
    assert compiler.choose_context(plain, None) == 4096
    assert compiler.choose_context(CONFIG, None) == 32768
    assert compiler.choose_context(replace(CONFIG, max_position=65536), None) == 32768
    assert compiler.choose_context(CONFIG, 131072) == 131072  # LongRoPE
    for config, context in ((plain, 4097), (plain, 0), (plain, -5), (CONFIG, 131073)):
        with pytest.raises(InvalidOptionError, match=f"context {context}"):
            compiler.choose_context(config, context)


def _shape(**changes: Any) -> ModelConfig:
    eight = {"num_heads": 32, "num_kv_heads": 2, "head_dim": 128, "sparse": None}
    return replace(CONFIG, **(eight | changes))


def test_sparse_rules() -> None:
    trained, own = _shape(), SparseConfig(topk=7)
    assert compiler.choose_sparse(trained, "auto") is None
    assert compiler.choose_sparse(trained, "on") == SparseConfig(generation="A", lse="exact")
    longer = _shape(max_position=65536)
    assert compiler.choose_sparse(longer, "on") == SparseConfig(generation="B", lse="coarse")
    for mode in ("auto", "on", "force"):
        assert compiler.choose_sparse(_shape(sparse=own), mode) == own
    assert compiler.choose_sparse(_shape(sparse=own), "off") is None
    for strange in ({"model_type": "llama"}, {"num_heads": 16}, {"head_dim": 64}):
        with pytest.raises(SparseAttentionError, match="not trained for sparse"):
            compiler.choose_sparse(_shape(**strange), "on")
        assert compiler.choose_sparse(_shape(**strange), "force") is not None


def test_targets(tmp_path: Path) -> None:
    assert compiler.find_device("rk3588") == devices.get("rk3588")
    assert compiler.find_device("onnxruntime").backend == "onnxruntime"
    board = tmp_path / "board.toml"
    board.write_text(
        'description = "mine"\ngeneric = true\n[units.cpu]\nbackend = "cpu"\narch = "aarch64"\n'
    )
    assert compiler.find_device(str(board)).name == "board"
    with pytest.raises(UnknownBackendError, match="rk3588 has no npu|rk3588:npu"):
        compiler.find_device("rk3588:npu")


def test_a_device_whose_backend_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arkinfer.backends.names", lambda: ["cpu", "null"])
    message = "'cuda'.*GPU of jetson-orin.*not there.*cpu, null.*--target jetson-orin:cpu"
    with pytest.raises(UnknownBackendError, match=message):
        compiler.find_device("jetson-orin")
    assert compiler.find_device("jetson-orin:cpu").backend == "cpu"
    with pytest.raises(UnknownBackendError, match="h100.*install a package"):
        compiler.find_device("h100")


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"target": "abacus"}, UnknownBackendError, "abacus.*x86-64.*null"),
        ({"quant": "w3g7"}, InvalidOptionError, "w3g7"),
        ({"quant": "keep"}, UnsupportedQuantizationError, "no quantized tensors"),
        ({"chunk": 0}, InvalidOptionError, "chunk is 0"),
        ({"context": 100000}, InvalidOptionError, "context 100000"),
        ({"sparse": "maybe"}, InvalidOptionError, "maybe"),
        ({"sparse": "on"}, SparseAttentionError, "llama"),
    ],
)
def test_bad_options(
    tiny_checkpoint: Make, tmp_path: Path, options: dict[str, Any], error: Any, match: str
) -> None:
    with pytest.raises(error, match=match):
        compiled(tiny_checkpoint("llama"), tmp_path / "x.ark", **options)
    assert list(tmp_path.iterdir()) == []


def test_wrong_tensors_leave_nothing(tmp_path: Path) -> None:
    path = write_tiny_hf(tmp_path / "model", "llama", overrides={"vocab_size": 320})
    config = json.loads((path / "config.json").read_text()) | {"intermediate_size": 300}
    (path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointTensorsError, match="6 misshapen"):
        compiled(path, tmp_path / "x.ark")
    assert not (tmp_path / "x.ark").exists()


def test_backends_are_targets_too(tiny_checkpoint: Make, tmp_path: Path) -> None:
    bundle = arkinfer.compile(
        tiny_checkpoint("llama"), target="null", quant="none", context=64, output=tmp_path / "n"
    )
    assert bundle.manifest.backend == "null"
    assert bundle.manifest.device["name"] == "null"
    assert "plan.json" not in bundle.manifest.files


def test_default_names_and_schemes(tiny_checkpoint: Make) -> None:
    checkpoint = converters.open(tiny_checkpoint("llama"))
    assert compiler.choose_quant(checkpoint, None) == "w4g128"
    assert compiler.default_output(checkpoint) == Path(checkpoint.path.name + ".ark")
    info = replace(next(iter(checkpoint.tensors.values())), storage=GroupScheme(4, 32))
    quantized = replace(checkpoint, tensors={info.name: info})
    assert compiler.choose_quant(quantized, None) == "keep"


INTERRUPTED = """
import signal, sys, time
import arkinfer

# A shell that starts the tests in the background has them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

def report(what, fraction):
    if fraction > 0.3:
        print("ready", flush=True)
        time.sleep(600)

arkinfer.compile(sys.argv[1], quant="none", context=64, output=sys.argv[2], progress=report)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_interrupted_compile(tiny_checkpoint: Make, tmp_path: Path, how: signal.Signals) -> None:
    path, output = tiny_checkpoint("llama"), tmp_path / "x.ark"
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(path), str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(how)
    assert process.returncode != 0
    assert not output.exists()
    compiled(path, output)
    assert [p.name for p in tmp_path.iterdir()] == ["x.ark"]


LIMITED = """
import resource, sys
import arkinfer
from arkinfer.errors import StorageError

resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    arkinfer.compile(sys.argv[1], quant="none", context=64, output=sys.argv[2])
except StorageError as error:
    print(error)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs RLIMIT_FSIZE")
@pytest.mark.parametrize("limit", [1000, 100_000, 800_000])
def test_a_write_that_the_system_refuses(tiny_checkpoint: Make, tmp_path: Path, limit: int) -> None:
    path, output = tiny_checkpoint("llama"), tmp_path / "x.ark"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(output), str(limit)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot write" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.platform
def test_a_full_file_system(tiny_checkpoint: Make, tmp_path: Path) -> None:
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("needs root and mount")
    path, disk = tiny_checkpoint("llama"), tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs permission to mount")
    try:
        with pytest.raises(StorageError, match="No space left"):
            compiled(path, disk / "x.ark")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)
