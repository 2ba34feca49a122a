"""The frame of each benchmark script: options, engines, groups, the record."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness import engines, limits, measure, record
from benchmarks.harness.files import ROOT, default_cache
from benchmarks.harness.measure import Case
from benchmarks.harness.workers import Worker, WorkerError

RESULTS = ROOT / "benchmarks" / "results"


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """The options that all benchmarks share."""
    options = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    options.add_argument("--quick", action="store_true", help="smaller shapes, fewer rounds")
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options.add_argument("--rounds", type=int, help="how often each case is measured")
    options.add_argument(
        "--minutes", type=float, default=4.0, help="begin no round of a group after this many"
    )
    options.add_argument(
        "--only", metavar="TEXT", help="measure only groups with TEXT in their name"
    )
    options.add_argument("--resume", action="store_true", help="keep groups measured before")
    options.add_argument("--cache", type=Path, default=default_cache(), help="for model files")
    options.add_argument("--output", type=Path, help=f"the record; default {RESULTS}/{name}.json")
    return options


class Benchmark:
    """One run of one script.

    Attributes:
        options: as parsed.
        record: what has been measured so far; written after each group.
        peers: what the engines of the group say of themselves, by name.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        self.name = name
        self.options = options
        self.rounds: int = options.rounds or (3 if options.quick else 7)
        self.path: Path = options.output or RESULTS / f"{name}{'-quick' * options.quick}.json"
        self._meter = limits.Meter(options.cache, options.threads)
        self._stack = contextlib.ExitStack()
        self.peers: dict[str, Any] = {}
        earlier = record.load(self.path)
        groups = earlier["groups"] if earlier and (options.resume or options.only) else []
        if not options.resume:  # those that are measured again give way
            groups = [kept for kept in groups if options.only not in kept["name"]]
        self.record: dict[str, Any] = {
            "benchmark": name,
            "command": shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]]),
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": record.machine(options.threads),
            "groups": groups,
        }

    @contextlib.contextmanager
    def group(self, name: str) -> Iterator[bool]:
        """Engines that are opened inside close at the end; False: there is nothing to do."""
        done = any(group["name"] == name for group in self.record["groups"])
        wanted = not self.options.only or self.options.only in name
        with contextlib.ExitStack() as self._stack:
            self.peers = {}
            if wanted and not done:
                print(f"{self.name}: {name}", file=sys.stderr)
            yield wanted and not done

    def engine(
        self, name: str, shape: str, context: int, label: str | None = None, **options: Any
    ) -> Worker | None:
        """Open an engine for the group; None, and a line about it, where it cannot be used.

        Args:
            label: what the record calls it, where one group opens it more than once.
        """
        try:
            worker = engines.open_engine(
                name, shape, context, self.options.cache, self.options.threads, **options
            )
        except (WorkerError, ImportError, ValueError) as error:
            print(f"  {name} is left out: {error}", file=sys.stderr)
            return None
        return self.adopt(label or name, worker)

    def adopt(self, name: str, worker: Worker) -> Worker:
        """Close a worker with the group, and keep what it says of itself."""
        self.peers[name] = worker.info
        return self._stack.enter_context(worker)

    def measure(
        self, name: str, cases: list[Case], rounds: int | None = None, warm: bool = True
    ) -> None:
        """Measure the cases of a group interleaved, and save the record."""
        measured = measure.interleave(
            cases, self._meter, rounds or self.rounds, self.options.minutes, warm
        )
        kept = record.group(name, measured, self.peers, [case.record() for case in cases])
        self.record["groups"].append({**kept, "command": self.record["command"]})
        record.save(self.path, self.record)
        print(record.text({**self.record, "groups": [kept]}), file=sys.stderr)


def case(
    name: str, worker: Worker, method: str, parameters: dict[str, Any] | None = None, **what: Any
) -> Case:
    """A case that calls one method of an engine.

    Args:
        parameters: what the method takes; the record keeps them too.
        what: further entries of the record, as in ``bytes`` or ``operations`` of one unit.
    """
    arguments = parameters or {}
    run: Callable[[], float] = lambda: float(worker.call(method, **arguments))  # noqa: E731
    return Case(name, {"method": method, **arguments, **what}, run)
