"""What a bundle for a device runs on: that device or the CPU, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from arkinfer.runtime import abi

On = Literal["faster", "device", "cpu"]


@dataclass(frozen=True)
class Speeds:
    """Tokens per second of prompts and of answers, as the first load measured them."""

    prefill: float
    decode: float


@dataclass(frozen=True)
class Choice:
    """What a session runs on.

    Attributes:
        on: ``"device"`` or ``"cpu"``; ``"faster"`` where that is not measured yet.
        device: the device's name; empty where there is none.
        why: one line.
        device_speeds, cpu_speeds: None where nothing was measured.
    """

    on: On
    device: str
    why: str
    device_speeds: Speeds | None = None
    cpu_speeds: Speeds | None = None

    def __str__(self) -> str:
        device = self.device or "the device"
        if self.on == "device":
            return f"runs on {device}: {self.why}"
        if self.on == "cpu":
            return f"runs on the CPU{', not on ' + device if self.device else ''}: {self.why}"
        return f"runs on {device} or the CPU: {self.why}"


def from_struct(found: abi.Choice) -> Choice | None:
    """None for a bundle that leaves no choice."""
    if not found.why:
        return None
    names: dict[int, On] = {abi.ON["faster"]: "faster", abi.ON["device"]: "device"}
    return Choice(
        names.get(found.on, "cpu"),
        found.device.decode(errors="replace"),
        found.why.decode(errors="replace"),
        _speeds(found.device_prefill, found.device_decode),
        _speeds(found.cpu_prefill, found.cpu_decode),
    )


def _speeds(prefill: float, decode: float) -> Speeds | None:
    return Speeds(prefill, decode) if prefill > 0 and decode > 0 else None
