"""``arkinfer verify``: does a bundle compute what its checkpoint says?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from arkinfer.cli.options import Activations, BundlePath, Isa, Json, Kv, Threads

if TYPE_CHECKING:
    from arkinfer.verify import Report


def verify(
    bundle: BundlePath,
    against: Annotated[
        Path,
        typer.Option(metavar="PATH", help="The checkpoint that the bundle was compiled from."),
    ],
    tokens: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Tokens to run. More reach sparse attention, and take longer: the reference "
            "is slow.",
        ),
    ] = 96,
    prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Run this text.", show_default="a built-in one"),
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="Largest relative error of a token's vector (Euclidean norm) in any stage.",
            show_default="1e-4 in fp32; 1e-2 for an fp16 cache, 0.5 for int8 activations",
        ),
    ] = None,
    kv: Annotated[Kv, typer.Option(help="Number type of the KV cache.")] = Kv.fp32,
    activations: Annotated[
        Activations, typer.Option(help="Number type of the inputs of matrix products.")
    ] = Activations.fp32,
    threads: Threads = None,
    isa: Isa = None,
    stages: Annotated[bool, typer.Option("--stages", help="Show every stage.")] = False,
    json: Json = False,
) -> None:
    """Compare every stage of a bundle with the reference.

    The reference is onnxruntime on the neutral graph, made from the
    checkpoint by the same passes with the same quantization. The first stage
    whose error is over the tolerance is named, and where sparse attention is
    built in, how many selected blocks agree. Exit code 1 if any stage fails.
    """
    from arkinfer.cli import show
    from arkinfer.verify import verify as compare

    report = compare(
        bundle,
        against,
        tokens=tokens,
        prompt=prompt,
        tolerance=tolerance,
        kv=kv.value,
        activations=activations.value,
        threads=threads,
        isa=isa,
    )
    if json:
        show.as_json({**dataclasses.asdict(report), "passed": report.first_failure is None})
    else:
        _print(report, stages)
    report.check()


def _print(report: Report, every_stage: bool) -> None:
    from arkinfer.cli import show

    failure = report.first_failure
    worst = max(report.stages, key=lambda stage: stage.error)
    show.facts(
        f"{len(report.stages)} stages over {report.tokens} tokens, tolerance {report.tolerance:g}",
        [
            ("worst", f"{worst.name}: {worst.error:.2e}"),
            ("first over tolerance", failure.name if failure else "none"),
            (
                "selected blocks",
                f"{report.agreement:.2%} of {report.selected} agree"
                if report.agreement is not None
                else "attention is dense",
            ),
        ],
    )
    shown = report.stages if every_stage else report.around_failure()
    if shown:
        show.table(
            "\nStages",
            ["stage", "kernel", "relative error", ""],
            [
                [s.name, s.kernel, f"{s.error:.2e}", "" if s.error <= report.tolerance else "over"]
                for s in shown
            ],
        )
