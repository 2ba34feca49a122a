"""From a step of the plan to launches of kernels that are described in TIR."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from arkinfer.backends._device.weights import codes_name, matrix_of, scales_name
from arkinfer.backends.cpu.plan import Cache, Step, View, WeightRef
from arkinfer.config import SparseConfig
from arkinfer.errors import LoweringError
from arkinfer.graph.graph import WeightSpec
from arkinfer.kernels.attention import tir as attention_tir
from arkinfer.kernels.block_sparse_attention.tir import block_sparse_attention
from arkinfer.kernels.cache_append.tir import cache_append
from arkinfer.kernels.compress_keys.tir import compress_keys
from arkinfer.kernels.embed.tir import embed
from arkinfer.kernels.matmul.tir import few_rows, many_rows
from arkinfer.kernels.rms_norm.tir import rms_norm
from arkinfer.kernels.rope.tir import rope
from arkinfer.kernels.rope_table.tir import rope_table
from arkinfer.kernels.select_blocks import tir as select_tir
from arkinfer.kernels.swiglu.tir import swiglu
from arkinfer.tir.caches import BLOCK, Caches
from arkinfer.tir.emit import Size
from arkinfer.tir.loops import Loops, Rows

# From this many tokens on, products take tiles of tokens and attention has enough groups.
MANY = 9
# Groups that share the keys of a token while there are few tokens.
_SPLITS = 8
_ANY_COUNT = 1 << 30


@dataclass(frozen=True)
class Scratch:
    """Memory that only the launches of one step use; ``size`` in bytes."""

    name: str
    size: Size


Source = View | WeightRef | Cache | Scratch


@dataclass(frozen=True)
class Launch:
    """A call of a kernel.

    Attributes:
        kernel: its name among the emitted.
        sources: what each of its buffers is bound to, by the description's argument.
        least: tokens from which on it is used.
        most: tokens up to which it is.
    """

    kernel: str
    sources: Mapping[str, Source]
    least: int = 1
    most: int = _ANY_COUNT


@dataclass
class Kernels:
    """The kernels of a plan, each described once however often it is launched.

    Attributes:
        loops: the target's schedule.
        dtype: what the caches hold.
        chunk: the most tokens of a launch.
        specs: weights by the name of their codes.
        functions: descriptions by name.
    """

    loops: Loops
    dtype: Literal["f32", "f16"]
    chunk: int
    specs: Mapping[str, WeightSpec]
    functions: dict[str, Any] = field(default_factory=dict)
    _names: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def name(self, describe: Callable[..., Any], *arguments: Any) -> str:
        """The name of a description with these arguments."""
        key = (describe, *arguments)
        if key not in self._names:
            name = f"{describe.__name__}_{len(self._names)}"
            self._names[key] = name
            self.functions[name] = describe(self.loops, *arguments)
        return self._names[key]

    def caches(self, cache: Cache) -> Caches:
        """The layout of a cache."""
        return Caches(self.dtype, cache.kv_heads, cache.head_dim)

    def launches(self, step: Step) -> list[Launch]:
        """What a step becomes.

        Raises:
            LoweringError: there is no such kernel for devices.
        """
        known = _STEPS.get(step.kernel)
        if known is None:
            raise LoweringError(f"no kernel for devices computes {step.kernel}")
        return known(self, step)


def _rows(view: View) -> Rows:
    return Rows(view.columns, view.buffer.columns, view.column)


def _view(step: Step, name: str) -> View:
    view = step.view(name)
    if view is None:
        raise LoweringError(f"{step.kernel} has no buffer {name}")
    return view


def _cache(step: Step, name: str) -> Cache:
    operand = step.operands[name]
    assert isinstance(operand, Cache)
    return operand


def _simple(kernel: str, step: Step) -> list[Launch]:
    return [Launch(kernel, dict(step.operands))]


def _weight(kernels: Kernels, step: Step) -> tuple[WeightSpec, dict[str, Source]]:
    codes = step.operands["codes"]
    assert isinstance(codes, WeightRef)
    spec = kernels.specs[codes.name]
    sources: dict[str, Source] = {"codes": WeightRef(codes_name(spec))}
    if matrix_of(spec).scale_words:
        sources["scales"] = WeightRef(scales_name(spec))
    return spec, sources


def _embed(kernels: Kernels, step: Step) -> list[Launch]:
    spec, sources = _weight(kernels, step)
    y = _view(step, "y")
    name = kernels.name(embed, matrix_of(spec), _rows(y), step.attributes.get("scale", 1.0))
    return [Launch(name, {**sources, "ids": _view(step, "ids"), "y": y})]


def _matmul(kernels: Kernels, step: Step) -> list[Launch]:
    spec, sources = _weight(kernels, step)
    x, y, addend = _view(step, "x"), _view(step, "y"), step.view("residual")
    residual = "none" if addend is None else "in_place" if addend == y else "separate"
    sources |= {"x": x, "y": y}
    if addend is not None and residual == "separate":
        sources["residual"] = addend
    known = {"x", "y", "codes", "scales", "offsets", "residual"}
    if not step.operands.keys() <= known or not step.attributes.keys() <= {"scale"}:
        raise LoweringError(f"no kernel for devices computes matmul with {sorted(step.operands)}")
    arguments = (
        matrix_of(spec),
        _rows(x),
        _rows(y),
        residual,
        None if addend is None else _rows(addend),
        step.attributes.get("scale", 1.0),
    )
    few = Launch(kernels.name(few_rows, *arguments), sources, 1, MANY - 1)
    return [few, Launch(kernels.name(many_rows, *arguments), sources, MANY)]


def _rms_norm(kernels: Kernels, step: Step) -> list[Launch]:
    rows = [_rows(_view(step, name)) for name in ("x", "y")]
    return _simple(kernels.name(rms_norm, *rows, step.attributes["epsilon"]), step)


def _rope_table(kernels: Kernels, step: Step) -> list[Launch]:
    get = step.attributes.get
    head_dim = _view(step, "y").columns
    limit, factor = int(get("original_max", 0)), get("attention_factor", 1.0)
    return _simple(kernels.name(rope_table, head_dim, limit, factor), step)


def _rope(kernels: Kernels, step: Step) -> list[Launch]:
    head_dim = int(step.attributes["head_dim"])
    return _simple(kernels.name(rope, _rows(_view(step, "x")), head_dim), step)


def _swiglu(kernels: Kernels, step: Step) -> list[Launch]:
    rows = [_rows(_view(step, name)) for name in ("gate", "up", "y")]
    return _simple(kernels.name(swiglu, *rows), step)


def _cache_append(kernels: Kernels, step: Step) -> list[Launch]:
    rows = [_rows(_view(step, name)) for name in ("k", "v")]
    return _simple(kernels.name(cache_append, kernels.caches(_cache(step, "key")), *rows), step)


def _compress_keys(kernels: Kernels, step: Step) -> list[Launch]:
    sizes = [int(step.attributes[name]) for name in ("window", "stride")]
    name = kernels.name(compress_keys, kernels.caches(_cache(step, "key")), *sizes)
    return _simple(name, step)


def _attend(kernels: Kernels, step: Step, most: int, block_size: int) -> list[Launch]:
    q, y = _view(step, "q"), _view(step, "y")
    layout = kernels.caches(_cache(step, "key"))
    heads, scale = int(step.attributes["heads"]), step.attributes["scale"]
    describe = block_sparse_attention if most else attention_tir.attend
    few = attention_tir.Shape(layout, heads, scale, _SPLITS, most, block_size)
    many = attention_tir.Shape(layout, heads, scale, 1, most, block_size)
    partials = Scratch("partials", (MANY - 1) * heads * few.splits * few.partial * 4)
    sources: dict[str, Source] = dict(step.operands)
    rows = (_rows(q), _rows(y))
    return [
        Launch(kernels.name(describe, few, *rows), sources | {"partials": partials}, 1, MANY - 1),
        Launch(
            kernels.name(attention_tir.combine, few, rows[1]),
            {"partials": partials, "y": y},
            1,
            MANY - 1,
        ),
        Launch(kernels.name(describe, many, *rows), sources, MANY),
    ]


def _attention(kernels: Kernels, step: Step) -> list[Launch]:
    return _attend(kernels, step, 0, BLOCK)


def _block_sparse_attention(kernels: Kernels, step: Step) -> list[Launch]:
    most = _view(step, "blocks").columns // _cache(step, "key").kv_heads - 1
    return _attend(kernels, step, most, int(step.attributes["block_size"]))


def _select_blocks(kernels: Kernels, step: Step) -> list[Launch]:
    q, y, fine = _view(step, "q"), _view(step, "y"), _cache(step, "fine")
    a = {name: int(value) for name, value in step.attributes.items() if name != "scale"}
    sparse = SparseConfig(
        kernel_size=a["kernel_size"],
        kernel_stride=a["kernel_stride"],
        init_blocks=a["init_blocks"],
        block_size=a["block_size"],
        window_size=a["local_blocks"] * a["block_size"],
        topk=a["topk"],
        dense_len=a["dense_len"],
        generation="AB"[a["generation"]],
        lse="exact" if a["exact_lse"] else "coarse",
    )
    layout = kernels.caches(fine)
    selection = select_tir.Selection(layout, a["heads"], step.attributes["scale"], sparse)
    each = kernels.chunk * fine.kv_heads * 4
    lse = Scratch("lse", kernels.chunk * a["heads"] * 4)
    # As ``window_capacity`` and ``block_capacity`` compute them of a context.
    places: Size = ["+", ["/", "capacity", sparse.kernel_stride], BLOCK]
    windows = Scratch("windows", ["*", ["*", ["/", places, BLOCK], BLOCK], each])
    blocks: Size = ["/", ["+", "capacity", sparse.block_size - 1], sparse.block_size]
    keys = Scratch("keys", ["*", blocks, each])
    basis = fine if selection.exact else _cache(step, "coarse")
    return [
        Launch(
            kernels.name(select_tir.normalizers, selection, _rows(q)),
            {"q": q, "basis": basis, "lse": lse},
        ),
        Launch(
            kernels.name(select_tir.window_scores, selection, _rows(q)),
            {"q": q, "fine": fine, "lse": lse, "windows": windows},
        ),
        Launch(
            kernels.name(select_tir.choose_blocks, selection, _rows(y)),
            {"windows": windows, "keys": keys, "y": y},
        ),
    ]


_STEPS: dict[str, Callable[[Kernels, Step], list[Launch]]] = {
    "attention": _attention,
    "block_sparse_attention": _block_sparse_attention,
    "cache_append": _cache_append,
    "compress_keys": _compress_keys,
    "embed": _embed,
    "matmul": _matmul,
    "rms_norm": _rms_norm,
    "rope": _rope,
    "rope_table": _rope_table,
    "select_blocks": _select_blocks,
    "swiglu": _swiglu,
}
