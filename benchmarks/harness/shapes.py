"""The shapes that are measured, and the work they mean."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """A decoder of the Llama family.

    Attributes:
        layers: of a slice fewer than the real model has.
        vocab: of a slice small, so that the head costs nothing and figures are those of layers.
        sparse: whether InfLLM v2 attention is compiled in, with the released settings.
    """

    name: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    sparse: bool = True

    @property
    def layer_weights(self) -> int:
        """Weights of the matrices of one layer."""
        query = self.heads * self.head_dim
        key = self.kv_heads * self.head_dim
        return self.hidden * (2 * query + 2 * key + 3 * self.ffn)

    @property
    def head_weights(self) -> int:
        """Weights of the matrix that gives the logits."""
        return self.vocab * self.hidden

    def operations(self, tokens: int, logits: int) -> int:
        """Multiplications and additions of all matrix products of ``tokens`` tokens.

        Attention is left out: at a depth of 0 it is below 2 %.
        """
        return 2 * (tokens * self.layers * self.layer_weights + logits * self.head_weights)

    def kv_bytes(self, tokens: int, element: int = 2) -> int:
        """Bytes of the keys and values of ``tokens`` tokens in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * tokens * element


def _eight_billion(name: str, layers: int, vocab: int) -> Shape:
    return Shape(name, 4096, layers, 32, 2, 128, 16384, vocab)


SHAPES = {
    shape.name: shape
    for shape in (
        _eight_billion("8b", 32, 73448),
        _eight_billion("slice2", 2, 512),
        _eight_billion("slice6", 6, 512),
        Shape("smollm2", 576, 30, 9, 3, 64, 1536, 49152, sparse=False),
        Shape("tiny", 256, 2, 4, 2, 64, 512, 512),
    )
}
