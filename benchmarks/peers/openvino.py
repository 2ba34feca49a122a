"""OpenVINO's CPU plugin on a stack of layers with 4-bit weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.harness.shapes import SHAPES
from benchmarks.peers._process import Process, seconds


class Peer(Process):
    def open(self, path: str, shape: str, threads: int, group: int = 128) -> dict[str, Any]:
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(group),
        }
        model = openvino.Core().compile_model(f"{path}/model.xml", "CPU", settings)
        self._request = model.create_infer_request()
        self._hidden = SHAPES[shape].hidden
        precision = str(model.get_property("INFERENCE_PRECISION_HINT"))
        return {"version": openvino.__version__, **settings, "INFERENCE_PRECISION_HINT": precision}

    def prefill(self, tokens: int, depth: int = 0) -> float:
        return self._run(tokens, depth)

    def decode(self, steps: int, depth: int = 0) -> float:
        return sum(self._run(1, depth) for _ in range(steps)) / steps

    def verify(self, rows: int, depth: int = 0) -> float:
        return self._run(rows, depth)

    def _run(self, rows: int, depth: int) -> float:
        if depth:
            raise ValueError("this stack keeps no cache")
        x = np.random.default_rng(rows).standard_normal((1, rows, self._hidden), np.float32)
        return seconds(lambda: self._request.infer({0: x}))
