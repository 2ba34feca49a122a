"""Rotary embedding, caches, dense and block-sparse attention."""

from __future__ import annotations

import onnx_ir as ir

from arkinfer.backends._steps.facts import Blocks, CacheFact, Fact, Heads, Length, Waves
from arkinfer.backends._steps.lower import Lowering, refuse
from arkinfer.backends._steps.plan import Cache, Operand, Step, View


def rotary_embedding(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Rotate heads in place; queries and keys that lie side by side in one step."""
    source = node.inputs[0]
    view = walk.need(node, 0, View, "an activation")
    cos, sin = walk.need(node, 1, Waves, "cosines"), walk.need(node, 2, Waves, "sines")
    walk.absent(node, 3)
    if (cos.part, sin.part, cos.factor) != ("cos", "sin", sin.factor):
        refuse(node, "cosines and sines are not a pair")
    if cos.frequencies is not sin.frequencies:
        refuse(node, "cosines and sines have different frequencies")
    heads = node.attributes.get_int("num_heads", 0)
    head_dim = 2 * len(cos.frequencies.short)
    partial = node.attributes.get_int("rotary_embedding_dim", 0)
    if node.attributes.get_int("interleaved", 0) or partial not in (0, head_dim):
        refuse(node, "only whole heads are rotated, half against half")
    if heads * head_dim != view.columns:
        refuse(node, f"{view.columns} columns are not {heads} heads of {head_dim}")
    if source is None or len(source.uses()) != 1:
        refuse(node, "its input is needed again, and it works in place")
    table = _table(walk, cos, head_dim)
    last = walk.steps[-1]
    before = last.view("x")
    if (
        last.kernel == "rope"
        and before is not None
        and last.view("table") == table
        and before.buffer is view.buffer
        and before.column + before.columns == view.column
    ):
        last.operands["x"] = View(view.buffer, before.column, before.columns + view.columns)
        last.stage = ""  # it computes two values now
        return (view,)
    step = Step("rope", {"x": view, "table": table}, {"head_dim": head_dim})
    walk.emit(step, node.outputs[0])
    return (view,)


def _table(walk: Lowering, waves: Waves, head_dim: int) -> View:
    """The table of cosines and sines, made once for all layers."""
    frequencies = waves.frequencies
    key = (frequencies.short.tobytes(), frequencies.long.tobytes(), frequencies.limit, waves.factor)
    if key not in walk.tables:
        y = View.whole(walk.buffer("rope.table", head_dim))
        operands: dict[str, Operand] = {
            "short": walk.vector("rope.short", frequencies.short),
            "long": walk.vector("rope.long", frequencies.long),
            "y": y,
        }
        attributes: dict[str, float] = {}
        if frequencies.limit:
            attributes["original_max"] = frequencies.limit
        if waves.factor != 1.0:
            attributes["attention_factor"] = waves.factor
        walk.emit(Step("rope_table", operands, attributes))
        walk.tables[key] = y
    return walk.tables[key]


def _append(
    walk: Lowering, node: ir.Node, keys: View, values: View, past: tuple[CacheFact, CacheFact]
) -> None:
    key, value = past[0].cache, past[1].cache
    if past[0].appended or past[1].appended or (key.kind, value.kind) != ("key", "value"):
        refuse(node, "the caches are not a layer's keys and values as they entered the graph")
    if not keys.columns == values.columns == key.kv_heads * key.head_dim:
        refuse(node, f"keys or values do not have {key.kv_heads} heads of {key.head_dim}")
    walk.caches += [key, value]
    walk.emit(Step("cache_append", {"k": keys, "v": values, "key": key, "value": value}))


def attention(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Dense causal attention that appends to its caches."""
    q, k, v = (walk.need(node, index, View, "an activation") for index in range(3))
    walk.absent(node, 3, 6)
    past = (walk.need(node, 4, CacheFact, "a cache"), walk.need(node, 5, CacheFact, "a cache"))
    key = past[0].cache
    heads, kv_heads = (node.attributes.get_int(f"{n}_num_heads", 0) for n in ("q", "kv"))
    softcap = node.attributes.get_float("softcap", 0.0)
    if not node.attributes.get_int("is_causal", 0) or softcap != 0.0:
        refuse(node, "it is not plain causal attention")
    if kv_heads != key.kv_heads or heads * key.head_dim != q.columns:
        refuse(node, f"{heads} heads over {kv_heads} do not fit the cache and the queries")
    if len(node.outputs) > 3:
        refuse(node, "its scores are asked for")
    _append(walk, node, k, v, past)
    value = node.outputs[0]
    y = View.whole(walk.buffer(str(value.name), q.columns))
    default = float(key.head_dim) ** -0.5
    scale = node.attributes.get_float("scale", default)
    operands: dict[str, Operand] = {"q": q, "key": key, "value": past[1].cache, "y": y}
    walk.emit(Step("attention", operands, {"heads": heads, "scale": scale}), value)
    facts = (y, CacheFact(key, appended=True), CacheFact(past[1].cache, appended=True))
    return facts[: len(node.outputs)]


def concat(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """New keys or values behind a cache. Both are written once the second is known."""
    past = walk.need(node, 0, CacheFact, "a cache")
    new = walk.need(node, 1, Heads, "heads of new tokens")
    if node.attributes.get_int("axis", 0) != 2 or len(node.inputs) != 2 or not new.heads_first:
        refuse(node, "it does not append tokens to a cache")
    if new.heads != past.cache.kv_heads:
        refuse(node, f"{new.heads} heads for {past.cache.kv_heads} of the cache")
    if past.cache.kind == "key":
        _append_pair(walk, node, new.view, past)
    return (CacheFact(past.cache, appended=True),)


def _append_pair(walk: Lowering, node: ir.Node, keys: View, past: CacheFact) -> None:
    """Find the values that belong to these keys; they are computed before the keys' Concat."""
    prefix = past.cache.name.removesuffix(".key")
    for other in walk.graph.model.graph:
        if other.op_type != "Concat" or len(other.inputs) != 2:
            continue
        cache, new = walk.fact(other.inputs[0]), other.inputs[1]
        if not isinstance(cache, CacheFact) or cache.cache.name != f"{prefix}.value":
            continue
        view = _behind_heads(walk, new)
        if view is not None:
            _append(walk, node, keys, view, (past, cache))
            return
    refuse(node, f"no values are appended beside the keys of {prefix}")


def _behind_heads(walk: Lowering, value: ir.Value | None) -> View | None:
    """The activation behind a Reshape and a Transpose that may not have been visited yet."""
    while value is not None:
        known = walk.fact(value)
        if isinstance(known, View):
            return known
        node = value.producer()
        if node is None or node.op_type not in ("Reshape", "Transpose"):
            return None
        value = node.inputs[0]
    return None


def compress_keys(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Means of windows of keys, kept in a cache of their own."""
    known = walk.need(node, 0, CacheFact, "a key cache")
    if not known.appended or known.cache.kind != "key":
        refuse(node, "it does not compress the updated keys")
    window, stride = (node.attributes.get_int(f"kernel_{n}", 0) for n in ("size", "stride"))
    key = known.cache
    name = str(node.outputs[0].name)
    cache = Cache(name, "compressed", key.kv_heads, key.head_dim, window, stride)
    walk.caches.append(cache)
    operands: dict[str, Operand] = {"key": key, "compressed": cache}
    walk.emit(Step("compress_keys", operands, {"window": window, "stride": stride}))
    return (CacheFact(cache, appended=True),)


def select_blocks(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """The blocks that each token attends to; the last token's are kept for the user."""
    q = walk.need(node, 0, View, "queries")
    fine, coarse = (walk.need(node, index, CacheFact, "compressed keys").cache for index in (1, 2))
    if walk.need(node, 3, Length, "the past length").what != "past":
        refuse(node, "input 3 is not the past length")
    sizes = (fine.window * 4, fine.stride * 4)
    if fine.kind != "compressed" or (coarse.window, coarse.stride) != sizes:
        refuse(node, "coarse windows are not four fine ones")
    read = node.attributes.get_int
    names = ("block_size", "kernel_size", "kernel_stride", "init_blocks", "local_blocks", "topk")
    attributes: dict[str, float] = {name: read(name, 0) for name in (*names, "dense_len")}
    generation, lse = (node.attributes.get_string(n, "") for n in ("generation", "lse"))
    if generation not in ("A", "B") or lse not in ("coarse", "exact"):
        refuse(node, f"generation {generation!r} with lse {lse!r}")
    attributes |= {
        "heads": q.columns // fine.head_dim,
        "scale": node.attributes.get_float("scale", 0.0),
        "generation": "AB".index(generation),
        "exact_lse": int(lse == "exact"),
    }
    value = node.outputs[0]
    columns = fine.kv_heads * (1 + read("topk", 0) + read("local_blocks", 0))
    y = View.whole(walk.buffer(str(value.name), columns, "i32"))
    operands: dict[str, Operand] = {"q": q, "fine": fine, "coarse": coarse, "y": y}
    step = walk.emit(Step("select_blocks", operands, attributes), value)
    layer = fine.name.split(".")[1]
    if not layer.isdigit():
        refuse(node, f"the compressed keys {fine.name} name no layer")
    step.keep_layer = int(layer)
    return (Blocks(y, read("block_size", 0)),)


def block_sparse_attention(walk: Lowering, node: ir.Node) -> tuple[Fact, ...]:
    """Attention over the selected blocks."""
    q = walk.need(node, 0, View, "queries")
    key, value = (walk.need(node, index, CacheFact, "an updated cache") for index in (1, 2))
    blocks = walk.need(node, 3, Blocks, "selected blocks")
    size = node.attributes.get_int("block_size", 0)
    if not (key.appended and value.appended) or blocks.block_size != size:
        refuse(node, "caches or blocks are not those of this layer")
    result = node.outputs[0]
    y = View.whole(walk.buffer(str(result.name), q.columns))
    operands: dict[str, Operand] = {
        "q": q,
        "key": key.cache,
        "value": value.cache,
        "blocks": blocks.view,
        "y": y,
    }
    attributes: dict[str, float] = {
        "heads": q.columns // key.cache.head_dim,
        "scale": node.attributes.get_float("scale", 0.0),
        "block_size": size,
    }
    walk.emit(Step("block_sparse_attention", operands, attributes), result)
    return (y,)
