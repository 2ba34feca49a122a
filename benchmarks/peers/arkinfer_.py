"""ArkInfer, through its Python package."""

from __future__ import annotations

from typing import Any

import arkinfer
from arkinfer import bench, kv_types
from arkinfer.bundle import Bundle
from arkinfer.runtime.native_session import NativeModel, NativeSession, SessionOptions
from arkinfer.runtime.session import Session
from benchmarks.peers._process import Process, seconds, tokens

# Room for what is measured behind a filled cache.
_MARGIN = 1024


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
        self._bundle = Bundle.open(path)
        manifest = self._bundle.manifest
        self._kv = kv_types.parse(kv or manifest.kv or kv_types.DEFAULT)
        self._native = NativeModel(self._bundle.path)
        self._options = SessionOptions(context, threads, self._kv, activations, isa)
        self._sessions = {0: Session(self._native, NativeSession(self._native, self._options))}
        self._tokens = tokens(manifest.model.vocab_size, 4096)
        executor = self._sessions[0].executor
        assert isinstance(executor, NativeSession)
        return {
            "version": arkinfer.__version__,
            "digest": self._bundle.digest,
            "quantization": manifest.quantization.requested,
            "isa": executor.isa,
            "threads": executor.threads,
            "kv": self._kv,
            "activations": activations,
            "speculation": False,
        }

    def prefill(self, tokens: int, depth: int = 0) -> float:
        session, prompt = self._at(depth), self._draw(tokens, depth)
        return seconds(lambda: session.append(prompt))

    def decode(self, steps: int, depth: int = 0) -> float:
        session, drawn = self._at(depth), self._draw(steps, depth)

        def run() -> None:
            for token in drawn:
                session.append([token])

        return seconds(run) / steps

    def verify(self, rows: int, depth: int = 0) -> float:
        session, drawn = self._at(depth), self._draw(rows, depth)
        return seconds(lambda: session.append(drawn, all_logits=True))

    def fill(self, depth: int) -> None:
        """A session of its own for each depth, so that depths can be measured in turn."""
        context = min(depth + _MARGIN, self._bundle.manifest.context)
        options = SessionOptions(
            context, self._options.threads, self._kv, self._options.activations, self._options.isa
        )
        session = Session(self._native, NativeSession(self._native, options))
        session.fill_random(depth)
        self._sessions[depth] = session

    def bytes_per_token(self, depth: int) -> int:
        """Bytes that decoding one token after ``depth`` others has to read."""
        return bench.bytes_per_token(self._bundle, depth, self._kv)

    def _at(self, depth: int) -> Session:
        """A session that holds ``depth`` tokens: the filled one, or the first one."""
        session = self._sessions.get(depth, self._sessions[0])
        session.rollback(depth)
        return session

    def _draw(self, count: int, past: int) -> list[int]:
        return [self._tokens[(past + i) % len(self._tokens)] for i in range(count)]
