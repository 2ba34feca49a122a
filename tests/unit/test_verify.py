"""``arkinfer verify`` finds what is wrong, and passes what is right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import arkinfer
from arkinfer.bundle import Bundle
from arkinfer.cli.app import main
from arkinfer.errors import InvalidOptionError, VerificationError
from arkinfer.verify import relative_error, verify
from tests.support.tiny_models import SMALL_SPARSE, write_tiny_hf

KIND = "minicpm4.1-8b"


@pytest.fixture
def sparse_bundle(tiny_bundle: Callable[..., Bundle]) -> Path:
    return tiny_bundle(KIND, sparse=SMALL_SPARSE).path


@pytest.fixture
def sparse_checkpoint(tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint(KIND, sparse=SMALL_SPARSE)


def test_true_bundle_passes_with_the_same_blocks(
    sparse_bundle: Path, sparse_checkpoint: Path
) -> None:
    report = verify(sparse_bundle, sparse_checkpoint, tokens=160)
    assert report.first_failure is None
    assert report.agreement == 1.0
    assert report.selected > 0
    names = [stage.name for stage in report.stages]
    assert names[0] == "embedding"
    assert names[-1] == "logits"
    for layer in range(2):
        for stage in ("qkv", "attention", "attention_residual", "gated", "output"):
            assert f"layers.{layer}.{stage}" in names


@pytest.mark.parametrize("quant", ["w4g32", "w8g64z"])
def test_quantized_bundle_passes(
    tiny_bundle: Callable[..., Bundle], tiny_checkpoint: Callable[..., Path], quant: str
) -> None:
    bundle = tiny_bundle("minicpm4-0.5b", compile={"quant": quant})
    assert verify(bundle.path, tiny_checkpoint("minicpm4-0.5b")).first_failure is None


def changed(tmp_path: Path, tensor: str) -> Path:
    """The checkpoint of ``sparse_checkpoint`` with one tensor a little wrong, compiled."""
    folder = write_tiny_hf(tmp_path / "changed", KIND, sparse=SMALL_SPARSE)
    tensors: dict[str, Any] = load_file(folder / "model.safetensors")
    tensors[tensor] = (tensors[tensor].astype(np.float32) * 1.01).astype(tensors[tensor].dtype)
    save_file(tensors, folder / "model.safetensors")
    output = tmp_path / "changed.ark"
    return arkinfer.compile(folder, quant="none", context=512, output=output).path


@pytest.mark.parametrize(
    ("tensor", "stage"),
    [
        ("model.layers.0.self_attn.o_proj.weight", "layers.0.attention_residual"),
        ("model.layers.1.mlp.down_proj.weight", "layers.1.output"),
        ("model.layers.1.post_attention_layernorm.weight", "layers.1.gated"),
        ("lm_head.weight", "logits"),
    ],
)
def test_first_wrong_stage_is_named(
    tmp_path: Path, sparse_checkpoint: Path, tensor: str, stage: str
) -> None:
    report = verify(changed(tmp_path, tensor), sparse_checkpoint)
    assert report.first_failure is not None
    assert report.first_failure.name == stage
    assert stage in [near.name for near in report.around_failure()]
    with pytest.raises(VerificationError, match=stage.replace(".", r"\.")):
        report.check()


def test_command_fails_with_one_line(
    tmp_path: Path, sparse_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = changed(tmp_path, "model.layers.1.mlp.down_proj.weight")
    arguments = ["verify", str(bundle), "--against", str(sparse_checkpoint)]
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert "layers.1.output" in captured.out
    assert captured.err.startswith("error: Verification: layers.1.output (matmul) differs by ")
    assert len(captured.err.splitlines()) == 1
    assert main([*arguments, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_command_passes(
    sparse_bundle: Path, sparse_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["verify", str(sparse_bundle), "--against", str(sparse_checkpoint)]
    assert main([*arguments, "--stages"]) == 0
    assert "100.00%" in capsys.readouterr().out
    assert main([*arguments, "--json", "--kv", "fp16", "--tokens", "20"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["passed"], record["tokens"], record["tolerance"]) == (True, 20, 0.01)


def test_another_model_is_refused(
    sparse_bundle: Path, tiny_checkpoint: Callable[..., Path]
) -> None:
    with pytest.raises(VerificationError, match="num_heads"):
        verify(sparse_bundle, tiny_checkpoint("llama"))


def test_bundle_without_plan_is_refused(
    tiny_bundle: Callable[..., Bundle], sparse_checkpoint: Path
) -> None:
    bundle = tiny_bundle(KIND, compile={"target": "null"}, sparse=SMALL_SPARSE)
    with pytest.raises(InvalidOptionError, match="null"):
        verify(bundle.path, sparse_checkpoint)


def test_relative_error() -> None:
    truth = np.array([[3.0, 4.0], [0.0, 10.0]])
    assert relative_error(truth, truth) == 0
    assert relative_error(np.array([[3.0, 4.5], [0.0, 10.0]]), truth) == pytest.approx(0.1)
    # A stage that computed only the last row is compared with the last row.
    assert relative_error(np.array([[0.0, 11.0]]), truth) == pytest.approx(0.1)
    assert relative_error(np.array([[0.0, np.nan]]), truth) == float("inf")
    with pytest.raises(VerificationError):
        relative_error(np.zeros((1, 3)), truth)
