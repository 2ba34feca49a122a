"""Measuring prefill and decode speed of a bundle, against what the memory could deliver."""

from __future__ import annotations

import collections
import json
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from arkinfer import kv_types
from arkinfer.bundle import Bundle
from arkinfer.config import SparseConfig
from arkinfer.errors import InvalidBundleError, InvalidOptionError
from arkinfer.kv_types import KvType
from arkinfer.runtime.model import Model
from arkinfer.runtime.native_session import NativeSession, Step
from arkinfer.runtime.session import Session

_BANDWIDTH_BYTES = 256 << 20


@dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        prompt: tokens of the prompt that is prefilled.
        generate: tokens that are decoded one by one.
        depth: tokens that are in the cache before either.
        repeat: how often; medians are reported.
    """

    prompt: int = 512
    generate: int = 64
    depth: int = 0
    repeat: int = 5

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
        profile: seconds per token by kernel, for ``"prefill"`` and ``"decode"``.
    """

    prefill: float
    decode: float
    prefill_runs: list[float]
    decode_runs: list[float]
    bandwidth: float
    bytes_per_token: int | None
    profile: dict[str, dict[str, float]] | None

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
    if depth:
        session.append(tokens[:depth])

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
    traced = None
    if profile:
        traced = {
            "prefill": _trace(session, prefill, len(prompt)),
            "decode": _trace(session, decode, len(generated)),
        }
    middle = depth + settings.generate // 2
    return Measurement(
        prefill=statistics.median(prefills),
        decode=statistics.median(decodes),
        prefill_runs=prefills,
        decode_runs=decodes,
        bandwidth=statistics.median(bandwidths),
        bytes_per_token=bytes_per_token(model.bundle, middle, model.info.kv)
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


def bytes_per_token(bundle: Bundle, past: int, kv: KvType) -> int:
    """Bytes that decoding one token after ``past`` others has to read from memory.

    All weights of the plan but those that only the embedding looks rows up in,
    and the part of the KV cache that attention visits.

    Raises:
        InvalidBundleError: the plan is not what docs/bundle.md describes.
    """
    model = bundle.manifest.model
    try:
        plan: dict[str, Any] = json.loads(bundle.read_text("plan.json"))
        sizes = {weight["name"]: int(weight["bytes"]) for weight in plan["weights"]}
        read = {
            operand["weight"]
            for step in [*plan["body"], *plan["head"]]
            if step["kernel"] != "embed"
            for operand in step["operands"].values()
            if "weight" in operand
        }
        weights = sum(sizes[name] for name in read)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidBundleError(f"plan.json cannot be read: {error!r}") from None
    visited, windows = _visited(model.sparse, past)
    block = kv_types.key_block_bytes(kv, model.head_dim)
    block += kv_types.value_block_bytes(kv, model.head_dim)
    read_keys = visited * block + windows * kv_types.compressed_block_bytes(kv, model.head_dim)
    return weights + model.num_layers * model.num_kv_heads * read_keys // kv_types.BLOCK


def _visited(sparse: SparseConfig | None, past: int) -> tuple[int, int]:
    """Tokens and compressed windows that attention reads after ``past`` tokens."""
    if sparse is None or past + 1 < sparse.dense_len:
        return past, 0
    fine = max(past - sparse.kernel_size, 0) // sparse.kernel_stride
    return min(past, sparse.max_blocks * sparse.block_size), fine


def _trace(session: Session, run: Callable[[], None], tokens: int) -> dict[str, float]:
    """Seconds per token by kernel, the most expensive first."""
    seconds: dict[str, float] = collections.defaultdict(float)

    def add(step: Step) -> None:
        seconds[step.kernel] += step.seconds / tokens

    with session.trace(add):
        run()
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
