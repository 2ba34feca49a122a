"""onnxruntime on a stack of MatMulNBits and GroupQueryAttention, its caches shared in place."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness.shapes import SHAPES
from benchmarks.peers._process import Process, seconds


class Peer(Process):
    def open(self, path: str, shape: str, context: int, threads: int) -> dict[str, Any]:
        import onnxruntime as api

        options = api.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session = api.InferenceSession(
            f"{path}/model.onnx", options, providers=["CPUExecutionProvider"]
        )
        self._shape = SHAPES[shape]
        capacity = (1, self._shape.kv_heads, context, self._shape.head_dim)
        self._binding = self._session.io_binding()
        self._caches = []
        for layer in range(self._shape.layers):
            for kind in ("key", "value"):
                cache = api.OrtValue.ortvalue_from_numpy(np.zeros(capacity, np.float32))
                self._caches.append(cache)
                self._binding.bind_ortvalue_input(f"past.{layer}.{kind}", cache)
                self._binding.bind_ortvalue_output(f"present.{layer}.{kind}", cache)
        return {"version": api.__version__, "accuracy_level": 4, "kv": "fp32"}

    def prefill(self, tokens: int, depth: int = 0) -> float:
        return self._run(tokens, depth)

    def decode(self, steps: int, depth: int = 0) -> float:
        return sum(self._run(1, depth + step) for step in range(steps)) / steps

    def verify(self, rows: int, depth: int = 0) -> float:
        return self._run(rows, depth)

    def fill(self, depth: int) -> None:
        """Nothing to do: the caches' zeros are as good as any numbers."""

    def _run(self, rows: int, past: int) -> float:
        binding = self._binding
        x = np.random.default_rng(past).standard_normal((1, rows, self._shape.hidden), np.float32)
        binding.bind_cpu_input("hidden", x)
        binding.bind_cpu_input("last", np.array([past + rows - 1], np.int32))
        binding.bind_cpu_input("total", np.array(past + rows, np.int32))
        binding.bind_output("result")
        return seconds(lambda: self._session.run_with_iobinding(binding))
