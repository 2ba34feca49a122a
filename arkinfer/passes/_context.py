"""What passes may know besides the graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from arkinfer.checkpoint import TensorInfo


@dataclass(frozen=True)
class PassOptions:
    """``quant`` is a choice of :mod:`arkinfer.quantize.policy`; ``dump`` a folder or None."""

    quant: str
    dump: Path | None = None


@dataclass(frozen=True)
class PassContext:
    """The checkpoint's tensors by name, and the options."""

    tensors: Mapping[str, TensorInfo]
    options: PassOptions
