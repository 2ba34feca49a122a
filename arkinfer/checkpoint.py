"""A checkpoint: a config, a tokenizer, and named tensors that are read lazily."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from arkinfer.config import ModelConfig
from arkinfer.quantize.schemes import GroupScheme, QuantizedTensor

FloatType = Literal["f32", "f16", "bf16"]


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor without reading it.

    ``storage`` is a float type, or the group scheme its bits follow. Shapes
    are row-major: a linear weight is [outputs, inputs].
    """

    name: str
    shape: tuple[int, ...]
    storage: FloatType | GroupScheme


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer in the ``tokenizers`` library's JSON, and what surrounds it.

    ``token_bytes[i]`` are the bytes that token i adds to the text (empty for
    control tokens), so that text can be rebuilt without the library.
    """

    json: str
    token_bytes: tuple[bytes, ...]
    special_ids: tuple[int, ...]
    chat_template: str | None
    add_bos: bool
    bos_id: int | None
    eos_ids: tuple[int, ...]


class TensorReader(Protocol):
    """Reads rows of tensors from mapped files; implemented by each converter."""

    def read_float(self, name: str, rows: slice) -> NDArray[Any]:
        """Rows of a tensor as float32, float16 or ml_dtypes.bfloat16, as stored."""
        ...

    def read_quantized(self, name: str, rows: slice) -> QuantizedTensor:
        """Rows of a quantized tensor with its bits kept."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk. Holding one maps files but reads no weights.

    ``tensors`` uses Hugging Face names (``model.layers.0.self_attn.q_proj.weight``)
    and the half-split RoPE row order whatever the format on disk.
    """

    path: Path
    format: str
    config: ModelConfig
    tensors: Mapping[str, TensorInfo]
    reader: TensorReader
    tokenizer: TokenizerFiles | None
    generation: Mapping[str, float]

    def read(self, name: str, rows: slice = slice(None)) -> NDArray[np.float32]:
        """Rows of a tensor as float32, dequantized where needed. Shape [rows, ...]."""
        if isinstance(self.tensors[name].storage, GroupScheme):
            return self.reader.read_quantized(name, rows).dequantize()
        return np.asarray(self.reader.read_float(name, rows), dtype=np.float32)
