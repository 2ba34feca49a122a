"""``arkinfer compile``: a checkpoint becomes a bundle."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from arkinfer import kv_types
from arkinfer.cli.options import Kv
from arkinfer.cli.show import facts, size


class Sparse(StrEnum):
    """What to do about sparse attention."""

    auto = "auto"
    on = "on"
    off = "off"
    force = "force"


def compile(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH", help="A Hugging Face folder with safetensors, or a GGUF file."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="X.ark",
            help="The bundle to write.",
            show_default="the checkpoint's name, here",
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="The device to compile for; 'arkinfer devices' lists them."
        ),
    ] = "cpu",
    quant: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEME",
            help="w4g32, w4g64, w4g128, w8g32, w8g64 or w8g128: 4 or 8 bits with one scale for "
            "so many inputs (z behind it: asymmetric). ternary: -1, 0 and 1 with a scale per row, "
            "for models trained for it (ternaryg32, g64, g128: per group). keep: the "
            "checkpoint's own quantized or ternary values. none: its floats.",
            show_default="keep for a quantized or ternary checkpoint, else the device's, or w4g128",
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            metavar="TOKENS",
            help="The longest context that the bundle can be run with.",
            show_default="the model's, at most 32768",
        ),
    ] = None,
    sparse: Annotated[
        Sparse,
        typer.Option(
            help="InfLLM v2 sparse attention. auto: as the checkpoint says; on: for a model that "
            "was trained for it; force: for any model."
        ),
    ] = Sparse.auto,
    kv: Annotated[
        Kv | None,
        typer.Option(
            help="Number type of the KV cache that the bundle is run with unless told otherwise.",
            show_default=f"the device's, or {kv_types.DEFAULT}",
        ),
    ] = None,
    chunk: Annotated[
        int,
        typer.Option(
            metavar="TOKENS",
            help="Tokens of a prompt that are run at once; more is faster and takes more memory.",
        ),
    ] = 512,
    kernels: Annotated[
        str | None,
        typer.Option(
            metavar="tvm[:SET]",
            help="Add kernels that TVM compiles for the CPU: for the target's instruction set, or "
            "tvm:avx2, tvm:avx512, tvm:neon, tvm:dotprod. 'arkinfer tune' then finds the faster "
            "ones.",
            show_default="the runtime's own alone",
        ),
    ] = None,
    dump: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the graph after each pass, for Netron."),
    ] = None,
) -> None:
    """Turn a checkpoint into a bundle.

    The bundle appears when it is whole. The board or phone that runs it
    needs neither the checkpoint nor a compiler.
    """
    from arkinfer.api import compile as compile_checkpoint
    from arkinfer.runtime.process import peak_rss_bytes

    started = time.perf_counter()
    with _progress() as report:
        bundle = compile_checkpoint(
            path,
            target=target,
            quant=quant,
            context=context,
            output=output,
            chunk=chunk,
            sparse=sparse.value,
            kv=kv,
            kernels=kernels,
            dump=dump,
            progress=report,
        )
    manifest = bundle.manifest
    facts(
        f"{bundle.path}",
        [
            ("size", size(sum(entry.bytes for entry in manifest.files.values()))),
            ("weights", manifest.quantization.requested),
            ("context", f"{manifest.context} tokens"),
            ("took", f"{time.perf_counter() - started:.1f} s"),
            ("peak memory", size(peak_rss_bytes())),
            ("try", f"arkinfer run {bundle.path}"),
        ],
    )


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str, float], None] | None]:
    """A progress bar on stderr, in a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda what, fraction: bar.update(task, description=what, completed=fraction)
