"""ArkInfer: compile a MiniCPM checkpoint into a bundle, and run it.

    import arkinfer
    model = arkinfer.load("minicpm.ark", context=8192)
    for piece in model.chat([{"role": "user", "content": "Hi"}]):
        print(piece.text, end="")

Names are looked up when they are first used, so the import itself is quick
and needs none of the optional dependencies.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from arkinfer import errors as errors
    from arkinfer.api import compile as compile
    from arkinfer.api import load as load
    from arkinfer.runtime.generation import Generation as Generation
    from arkinfer.runtime.generation import Piece as Piece
    from arkinfer.runtime.model import Model as Model
    from arkinfer.runtime.session import Session as Session

__version__ = "0.1.0"

__all__ = [
    "Generation",
    "Model",
    "Piece",
    "Session",
    "__version__",
    "compile",
    "errors",
    "load",
]

_HOMES = {
    "compile": "arkinfer.api",
    "load": "arkinfer.api",
    "Generation": "arkinfer.runtime.generation",
    "Piece": "arkinfer.runtime.generation",
    "Model": "arkinfer.runtime.model",
    "Session": "arkinfer.runtime.session",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("arkinfer.errors")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'arkinfer' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
