"""Architectures: one file per ``model_type``, each with ``build(config, sparse) -> Graph``.

Files whose name starts with an underscore are shared parts, not model types.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING

from arkinfer.config import ModelConfig, SparseConfig
from arkinfer.errors import UnknownModelTypeError

if TYPE_CHECKING:
    from arkinfer.graph.graph import Graph


def names() -> list[str]:
    """The model types that can be built, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def build(config: ModelConfig, sparse: SparseConfig | None) -> Graph:
    """Describe a model as a graph whose weights are named inputs, float32 for now.

    Args:
        config: the architecture; ``config.sparse`` is ignored.
        sparse: settings of the sparse attention to build in; None builds dense attention.

    Raises:
        UnknownModelTypeError: no file here describes ``config.model_type``.
        ConfigError: the architecture cannot hold this configuration.
    """
    if config.model_type not in names():
        raise UnknownModelTypeError(
            f"unknown model_type {config.model_type!r}", f"one of {', '.join(names())}"
        )
    module = importlib.import_module(f"arkinfer.models.{config.model_type}")
    graph: Graph = module.build(config, sparse)
    return graph
