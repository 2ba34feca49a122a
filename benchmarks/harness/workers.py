"""Engines in processes of their own: their threads, allocators and settings cannot disturb others.

The worker's side is worker.py. Each request and each answer is one line of JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import TracebackType
from typing import Any

from benchmarks.harness.files import ROOT


class WorkerError(RuntimeError):
    """An engine failed; the text is its own."""


class Worker:
    """One engine, started and opened.

    Args:
        peer: a module of benchmarks/peers.
        environment: variables besides the caller's own.
        options: what the peer's ``open`` takes.
    """

    def __init__(
        self, peer: str, environment: dict[str, str] | None = None, **options: Any
    ) -> None:
        self.peer = peer
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.harness.worker", peer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **(environment or {})},
        )
        try:
            self.info: dict[str, Any] = self.call("open", **options)
        except BaseException:
            self.close()
            raise

    def call(self, method: str, **arguments: Any) -> Any:
        """Call a method of the engine and wait for its answer.

        Raises:
            WorkerError: it failed, or its process ended.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            print(json.dumps([method, arguments]), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(f"{self.peer} ended with status {self._process.wait()} in {method}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.peer}: {method}: {answer['error']}")
        return answer["result"]

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
