"""MiniCPM4 and MiniCPM4.1: Llama with muP scales, LongRoPE and InfLLM v2 sparse attention."""

from __future__ import annotations

from arkinfer.config import ModelConfig, SparseConfig
from arkinfer.graph.graph import Graph
from arkinfer.models._decoder import Scales, build_decoder


def build(config: ModelConfig, sparse: SparseConfig | None) -> Graph:
    """See :func:`arkinfer.models.build`."""
    scales = Scales(
        embedding=config.embedding_scale,
        residual=config.residual_scale,
        logits=config.logit_scale,
    )
    return build_decoder(config, sparse, scales)
