"""A complete manifest for tests that need one but no model, and changing sealed bundles."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path

from arkinfer.bundle import Bundle
from arkinfer.checksum import checksum
from arkinfer.config import ModelConfig, RopeConfig, SparseConfig
from arkinfer.manifest import (
    FileEntry,
    Manifest,
    MemoryFacts,
    Quantization,
    Source,
    TokenizerSettings,
)

CONFIG = ModelConfig(
    model_type="minicpm",
    hidden_size=256,
    num_layers=2,
    num_heads=32,
    num_kv_heads=2,
    head_dim=8,
    intermediate_size=512,
    vocab_size=320,
    rms_norm_eps=1e-6,
    rope=RopeConfig(10000.0, (1.0, 2.0, 3.0, 4.0), (1.5, 2.5, 3.5, 4.5), 32768, 1.0),
    max_position=32768,
    tie_word_embeddings=False,
    residual_scale=0.25,
    sparse=SparseConfig(),
    bos_id=1,
    eos_ids=(2, 318),
)
MANIFEST = Manifest(
    created_by="arkinfer test",
    backend="null",
    device={"name": "null", "features": ["x"]},
    model=CONFIG,
    quantization=Quantization("none", {"model.norm.weight": "f32"}),
    context=1024,
    chunk=64,
    memory=MemoryFacts(100, {"fp16": 1, "fp32": 2}, {"fp16": 1, "fp32": 1}, 5, 6),
    source=Source("tiny", "safetensors"),
    tokenizer=TokenizerSettings(True, 1, (2, 318), (0, 1, 2)),
    generation={"temperature": 0.8},
)


def reseal(bundle: Path, changes: Mapping[str, bytes], manifest: Manifest | None = None) -> None:
    """Change files of a bundle (and its manifest) so that every digest still matches."""
    manifest = manifest or Bundle.open(bundle).manifest
    files = dict(manifest.files)
    for name, data in changes.items():
        (bundle / name).write_bytes(data)
        sha = hashlib.sha256(data).hexdigest()
        files[name] = FileEntry(len(data), sha, f"0x{checksum(data):08x}")
    reseal_manifest(bundle, dataclasses.replace(manifest, files=files).to_json())


def reseal_manifest(bundle: Path, text: str) -> None:
    """Replace ``manifest.json`` by any text, and let ``DIGEST`` match it."""
    raw = text.encode()
    (bundle / "manifest.json").write_bytes(raw)
    (bundle / "DIGEST").write_bytes(hashlib.sha256(raw).hexdigest().encode() + b"\n")
