"""Kernels that TVM compiled against those written by hand, by operator and count of tokens.

``arkinfer tune`` measures them step by step, in turns, in whole models: two layers of MiniCPM4.1-8B
(random weights, far in a long context) and SmolLM2's shape. Needs the extra ``tvm``.

    python -m benchmarks.tvm_kernels --only slice2
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from arkinfer import compiler, tune, tuning
from arkinfer.bundle import Bundle
from benchmarks.harness import record
from benchmarks.harness.benchmark import RESULTS
from benchmarks.harness.files import ROOT, default_cache, make_once, sources_digest
from benchmarks.harness.limits import Limits, Meter, middle
from benchmarks.harness.shapes import SHAPES
from benchmarks.models.bundle import COMPILER, checkpoint

CONTEXT = 32768
QUANT = {"slice2": "w4g128", "smollm2": "w4g32"}
DEPTH = {"slice2": 16384, "smollm2": 512}
TOKENS = (1, 8, 64)
KERNELS = (ROOT / "arkinfer" / "kernels", ROOT / "arkinfer" / "tir")


def main() -> None:
    options = _parser().parse_args()
    for name in options.only or QUANT:
        groups = [*_groups(options.results, but=name), _measured(name, options)]
        groups.sort(key=lambda group: list(QUANT).index(group["name"]))
        kept = {
            "benchmark": "tvm_kernels",
            "command": "python -m benchmarks.tvm_kernels " + " ".join(sys.argv[1:]),
            "machine": record.machine(groups[-1]["tuning"]["threads"]),
            "groups": groups,
        }
        record.save(options.results / "tvm_kernels.json", kept)
        print(text(groups[-1] if name == groups[-1]["name"] else groups[0]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", choices=list(QUANT), help="the models to measure")
    parser.add_argument("--tokens", type=int, nargs="*", default=TOKENS)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0, help="0: one per core")
    parser.add_argument("--cache", type=Path, default=default_cache())
    parser.add_argument("--results", type=Path, default=RESULTS)
    return parser


def _groups(results: Path, but: str) -> list[dict[str, Any]]:
    """What an earlier run measured of other models."""
    path = results / "tvm_kernels.json"
    groups = json.loads(path.read_text())["groups"] if path.exists() else []
    return [group for group in groups if group["name"] != but]


def _measured(name: str, options: argparse.Namespace) -> dict[str, Any]:
    bundle = Bundle.open(_bundle(options.cache, name))
    settings = tune.Settings(tuple(options.tokens), DEPTH[name], options.repeat, options.threads)
    meter: Meter | None = None
    limits = []
    for last in (False, True):
        if last:
            table = tune.measure(bundle, settings)
        meter = meter or Meter(options.cache, options.threads or _threads(bundle))
        limits.append(meter.sample())
    return {
        "name": name,
        "bundle": bundle.digest,
        "quant": QUANT[name],
        "steps": _steps(bundle, "body", "head"),
        "head": [shape for shape, count in _steps(bundle, "body").items() if not count],
        "limits": [dataclasses.asdict(limit) for limit in limits],
        "tuning": dataclasses.asdict(table),
    }


def _threads(bundle: Bundle) -> int:
    from arkinfer.runtime.native_session import NativeModel, NativeSession, SessionOptions

    return NativeSession(NativeModel(bundle.path), SessionOptions(64)).threads


def _steps(bundle: Bundle, *lists: str) -> dict[str, int]:
    """How many steps a shape has in these lists."""
    table = json.loads(bundle.read_text(tuning.TABLE))
    used = [e["shape"] for name in lists for e in table[name] if e["launches"]]
    return {shape: used.count(index) for index, shape in enumerate(table["shapes"])}


def _bundle(cache: Path, name: str) -> Path:
    shape = SHAPES[name]

    def make(temporary: Path) -> None:
        compiler.compile_checkpoint(
            checkpoint(shape, QUANT[name]),
            target="cpu",
            quant=QUANT[name],
            context=CONTEXT,
            output=temporary,
            sparse="on" if shape.sparse else "off",
            kernels="tvm",
        )

    digest = sources_digest(*COMPILER, *KERNELS)
    return make_once(cache / f"{name}-{QUANT[name]}-tvm-{digest}.ark", make)


def text(group: dict[str, Any]) -> str:
    """A table of one model, in Markdown; a cell has a number for each count of tokens."""
    table, limits = group["tuning"], middle([Limits(**limit) for limit in group["limits"]])
    counts = " / ".join(map(str, table["tokens"]))
    lines = [
        f"{group['name']} {group['quant']}: {counts} tokens, {table['depth']} before them, "
        f"{table['kv']} caches, {table['threads']} threads; microseconds of one step:",
        "",
        "| operator | TVM | over fp32 by hand | over int8 by hand | part of the fp32 peak |",
        "|---|---|---|---|---|",
    ]
    for shape in table["shapes"]:
        # The head computes one row, whatever the count.
        shown = 1 if shape["shape"] in group["head"] else len(table["tokens"])
        steps = group["steps"][shape["shape"]]
        ours, fp32, int8 = (
            times[:shown]
            for times in (shape["compiled"], shape["builtin"]["fp32"], shape["builtin"]["int8"])
        )
        cells = [
            [f"{1e6 * a / steps:.{0 if a > 1e-5 * steps else 1}f}" for a in ours],
            [f"{a / b:.2f}" for a, b in zip(ours, fp32, strict=True)],
            [f"{a / b:.2f}" for a, b in zip(ours, int8, strict=True)],
            [
                part
                for a, count in zip(ours, table["tokens"], strict=False)
                for part in _peak(shape["shape"], count * steps / a, limits)
            ],
        ]
        joined = " | ".join(" / ".join(cell) for cell in cells)
        lines.append(f"| {shape['shape']} | {joined} |")
    return "\n".join(lines)


def _peak(shape: str, rows_per_second: float, limits: Limits) -> Iterator[str]:
    """The part of the machine's float32 rate that products reach."""
    found = re.match(r"matmul (\d+) x (\d+) ", shape)
    if found and limits.fp32:
        operations = 2 * int(found.group(1)) * int(found.group(2)) * rows_per_second
        yield f"{operations / max(limits.fp32.values()):.0%}"


if __name__ == "__main__":
    main()
