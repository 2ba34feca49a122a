"""What a CUDA device reaches: kernels and models against references, and parts of its limits.

    python -m benchmarks.cuda                     # makes a checkpoint of the 8B shape: 16 GB
    python -m benchmarks.cuda --checkpoint DIR    # a sparse MiniCPM checkpoint that is there
    python -m benchmarks.cuda --only kernels models

Prints one table: what was measured, the device's measured limit, their quotient and the goal.
PyTorch with CUDA is needed for the limit of products and for dense attention to compare with;
without it those rows say so.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import arkinfer
from arkinfer import bundle_steps
from arkinfer.bundle import Bundle
from arkinfer.runtime.session import Session
from arkinfer.work import PlanWork
from benchmarks.harness import files
from benchmarks.harness.cuda_driver import CudaError, Driver
from benchmarks.harness.cuda_steps import Steps
from benchmarks.harness.cuda_torch import Torch

PARTS = ("kernels", "models", "products", "steps", "decode", "prefill")
DEPTHS = (32 << 10, 64 << 10, 128 << 10)
SHORT = 1 << 10
CHUNK = 512
# Devices whose profile names machine code; others get PTX.
TARGETS = {87: "jetson-orin", 89: "rtx-4090", 90: "h100", 110: "jetson-thor"}


@dataclass(frozen=True)
class Row:
    """One line of the table; ``goal`` is "≥ 0.80", or empty where there is none."""

    what: str
    measured: str
    limit: str = ""
    quotient: float | None = None
    goal: str = ""

    def cells(self) -> list[str]:
        """As text."""
        quotient = "" if self.quotient is None else f"{self.quotient:.2f}"
        return [self.what, self.measured, self.limit, quotient, self.goal]


@dataclass
class Run:
    """What the parts share.

    Attributes:
        bandwidth: bytes per second, measured.
        bundle: of the 8B shape, for this device.
        depths: contexts at which attention is measured, the last also whole decoding.
        chunk: tokens of a prompt's part.
        repeats: of what is timed, where it is short; a tenth of them where it is long.
    """

    driver: Driver
    torch: Torch | None
    bandwidth: float
    bundle: Bundle
    depths: Sequence[int]
    chunk: int
    repeats: int


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, help="of the 8B shape with sparse attention")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--depths", nargs="+", type=int, default=list(DEPTHS))
    parser.add_argument("--chunk", type=int, default=CHUNK)
    parser.add_argument("--repeats", type=int, default=32, help="of everything that is timed")
    parser.add_argument("--quant", default="w4g128")
    parser.add_argument("--target", help="a device's name; by default the one of its capability")
    parser.add_argument("--copied", type=int, default=1 << 30, help="bytes to measure memory with")
    options = parser.parse_args(arguments)
    try:
        driver = Driver()
    except CudaError as error:
        raise SystemExit(str(error)) from None
    torch = Torch.find()
    bandwidth = driver.bandwidth(options.copied)
    driver.free()
    rows = [Row(f"{driver.name}, sm_{driver.capability}: memory", f"{bandwidth / 1e9:.0f} GB/s")]
    with tempfile.TemporaryDirectory() as folder:
        bundle = compiled(driver, options, Path(folder))
        run = Run(
            *(driver, torch, bandwidth, bundle, options.depths, options.chunk, options.repeats)
        )
        for part in options.only:
            print(f"measuring {part}", file=sys.stderr)
            rows += _MEASURE[part](run)
    print(table(rows))


def compiled(driver: Driver, options: argparse.Namespace, folder: Path) -> Bundle:
    """A bundle of the 8B shape for the device, kept beside the other benchmarks' models."""
    target = options.target or TARGETS.get(driver.capability, "cuda")
    checkpoint = options.checkpoint or files.make_once(
        files.default_cache() / "checkpoint-8b-sparse", _make_checkpoint
    )
    context = max(options.depths) + options.chunk
    output = folder / "bundle.ark"
    return arkinfer.compile(
        checkpoint,
        target=target,
        quant=options.quant,
        context=context,
        chunk=options.chunk,
        output=output,
    )


def kernels(_: Run) -> Iterator[Row]:
    """All kernels against their references, on the device."""
    environment = {**os.environ, "ARK_TEST_CUDA": "device"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", ""]
    command += ["tests/cuda", "tests/tvm/test_kernels.py", "-k", "cuda"]
    done = subprocess.run(command, cwd=files.ROOT, env=environment, capture_output=True, text=True)
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()[-200:]])[-1]
    yield Row("kernels against references", last, goal="none fails")


def models(run: Run) -> Iterator[Row]:
    """Greedy tokens of small models, on the device and on the CPU."""
    from tests.support import smollm2
    from tests.support.tiny_models import SMALL_SPARSE, write_tiny_hf

    target = str(run.bundle.manifest.device["name"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in ("minicpm4-8b", "minicpm4.1-8b", "minicpm4-0.5b"):
            sparse = SMALL_SPARSE if kind.endswith("8b") else None
            source = write_tiny_hf(folder / kind, kind, sparse=sparse)
            yield _compare(f"tiny {kind}", source, "none", target, folder)
        try:
            yield _compare("SmolLM2-135M", smollm2.path(), "keep", target, folder)
        except FileNotFoundError as error:
            yield Row("SmolLM2-135M", f"not run: {error}")


def products(run: Run) -> Iterator[Row]:
    """Each product with what it takes over, of a token and of a chunk; launches of a token."""
    timed = Steps(run.driver, run.bundle, max(run.depths) + run.chunk)
    peak = run.torch.products() if run.torch else None
    for name in timed.products():
        read, numbers = timed.matrices(name)
        seconds = run.driver.seconds(timed.run_all(name, 1), max(run.repeats // 8, 1))
        yield Row(
            f"{name}, 1 token",
            f"{read / seconds / 1e9:.0f} GB/s",
            f"{run.bandwidth / 1e9:.0f} GB/s",
            read / seconds / run.bandwidth,
        )
        if timed.in_head(name):
            continue
        seconds = run.driver.seconds(timed.run_all(name, run.chunk), max(run.repeats // 32, 1))
        rate = 2 * numbers * run.chunk / seconds
        yield Row(
            f"{name}, {run.chunk} tokens",
            f"{rate / 1e12:.2f} T/s",
            f"bf16 {peak / 1e12:.0f} T/s" if peak else "PyTorch with CUDA is not there",
            rate / peak if peak else None,
        )
    for depth in (min(SHORT, min(run.depths)), max(run.depths)):
        yield Row(f"launches of a token at {depth}", str(timed.launches(depth)))
    run.driver.free()


def steps(run: Run) -> Iterator[Row]:
    """Block-sparse attention of one layer against dense attention, by depth."""
    timed = Steps(run.driver, run.bundle, max(run.depths) + run.chunk)
    for tokens, goal in ((1, 8), (run.chunk, 4)):
        for depth in run.depths:
            past = depth - tokens
            timed.run(("select_blocks", "block_sparse_attention"), tokens, past)()
            parts = {
                kernel: run.driver.seconds(
                    timed.run((kernel,), tokens, past), 50 if tokens == 1 else 3
                )
                for kernel in ("select_blocks", "block_sparse_attention")
            }
            attend = parts["block_sparse_attention"]
            text = f"{attend * 1e6:.0f} us, selection {parts['select_blocks'] * 1e6:.0f} us"
            name = f"attention of {tokens} at {depth}, one layer"
            wanted = f"≥ {goal}" if depth == max(run.depths) else ""
            if run.torch is None:
                yield Row(name, text, "PyTorch with CUDA is not there", None, wanted)
                continue
            dense = run.torch.attention(run.bundle.manifest.model, tokens, depth)
            yield Row(name, text, f"dense {dense * 1e6:.0f} us", dense / attend, wanted)
    run.driver.free()


def decode(run: Run) -> Iterator[Row]:
    """Whole tokens: at 1K as a part of the bandwidth, and at the largest depth over that."""
    session = arkinfer.load(run.bundle.path).session()
    rng = np.random.default_rng(2)
    seconds = {}
    for depth in (min(SHORT, min(run.depths)), max(run.depths) - 64):
        missing = depth - session.length
        session.append([int(t) for t in rng.integers(3, 200, missing)])
        seconds[depth] = _decode_seconds(session, run.repeats)
        read = sum(
            work.bytes
            for work in _work(run.bundle).at(depth, run.bundle.manifest.kv or "fp16").values()
        )
        rate = read / seconds[depth]
        yield Row(
            f"decode at {depth}",
            f"{1 / seconds[depth]:.1f} tokens/s, {rate / 1e9:.0f} GB/s",
            f"{run.bandwidth / 1e9:.0f} GB/s",
            rate / run.bandwidth,
            "≥ 0.80" if len(seconds) == 1 else "",
        )
    short, long = seconds.values()
    yield Row("decode at the largest depth over the smallest", "", "", long / short, "≤ 1.3")


def prefill(run: Run) -> Iterator[Row]:
    """A prompt of some chunks as a part of the device's bf16 products."""
    session = arkinfer.load(run.bundle.path).session()
    prompt = [int(t) for t in np.random.default_rng(3).integers(3, 200, 4 * run.chunk)]
    prompt = prompt[: max(run.depths)]
    session.append(prompt)
    samples = []
    for _ in range(3):
        session.rollback(0)
        start = time.perf_counter()
        session.append(prompt)
        samples.append(time.perf_counter() - start)
    seconds = float(np.median(samples))
    operations = sum(
        work.products + work.attention
        for past in range(0, len(prompt), run.chunk)
        for work in _work(run.bundle).at(past, "fp16", min(run.chunk, len(prompt) - past)).values()
    )
    rate = operations / seconds
    text = f"{len(prompt) / seconds:.0f} tokens/s, {rate / 1e12:.2f} T/s"
    if run.torch is None:
        yield Row("prefill", text, "PyTorch with CUDA is not there", None, "≥ 0.55")
        return
    peak = run.torch.products()
    yield Row("prefill", text, f"bf16 {peak / 1e12:.0f} T/s", rate / peak, "≥ 0.55")


_MEASURE: dict[str, Callable[[Run], Iterator[Row]]] = {
    "kernels": kernels,
    "models": models,
    "products": products,
    "steps": steps,
    "decode": decode,
    "prefill": prefill,
}


def table(rows: Sequence[Row]) -> str:
    """All rows as a table of markdown."""
    head = ["what", "measured", "limit", "quotient", "goal"]
    lines = [head, ["---"] * len(head), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _compare(name: str, source: Path, quant: str, target: str, folder: Path) -> Row:
    """Tokens in common, of 32 greedy ones; the device follows the CPU's."""
    both = []
    for index, where in enumerate((target, "cpu")):
        output = folder / f"{source.name}-{index}.ark"
        bundle = arkinfer.compile(
            source, target=where, quant=quant, context=512, chunk=32, output=output
        )
        both.append(arkinfer.load(bundle.path, activations="fp32").session())
    prompt = [int(t) for t in np.random.default_rng(4).integers(3, 300, 120)]
    last = [session.append(prompt)[-1] for session in both]
    same, worst = 0, 0.0
    for _ in range(32):
        device, cpu = last
        worst = max(worst, float(np.abs(device - cpu).max() / np.abs(cpu).max()))
        same += int(device.argmax() == cpu.argmax())
        last = [session.append([int(cpu.argmax())])[-1] for session in both]
    text = f"{same} of 32 greedy tokens, logits differ by {worst:.1e} of the largest"
    return Row(name, text, goal="32, near-ties apart")


def _decode_seconds(session: Session, repeats: int) -> float:
    """Seconds of a token, the median of some; the first ones warm."""
    samples = []
    for token in range(5, 5 + repeats + 4):
        start = time.perf_counter()
        session.append([token])
        samples.append(time.perf_counter() - start)
    session.rollback(session.length - len(samples))
    return float(np.median(samples[4:]))


def _work(bundle: Bundle) -> PlanWork:
    return PlanWork(bundle_steps.steps_of(bundle), bundle.manifest.model)


def _make_checkpoint(path: Path) -> None:
    command = [sys.executable, str(files.ROOT / "benchmarks" / "make_checkpoint.py"), str(path)]
    subprocess.run([*command, "--sparse"], check=True)


if __name__ == "__main__":
    main()
