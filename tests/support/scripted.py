"""An executor whose answers are written down, and a bundle that has only a vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from arkinfer.bundle import BundleWriter
from arkinfer.tokenizer import vocabulary_bytes
from tests.support.manifests import CONFIG, MANIFEST

EURO = "€".encode()
VOCABULARY = [b"", b"a", b"b", b"c", b"END", b" E", b"ND", EURO[:1], EURO[1:], b"\0", b"\xff"]
A, B, C, END, SPACE_E, ND, EURO_1, EURO_2, ZERO, BROKEN = range(1, len(VOCABULARY))
STOP_ID = 0


class Scripted:
    """Makes one token likely after another: ``choose(tokens so far)`` gives logits."""

    def __init__(
        self, choose: Callable[[list[int]], NDArray[np.float32]], context: int = 64
    ) -> None:
        self.choose = choose
        self.context = context
        self.vocab_size = len(VOCABULARY)
        self.tokens: list[int] = []
        self.appended: list[list[int]] = []

    @property
    def length(self) -> int:
        return len(self.tokens)

    def append(self, tokens: Sequence[int], all_logits: bool = False) -> NDArray[np.float32]:
        self.appended.append(list(tokens))
        self.tokens += tokens
        return self.choose(self.tokens)[None]

    def rollback(self, length: int) -> None:
        del self.tokens[length:]

    def selected_blocks(self, layer: int) -> list[NDArray[np.int32]]:
        return []


def script(*tokens: int, after: int = 1, context: int = 64) -> Scripted:
    """An executor whose likeliest tokens are these, after a prompt of ``after`` tokens."""

    def choose(so_far: list[int]) -> NDArray[np.float32]:
        logits = np.zeros(len(VOCABULARY), np.float32)
        logits[tokens[min(len(so_far) - after, len(tokens) - 1)]] = 5
        return logits

    return Scripted(choose, context)


def write_vocabulary_bundle(path: Path) -> Path:
    """A bundle with nothing to run: what generation above another executor needs."""
    with BundleWriter(path) as writer:
        with writer.open_file("vocabulary.bin") as file:
            file.write(vocabulary_bytes(VOCABULARY))
        writer.finish(
            replace(MANIFEST, model=replace(CONFIG, vocab_size=len(VOCABULARY)), tokenizer=None)
        )
    return path
