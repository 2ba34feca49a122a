"""GGUF metadata in normal form, and the names of its tensors."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arkinfer.config import ModelConfig, RopeConfig
from arkinfer.converters.hf_config import MODEL_TYPES
from arkinfer.converters.keys import MOST_LAYERS, MOST_TOKENS, Keys
from arkinfer.errors import ConfigError, UnknownModelTypeError

# Read as part of the configuration, not as weights.
SHORT_FACTORS = "rope_factors_short.weight"
LONG_FACTORS = "rope_factors_long.weight"
_LLAMA3_FACTORS = "rope_freqs.weight"

_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER = re.compile(r"blk\.([0-9]{1,9})\.([a-z_]+)\.weight")


def upstream_name(name: str) -> str:
    """The Hugging Face name of a GGUF tensor; names that are not known stay."""
    match = _LAYER.fullmatch(name)
    if match and match[2] in _LAYER_NAMES:
        return f"model.layers.{match[1]}.{_LAYER_NAMES[match[2]]}.weight"
    return _NAMES.get(name, name)


def normalize(
    metadata: Mapping[str, Any], factors: Mapping[str, NDArray[np.float32]], tied: bool
) -> ModelConfig:
    """Read the metadata of a GGUF file.

    Args:
        metadata: the file's key-value pairs.
        factors: the file's rope factor tensors by name; values divide the angle.
        tied: whether the file has no ``output.weight``.

    Raises:
        UnknownModelTypeError: another architecture than llama and minicpm.
        ConfigError: keys are missing, unusable or ask for what is not supported.
    """
    architecture = metadata.get("general.architecture")
    if architecture is None:
        raise ConfigError(
            "the GGUF file has no general.architecture", f"one of {', '.join(MODEL_TYPES)}"
        )
    if architecture not in MODEL_TYPES:
        raise UnknownModelTypeError(
            f"the GGUF file has the architecture '{str(architecture)[:60]}'",
            f"one of {', '.join(MODEL_TYPES)}",
        )
    prefix = f"{architecture}."
    own = {
        key.removeprefix(prefix): _shortest(value)
        for key, value in metadata.items()
        if key.startswith(prefix)
    }
    keys = Keys(own, f"the {architecture} metadata")
    hidden = keys.integer("embedding_length")
    layers = keys.integer("block_count", high=MOST_LAYERS)
    heads = keys.integer("attention.head_count")
    kv_heads = keys.integer("attention.head_count_kv", heads)
    if heads % kv_heads:
        keys.problem(f"{heads} attention heads cannot share {kv_heads} key-value heads")
    if hidden % heads and not keys.has("attention.key_length"):
        keys.problem(f"embedding_length {hidden} is not divisible by {heads} heads")
    head_dim = keys.integer("attention.key_length", max(hidden // heads, 1))
    if head_dim % 2 or keys.integer("attention.value_length", head_dim) != head_dim:
        keys.problem(f"heads of {head_dim} dimensions (expected even, equal for keys and values)")
    rotated = keys.integer("rope.dimension_count", head_dim)
    if rotated != head_dim:
        keys.problem(f"rope.dimension_count is {rotated} (expected all {head_dim})")
    if keys.has("expert_count") and keys.integer("expert_count", 0, low=0):
        keys.problem("expert_count is not 0 (mixtures of experts are not supported)")
    positions = keys.integer("context_length")
    rope = _rope(keys, factors, head_dim, positions)
    tokens = metadata.get("tokenizer.ggml.tokens")
    vocab = len(tokens) if isinstance(tokens, list) and tokens else None
    minicpm = architecture == "minicpm"
    # Files from before the scales were stored mean MiniCPM's first values; the
    # stored logit scale is a divisor.
    logit_divisor = keys.number("logit_scale", hidden / 256) if minicpm else 1.0
    result = ModelConfig(
        model_type=architecture,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=keys.integer("feed_forward_length"),
        vocab_size=keys.integer("vocab_size", vocab, high=MOST_TOKENS),
        rms_norm_eps=keys.number("attention.layer_norm_rms_epsilon"),
        rope=rope,
        max_position=positions,
        tie_word_embeddings=tied,
        embedding_scale=keys.number("embedding_scale", 12.0) if minicpm else 1.0,
        residual_scale=(keys.number("residual_scale", 1.4 / math.sqrt(layers)) if minicpm else 1.0),
        logit_scale=1.0 / logit_divisor,
        bos_id=_token_id(metadata, "bos"),
        eos_ids=tuple(
            dict.fromkeys(
                token
                for name in ("eos", "eot", "eom")
                if (token := _token_id(metadata, name)) is not None
            )
        ),
        dtype="f16",
    )
    keys.finish()
    return result


def generation(metadata: Mapping[str, Any]) -> dict[str, float]:
    """Sampling defaults, if the file has any."""
    names = {
        "temp": "temperature",
        "top_k": "top_k",
        "top_p": "top_p",
        "min_p": "min_p",
        "penalty_repeat": "repetition_penalty",
    }
    found = {new: metadata.get(f"general.sampling.{old}") for old, new in names.items()}
    return {
        name: float(_shortest(value))
        for name, value in found.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e9
    }


def _rope(
    keys: Keys, factors: Mapping[str, NDArray[np.float32]], head_dim: int, positions: int
) -> RopeConfig:
    theta = keys.number("rope.freq_base", 10000.0)
    kind = keys.values.get("rope.scaling.type", "none")
    if kind not in ("none", "longrope"):
        keys.problem(f"rope type {str(kind)[:60]!r} is not supported (expected longrope or none)")
    if _LLAMA3_FACTORS in factors:
        keys.problem(f"{_LLAMA3_FACTORS} is present (Llama 3 rope scaling is not supported)")
    present = [name for name in (SHORT_FACTORS, LONG_FACTORS) if name in factors]
    if not present and kind != "longrope":
        return RopeConfig(theta)
    arrays = []
    for name in (SHORT_FACTORS, LONG_FACTORS):
        values = [float(_shortest(value)) for value in factors.get(name, np.empty(0)).tolist()]
        inner = Keys({name: values if name in factors else None}, name)
        arrays.append(inner.numbers(name, head_dim // 2))
        for text in inner.problems:
            keys.problem(text)
    return RopeConfig(
        theta,
        short_factors=arrays[0],
        long_factors=arrays[1],
        original_max_position=keys.integer("rope.scaling.original_context_length", positions),
        attention_factor=keys.number("rope.scaling.attn_factor", 1.0),
    )


def _token_id(metadata: Mapping[str, Any], name: str) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{name}_token_id")
    # Some converters write 2^32 - 1 for a token that does not exist.
    return value if type(value) is int and 0 <= value < 1 << 30 else None


def _shortest(value: Any) -> Any:
    """A float32 number as the shortest decimal that means it: 1e-05, not 9.99999975e-06."""
    if isinstance(value, float) and math.isfinite(value) and abs(value) < 3e38:
        return float(str(np.float32(value)))
    return value
