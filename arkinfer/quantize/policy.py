"""Which scheme each weight gets: the option ``--quant`` and one table."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from arkinfer.checkpoint import FloatType
from arkinfer.errors import InvalidOptionError, UnsupportedQuantizationError
from arkinfer.quantize.schemes import GroupScheme

Role = Literal["embedding", "norm", "head", "projection"]
Storage = FloatType | GroupScheme

# Stands for a group of all inputs until a weight's shape is known.
_WHOLE_ROW = 0
_TERNARY_GROUPS = (32, 64, 128)

_ASKED: dict[str, GroupScheme] = {
    str(scheme): scheme
    for bits in (4, 8)
    for group in (32, 64, 128)
    for scheme in (GroupScheme(bits, group), GroupScheme(bits, group, "zero_point"))
}
# A scale per row is little to store, and float32 holds any checkpoint's scale exactly.
_ASKED["ternary"] = GroupScheme(2, _WHOLE_ROW, "symmetric", "fp32")
_ASKED |= {str(scheme): scheme for scheme in (GroupScheme(2, n) for n in _TERNARY_GROUPS)}

# From the longest groups to the shortest.
TERNARY_CHOICES: tuple[str, ...] = (
    "ternary",
    *(str(GroupScheme(2, n)) for n in reversed(_TERNARY_GROUPS)),
)
QUANT_CHOICES: tuple[str, ...] = ("none", "keep", *_ASKED)

# What a role's weights become when a scheme is asked for. The embedding is only
# looked up, and the head decides the tokens, so both keep more bits.
#   float   stored as a float     quantized   stored quantized
_POLICY: dict[Role, dict[str, str]] = {
    "embedding": {"float": "as stored", "quantized": "as stored"},
    "norm": {"float": "f32", "quantized": "f32"},
    "head": {"float": "8 bits", "quantized": "as stored"},
    "projection": {"float": "as asked", "quantized": "as asked"},
}


def parse(quant: str) -> Literal["none", "keep"] | GroupScheme:
    """Read a quantization option.

    ``none`` leaves every weight as it is stored; ``keep`` is the same and
    promises that there are quantized weights to keep; ``w4g128`` and its like
    name bits and group, with a final ``z`` for zero points. ``ternary`` has a scale per
    row (its ``group_size`` is 0 here; :func:`choose` fills it in), ``ternaryg64`` and its
    like one per group.

    Raises:
        InvalidOptionError: it is none of :data:`QUANT_CHOICES`.
    """
    if quant == "none":
        return "none"
    if quant == "keep":
        return "keep"
    if quant not in _ASKED:
        raise InvalidOptionError(
            f"unknown quantization '{quant}'", f"one of {', '.join(QUANT_CHOICES)}"
        )
    return _ASKED[quant]


def check(quant: str, stored: Iterable[Storage]) -> None:
    """Refuse an option that cannot apply to tensors that are ``stored`` like this.

    Raises:
        InvalidOptionError: unknown option.
        UnsupportedQuantizationError: ``keep`` without a quantized tensor.
    """
    if parse(quant) == "keep" and not any(isinstance(item, GroupScheme) for item in stored):
        raise UnsupportedQuantizationError(
            "quantization 'keep' was asked for, but the checkpoint has no quantized tensors",
            "a quantized checkpoint",
            "use 'none' to keep the float weights, or a scheme such as w4g128",
        )


def choose(quant: str, role: Role, stored: Storage, inputs: int | None = None) -> Storage:
    """The storage of one weight in the bundle.

    Args:
        quant: the option, see :func:`parse`.
        role: what the weight does. A tied embedding has the role ``head``.
        stored: its storage in the checkpoint.
        inputs: its number of columns. Where the group does not divide them, the
            largest smaller group that does is taken; where none does, the weight
            stays as it is stored.

    Raises:
        InvalidOptionError: unknown option.
    """
    asked = parse(quant)
    kind = "quantized" if isinstance(stored, GroupScheme) else "float"
    rule = _POLICY[role][kind]
    if rule == "f32":
        return "f32"
    if rule == "as stored" or not isinstance(asked, GroupScheme):
        return stored
    scheme = _eight_bits(asked) if rule == "8 bits" else asked
    return scheme if inputs is None else _fit(scheme, inputs, stored)


def _eight_bits(asked: GroupScheme) -> GroupScheme:
    group = 128 if asked.group_size == _WHOLE_ROW else asked.group_size
    return replace(asked, bits=8, group_size=group, scale_dtype="fp16")


def _fit(scheme: GroupScheme, inputs: int, stored: Storage) -> Storage:
    if scheme.group_size == _WHOLE_ROW:
        return stored if inputs % 16 else replace(scheme, group_size=inputs)
    for group in (128, 64, 32, 16):
        if group <= scheme.group_size and inputs % group == 0:
            return replace(scheme, group_size=group)
    return stored
