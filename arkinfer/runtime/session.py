"""One conversation: an executor and the tokens that it holds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from arkinfer.errors import ContextOverflowError, InvalidOptionError, PromptError
from arkinfer.runtime.choice import Choice
from arkinfer.runtime.executor import DraftExecutor, Executor
from arkinfer.runtime.generation import Generation, Piece, Sampling
from arkinfer.runtime.native_session import NativeModel, NativeSession, Step


class _Answer(Generation):
    """A generation that tells its session which tokens it took in."""

    def __init__(
        self, session: Session, model: NativeModel, prompt: Sequence[int], sampling: Sampling
    ) -> None:
        self._session = session
        self._start = len(session.tokens)
        self._prompt = list(prompt)
        super().__init__(model, session.executor, prompt, sampling, session.tokens)

    def __next__(self) -> Piece:
        try:
            return super().__next__()
        finally:
            self._session._took(self._start, self._prompt + self.tokens)


class Session:
    """A token sequence with its KV cache.

    Attributes:
        executor: what runs the model.
        tokens: the ids in the cache, in order.
    """

    def __init__(self, model: NativeModel, executor: Executor) -> None:
        self.executor = executor
        self.tokens: list[int] = []
        self._model = model
        self._draft: list[int] = []

    @property
    def choice(self) -> Choice | None:
        """What a bundle for a device runs on, and why; None where there is nothing to choose."""
        return self.executor.choice if isinstance(self.executor, NativeSession) else None

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self.executor.length

    @property
    def context(self) -> int:
        """The most tokens that the cache holds."""
        return self.executor.context

    def append(self, tokens: Sequence[int], all_logits: bool = False) -> NDArray[np.float32]:
        """Run tokens after those already there.

        Returns:
            float32 logits: [1, vocab] of the last token, or [tokens, vocab] with ``all_logits``.

        Raises:
            ContextOverflowError: the context holds fewer tokens; nothing was run.
            InvalidOptionError: no tokens, or an id outside the vocabulary.
        """
        self._check_room(len(tokens))
        logits = self.executor.append(tokens, all_logits)
        self.tokens.extend(int(token) for token in tokens)
        return logits

    def verify_tree(self, tokens: Sequence[int], parents: Sequence[int]) -> NDArray[np.float32]:
        """Run draft tokens, a tree of guesses, after the session's tokens in one step.

        Each token sees the session and the path that leads to it. The session keeps its length
        until :meth:`accept`; the next append or rollback drops the tree.

        With sparse attention the tokens of a tree select among the compressed keys of the
        session, not those of windows that end inside the tree. A chain (each token follows
        the one before it) selects, and computes, exactly what :meth:`append` does.

        Args:
            tokens: token ids; at most 64, and at most the bundle's chunk.
            parents: for each the index of the token that it follows, below its own, or -1 for
                the session's last token.

        Returns:
            float32 logits [tokens, vocab].

        Raises:
            ContextOverflowError: the context holds fewer tokens; nothing was run.
            InvalidOptionError: no tree, an id outside the vocabulary, or an executor that
                cannot run trees.
        """
        self._check_room(len(tokens))
        logits = self._drafts().verify_tree(tokens, parents)
        self._draft = [int(token) for token in tokens]
        return logits

    def accept(self, path: Sequence[int]) -> None:
        """Keep the draft tokens of a path through the last tree, from one that follows the session.

        Args:
            path: indices into the tree's tokens, each a child of the one before; none drops
                the tree.

        Raises:
            InvalidOptionError: there is no tree, or that is no path through it.
        """
        self._drafts().accept(path)
        self.tokens.extend(self._draft[node] for node in path)

    def fill_random(self, length: int, seed: int = 0) -> None:
        """Make an empty session as long as if it held ``length`` tokens, for benchmarks.

        Its cache gets pseudo-random keys and values, the same for the same seed, and the compressed
        keys that belong to them. What is generated from them means nothing. ``tokens`` holds -1.

        Raises:
            ContextOverflowError: the context holds fewer tokens.
            InvalidOptionError: the session is not empty, or its executor is not native.
        """
        if not isinstance(self.executor, NativeSession):
            raise InvalidOptionError("only the native runtime can be filled")
        self.executor.fill_random(length, seed)
        self.tokens = [-1] * length

    def rollback(self, length: int) -> None:
        """Forget everything after the first ``length`` tokens.

        Raises:
            InvalidOptionError: the session holds fewer.
        """
        if not 0 <= length <= self.length:
            raise InvalidOptionError(
                f"cannot roll back to length {length}", f"0 to {self.length}, the session's length"
            )
        self.executor.rollback(length)
        del self.tokens[length:]

    def selected_blocks(self, layer: int) -> list[NDArray[np.int32]]:
        """Blocks of 64 tokens (or the model's block size) that the last token attended to.

        Returns:
            One ascending int32 array per KV head. A dense step reports every block.
        """
        return self.executor.selected_blocks(layer)

    def generate(self, prompt: Sequence[int], sampling: Sampling) -> Generation:
        """Answer a prompt that is the whole text so far.

        The longest prefix that the session already holds is kept, the rest of
        the session is rolled back, and only new tokens are run.

        Raises:
            PromptError: the prompt is empty.
            ContextOverflowError: it does not fit; nothing was run.
        """
        if len(prompt) == 0:
            raise PromptError("the prompt is empty", "at least one token")
        if len(prompt) > self.context:
            raise ContextOverflowError(
                f"the prompt has {len(prompt)} tokens",
                f"at most {self.context}, the context",
                "shorten it, or ask for a larger context",
            )
        # The last token is always run again: its logits choose the first new one.
        kept = min(common_prefix(self.tokens, prompt), len(prompt) - 1)
        self.rollback(kept)
        return _Answer(self, self._model, prompt[kept:], sampling)

    @contextlib.contextmanager
    def trace(self, on_step: Callable[[Step], None] | None = None) -> Iterator[list[Step]]:
        """Watch every step that the native runtime executes while the context is open.

        Without ``on_step`` the list that the context gives collects them, with
        copies of their values; with it, each step goes there and the list stays empty.

        Raises:
            InvalidOptionError: the executor is not native.
        """
        if not isinstance(self.executor, NativeSession):
            raise InvalidOptionError("only the native runtime can be traced")
        steps: list[Step] = []

        def collect(step: Step) -> None:
            values = None if step.values is None else step.values.copy()
            steps.append(Step(step.kernel, step.stage, step.seconds, values))

        with self.executor.trace(on_step or collect):
            yield steps

    def close(self) -> None:
        """Free the cache now instead of when the object goes."""
        close = getattr(self.executor, "close", None)
        if close is not None:
            close()

    def _drafts(self) -> DraftExecutor:
        if not isinstance(self.executor, DraftExecutor):
            raise InvalidOptionError(
                "this executor cannot verify draft trees", "the native runtime's"
            )
        return self.executor

    def _check_room(self, count: int) -> None:
        if self.length + count > self.context:
            raise ContextOverflowError(
                f"{count} tokens after {self.length} do not fit",
                f"at most {self.context} in all, the context",
                "roll back, or ask for a larger context",
            )

    def _took(self, start: int, tokens: list[int]) -> None:
        del self.tokens[start:]
        self.tokens += tokens[: max(self.length - start, 0)]


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading elements two sequences share."""
    count = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        count += 1
    return count
