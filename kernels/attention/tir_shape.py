"""What attention in TIR is made for."""

from __future__ import annotations

from dataclasses import dataclass

from arkinfer.tir.caches import BLOCK, Caches

NEVER = -1e30
"""Below every score: that of keys that a row does not see."""
_MOST_ROWS = 16


@dataclass(frozen=True)
class Shape:
    """What an attention kernel is made for.

    Attributes:
        caches: keys and values.
        heads: query heads.
        scale: of the scores.
        splits: groups that share a row's keys.
        most: chosen blocks per row, of block-sparse attention; 0 of dense attention.
        block_size: tokens of a chosen block, a divisor of 64.
    """

    caches: Caches
    heads: int
    scale: float
    splits: int = 1
    most: int = 0
    block_size: int = BLOCK

    @property
    def per_head(self) -> int:
        """Query heads of a key-value head."""
        return self.heads // self.caches.kv_heads

    @property
    def group_tokens(self) -> int:
        """Tokens of a group: as many as fill its rows, but one where each has its own blocks."""
        return 1 if self.most else max(1, _MOST_ROWS // self.per_head)

    @property
    def partial(self) -> int:
        """Floats that one split leaves for a token's head: maximum, sum, and sums of values."""
        return 2 + self.caches.head_dim
