"""What can run a bundle: the native session, onnxruntime, or anything else with these methods."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


class Executor(Protocol):
    """One token sequence with its KV cache. Generation and sessions need only this.

    Attributes:
        vocab_size: logits per token.
        context: the most tokens that the sequence can hold.
        length: tokens in the sequence now.
    """

    @property
    def vocab_size(self) -> int: ...

    @property
    def context(self) -> int: ...

    @property
    def length(self) -> int: ...

    def append(self, tokens: Sequence[int], all_logits: bool = False) -> NDArray[np.float32]:
        """Append tokens. Returns float32 logits [1, vocab], or [tokens, vocab] with all_logits.

        Raises:
            ContextOverflowError: the context holds fewer tokens.
            InvalidOptionError: no tokens, or an id outside the vocabulary.
        """
        ...

    def rollback(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens."""
        ...

    def selected_blocks(self, layer: int) -> list[NDArray[np.int32]]:
        """Block ids that the last token attended to, ascending; one array per KV head."""
        ...


@runtime_checkable
class DraftExecutor(Executor, Protocol):
    """An executor that can also run a tree of draft tokens at once."""

    def verify_tree(self, tokens: Sequence[int], parents: Sequence[int]) -> NDArray[np.float32]:
        """Logits after each draft token. The length stays until :meth:`accept`.

        Args:
            tokens: at most 64 token ids.
            parents: for each the index of the token that it follows, below its own; -1 for
                the last token of the sequence.

        Returns:
            float32 [tokens, vocab].

        Raises:
            InvalidOptionError: no tree, too many tokens, or an id outside the vocabulary.
            ContextOverflowError: the context holds fewer tokens.
        """
        ...

    def accept(self, path: Sequence[int]) -> None:
        """Append the draft tokens of a path: indices from a root down, each a child of the last.

        An empty path drops the tree, as the next append or rollback does.

        Raises:
            InvalidOptionError: there is no tree, or that is no path through it.
        """
        ...
