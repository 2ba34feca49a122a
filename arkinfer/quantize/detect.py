"""Ternary weights that a checkpoint stores as plain floats, as the BitCPM4 releases do."""

from __future__ import annotations

from arkinfer.checkpoint import Checkpoint
from arkinfer.quantize import policy, rtn
from arkinfer.quantize.schemes import GroupScheme

_ROWS = 2


def ternary(checkpoint: Checkpoint) -> str | None:
    """The option that keeps a checkpoint's ternary projections, or None where there are none.

    The first rows of every projection are looked at: in each group, all values must be 0
    or of one magnitude. The option with the longest groups that allows it is chosen.

    Args:
        checkpoint: an opened one; a few rows of each projection are read.

    Returns:
        ``"ternary"``, ``"ternaryg128"``, ``"ternaryg64"``, ``"ternaryg32"`` or None.
    """
    options = list(policy.TERNARY_CHOICES)
    seen = False
    for name, info in checkpoint.tensors.items():
        if not name.endswith("_proj.weight") or len(info.shape) != 2:
            continue
        if isinstance(info.storage, GroupScheme):
            return None
        rows = checkpoint.read(name, slice(0, _ROWS))
        seen = seen or bool(rows.any())
        for option in list(options):
            scheme = policy.choose(option, "projection", info.storage, info.shape[1])
            if not isinstance(scheme, GroupScheme) or not rtn.is_ternary(rows, scheme.group_size):
                options.remove(option)
        if not options:
            return None
    return options[0] if seen else None
