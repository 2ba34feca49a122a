"""A checkpoint becomes a bundle: read, describe, transform, lower, seal."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from arkinfer import backends, converters, devices, kv_types, memory, models, passes, tokenizer
from arkinfer.backends import CompileOptions
from arkinfer.bundle import Bundle
from arkinfer.bundle_writer import BundleWriter
from arkinfer.checkpoint import Checkpoint
from arkinfer.config import ModelConfig, SparseConfig
from arkinfer.devices import Device
from arkinfer.errors import (
    InvalidOptionError,
    SparseAttentionError,
    StorageError,
    TokenizerError,
    UnknownBackendError,
)
from arkinfer.graph.graph import Graph
from arkinfer.manifest import (
    Manifest,
    MemoryFacts,
    Quantization,
    Source,
    TokenizerSettings,
)
from arkinfer.passes import PassOptions
from arkinfer.quantize import detect, policy
from arkinfer.quantize.schemes import GroupScheme

Sparse = Literal["auto", "on", "off", "force"]
Progress = Callable[[str, float], None]
"""Told what is being done, and the fraction of the whole that is done."""

DEFAULT_CONTEXT = 32768
DEFAULT_QUANT = "w4g128"
# LongRoPE models are extended to 128K by replacing the factor arrays alone.
LONG_ROPE_CONTEXT = 131072
SMALLEST_CHUNK, LARGEST_CHUNK = 1, 8192
# Resident bytes of a tokenizer in Python, measured with 49 thousand tokens and as many merges,
# and with 73 thousand tokens without merges.
BYTES_PER_TOKEN = 380
_BYTES_PER_MERGE = 500


def compile(
    path: str | os.PathLike[str],
    target: str = "cpu",
    quant: str | None = None,
    context: int | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    chunk: int = 512,
    sparse: str = "auto",
    kv: str | None = None,
    kernels: str | None = None,
    dump: Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Compile a checkpoint; see :func:`arkinfer.compile` for the arguments.

    Nothing appears at ``output`` before the bundle is whole. Every check that
    needs no weights is made before the first weight is read.

    Raises:
        InputNotFoundError, CheckpointFormatError, DamagedCheckpointError, ConfigError,
        UnknownModelTypeError, CheckpointTensorsError, TokenizerError: the checkpoint.
        InvalidOptionError, UnknownBackendError, SparseAttentionError,
        UnsupportedQuantizationError: the options.
        LoweringError: a graph that the backend cannot run.
        OutputExistsError, StorageError: the output.
    """
    report = progress or (lambda _what, _fraction: None)
    check_options(target, quant, chunk, sparse, kv)
    report("reading the checkpoint", 0.0)
    return compile_checkpoint(
        converters.open(Path(path)),
        target,
        quant,
        context,
        output,
        chunk=chunk,
        sparse=sparse,
        kv=kv,
        kernels=kernels,
        dump=dump,
        progress=progress,
    )


def check_options(target: str, quant: str | None, chunk: int, sparse: str, kv: str | None) -> None:
    """Refuse options that no checkpoint can be compiled with.

    Raises:
        InvalidOptionError, UnknownBackendError: an option.
    """
    find_device(target)
    if quant is not None:
        policy.parse(quant)
    check_choice("sparse", sparse, get_args(Sparse))
    if kv is not None:
        kv_types.parse(kv)
    if not SMALLEST_CHUNK <= chunk <= LARGEST_CHUNK:
        raise InvalidOptionError(f"chunk is {chunk}", f"{SMALLEST_CHUNK} to {LARGEST_CHUNK} tokens")


def compile_checkpoint(
    checkpoint: Checkpoint,
    target: str = "cpu",
    quant: str | None = None,
    context: int | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    chunk: int = 512,
    sparse: str = "auto",
    kv: str | None = None,
    kernels: str | None = None,
    dump: Path | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Compile a checkpoint that is already open, as :func:`compile` does one on disk."""
    report = progress or (lambda _what, _fraction: None)
    check_options(target, quant, chunk, sparse, kv)
    device = find_device(target)
    kv_type = None if kv is None else kv_types.parse(kv)
    backend = backends.get(device.backend)
    config = dataclasses.replace(checkpoint.config, sparse=choose_sparse(checkpoint.config, sparse))
    tokens = choose_context(config, context)
    if kernels is not None and device.backend != "cpu":
        raise InvalidOptionError(
            f"kernels is {kernels[:60]!r} for the backend {device.backend}",
            "a CPU target",
        )
    options = CompileOptions(tokens, min(chunk, tokens), kv_type, kernels)
    quant = choose_quant(checkpoint, quant, device.quantization or DEFAULT_QUANT)
    destination = Path(output) if output is not None else default_output(checkpoint)

    report("building the graph", 0.01)
    graph = models.build(config, config.sparse)
    graph = passes.run(graph, checkpoint.tensors, PassOptions(quant=quant, dump=dump))
    with BundleWriter(destination) as writer:
        counter = _Counter(report, _expected_bytes(graph))
        writer.on_write = counter.add
        backend.compile(graph, checkpoint, device, options, writer)
        writer.on_write = None
        report("writing the graph and the tokenizer", 0.98)
        try:
            graph.save(writer.folder / "graph.onnx")
        except OSError as error:
            raise StorageError(f"cannot write {destination} ({error.strerror})") from error
        settings, tokenizer_bytes = write_tokenizer(writer, checkpoint)
        writer.finish(
            Manifest(
                created_by=f"arkinfer {_version()}",
                backend=device.backend,
                device=dataclasses.asdict(device),
                model=config,
                quantization=Quantization(quant, storages(graph)),
                context=options.context,
                chunk=options.chunk,
                tokenizer=settings,
                kv=kv_type,
                generation=dict(checkpoint.generation),
                memory=memory_facts(config, writer, tokenizer_bytes),
                source=Source(checkpoint.path.resolve().name, checkpoint.format),
            )
        )
    report("done", 1.0)
    return Bundle.open(destination)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among the choices of an option."""
    if value not in choices:
        raise InvalidOptionError(f"{name} is {value[:60]!r}", f"one of {', '.join(choices)}")


def find_device(target: str) -> Device:
    """The device of a target, of which a backend is there; a backend's name is any device it has.

    Raises:
        UnknownBackendError: neither a device nor a backend; lists both. Or nothing compiles for
            that processor of the device.
        DeviceProfileError: the file of a profile breaks its rules.
    """
    known = [profile.name for profile in devices.profiles()]
    base = target.removesuffix(":cpu").removesuffix(":gpu")
    if base not in known and not base.endswith(".toml"):
        if target in backends.names():
            return Device(name=target, backend=target)
        raise UnknownBackendError(
            f"no target is called {target[:60]!r}",
            f"a device ({', '.join(known)}) or a backend ({', '.join(backends.names())})",
        )
    profile, unit = devices.find(target)
    if unit.backend in backends.names():
        return profile.device(unit)
    others = [
        f"--target {base}:{other.name} compiles for its {other.name.upper()}"
        for other in profile.units.values()
        if other.backend in backends.names()
    ]
    raise UnknownBackendError(
        f"the backend {unit.backend!r}, which compiles for the {unit.name.upper()} of "
        f"{profile.name}, is not there",
        f"one of {', '.join(backends.names())}",
        others[0] if others else "install a package that provides it",
    )


def choose_context(config: ModelConfig, context: int | None) -> int:
    """The context to compile for, in tokens; by default the model's own up to 32,768.

    Raises:
        InvalidOptionError: below 1, or beyond what the position embedding covers.
    """
    if context is None:
        return min(config.max_position, DEFAULT_CONTEXT)
    limit = config.max_position
    if config.rope.long_factors:
        limit = max(limit, LONG_ROPE_CONTEXT)
    if not 1 <= context <= limit:
        raise InvalidOptionError(
            f"context {context}",
            f"1 to {limit} tokens, the range of the model's position embedding",
        )
    return context


def choose_sparse(config: ModelConfig, mode: str) -> SparseConfig | None:
    """The sparse attention to seal into the bundle, or None for dense attention.

    ``auto`` follows the checkpoint; ``on`` and ``force`` use its settings where it has
    some, else the released ones (:class:`SparseConfig`'s defaults). Trained for sparse attention
    are the MiniCPM4 models with 16 query heads per KV head and heads of 128 dimensions.

    Raises:
        SparseAttentionError: ``on`` for any other model.
    """
    if mode == "off":
        return None
    if config.sparse is not None or mode == "auto":
        return config.sparse
    trained = (
        config.model_type == "minicpm"
        and config.num_heads == 16 * config.num_kv_heads
        and config.head_dim == 128
    )
    if mode == "on" and not trained:
        raise SparseAttentionError(
            f"this {config.model_type} model ({config.num_heads} heads over "
            f"{config.num_kv_heads} KV heads of {config.head_dim}) was not trained for sparse "
            "attention",
            "a MiniCPM4 or MiniCPM4.1 8B",
            "leave it dense, or use --sparse force to try it all the same",
        )
    if config.max_position >= 65536:
        return SparseConfig(generation="B", lse="coarse")
    return SparseConfig(generation="A", lse="exact")


def choose_quant(checkpoint: Checkpoint, quant: str | None, default: str = DEFAULT_QUANT) -> str:
    """The quantization that was asked for, with its default and with ``keep`` filled in.

    By default what the checkpoint is quantized to is kept, else it is ``default``. Projections that
    are ternary but stored as floats count as quantized, and are kept by a ternary scheme.
    """
    if quant not in (None, "keep"):
        return str(quant)
    if any(isinstance(t.storage, GroupScheme) for t in checkpoint.tensors.values()):
        return "keep"
    return detect.ternary(checkpoint) or quant or default


def default_output(checkpoint: Checkpoint) -> Path:
    """``NAME.ark`` in the current folder, after the checkpoint's folder or file."""
    path = checkpoint.path.resolve()
    name = path.name if path.is_dir() else path.stem
    return Path(f"{name or 'model'}.ark")


def storages(graph: Graph) -> dict[str, str]:
    """How each weight of the graph is stored: ``"w4g128"``, ``"f16"``, ..."""
    return {name: str(spec.storage) for name, spec in graph.weights.items()}


def write_tokenizer(
    writer: BundleWriter, checkpoint: Checkpoint
) -> tuple[TokenizerSettings | None, int]:
    """Write the tokenizer's files; gives its settings and its resident bytes (an estimate).

    Without a tokenizer the bundle still runs on token ids; its tokens have no text.

    Raises:
        TokenizerError: it has more tokens than the model has logits.
    """
    files = checkpoint.tokenizer
    vocab = checkpoint.config.vocab_size
    pieces = files.token_bytes if files else ()
    if len(pieces) > vocab and any(pieces[vocab:]):
        raise TokenizerError(
            f"the tokenizer has {len(pieces)} tokens", f"at most the model's {vocab}"
        )
    vocabulary = tokenizer.vocabulary_bytes([*pieces[:vocab], *[b""] * (vocab - len(pieces))])
    with writer.open_file("vocabulary.bin") as file:
        file.write(vocabulary)
    if files is None:
        return None, len(vocabulary)
    text = files.json.encode()
    with writer.open_file("tokenizer.json") as file:
        file.write(text)
    if files.chat_template is not None:
        with writer.open_file("chat_template.jinja") as file:
            file.write(files.chat_template.encode())
    settings = TokenizerSettings(
        files.add_bos, files.bos_id, tuple(files.eos_ids), tuple(files.special_ids)
    )
    merges = json.loads(text).get("model", {}).get("merges") or ()
    resident = BYTES_PER_TOKEN * len(pieces) + _BYTES_PER_MERGE * len(merges)
    return settings, len(vocabulary) + resident


def memory_facts(config: ModelConfig, writer: BundleWriter, tokenizer_bytes: int) -> MemoryFacts:
    """The manifest's memory numbers; those per token are for long contexts, rounded up."""
    far = 1 << 20
    kinds = kv_types.NAMES
    return MemoryFacts(
        weights=writer.weights_bytes,
        kv_bytes_per_token={k: memory.kv_cache_bytes(config, far, k) // far for k in kinds},
        compressed_key_bytes_per_token={
            k: math.ceil(memory.compressed_key_bytes(config, far, k) / far) for k in kinds
        },
        arena=writer.arena_bytes,
        tokenizer=tokenizer_bytes,
        host=writer.host_memory,
    )


class _Counter:
    """Turns bytes written into a fraction of the bytes expected."""

    def __init__(self, report: Progress, expected: int) -> None:
        self._report = report
        self._expected = max(expected, 1)
        self._written = 0

    def add(self, count: int) -> None:
        self._written += count
        fraction = min(self._written / self._expected, 1.0)
        self._report("packing weights", 0.02 + 0.96 * fraction)


def _expected_bytes(graph: Graph) -> int:
    bits = {"f32": 32.0, "f16": 16.0, "bf16": 16.0}
    total = 0.0
    for spec in graph.weights.values():
        storage = spec.storage
        if isinstance(storage, GroupScheme):
            scale = 16 if storage.scale_dtype == "fp16" else 32
            width = storage.bits + scale / storage.group_size
        else:
            width = bits[storage]
        total += math.prod(spec.shape) * width / 8
    return int(total)


def _version() -> str:
    from arkinfer import __version__

    return __version__
