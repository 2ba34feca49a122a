"""What a model would run and need, known before it is compiled.

A bundle brings its plan along. For a checkpoint, or for a model that is known by name, the graph
is built and lowered as for a bundle, but no weight is read.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arkinfer import bundle_steps, kv_types, memory
from arkinfer.bundle import Bundle
from arkinfer.checkpoint import Checkpoint, TensorInfo
from arkinfer.config import ModelConfig
from arkinfer.errors import InvalidOptionError
from arkinfer.extras import require
from arkinfer.kv_types import KvType
from arkinfer.memory import MemoryTable

# The backend whose plan stands for that of a backend which cannot tell its own.
STAND_IN = "cpu"


@dataclass(frozen=True)
class Options:
    """How to plan; the same as those of ``arkinfer compile``. None is what that would choose."""

    quant: str | None = None
    context: int | None = None
    chunk: int = 512
    sparse: str = "auto"
    kv: str | None = None


@dataclass(frozen=True)
class Planned:
    """A model and the steps that run it.

    Attributes:
        name: the model's name or path, as it was given.
        plan: the content of ``plan.json``.
        quantization: as asked for, or as chosen.
        context: the most tokens.
        chunk: tokens of a prompt that are run at once.
        kv: number type of the caches.
        weights, arena, tokenizer: bytes, as in the manifest's memory table.
    """

    name: str
    model: ModelConfig
    plan: Mapping[str, Any]
    quantization: str
    context: int
    chunk: int
    kv: KvType
    weights: int
    arena: int
    tokenizer: int

    def memory(self, context: int) -> MemoryTable:
        """Bytes that running it with a context takes."""
        return MemoryTable(
            context=context,
            kv=self.kv,
            weights=self.weights,
            kv_cache=memory.kv_cache_bytes(self.model, context, self.kv),
            compressed_keys=memory.compressed_key_bytes(self.model, context, self.kv),
            arena=self.arena,
            tokenizer=self.tokenizer,
            process=memory.PROCESS_BYTES,
        )

    @property
    def largest_tensor(self) -> int:
        """Bytes of the largest weight, which some devices must allocate at once."""
        return max((int(weight["bytes"]) for weight in self.plan["weights"]), default=0)


def plan(model: str, options: Options, backend: str = STAND_IN, preferred: str = "") -> Planned:
    """Plan a model.

    Args:
        model: a bundle's folder, a checkpoint, or a name that :mod:`arkinfer.known_models` knows.
        backend: whose plan is wanted for what is no bundle; see :data:`STAND_IN`.
        preferred: the quantization where neither ``options`` nor the model settles it.

    Raises:
        InputNotFoundError: none of them.
        InvalidOptionError: an option, or one that a bundle has settled already.
        ArkInferError: the bundle or the checkpoint cannot be read or planned.
    """
    path = Path(model)
    if (path / "manifest.json").is_file():
        return of_bundle(Bundle.open(path), options)
    require("compile", "planning a model that is no bundle")
    if path.exists():
        from arkinfer import compiler, converters

        checkpoint = converters.open(path)
        tokenizer = len(checkpoint.tokenizer.token_bytes) if checkpoint.tokenizer else 0
        quant = options.quant or compiler.choose_quant(
            checkpoint, None, preferred or compiler.DEFAULT_QUANT
        )
        options = dataclasses.replace(options, quant=quant)
        return _of_checkpoint(model, checkpoint, options, backend, tokenizer)
    return _of_known(model, options, backend, preferred)


def of_bundle(bundle: Bundle, options: Options) -> Planned:
    """The plan that a bundle holds.

    Raises:
        InvalidOptionError: another quantization or attention than it was compiled with, or a
            context beyond its own.
        InvalidBundleError: it holds no plan.
    """
    manifest = bundle.manifest
    if options.quant is not None or options.sparse != "auto":
        raise InvalidOptionError(
            "a bundle's quantization and attention are settled",
            remedy="name a checkpoint or a known model to see others",
        )
    content = bundle_steps.steps_of(bundle)
    kv = kv_types.parse(options.kv) if options.kv else None
    table = memory.table(manifest, options.context, kv)
    return Planned(
        name=str(bundle.path),
        model=manifest.model,
        plan=content,
        quantization=manifest.quantization.requested,
        context=table.context,
        chunk=manifest.chunk,
        kv=table.kv,
        weights=table.weights,
        arena=table.arena,
        tokenizer=table.tokenizer,
    )


def _of_known(name: str, options: Options, backend: str, preferred: str) -> Planned:
    from arkinfer import compiler, known_models, models

    known = known_models.find(name)
    graph = models.build(known.config, None)
    tensors = {
        source: TensorInfo(source, spec.shape, known.dtype)
        for spec in graph.weights.values()
        for source in spec.sources
    }
    checkpoint = Checkpoint(
        Path(name), "known", known.config, tensors, _NoReader(), None, generation={}
    )
    quant = options.quant or known.quantization or preferred or compiler.DEFAULT_QUANT
    options = dataclasses.replace(options, quant=quant)
    return _of_checkpoint(name, checkpoint, options, backend, known.config.vocab_size)


def _of_checkpoint(
    name: str, checkpoint: Checkpoint, options: Options, backend: str, tokenizer: int
) -> Planned:
    """``tokenizer`` is its number of tokens."""
    from arkinfer import backends, compiler, models, passes
    from arkinfer.backends import CompileOptions, PlansSteps
    from arkinfer.passes import PassOptions

    compiler.check_options(STAND_IN, options.quant, options.chunk, options.sparse, options.kv)
    sparse = compiler.choose_sparse(checkpoint.config, options.sparse)
    config = dataclasses.replace(checkpoint.config, sparse=sparse)
    context = compiler.choose_context(config, options.context)
    quant = options.quant or compiler.DEFAULT_QUANT
    graph = models.build(config, config.sparse)
    graph = passes.run(graph, checkpoint.tensors, PassOptions(quant=quant))
    planner = backends.get(backend)
    if not isinstance(planner, PlansSteps):
        raise InvalidOptionError(f"the {backend} backend cannot plan", f"for example {STAND_IN}")
    settings = CompileOptions(context=context, chunk=min(options.chunk, context))
    content, arena = planner.plan(graph, settings)
    return Planned(
        name=name,
        model=config,
        plan=content,
        quantization=quant,
        context=context,
        chunk=settings.chunk,
        kv=kv_types.parse(options.kv) if options.kv else kv_types.DEFAULT,
        weights=max((w["offset"] + w["bytes"] for w in content["weights"]), default=0),
        arena=arena,
        tokenizer=compiler.BYTES_PER_TOKEN * tokenizer,
    )


class _NoReader:
    """Stands where a checkpoint's reader would; planning never reads."""

    def read_float(self, name: str, rows: slice) -> Any:
        raise AssertionError(f"planning reads {name}")

    read_quantized = read_float
