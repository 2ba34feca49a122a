"""ArkInfer, through its Python package."""

from __future__ import annotations

from typing import Any

import arkinfer
from arkinfer import bench
from benchmarks.peers._process import Process, seconds, tokens


class Peer(Process):
    def open(
        self,
        path: str,
        context: int,
        threads: int,
        kv: str | None = None,
        isa: str | None = None,
        activations: str = "int8",
    ) -> dict[str, Any]:
        chosen = {} if kv is None else {"kv": kv}
        model = arkinfer.load(
            path, context=context, threads=threads, isa=isa, activations=activations, **chosen
        )
        self._session = model.session()
        self._tokens = tokens(model.bundle.manifest.model.vocab_size, 4096)
        used = self._session.executor
        self._bundle, self._kv = model.bundle, kv or "fp16"
        return {
            "version": arkinfer.__version__,
            "digest": model.info.digest,
            "quantization": model.bundle.manifest.quantization.requested,
            "isa": getattr(used, "isa", None),
            "threads": getattr(used, "threads", None),
            "kv": kv or "default",
            "activations": activations,
            "speculation": False,
        }

    def prefill(self, tokens: int, depth: int = 0) -> float:
        self._session.rollback(depth)
        prompt = self._draw(tokens, depth)
        return seconds(lambda: self._session.append(prompt))

    def decode(self, steps: int, depth: int = 0) -> float:
        self._session.rollback(depth)
        drawn = self._draw(steps, depth)

        def run() -> None:
            for token in drawn:
                self._session.append([token])

        return seconds(run) / steps

    def verify(self, rows: int, depth: int = 0) -> float:
        self._session.rollback(depth)
        drawn = self._draw(rows, depth)
        return seconds(lambda: self._session.append(drawn, all_logits=True))

    def fill(self, depth: int) -> None:
        self._session.rollback(0)
        if depth:
            self._session.fill(depth)

    def bytes_per_token(self, depth: int) -> int:
        """Bytes that decoding one token after ``depth`` others has to read."""
        return bench.bytes_per_token(self._bundle, depth, self._kv)

    def _draw(self, count: int, past: int) -> list[int]:
        return [self._tokens[(past + i) % len(self._tokens)] for i in range(count)]
