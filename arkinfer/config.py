"""What a checkpoint says about its architecture, in one normal form.

Converters read a format's own keys and produce a :class:`ModelConfig`; from
here on nobody looks at the raw keys again.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding, plain or LongRoPE.

    ``angle(p, j) = p * theta**(-2j/head_dim) / factor[j]``, where the factors
    are ``long_factors`` once the sequence is longer than
    ``original_max_position`` and ``short_factors`` before that. Both tuples
    hold ``head_dim // 2`` values, or are empty for plain RoPE.
    ``attention_factor`` multiplies cos and sin.
    """

    theta: float
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    original_max_position: int = 0
    attention_factor: float = 1.0


@dataclass(frozen=True)
class SparseConfig:
    """InfLLM v2 block-sparse attention.

    Lengths are in tokens except ``init_blocks`` and ``topk`` (blocks).
    ``generation`` is ``"A"`` (MiniCPM4) or ``"B"`` (MiniCPM4.1) and ``lse``
    is ``"coarse"`` or ``"exact"``. A query at position i
    attends densely while ``i + 1 < dense_len``; -1 means always sparse.
    """

    kernel_size: int = 32
    kernel_stride: int = 16
    init_blocks: int = 1
    block_size: int = 64
    window_size: int = 2048
    topk: int = 64
    dense_len: int = 8192
    generation: str = "B"
    lse: str = "coarse"

    @property
    def local_blocks(self) -> int:
        """Blocks in the local window."""
        return self.window_size // self.block_size

    @property
    def max_blocks(self) -> int:
        """The most blocks that one query can select: 96 with the released values."""
        return self.topk + self.local_blocks


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only transformer of the Llama family, with muP scales.

    For models without muP the three scales are 1.0, so Llama is the same graph.
    ``embedding_scale`` multiplies looked-up embeddings, ``residual_scale``
    every residual branch, and ``logit_scale`` the hidden state in front of the
    head (it is ``dim_model_base / hidden_size``).
    """

    model_type: str
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    rms_norm_eps: float
    rope: RopeConfig
    max_position: int
    tie_word_embeddings: bool
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    sparse: SparseConfig | None = None
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    dtype: str = "bf16"
