"""A Hugging Face ``config.json`` in normal form."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from arkinfer.config import ModelConfig, RopeConfig, SparseConfig
from arkinfer.converters.keys import MOST_LAYERS, MOST_TOKENS, Keys
from arkinfer.errors import ConfigError, UnknownModelTypeError, UnsupportedQuantizationError

MODEL_TYPES = ("llama", "minicpm")

_DTYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_RELEASED = SparseConfig()


def normalize(config: Mapping[str, Any], source: str = "config.json") -> ModelConfig:
    """Read a config of model type ``llama`` or ``minicpm``.

    The muP scales of MiniCPM become plain factors: ``scale_emb``,
    ``scale_depth / sqrt(num_hidden_layers)`` and ``dim_model_base / hidden_size``.

    Raises:
        UnknownModelTypeError: another ``model_type``.
        UnsupportedQuantizationError: the weights are packed by a quantizer.
        ConfigError: keys are missing, unusable, contradictory, or ask for what is
            not supported; all are listed.
    """
    model_type = config.get("model_type")
    if model_type is None:
        raise ConfigError(f"{source} has no model_type", f"one of {', '.join(MODEL_TYPES)}")
    if model_type not in MODEL_TYPES:
        raise UnknownModelTypeError(
            f"{source} has model_type '{str(model_type)[:60]}'", f"one of {', '.join(MODEL_TYPES)}"
        )
    _refuse_packed_weights(config, source)
    keys = Keys(config, source)
    hidden = keys.integer("hidden_size")
    layers = keys.integer("num_hidden_layers", high=MOST_LAYERS)
    heads = keys.integer("num_attention_heads")
    kv_heads = keys.integer("num_key_value_heads", heads)
    if heads % kv_heads:
        keys.problem(f"{heads} attention heads cannot share {kv_heads} key-value heads")
    head_dim = _head_dim(keys, hidden, heads)
    positions = keys.integer("max_position_embeddings")
    _refuse_variants(keys)
    rope = _rope(keys, head_dim, positions)
    minicpm = model_type == "minicpm"
    bos = keys.token_ids("bos_token_id")
    result = ModelConfig(
        model_type=model_type,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=keys.integer("intermediate_size"),
        vocab_size=keys.integer("vocab_size", high=MOST_TOKENS),
        rms_norm_eps=keys.number("rms_norm_eps", 1e-6),
        rope=rope,
        max_position=positions,
        # The two config classes have different defaults for a key that is often left out.
        tie_word_embeddings=keys.flag("tie_word_embeddings", minicpm),
        embedding_scale=keys.number("scale_emb") if minicpm else 1.0,
        residual_scale=keys.number("scale_depth") / math.sqrt(layers) if minicpm else 1.0,
        logit_scale=keys.number("dim_model_base") / hidden if minicpm else 1.0,
        sparse=_sparse(keys, positions),
        bos_id=bos[0] if bos else None,
        eos_ids=keys.token_ids("eos_token_id"),
        dtype=_DTYPES.get(str(config.get("torch_dtype", config.get("dtype"))), "bf16"),
    )
    keys.finish()
    return result


def longrope_attention_factor(positions: int, original: int) -> float:
    """LongRoPE's factor on cos and sin: ``sqrt(1 + ln(positions/original) / ln(original))``.

    It is 1 where the model was not extended (Ding et al., LongRoPE, 2024).
    """
    if positions <= original or original <= 1:
        return 1.0
    return math.sqrt(1.0 + math.log(positions / original) / math.log(original))


def _head_dim(keys: Keys, hidden: int, heads: int) -> int:
    if not keys.has("head_dim") and hidden % heads:
        keys.problem(f"hidden_size {hidden} is not divisible by {heads} heads, and no head_dim")
        return 2
    head_dim = keys.integer("head_dim", hidden // heads)
    if head_dim % 2:
        keys.problem(f"head_dim {head_dim} is odd (rotary embedding rotates pairs)")
    return head_dim


def _refuse_packed_weights(config: Mapping[str, Any], source: str) -> None:
    packed = config.get("quantization_config")
    if packed:
        method = packed.get("quant_method") if isinstance(packed, Mapping) else packed
        raise UnsupportedQuantizationError(
            f"{source} says that the weights are packed by '{str(method)[:60]}'",
            "float weights (bf16, fp16, fp32) or a GGUF file",
            "use the unquantized checkpoint and choose the bits with --quant",
        )


def _refuse_variants(keys: Keys) -> None:
    activation = keys.values.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        keys.problem(f"hidden_act is {str(activation)[:60]!r} (expected 'silu')")
    for key in ("attention_bias", "mlp_bias"):
        if keys.flag(key, False):
            keys.problem(f"{key} is true (biases are not supported)")
    partial = keys.values.get("partial_rotary_factor")
    if partial not in (None, 1):
        keys.problem(f"partial_rotary_factor is {str(partial)[:60]} (expected 1)")


def _rope(keys: Keys, head_dim: int, positions: int) -> RopeConfig:
    # transformers 5 renamed rope_scaling and moved theta into it.
    name = "rope_parameters" if keys.has("rope_parameters") else "rope_scaling"
    scaling = keys.values.get(name)
    if scaling is None:
        return RopeConfig(keys.number("rope_theta", 10000.0))
    if not isinstance(scaling, Mapping):
        keys.problem(f"{name} is {type(scaling).__name__} (expected an object)")
        return RopeConfig(1.0)
    inner = Keys({**keys.values, **scaling}, name)
    theta = inner.number("rope_theta", 10000.0)
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    result = RopeConfig(theta)
    if kind in ("longrope", "su"):
        original = inner.integer("original_max_position_embeddings")
        factor = longrope_attention_factor(positions, original)
        result = RopeConfig(
            theta,
            short_factors=inner.numbers("short_factor", head_dim // 2),
            long_factors=inner.numbers("long_factor", head_dim // 2),
            original_max_position=original,
            attention_factor=inner.number("attention_factor", factor),
        )
    elif kind != "default":
        keys.problem(
            f"rope type {str(kind)[:60]!r} is not supported (expected longrope or default)"
        )
    for text in inner.problems:
        keys.problem(f"{name}: {text}")
    return result


def _sparse(keys: Keys, positions: int) -> SparseConfig | None:
    values = keys.values.get("sparse_config")
    if values is None:
        return None
    if not isinstance(values, Mapping):
        keys.problem(f"sparse_config is {type(values).__name__} (expected an object)")
        return None
    inner = Keys(values, "sparse_config")
    if inner.flag("use_nope", False):
        inner.problem("use_nope is true (selection without rotary embedding is not supported)")
    # MiniCPM4.1 was released with 65536 positions and MiniCPM4 with 32768.
    generation = values.get("generation", "B" if positions >= 65536 else "A")
    lse = values.get("lse", "coarse" if generation == "B" else "exact")
    result = SparseConfig(
        kernel_size=inner.integer("kernel_size", _RELEASED.kernel_size),
        kernel_stride=inner.integer("kernel_stride", _RELEASED.kernel_stride),
        init_blocks=inner.integer("init_blocks", _RELEASED.init_blocks, low=0),
        block_size=inner.integer("block_size", _RELEASED.block_size),
        window_size=inner.integer("window_size", _RELEASED.window_size),
        topk=inner.integer("topk", _RELEASED.topk),
        dense_len=inner.integer("dense_len", _RELEASED.dense_len, low=-1),
        generation=str(generation),
        lse=str(lse),
    )
    if generation not in ("A", "B"):
        inner.problem(f"generation is {str(generation)[:60]!r} (expected 'A' or 'B')")
    if lse not in ("coarse", "exact"):
        inner.problem(f"lse is {str(lse)[:60]!r} (expected 'coarse' or 'exact')")
    for part, whole in (
        ("kernel_stride", "kernel_size"),
        ("kernel_stride", "block_size"),
        ("block_size", "window_size"),
    ):
        if getattr(result, whole) % getattr(result, part):
            inner.problem(
                f"{whole} {getattr(result, whole)} is not a multiple of "
                f"{part} {getattr(result, part)}"
            )
    for text in inner.problems:
        keys.problem(f"sparse_config: {text}")
    return result
