"""Where the time of a token goes: the steps of the plan, what they took and what they read."""

from __future__ import annotations

import collections
from collections.abc import Callable
from dataclasses import dataclass

from arkinfer import bundle_steps, work
from arkinfer.bundle import Bundle
from arkinfer.kv_types import KvType
from arkinfer.runtime.native_session import Step
from arkinfer.runtime.session import Session
from arkinfer.work import Key, PlanWork


@dataclass(frozen=True)
class StepProfile:
    """One kind of step, all layers together, per token.

    Attributes:
        kernel: as in the plan.
        stage: what it computes, as in ``"layers.*.mlp.down"``; empty where the plan has no name.
        calls: how often it ran for one token; a prompt's chunks share a call.
        seconds: what it took.
        bytes: weights and cache that it reads; None where that is not known.
        share: its part of the time of all steps.
    """

    kernel: str
    stage: str
    calls: float
    seconds: float
    bytes: int | None
    share: float

    @property
    def bandwidth(self) -> float | None:
        """Bytes read per second."""
        return self.bytes / self.seconds if self.bytes and self.seconds > 0 else None


def trace(
    session: Session, run: Callable[[], None], tokens: int, read: dict[Key, int] | None = None
) -> list[StepProfile]:
    """Profile what ``run`` executes in a native session, the most expensive step first.

    Args:
        tokens: how many tokens ``run`` computes; everything is per token.
        read: bytes per token of each kind of step, as from :func:`bytes_read`.
    """
    seconds: dict[Key, float] = collections.defaultdict(float)
    calls: dict[Key, int] = collections.defaultdict(int)

    def add(step: Step) -> None:
        key = work.key_of(step.kernel, step.stage)
        seconds[key] += step.seconds
        calls[key] += 1

    with session.trace(add):
        run()
    whole = sum(seconds.values()) or 1.0
    return [
        StepProfile(
            kernel=key[0],
            stage=key[1],
            calls=calls[key] / tokens,
            seconds=taken / tokens,
            bytes=(read or {}).get(key) or None,
            share=taken / whole,
        )
        for key, taken in sorted(seconds.items(), key=lambda item: -item[1])
    ]


def bytes_read(bundle: Bundle, past: int, kv: KvType, on_cpu: bool = False) -> dict[Key, int]:
    """Bytes that decoding one token after ``past`` others has to read, by kind of step.

    All weights of the plan but those that only the embedding looks rows up in,
    and the part of the KV cache that attention and selection visit.

    Args:
        on_cpu: of a bundle for a device what the CPU reads in its place.

    Raises:
        InvalidBundleError: the plan is not what docs/bundle.md describes.
    """
    steps = PlanWork(bundle_steps.steps_of(bundle, on_cpu), bundle.manifest.model).at(past, kv)
    return {key: step.bytes for key, step in steps.items()}
