"""Measuring prefill and decode speed of a bundle, against what the memory could deliver."""

from __future__ import annotations

import collections
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from arkinfer.bundle import Bundle
from arkinfer.errors import InvalidOptionError
from arkinfer.kv_types import KvType
from arkinfer.profile import StepProfile, bytes_read, trace
from arkinfer.runtime.model import Model
from arkinfer.runtime.native_session import NativeSession
from arkinfer.runtime.session import Session

_BANDWIDTH_BYTES = 256 << 20


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        prompt: tokens of the prompt that is prefilled.
        generate: tokens that are decoded one by one.
        depth: tokens that are in the cache before either; pseudo-random keys and values where
            the runtime can make them.
        real_prefill: run tokens to get to the depth instead.
        repeat: how often; medians are reported.
    """

    prompt: int = 512
    generate: int = 64
    depth: int = 0
    repeat: int = 5
    real_prefill: bool = False

    def __post_init__(self) -> None:
        for name, least in (("prompt", 1), ("generate", 1), ("depth", 0), ("repeat", 1)):
            if getattr(self, name) < least:
                raise InvalidOptionError(
                    f"{name} is {getattr(self, name)}", f"a number of at least {least}"
                )

    @property
    def context(self) -> int:
        """The context that the measurement needs."""
        return self.depth + max(self.prompt, self.generate)


@dataclass(frozen=True)
class Measurement:
    """Medians over the repeats.

    Attributes:
        prefill: prompt tokens per second.
        decode: generated tokens per second.
        prefill_runs, decode_runs: tokens per second of every repeat.
        bandwidth: bytes per second that this process can read from memory with
            as many threads, measured between the repeats.
        bytes_per_token: weights and cache that decoding one token reads; None
            where the backend does not say.
        profile: where the time of a token goes, for ``"prefill"`` and ``"decode"``.
    """

    prefill: float
    decode: float
    prefill_runs: list[float]
    decode_runs: list[float]
    bandwidth: float
    bytes_per_token: int | None
    profile: dict[str, list[StepProfile]] | None

    @property
    def fraction(self) -> float | None:
        """The part of the memory bandwidth that decoding uses."""
        if self.bytes_per_token is None or self.bandwidth <= 0:
            return None
        return self.decode * self.bytes_per_token / self.bandwidth


def measure(
    model: Model, session: Session, settings: Settings, profile: bool = False
) -> Measurement:
    """Measure a loaded bundle on tokens drawn from a fixed seed.

    Args:
        session: an empty session of the model.
        profile: trace one more run of each kind.
    """
    vocabulary = model.bundle.manifest.model.vocab_size
    draw = np.random.default_rng(0)
    tokens = draw.integers(0, vocabulary, settings.context).tolist()
    depth = settings.depth
    prompt = tokens[depth : depth + settings.prompt]
    generated = tokens[depth : depth + settings.generate]
    threads = session.executor.threads if isinstance(session.executor, NativeSession) else 1
    if depth and (settings.real_prefill or not isinstance(session.executor, NativeSession)):
        session.append(tokens[:depth])
    elif depth:
        session.fill_random(depth)

    def prefill() -> None:
        session.append(prompt)
        session.rollback(depth)

    def decode() -> None:
        for token in generated:
            session.append([token])
        session.rollback(depth)

    # Once through everything maps the weights and warms the caches.
    session.append(generated[:1])
    session.rollback(depth)
    prefills, decodes, bandwidths = [], [], []
    for _ in range(settings.repeat):
        bandwidths.append(read_bandwidth(threads))
        prefills.append(len(prompt) / _seconds(prefill))
        decodes.append(len(generated) / _seconds(decode))
    middle = depth + settings.generate // 2
    native = isinstance(session.executor, NativeSession)
    on_cpu = session.choice is not None and session.choice.on == "cpu"
    traced = None
    if profile:
        read = bytes_read(model.bundle, middle, model.info.kv, on_cpu) if native else None
        traced = {
            "prefill": trace(session, prefill, len(prompt)),
            "decode": trace(session, decode, len(generated), read),
        }
    return Measurement(
        prefill=statistics.median(prefills),
        decode=statistics.median(decodes),
        prefill_runs=prefills,
        decode_runs=decodes,
        bandwidth=statistics.median(bandwidths),
        bytes_per_token=bytes_per_token(model.bundle, middle, model.info.kv, on_cpu)
        if model.info.promised_bytes is not None
        else None,
        profile=traced,
    )


def read_bandwidth(threads: int) -> float:
    """Bytes per second that ``threads`` threads read together from memory."""
    parts = np.array_split(np.ones(_BANDWIDTH_BYTES // 8, dtype=np.int64), threads)
    with ThreadPoolExecutor(threads) as pool:
        return _BANDWIDTH_BYTES / min(
            _seconds(lambda: collections.deque(pool.map(np.max, parts), maxlen=0)) for _ in range(3)
        )


def bytes_per_token(bundle: Bundle, past: int, kv: KvType, on_cpu: bool = False) -> int:
    """Bytes that decoding one token after ``past`` others has to read from memory.

    See :func:`arkinfer.profile.bytes_read`.
    """
    return sum(bytes_read(bundle, past, kv, on_cpu).values())


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
