"""Checkpoint formats: one file each, found by listing this folder.

A format is a module with ``matches(path) -> bool`` and ``open(path) ->
Checkpoint``. The other modules here are what these two share.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import Protocol, cast

from arkinfer.checkpoint import Checkpoint
from arkinfer.errors import CheckpointFormatError, InputNotFoundError


class Format(Protocol):
    """What a format's module offers."""

    def matches(self, path: Path) -> bool:
        """Whether ``path``, which exists, looks like this format."""
        ...

    def open(self, path: Path) -> Checkpoint:
        """Read everything but the weights.

        Raises:
            DamagedCheckpointError: the files contradict themselves.
            ConfigError: configuration keys are missing or contradictory.
            UnknownModelTypeError: the architecture is not known.
            UnsupportedQuantizationError: tensors are stored in a way that is not known.
            TokenizerError: the tokenizer cannot be used.
        """
        ...


@cache
def formats() -> dict[str, Format]:
    """The formats by module name."""
    found: dict[str, Format] = {}
    for info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{info.name}")
        if hasattr(module, "matches") and hasattr(module, "open"):
            found[info.name] = cast(Format, module)
    return found


def open(path: str | Path) -> Checkpoint:
    """Open a checkpoint, whatever its format; no weight is read.

    Raises:
        InputNotFoundError: there is nothing at ``path``.
        CheckpointFormatError: no format reads what is there.
        ArkInferError: see :meth:`Format.open`.
    """
    path = Path(path)
    try:
        path.stat()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = getattr(error, "strerror", None) or str(error)
        raise InputNotFoundError(
            f"cannot open '{path}': {reason}",
            "a local folder or file",
            "download the checkpoint first if this is the name of a repository",
        ) from None
    for candidate in formats().values():
        if candidate.matches(path):
            return candidate.open(path)
    raise CheckpointFormatError(
        f"'{path}' is not a checkpoint",
        "a folder with config.json and .safetensors files, or a .gguf file",
    )
