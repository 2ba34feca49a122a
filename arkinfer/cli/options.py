"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Kv(StrEnum):
    """Number types of the KV cache."""

    fp16 = "fp16"
    fp32 = "fp32"
    int8 = "int8"
    int4 = "int4"


class Activations(StrEnum):
    """Number types of the inputs of matrix products."""

    int8 = "int8"
    fp32 = "fp32"


_SPEED = "Speed and memory"

BundlePath = Annotated[
    Path, typer.Argument(metavar="BUNDLE", help="A bundle folder made by 'arkinfer compile'.")
]
Context = Annotated[
    int | None,
    typer.Option(
        "--context",
        metavar="TOKENS",
        help="Most tokens of prompt and answer together; memory grows with it.",
        show_default="the bundle's",
        rich_help_panel=_SPEED,
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        help="Threads that compute.",
        show_default="one per core",
        rich_help_panel=_SPEED,
    ),
]
KvType = Annotated[
    Kv | None,
    typer.Option(
        "--kv",
        help="Number type of the KV cache; fp32 doubles the memory of fp16, int8 halves it.",
        show_default="the bundle's",
        rich_help_panel=_SPEED,
    ),
]
ActivationType = Annotated[
    Activations,
    typer.Option(
        "--activations",
        help="Number type of the inputs of products with quantized weights; "
        "fp32 is exact and slower.",
        rich_help_panel=_SPEED,
    ),
]
Isa = Annotated[
    str | None,
    typer.Option(
        "--isa",
        metavar="NAME",
        help="Kernel set to use; 'arkinfer devices' lists them.",
        show_default="the best",
        rich_help_panel=_SPEED,
    ),
]


class Kernels(StrEnum):
    """Whose kernels compute the steps for which a bundle brings its own."""

    tuned = "tuned"
    builtin = "builtin"
    compiled = "compiled"


KernelChoice = Annotated[
    Kernels,
    typer.Option(
        "--kernels",
        help="Of a bundle that brings compiled kernels: compiled takes those, builtin the "
        "runtime's, tuned what 'arkinfer tune' found to be faster.",
        rich_help_panel=_SPEED,
    ),
]


class On(StrEnum):
    """What a bundle for a device runs on."""

    faster = "faster"
    device = "device"
    cpu = "cpu"


OnChoice = Annotated[
    On,
    typer.Option(
        "--on",
        help="Of a bundle for a device: device runs it there or says why not, cpu on the CPU, "
        "faster where the first load measured it to be faster.",
        rich_help_panel=_SPEED,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
