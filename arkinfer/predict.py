"""Tokens per second before anything was run: a roofline over the steps of a plan.

Each step takes as long as reading its bytes or as doing its operations, whichever is longer, and
a little to begin and end; a token or a chunk takes the sum of its steps. What the device has is
taken down to what is assumed to be reached of it (:data:`EFFICIENCIES`). Speculative decoding is
not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from arkinfer.devices import Figure, Profile, Unit
from arkinfer.memory import MemoryTable
from arkinfer.planning import Planned
from arkinfer.work import PlanWork, Work


@dataclass(frozen=True)
class Efficiency:
    """Parts of the memory's bandwidth and of the peak that are assumed to be reached.

    ``step_seconds`` is what a step takes besides: starting threads or a kernel, and waiting for
    the last of them.
    """

    bandwidth: float
    compute: float
    step_seconds: float = 5e-6


# Assumed, not measured on these devices: docs/devices.md gives what each rests on.
EFFICIENCIES: Mapping[str, Efficiency] = {
    "cpu": Efficiency(0.60, 0.50),
    "gpu": Efficiency(0.75, 0.50),
    "measured": Efficiency(0.90, 0.50),
}
# What products with weights and attention are computed in, best first.
_PRODUCTS: Mapping[str, tuple[str, ...]] = {
    "cpu": ("int8", "fp32"),
    "gpu": ("fp16", "bf16", "fp32"),
}
_ATTENTION: Mapping[str, tuple[str, ...]] = {"cpu": ("fp32",), "gpu": ("fp16", "bf16", "fp32")}


@dataclass(frozen=True)
class Rates:
    """What a processor gives, before any efficiency.

    Attributes:
        bandwidth: bytes per second.
        products, attention: operations per second, with the number type they are done in; None
            where no peak is known.
        efficiency: assumed parts of them.
        origin: ``"published"`` or ``"measured here"``.
    """

    bandwidth: float
    products: tuple[str, float] | None
    attention: tuple[str, float] | None
    efficiency: Efficiency
    origin: str


@dataclass(frozen=True)
class Prediction:
    """At one context length.

    Attributes:
        context: tokens.
        memory: what running with that context takes.
        decode: tokens per second, of the token that fills the context.
        decode_bytes: bytes that this token reads.
        prefill: tokens per second of a prompt that fills the context; None where no peak is known.
    """

    context: int
    memory: MemoryTable
    decode: float
    decode_bytes: int
    prefill: float | None


def rates_of(profile: Profile, unit: Unit) -> Rates | None:
    """What is published of a processor; None where its memory's bandwidth is not."""
    bandwidth = (unit.bandwidth or profile.bandwidth).value
    if bandwidth is None:
        return None
    return Rates(
        bandwidth=bandwidth * 1e9,
        products=_peak(unit.peak, _PRODUCTS[unit.name]),
        attention=_peak(unit.peak, _ATTENTION[unit.name]),
        efficiency=EFFICIENCIES[unit.name],
        origin="published",
    )


class Workload:
    """What a model has to do at some context lengths; the same for every device.

    Args:
        contexts: ascending.
    """

    def __init__(self, planned: Planned, contexts: Sequence[int]) -> None:
        self.planned = planned
        self.contexts = tuple(contexts)
        steps = PlanWork(planned.plan, planned.model)
        chunk, kv = planned.chunk, planned.kv
        self._decode = {c: list(steps.at(c - 1, kv).values()) for c in self.contexts}
        longest = max(self.contexts, default=0)
        # Whole chunks are shared by all contexts; the head runs once, behind the last one.
        self._chunks = [
            list(steps.at(past, kv, chunk, outputs=0).values())
            for past in range(0, longest - chunk + 1, chunk)
        ]
        self._rest = {
            c: list(steps.at(c - c % chunk, kv, c % chunk, outputs=0).values()) if c % chunk else []
            for c in self.contexts
        }
        body = set(steps.at(0, kv, outputs=0))
        self._head = [work for key, work in steps.at(0, kv).items() if key not in body]

    def predict(self, rates: Rates) -> list[Prediction]:
        """Predict speed and memory on a processor, at each context length."""
        chunks = [seconds(steps, rates) for steps in self._chunks]
        head = seconds(self._head, rates)
        found = []
        for context in self.contexts:
            whole = sum(chunks[: context // self.planned.chunk])
            prompt = whole + seconds(self._rest[context], rates) + head
            found.append(
                Prediction(
                    context=context,
                    memory=self.planned.memory(context),
                    decode=1 / seconds(self._decode[context], rates),
                    decode_bytes=sum(step.bytes for step in self._decode[context]),
                    prefill=None if rates.products is None else context / prompt,
                )
            )
        return found


def seconds(steps: Iterable[Work], rates: Rates) -> float:
    """How long the steps take, one after the other."""
    total = 0.0
    for step in steps:
        read = step.bytes / (rates.bandwidth * rates.efficiency.bandwidth)
        computed = 0.0
        for operations, peak in (
            (step.products, rates.products),
            (step.attention, rates.attention or rates.products),
        ):
            if operations and peak:
                computed += operations / (peak[1] * rates.efficiency.compute)
        total += max(read, computed) + step.steps * rates.efficiency.step_seconds
    return total


def _peak(peaks: Mapping[str, Figure], wanted: Iterable[str]) -> tuple[str, float] | None:
    for precision in wanted:
        figure = peaks.get(precision)
        if figure is not None and figure.value is not None:
            return precision, figure.value * 1e12
    return None
