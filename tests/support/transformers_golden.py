"""The models and prompts of the stored transformers logits (tests/golden/make_transformers.py)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.support.tiny_models import Tensors, tiny_config, tiny_tensors, write_tiny_hf

FOLDER = Path(__file__).parents[1] / "golden" / "transformers"


@dataclass(frozen=True)
class Case:
    """One model and one prompt.

    ``rows`` are the positions whose logits are stored; they lie around the ends of
    compression windows and blocks (n = 15 mod 16 and 63 mod 64).
    """

    name: str
    kind: str
    length: int = 200
    rows: tuple[int, ...] = (0, 1, 14, 15, 46, 47, 62, 63, 64, 126, 127, 142, 190, 191, 199)
    overrides: dict[str, Any] = field(default_factory=dict)
    seed: int = 7

    def config(self) -> dict[str, Any]:
        return tiny_config(self.kind) | self.overrides

    def tensors(self) -> Tensors:
        return tiny_tensors(self.config(), self.seed)

    def tokens(self) -> list[int]:
        rng = np.random.default_rng(self.seed + 1)
        return [int(t) for t in rng.integers(0, self.config()["vocab_size"], self.length)]

    def write(self, path: Path, sparse: dict[str, Any] | None = None) -> Path:
        """Write the checkpoint as a Hugging Face folder."""
        return write_tiny_hf(
            path, self.kind, seed=self.seed, sparse=sparse, overrides=self.overrides
        )

    def logits(self) -> NDArray[np.float32]:
        """What transformers computed: float32 [rows, vocab]."""
        with np.load(FOLDER / f"{self.name}.npz") as stored:
            return np.asarray(stored["logits"])


def _switching() -> dict[str, Any]:
    """LongRoPE whose factors and attention factor change after 64 tokens."""
    rope = dict(tiny_config("minicpm4-8b")["rope_scaling"])
    rope["long_factor"] = [2.0 * value for value in rope["long_factor"]]
    rope["original_max_position_embeddings"] = 64
    return {"rope_scaling": rope, "max_position_embeddings": 256}


CASES = (
    Case("minicpm4-8b", "minicpm4-8b"),
    Case("minicpm4.1-8b", "minicpm4.1-8b"),
    Case("minicpm4-0.5b", "minicpm4-0.5b"),
    Case("llama", "llama"),
    Case("llama-tied", "llama-tied"),
    Case("longrope-short", "minicpm4-8b", 64, (0, 15, 40, 63), _switching()),
    Case("longrope-long", "minicpm4-8b", 65, (0, 15, 40, 63, 64), _switching()),
)
