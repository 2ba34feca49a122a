"""Optional dependencies: which extra provides what, and how to say that one is missing."""

from __future__ import annotations

import importlib.util

from arkinfer.errors import MissingExtraError

EXTRAS = {
    "compile": ("onnx", "onnx_ir", "onnxruntime"),
    "tvm": ("tvm",),
    "webgpu": ("wgpu",),
}


def require(extra: str, purpose: str) -> None:
    """Check that the modules of an extra can be imported, without importing them.

    Args:
        extra: a key of :data:`EXTRAS`.
        purpose: what needs it, as in ``"arkinfer compile"``.

    Raises:
        MissingExtraError: names the missing modules and the command to install them.
    """
    missing = [name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{purpose} needs {', '.join(missing)}, which is not installed",
            remedy=f"run: pip install 'arkinfer[{extra}]'",
        )
