"""Models that are known by name, so that a speed can be predicted without their files.

The numbers are those of the models' public ``config.json``; position factors are left out,
because what is computed does not depend on their values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from arkinfer.checkpoint import FloatType
from arkinfer.config import ModelConfig, RopeConfig, SparseConfig
from arkinfer.errors import InputNotFoundError


@dataclass(frozen=True)
class KnownModel:
    """``config`` holds the sparse attention that the model was trained for, if it was.

    ``dtype`` is what its weights are published in, ``quantization`` what they are quantized to
    where they are; empty otherwise.
    """

    config: ModelConfig
    dtype: FloatType = "bf16"
    quantization: str = ""


def _long_rope(head_dim: int, original: int) -> RopeConfig:
    ones = (1.0,) * (head_dim // 2)
    return RopeConfig(10000.0, ones, ones, original)


_EIGHT_BILLION = ModelConfig(
    model_type="minicpm",
    hidden_size=4096,
    num_layers=32,
    num_heads=32,
    num_kv_heads=2,
    head_dim=128,
    intermediate_size=16384,
    vocab_size=73448,
    rms_norm_eps=1e-6,
    rope=_long_rope(128, 32768),
    max_position=32768,
    tie_word_embeddings=False,
    embedding_scale=12.0,
    residual_scale=1.4 / 32**0.5,
    logit_scale=256 / 4096,
    sparse=SparseConfig(generation="A", lse="exact"),
)
_HALF_BILLION = replace(
    _EIGHT_BILLION,
    hidden_size=1024,
    num_layers=24,
    num_heads=16,
    head_dim=64,
    intermediate_size=4096,
    rms_norm_eps=1e-5,
    rope=_long_rope(64, 32768),
    tie_word_embeddings=True,
    residual_scale=1.4 / 24**0.5,
    logit_scale=256 / 1024,
    sparse=None,
)
KNOWN: dict[str, KnownModel] = {
    "MiniCPM4.1-8B": KnownModel(
        replace(
            _EIGHT_BILLION,
            rope=_long_rope(128, 65536),
            max_position=65536,
            sparse=SparseConfig(generation="B", lse="coarse"),
        )
    ),
    "MiniCPM4-8B": KnownModel(_EIGHT_BILLION),
    "MiniCPM4-0.5B": KnownModel(_HALF_BILLION),
    "BitCPM4-0.5B": KnownModel(_HALF_BILLION, quantization="ternary"),
    "SmolLM2-135M": KnownModel(
        ModelConfig(
            model_type="llama",
            hidden_size=576,
            num_layers=30,
            num_heads=9,
            num_kv_heads=3,
            head_dim=64,
            intermediate_size=1536,
            vocab_size=49152,
            rms_norm_eps=1e-5,
            rope=RopeConfig(100000.0),
            max_position=8192,
            tie_word_embeddings=True,
        )
    ),
}


def find(name: str) -> KnownModel:
    """The model of a name, in letters of any case, with or without its maker's name before it.

    Raises:
        InputNotFoundError: none is known by it; lists those that are.
    """
    asked = name.lower().rpartition("/")[2]
    for known, model in KNOWN.items():
        if known.lower() == asked:
            return model
    raise InputNotFoundError(
        f"no such model: {name[:80]}",
        f"the path of a bundle or checkpoint, or one of {', '.join(KNOWN)}",
    )
