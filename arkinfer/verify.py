"""Comparing the stages of a native bundle with onnxruntime on the neutral graph.

The reference is built from the checkpoint again, by the same passes with the same
quantization, so that it shares no packed weight, plan or kernel with the bundle.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from arkinfer.bundle import Bundle, BundleWriter
from arkinfer.errors import InvalidOptionError, VerificationError
from arkinfer.extras import require
from arkinfer.runtime.native_session import NativeSession, Step

if TYPE_CHECKING:
    from arkinfer.backends.onnxruntime import OnnxRuntimeExecutor
    from arkinfer.runtime.model import Model

# Relative errors that rounding alone can reach. In fp32 both sides differ by the order of
# sums only. An fp16 cache rounds keys and values to 11 bits, and softmax amplifies that by the
# size of the scores. 8-bit activations round every input of every product to 1/254 of the largest
# in its group, and a token whose attention averages to little feels that most.
_TOLERANCE_FP32 = 1e-4
_TOLERANCE_FP16_CACHE = 1e-2
_TOLERANCE_INT8 = 0.2

# Random tokens drive a trained model into states where it amplifies rounding a hundredfold,
# so a text is run where the bundle has a tokenizer.
_TEXT = """Tides rise and fall because the Moon pulls more strongly on the near side of the Earth \
than on the far side. A harbour master keeps a table of high water for every day of the year; \
sailors who read it wrongly wait six hours on the mud. The rule of twelfths says that a sixth of \
the range, then a quarter, then a quarter again flows in the first hours.

def depth(hour: int, low: float, high: float) -> float:
    twelfths = (0, 1, 3, 6, 9, 11, 12)
    return low + (high - low) * twelfths[hour] / 12

潮汐是海水周期性的涨落。 La marée haute revient toutes les douze heures et vingt-cinq minutes.
"""

# A prompt in pieces bounds the reference's memory and tells the selected blocks of several
# tokens; then single tokens go through the decoding path.
_PIECE = 64
_SINGLE_TOKENS = 8


@dataclass(frozen=True)
class StageError:
    """How far one stage is from the reference.

    Attributes:
        name: the value of the neutral graph, as in ``"layers.0.attention"``.
        kernel: what computed it.
        error: the largest relative error of one token's vector: the Euclidean
            norm of the difference over that of the reference.
    """

    name: str
    kernel: str
    error: float


@dataclass(frozen=True)
class Report:
    """The outcome of a comparison.

    Attributes:
        tokens: tokens that were run.
        tolerance: largest error that passes.
        stages: in the order of execution.
        selected: blocks that either side selected, over all heads and layers, for
            the tokens that were looked at; 0 for dense attention.
        agreement: the part of them that both selected; None for dense attention.
    """

    tokens: int
    tolerance: float
    stages: list[StageError]
    selected: int
    agreement: float | None

    @property
    def first_failure(self) -> StageError | None:
        """The first stage over the tolerance."""
        return next((s for s in self.stages if not s.error <= self.tolerance), None)

    def around_failure(self, count: int = 3) -> list[StageError]:
        """The first stage over the tolerance with its neighbours; empty when all pass."""
        failure = self.first_failure
        if failure is None:
            return []
        index = self.stages.index(failure)
        return self.stages[max(index - count, 0) : index + count + 1]

    def check(self) -> None:
        """Raise :class:`VerificationError` if a stage is over the tolerance."""
        failure = self.first_failure
        if failure is not None:
            raise VerificationError(
                f"{failure.name} ({failure.kernel}) differs by {failure.error:.2e}",
                f"at most {self.tolerance:g}",
                "it is the first stage over the tolerance; stages before it agree",
            )


def verify(
    path: str | Path,
    against: str | Path,
    *,
    tokens: int = 96,
    prompt: str | None = None,
    tolerance: float | None = None,
    kv: str = "fp32",
    activations: str = "fp32",
    threads: int | None = None,
    isa: str | None = None,
) -> Report:
    """Run the same tokens through a bundle and through the reference.

    Args:
        path: a bundle with a native plan; one for a device runs there.
        against: the checkpoint that it was compiled from.
        tokens: how many tokens to run.
        prompt: a text to run, or as much of it as ``tokens`` says; by default one that is
            built in, or random tokens where the bundle has no tokenizer.
        tolerance: largest relative error; by default what rounding allows for.
        kv, activations, threads, isa: as in :func:`arkinfer.load`.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        VerificationError: the checkpoint is another model than the bundle's.
        InvalidOptionError: a value outside its range, or a bundle without native plan.
    """
    require("compile", "arkinfer verify")
    from arkinfer.api import load

    if tokens < 1:
        raise InvalidOptionError(f"tokens is {tokens}", "at least 1")
    if tolerance is not None and not tolerance > 0:
        raise InvalidOptionError(f"tolerance is {tolerance}", "above 0")
    if tolerance is None:
        tolerance = _default_tolerance(kv, activations)
    bundle = Bundle.open(path)
    context = min(max(tokens, 1), bundle.manifest.context)
    on = "device" if "launches.json" in bundle.manifest.files else "faster"
    model = load(path, context, threads, None, kv, activations, isa=isa, on=on)
    ids = _token_ids(model, prompt, context)
    native = model.session().executor
    if not isinstance(native, NativeSession):
        raise InvalidOptionError(
            f"the bundle was compiled for {bundle.manifest.backend}",
            "a bundle with a native plan",
        )
    with tempfile.TemporaryDirectory(prefix="arkinfer-verify-") as folder:
        reference = _reference(bundle, Path(against), Path(folder) / "reference.ark", context)
        return _compare(native, reference, ids, tolerance, bundle)


def _default_tolerance(kv: str, activations: str) -> float:
    if activations == "int8":
        return _TOLERANCE_INT8
    return _TOLERANCE_FP16_CACHE if kv == "fp16" else _TOLERANCE_FP32


def _token_ids(model: Model, prompt: str | None, count: int) -> list[int]:
    if prompt is not None:
        return model.encode(prompt)[:count]
    if model.bundle.manifest.tokenizer is not None:
        text = model.encode(_TEXT)
        return (text * (count // len(text) + 1))[:count]
    vocabulary = model.bundle.manifest.model.vocab_size
    drawn = np.random.default_rng(0).integers(0, vocabulary, count)
    return [int(token) for token in drawn]


def _reference(bundle: Bundle, against: Path, output: Path, context: int) -> OnnxRuntimeExecutor:
    """An executor of the neutral graph, made from the checkpoint."""
    from arkinfer import converters, models, passes
    from arkinfer.backends import CompileOptions, ExecutorOptions
    from arkinfer.backends.onnxruntime import BACKEND
    from arkinfer.devices import Device

    manifest = bundle.manifest
    checkpoint = converters.open(against)
    sealed = dataclasses.asdict(manifest.model)
    config = dataclasses.replace(checkpoint.config, sparse=manifest.model.sparse)
    found = dataclasses.asdict(config)
    other = [name for name in sealed if sealed[name] != found[name]]
    if other:
        raise VerificationError(
            f"the checkpoint is another model: {', '.join(other)} "
            f"{'differs' if len(other) == 1 else 'differ'}",
            f"the one that the bundle was compiled from, {manifest.source.path_name}",
        )
    graph = passes.run(
        models.build(config, config.sparse),
        checkpoint.tensors,
        passes.PassOptions(quant=manifest.quantization.requested, dump=None),
    )
    with BundleWriter(output) as writer:
        options = CompileOptions(manifest.context, manifest.chunk)
        BACKEND.compile(graph, checkpoint, Device(BACKEND.name, BACKEND.name), options, writer)
        writer.finish(dataclasses.replace(manifest, backend=BACKEND.name, files={}))
    return BACKEND.executor(Bundle.open(output), ExecutorOptions(context))


def _compare(
    native: NativeSession,
    reference: OnnxRuntimeExecutor,
    ids: Sequence[int],
    tolerance: float,
    bundle: Bundle,
) -> Report:
    known = set(reference.stage_names)
    layers = range(bundle.manifest.model.num_layers) if bundle.manifest.model.sparse else range(0)
    errors: dict[str, StageError] = {}
    selected = agreeing = 0
    for piece in _pieces(ids, min(_PIECE, bundle.manifest.chunk)):
        rows: dict[str, list[NDArray[np.float32]]] = {}
        kernels: dict[str, str] = {}

        def collect(
            step: Step,
            rows: dict[str, list[NDArray[np.float32]]] = rows,
            kernels: dict[str, str] = kernels,
        ) -> None:
            if step.stage in known and step.values is not None:
                rows.setdefault(step.stage, []).append(step.values.copy())
                kernels[step.stage] = step.kernel

        with native.trace(collect):
            native.append(piece)
        truth = reference.stages(piece, list(rows))
        for name, parts in rows.items():
            error = relative_error(np.concatenate(parts), truth[name][0])
            if name not in errors or not error <= errors[name].error:
                errors[name] = StageError(name, kernels[name], error)
        for layer in layers:
            pairs = zip(
                native.selected_blocks(layer), reference.selected_blocks(layer), strict=True
            )
            for ours, theirs in pairs:
                selected += len(np.union1d(ours, theirs))
                agreeing += len(np.intersect1d(ours, theirs))
    return Report(
        tokens=len(ids),
        tolerance=tolerance,
        stages=list(errors.values()),
        selected=selected,
        agreement=agreeing / selected if selected else None,
    )


def _pieces(ids: Sequence[int], size: int) -> list[Sequence[int]]:
    single = min(_SINGLE_TOKENS, len(ids) // 2)
    prompt = len(ids) - single
    return [
        *(ids[start : min(start + size, prompt)] for start in range(0, prompt, size)),
        *([token] for token in ids[prompt:]),
    ]


def relative_error(values: NDArray[Any], truth: NDArray[Any]) -> float:
    """The largest relative error of a row; both are [rows, columns].

    Of ``truth`` the last rows count, as a stage may compute only those that
    logits are asked for. Not a number counts as infinitely wrong.

    Raises:
        VerificationError: the columns differ.
    """
    if values.shape[1:] != truth.shape[1:]:
        raise VerificationError(
            f"a stage has rows of shape {values.shape[1:]}", f"{truth.shape[1:]}"
        )
    exact = truth[len(truth) - len(values) :].astype(np.float64)
    difference = np.linalg.norm(values.astype(np.float64) - exact, axis=1)
    size = np.linalg.norm(exact, axis=1)
    error = float(np.max(difference / np.maximum(size, np.finfo(np.float32).tiny), initial=0.0))
    return error if np.isfinite(error) else float("inf")
