"""Engines by the names that tables show, opened on the shapes that are measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness.shapes import SHAPES
from benchmarks.harness.workers import Worker

BUNDLE_CONTEXT = 131072


def open_engine(
    name: str, shape: str, context: int, cache: Path, threads: int, **options: Any
) -> Worker:
    """An engine with a model of random weights; the files are made when they are not there.

    Args:
        name: ``"arkinfer w4g128"`` (any ``--quant``; with ``" dense"`` for dense attention),
            ``"llama.cpp Q4_0"``, ``"llama.cpp Q4_0 flash"``, ``"llama.cpp TQ2_0"``,
            ``"onnxruntime b128"`` or ``"openvino g128"``.
        context: tokens that the cache holds.
        options: what the peer's ``open`` takes besides.
    """
    peer, kind, *flags = name.split()
    settings: dict[str, Any] = {"threads": threads, **options}
    if peer in ("arkinfer", "llama.cpp"):
        settings |= {"path": str(model_path(name, shape, cache)), "context": context}
        if peer == "arkinfer":
            return Worker("arkinfer_", **settings)
        return Worker("llama_cpp", flash="flash" in flags, **settings)
    if peer == "onnxruntime":
        from benchmarks.models.onnx_stack import onnx_stack

        path = onnx_stack(cache, shape, int(kind[1:]))
        return Worker("onnxruntime", path=str(path), shape=shape, context=context, **settings)
    if peer == "openvino":
        from benchmarks.models.openvino_stack import openvino_stack

        group = int(kind[1:])
        path = openvino_stack(cache, shape, group)
        return Worker("openvino", path=str(path), shape=shape, group=group, **settings)
    raise ValueError(f"no engine is called {name!r}")


def model_path(name: str, shape: str, cache: Path) -> Path:
    """The model file of ArkInfer or llama.cpp, made when it is not there."""
    peer, kind, *flags = name.split()
    if peer == "arkinfer":
        from benchmarks.models.bundle import bundle

        context = BUNDLE_CONTEXT if SHAPES[shape].sparse else 8192
        return bundle(cache, shape, kind, context, dense="dense" in flags)
    from benchmarks.models.gguf_file import gguf

    return gguf(cache, shape, kind)
