"""What executors in Python share: a sequence's bounds, and the checks on what is appended."""

from __future__ import annotations

from collections.abc import Sequence

from arkinfer.errors import ContextOverflowError, InvalidOptionError


class TokenSequence:
    """Length and limits of one token sequence; see :class:`arkinfer.runtime.executor.Executor`."""

    def __init__(self, vocab_size: int, context: int) -> None:
        self._vocab_size = vocab_size
        self._context = context
        self._length = 0

    @property
    def vocab_size(self) -> int:
        """Logits per token."""
        return self._vocab_size

    @property
    def context(self) -> int:
        """The most tokens that the sequence can hold."""
        return self._context

    @property
    def length(self) -> int:
        """Tokens in the sequence now."""
        return self._length

    def check(self, tokens: Sequence[int]) -> None:
        """Refuse tokens that cannot be appended.

        Raises:
            InvalidOptionError: no tokens, or an id outside the vocabulary.
            ContextOverflowError: the context holds fewer tokens.
        """
        if len(tokens) == 0:
            raise InvalidOptionError("no tokens to append", "at least one")
        wrong = next((t for t in tokens if not 0 <= t < self._vocab_size), None)
        if wrong is not None:
            raise InvalidOptionError(f"token id {wrong}", f"0 to {self._vocab_size - 1}")
        if self._length + len(tokens) > self._context:
            raise ContextOverflowError(
                f"{self._length} + {len(tokens)} tokens",
                f"at most the context of {self._context}",
                "load with a larger context, or give a shorter prompt",
            )

    def rollback(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens.

        Raises:
            InvalidOptionError: the sequence is not that long.
        """
        if not 0 <= length <= self._length:
            raise InvalidOptionError(f"rollback to {length} tokens", f"0 to {self._length}")
        self._length = length
