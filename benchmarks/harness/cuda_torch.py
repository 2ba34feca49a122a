"""What PyTorch reaches on the same device: products in bf16, and dense attention."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from arkinfer.config import ModelConfig

_SIZE = 8192  # of a square product


class Torch:
    """PyTorch with a CUDA device."""

    def __init__(self, torch: Any) -> None:
        self._torch = torch

    @staticmethod
    def find() -> Torch | None:
        """None where PyTorch is not installed, or not for CUDA."""
        if importlib.util.find_spec("torch") is None:
            return None
        import torch

        return Torch(torch) if torch.cuda.is_available() else None

    def products(self) -> float:
        """Operations per second of a large product in bf16."""
        torch = self._torch
        a, b = (torch.randn(_SIZE, _SIZE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        return 2 * _SIZE**3 / self._seconds(lambda: a @ b, 10)

    def attention(self, model: ModelConfig, tokens: int, keys: int) -> float:
        """Seconds of dense attention of some queries over all keys, of one layer.

        Masks are left out: of the keys, the last ``tokens`` are few.
        """
        torch = self._torch

        def random(heads: int, rows: int) -> Any:
            shape = (1, heads, rows, model.head_dim)
            return torch.randn(shape, device="cuda", dtype=torch.bfloat16)

        q = random(model.num_heads, tokens)
        k, v = random(model.num_kv_heads, keys), random(model.num_kv_heads, keys)
        attend = torch.nn.functional.scaled_dot_product_attention
        return self._seconds(lambda: attend(q, k, v, enable_gqa=True), 20 if tokens == 1 else 3)

    def _seconds(self, run: Callable[[], Any], repeats: int) -> float:
        torch = self._torch
        samples = []
        for _ in range(6):
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            events[0].record()
            for _ in range(repeats):
                run()
            events[1].record()
            torch.cuda.synchronize()
            samples.append(events[0].elapsed_time(events[1]) / 1000 / repeats)
        return float(sorted(samples[1:])[2])
