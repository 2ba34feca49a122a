"""Profiles of devices that no file describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def opencl_profile(
    path: Path,
    features: Sequence[str] = (),
    limits: Mapping[str, int] = {},
    traits: Mapping[str, int] = {},
) -> str:
    """Write a profile, for a target of the OpenCL backend; gives the target."""
    names = ", ".join(f'"{name}"' for name in features)
    lines = [
        'description = "of a test"',
        "generic = true",
        '[sources]\ntest = "this test"',
        f'[units.gpu]\nbackend = "opencl"\narch = "any"\nfeatures = [{names}]\nsource = "test"',
    ]
    for table, figures in (("limits", limits), ("traits", traits)):
        lines.append(f"[units.gpu.{table}]")
        lines += [f'{key} = {{ value = {n}, source = "test" }}' for key, n in figures.items()]
    path.write_text("\n".join(lines) + "\n")
    return str(path)
