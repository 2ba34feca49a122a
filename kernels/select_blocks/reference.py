"""InfLLM v2 block selection: which blocks of tokens each query attends to.

Formulas of the InfLLM v2 paper with the visibility rule made causal: a compressed
window counts for a query only when all its tokens are at or before the query. So a
selection depends on the tokens before it alone, however they were appended.

A block's score is kept as its logarithm. The order is the same, and no key is large
enough to overflow it or small enough to make all others vanish.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arkinfer.config import SparseConfig
from arkinfer.kernels.compress_keys.reference import window_count

NEVER = -1e30
"""Logarithm that stands for a score of zero: below every real one, and yet a block."""


@dataclass(frozen=True)
class Selection:
    """What was selected, and how clearly.

    Attributes:
        mask: bool [kv_heads, tokens, blocks], the selected blocks.
        dense: bool [tokens], queries that take every causal block because the
            sequence is shorter than ``dense_len`` there.
        scores: float64 [kv_heads, tokens, blocks], logarithms of the pooled scores that
            competed: +inf for forced blocks, -inf for blocks that cannot be chosen by
            score, ``NEVER`` for a score of zero.
        threshold: float64 [kv_heads, tokens], the lowest finite score that was taken;
            NaN where no choice was made.
        margin: float64 [kv_heads, tokens], the gap between that score and the highest
            that was not taken; +inf where no choice was made. A margin of 0 is an exact
            tie, resolved to the smaller block; a margin below the rounding error of an
            implementation is a near-tie, where it may choose otherwise. Being a difference
            of logarithms, it is the relative gap of the scores themselves.
    """

    mask: NDArray[np.bool_]
    dense: NDArray[np.bool_]
    scores: NDArray[np.float64]
    threshold: NDArray[np.float64]
    margin: NDArray[np.float64]

    def near_ties(self, tolerance: float) -> NDArray[np.bool_]:
        """Rows [kv_heads, tokens] whose choice hangs on no more than ``tolerance``."""
        return np.asarray(self.margin <= tolerance)

    def disagreements(self, other: NDArray[np.bool_], tolerance: float) -> NDArray[np.bool_]:
        """Rows [kv_heads, tokens] where ``other`` is not a right answer.

        A row is right when it equals ours, or when it has as many blocks and differs
        only in blocks whose score lies within ``tolerance`` of the threshold.
        """
        differs = self.mask != other
        with np.errstate(invalid="ignore"):
            distance = np.abs(self.scores - self.threshold[..., None])
            close = distance <= tolerance
        same_count = self.mask.sum(axis=-1) == other.sum(axis=-1)
        return np.asarray((differs & ~close).any(axis=-1) | ~same_count)


def select_blocks(
    q: NDArray[Any],
    fine: NDArray[Any],
    coarse: NDArray[Any],
    past: int,
    scale: float,
    sparse: SparseConfig,
    depths: Sequence[int] | None = None,
) -> Selection:
    """Select blocks for the queries at absolute positions past .. past + tokens - 1.

    Args:
        q: [tokens, heads, head_dim], after rotary embedding.
        fine: [kv_heads, windows, head_dim], means of ``kernel_size`` keys every
            ``kernel_stride``, for all past + tokens keys (more are not looked at).
        coarse: the same with four times the size and stride.
        scale: softmax scale.
        sparse: its ``kernel_size`` must be twice its ``kernel_stride``, which must
            divide ``block_size``.
        depths: of a tree of draft tokens, positions after ``past``. Windows that end after
            ``past`` are not compressed yet and count for none of them.

    Returns:
        A :class:`Selection` over ceil((past + tokens) / block_size) blocks.
    """
    queries = np.asarray(q, np.float64)
    tokens, heads, head_dim = queries.shape
    kv_heads = fine.shape[0]
    grouped = queries.reshape(tokens, kv_heads, heads // kv_heads, head_dim)
    length = past + tokens
    blocks = -(-length // sparse.block_size)
    scores = np.full((kv_heads, tokens, blocks), -np.inf)
    mask = np.zeros((kv_heads, tokens, blocks), bool)
    threshold = np.full((kv_heads, tokens), np.nan)
    margin = np.full((kv_heads, tokens), np.inf)
    positions = past + np.asarray(range(tokens) if depths is None else depths)
    dense = positions + 1 < sparse.dense_len
    for t, position in enumerate(positions.tolist()):
        last = position // sparse.block_size
        seen = position + 1 if depths is None else past
        for h in range(kv_heads):
            if dense[t]:
                mask[h, t, : last + 1] = True
                continue
            window_scores = _window_scores(
                grouped[t, h], fine[h], coarse[h], seen, length, scale, sparse
            )
            scores[h, t] = _pool(window_scores, blocks, last, sparse)
            mask[h, t], threshold[h, t], margin[h, t] = _choose(scores[h, t], last, sparse)
    return Selection(mask, dense, scores, threshold, margin)


def _window_scores(
    q: NDArray[np.float64],
    fine: NDArray[Any],
    coarse: NDArray[Any],
    seen: int,
    length: int,
    scale: float,
    sparse: SparseConfig,
) -> NDArray[np.float64]:
    """Logarithm of the sum over the group's heads of exp(score - lse), per fine window."""
    size, stride = sparse.kernel_size, sparse.kernel_stride
    result = np.full(window_count(length, size, stride), NEVER)
    visible = window_count(seen, size, stride)
    coarse_visible = window_count(seen, 4 * size, 4 * stride)
    exact = sparse.lse == "exact"
    if visible == 0 or (coarse_visible == 0 and not exact):
        return result
    scores = scale * q @ np.asarray(fine[:visible], np.float64).T
    basis = scores if exact else scale * q @ np.asarray(coarse[:coarse_visible], np.float64).T
    result[:visible] = _logsumexp(scores - _logsumexp(basis, axis=1)[:, None], axis=0)
    return result


def _logsumexp(values: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    highest = values.max(axis=axis, keepdims=True)
    total = np.exp(values - highest).sum(axis=axis, keepdims=True)
    return np.asarray(np.squeeze(highest + np.log(total), axis=axis))


def _pool(
    window_scores: NDArray[np.float64], blocks: int, last: int, sparse: SparseConfig
) -> NDArray[np.float64]:
    """The highest score of the windows that overlap each block, with forced blocks marked."""
    ratio = sparse.block_size // sparse.kernel_stride
    result = np.full(blocks, -np.inf)
    for b in range(last + 1):
        overlapping = window_scores[max(0, ratio * b - 1) : ratio * b + ratio]
        if overlapping.size:
            result[b] = overlapping.max()
    result[: min(sparse.init_blocks, last + 1)] = np.inf
    if sparse.generation == "B":
        result[max(0, last - sparse.local_blocks) : last + 1] = np.inf
    else:
        # Generation A attends to its window apart from the ones it chooses by score.
        result[max(0, last - sparse.local_blocks + 1) : last + 1] = -np.inf
    return result


def _choose(
    scores: NDArray[np.float64], last: int, sparse: SparseConfig
) -> tuple[NDArray[np.bool_], float, float]:
    """The mask of one query, the lowest finite score in it, and the gap below."""
    count = sparse.max_blocks if sparse.generation == "B" else sparse.topk
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] > -np.inf]
    taken, left = order[:count], order[count:]
    mask = np.zeros(scores.size, bool)
    mask[taken] = True
    if sparse.generation == "A":
        mask[max(0, last - sparse.local_blocks + 1) : last + 1] = True
    finite = scores[taken][np.isfinite(scores[taken])]
    if left.size == 0 or finite.size == 0:
        return mask, np.nan, np.inf
    lowest, highest = float(finite[-1]), float(scores[left[0]])
    return mask, lowest, lowest - highest
