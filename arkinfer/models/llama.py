"""Llama: pre-normalised decoder with rotary embedding, grouped queries and SwiGLU."""

from __future__ import annotations

from arkinfer.config import ModelConfig, SparseConfig
from arkinfer.errors import ConfigError
from arkinfer.graph.graph import Graph
from arkinfer.models._decoder import Scales, build_decoder


def build(config: ModelConfig, sparse: SparseConfig | None) -> Graph:
    """See :func:`arkinfer.models.build`."""
    if (config.embedding_scale, config.residual_scale, config.logit_scale) != (1.0, 1.0, 1.0):
        raise ConfigError(
            "a llama with muP scales",
            "embedding, residual and logit scales of 1",
            "set model_type to minicpm",
        )
    return build_decoder(config, sparse, Scales())
