"""``arkinfer inspect``: a bundle's manifest, memory and graph."""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arkinfer.cli.options import BundlePath, Json, Kv

if TYPE_CHECKING:
    from arkinfer.bundle import Bundle
    from arkinfer.bundle_steps import DeviceCode
    from arkinfer.manifest import Manifest
    from arkinfer.memory import MemoryTable
    from arkinfer.runtime.choice import Choice


def inspect(
    bundle: BundlePath,
    kv: Annotated[
        Kv | None,
        typer.Option(help="KV cache type of the memory table.", show_default="the bundle's"),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Also compare every byte with the bundle's digests.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what is in a bundle, and the memory that it needs at each context length."""
    from arkinfer import bundle_steps, kv_types, memory, tuning
    from arkinfer.bundle import Bundle
    from arkinfer.cli import device_records, device_views, show
    from arkinfer.system import available_memory

    opened = Bundle.open(bundle)
    if check:
        opened.check()
    manifest = opened.manifest
    kv_type = None if kv is None else kv_types.parse(kv)
    tables = [
        memory.table(manifest, tokens, kv_type) for tokens in memory.contexts(manifest.context)
    ]
    on_cpu = [
        memory.table(manifest, table.context, kv_type, on_cpu=True)
        for table in (tables if manifest.memory.host else [])
    ]
    operators = graph_summary(opened)
    predicted = device_records.predict_compiled(opened, kv_type)
    code = bundle_steps.code_of(opened)
    free, where = memory_of(manifest, available_memory())
    choice = choice_of(opened)
    if json:
        show.as_json(
            {
                "path": str(opened.path),
                "digest": opened.digest,
                "manifest": dataclasses.asdict(manifest),
                "memory": [{**dataclasses.asdict(t), "total": t.total} for t in tables],
                "memory_on_cpu": [{**dataclasses.asdict(t), "total": t.total} for t in on_cpu],
                "available_memory": free,
                "memory_of": where,
                "code": dataclasses.asdict(code) if code else None,
                "kernels": tuning.state(opened),
                "operators": operators,
                "predicted": predicted,
                "choice": dataclasses.asdict(choice) if choice else None,
            }
        )
        return
    chosen = [("choice", str(choice))] if choice else []
    show.facts(str(opened.path), _facts(opened) + chosen)
    show.table(
        f"\nMemory in MiB by context, KV cache in {tables[0].kv} ({show.size(free)} {where})",
        ["context", *map(_short, tables[0].rows), "total", "fits"],
        [_memory_row(table, free) for table in tables],
    )
    if on_cpu:
        free = available_memory()
        show.table(
            f"On the CPU in the device's place, weights repacked ({show.size(free)} free here)",
            ["context", *map(_short, on_cpu[0].rows), "total", "fits"],
            [_memory_row(table, free) for table in on_cpu],
        )
    if predicted:
        device_views.show_prediction(predicted)
    if code:
        show.table(*_code_table(code))
    if operators:
        show.table("Graph", ["operator", "count"], [[n, str(c)] for n, c in operators.items()])


def choice_of(bundle: Bundle) -> Choice | None:
    """What the bundle would run on here; None where it leaves no choice."""
    from arkinfer.errors import ArkInferError
    from arkinfer.runtime.choice import Choice
    from arkinfer.runtime.native_session import NativeModel, SessionOptions

    if bundle.manifest.memory.host is None:
        return None
    try:
        return NativeModel(bundle.path, "skip").kept_choice(SessionOptions())
    except ArkInferError as error:  # what would keep it from running keeps nobody from looking
        return Choice("faster", "", str(error))


def memory_of(manifest: Manifest, free: int) -> tuple[int, str]:
    """Bytes that the bundle may take, and what has them: the device that it was compiled for, where
    that is no CPU and its memory is known, else this machine."""
    memory, name = manifest.device.get("memory"), manifest.device.get("name")
    if manifest.backend != "cpu" and isinstance(memory, int) and memory > 0:
        return memory, f"on {name}"
    return free, "free here"


def graph_summary(bundle: Bundle) -> dict[str, int]:
    """How often each operator is in the neutral graph; empty without the onnx package."""
    from arkinfer.errors import InvalidBundleError

    if "graph.onnx" not in bundle.manifest.files:
        return {}
    try:
        import onnx
    except ImportError:
        return {}
    try:
        model = onnx.load(bundle.file("graph.onnx"), load_external_data=False)
    except Exception as error:  # protobuf's own error type differs between its versions
        raise InvalidBundleError(f"graph.onnx is not an ONNX model ({error})") from None
    counts = collections.Counter(
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        for node in model.graph.node
    )
    return dict(counts.most_common())


def _code_table(code: DeviceCode) -> tuple[str, list[str], list[list[str]]]:
    made = f"{code.architecture} ({code.form}, CUDA {code.toolkit})"
    title = f"Code for {made}, {code.unresolved or 'no'} unresolved steps"
    rows = [
        [
            use.kernel,
            str(use.steps),
            "unresolved" if use.unresolved else code.architecture,
            str(use.functions),
            str(use.registers or "-"),
            str(use.spill_bytes) if use.registers else "-",
        ]
        for use in code.uses
    ]
    return title, ["step", "count", "code", "functions", "registers", "spilled bytes"], rows


def _memory_row(table: MemoryTable, free: int) -> list[str]:
    fits = "yes" if not free or table.total - table.process <= free else "no"
    numbers = [*table.rows.values(), table.total]
    return [f"{table.context}", *(f"{number / 2**20:.1f}" for number in numbers), fits]


def _short(row: str) -> str:
    """A row's name, short enough that all fit beside each other in a terminal."""
    return {"compressed keys": "comp. keys"}.get(row, row)


def _facts(bundle: Bundle) -> list[tuple[str, str]]:
    from arkinfer import tuning
    from arkinfer.cli.show import size

    manifest = bundle.manifest
    model, rope, sparse = manifest.model, manifest.model.rope, manifest.model.sparse
    heads = f"{model.num_heads} heads over {model.num_kv_heads} KV heads of {model.head_dim}"
    pairs: list[tuple[str, Any]] = [
        ("digest", bundle.digest),
        ("made by", f"{manifest.created_by}, format version {manifest.format_version}"),
        ("from", f"{manifest.source.path_name} ({manifest.source.format})"),
        ("for", f"{manifest.device.get('name', '?')} (backend {manifest.backend})"),
        (
            "model",
            f"{model.model_type}, {model.num_layers} layers of {model.hidden_size}, {heads}, "
            f"vocabulary of {model.vocab_size}",
        ),
        (
            "muP scales",
            f"embedding {model.embedding_scale:g}, residual {model.residual_scale:g}, "
            f"logits {model.logit_scale:g}",
        ),
        (
            "position",
            f"{'LongRoPE' if rope.long_factors else 'RoPE'}, theta {rope.theta:g}, "
            f"trained up to {model.max_position}",
        ),
        (
            "attention",
            "dense"
            if sparse is None
            else f"InfLLM v2 (generation {sparse.generation}): {sparse.topk} + "
            f"{sparse.local_blocks} blocks of {sparse.block_size}, dense below {sparse.dense_len}",
        ),
        ("weights", _storages(manifest)),
        ("context", f"{manifest.context} tokens, prompts in chunks of {manifest.chunk}"),
        (
            "sampling",
            ", ".join(f"{n} {v:g}" for n, v in manifest.generation.items()) or "greedy",
        ),
    ]
    if kernels := tuning.state(bundle):
        pairs.append(("kernels", kernels))
    pairs += [(name, size(entry.bytes)) for name, entry in manifest.files.items()]
    return pairs


def _storages(manifest: Manifest) -> str:
    counts = collections.Counter(manifest.quantization.tensors.values())
    kinds = ", ".join(f"{count} x {name}" for name, count in counts.most_common())
    return f"{manifest.quantization.requested}: {kinds}"
