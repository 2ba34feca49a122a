"""The worker's side: ``python -m benchmarks.harness.worker PEER``, driven by workers.py."""

from __future__ import annotations

import importlib
import json
import os
import sys


def main() -> None:
    # Engines print to standard output as they please; the answers have a file of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = importlib.import_module(f"benchmarks.peers.{sys.argv[1]}").Peer()
    for line in sys.stdin:
        method, arguments = json.loads(line)
        try:
            answer = {"result": getattr(peer, method)(**arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
