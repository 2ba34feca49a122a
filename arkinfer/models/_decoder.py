"""The decoder that all model types here share, as a graph.

Values that ``arkinfer verify`` compares are named: ``embedding``; per layer l
``layers.{l}.input_norm``, ``.q``, ``.k``, ``.v``, ``.blocks`` (sparse only),
``.attention``, ``.attention_residual``, ``.post_norm``, ``.gate``, ``.up``, ``.gated``,
``.output``; then ``final_norm`` and ``logits``. A linear layer is
``MatMul(x, Transpose(weight))``.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import onnx_ir as ir

from arkinfer.config import ModelConfig, SparseConfig
from arkinfer.graph.builder import IR_VERSION, OPSET_IMPORTS, Builder
from arkinfer.graph.graph import Graph, WeightSpec
from arkinfer.graph.operators import functions
from arkinfer.models._attention import Cache, dense_attention, sparse_attention
from arkinfer.models._rope import rope_tables

FLOAT, INT64 = ir.DataType.FLOAT, ir.DataType.INT64

EMBEDDING = "model.embed_tokens.weight"
HEAD = "lm_head.weight"


@dataclass(frozen=True)
class Scales:
    """muP factors: of embeddings, of every residual branch, and in front of the head."""

    embedding: float = 1.0
    residual: float = 1.0
    logits: float = 1.0


def build_decoder(config: ModelConfig, sparse: SparseConfig | None, scales: Scales) -> Graph:
    """Build the graph; see :class:`arkinfer.graph.graph.Graph` for its inputs and outputs."""
    config = dataclasses.replace(config, sparse=sparse)
    decoder = _Decoder(config, scales)
    decoder.build()
    b = decoder.builder
    graph = ir.Graph(
        b.inputs + list(decoder.weight_values.values()),
        decoder.outputs,
        nodes=b.nodes,
        initializers=b.initializers,
        opset_imports=OPSET_IMPORTS if sparse is not None else {"": OPSET_IMPORTS[""]},
        name=config.model_type,
    )
    model = ir.Model(
        graph,
        ir_version=IR_VERSION,
        producer_name="arkinfer",
        functions=functions() if sparse is not None else [],
    )
    return Graph(model, config, decoder.weights)


class _Decoder:
    def __init__(self, config: ModelConfig, scales: Scales) -> None:
        self.config = config
        self.scales = scales
        self.builder = Builder()
        self.weights: dict[str, WeightSpec] = {}
        self.weight_values: dict[str, ir.Value] = {}
        self.outputs: list[ir.Value] = []

    def build(self) -> None:
        b, config = self.builder, self.config
        ids = b.input("input_ids", INT64, [1, "tokens"])
        caches = [self._cache(layer) for layer in range(config.num_layers)]
        self.past = b.dimension(caches[0].key, 2)
        self.total = b.op("Add", self.past, b.dimension(ids, 1))
        self.cos, self.sin = rope_tables(b, config, self.past, self.total)

        table = self._weight(EMBEDDING, config.vocab_size, config.hidden_size)
        hidden = self._scaled(b.op("Gather", table, ids, axis=0), self.scales.embedding)
        hidden.name = "embedding"
        presents: list[ir.Value] = []
        for layer, cache in enumerate(caches):
            hidden, key, value = self._layer(layer, hidden, cache)
            presents += [key, value]
        normed = self._norm("model.norm.weight", hidden, "final_norm")
        head = EMBEDDING if config.tie_word_embeddings else HEAD
        scaled = self._scaled(normed, self.scales.logits)
        logits = self._linear(head, scaled, config.vocab_size, config.hidden_size, "logits")

        self._declare(logits, [1, "tokens", config.vocab_size])
        for value in presents:
            self._declare(value, [1, config.num_kv_heads, "total", config.head_dim])
        self.outputs = [logits, *presents]

    def _layer(
        self, layer: int, hidden: ir.Value, cache: Cache
    ) -> tuple[ir.Value, ir.Value, ir.Value]:
        b, config = self.builder, self.config
        source, name = f"model.layers.{layer}", f"layers.{layer}"
        x = self._norm(f"{source}.input_layernorm.weight", hidden, f"{name}.input_norm")
        q, k, v = (
            self._linear(
                f"{source}.self_attn.{part}_proj.weight",
                x,
                heads * config.head_dim,
                config.hidden_size,
                f"{name}.{part}",
            )
            for part, heads in (
                ("q", config.num_heads),
                ("k", config.num_kv_heads),
                ("v", config.num_kv_heads),
            )
        )
        q, k = self._rotate(q, config.num_heads), self._rotate(k, config.num_kv_heads)
        if config.sparse is None:
            attended, key, value = dense_attention(b, config, layer, q, k, v, cache)
        else:
            attended, key, value = sparse_attention(
                b, config, config.sparse, layer, q, k, v, cache, self.past
            )
        branch = self._linear(
            f"{source}.self_attn.o_proj.weight",
            attended,
            config.hidden_size,
            config.num_heads * config.head_dim,
        )
        hidden = self._residual(hidden, branch, f"{name}.attention_residual")

        x = self._norm(f"{source}.post_attention_layernorm.weight", hidden, f"{name}.post_norm")
        gate, up = (
            self._linear(
                f"{source}.mlp.{part}_proj.weight",
                x,
                config.intermediate_size,
                config.hidden_size,
                f"{name}.{part}",
            )
            for part in ("gate", "up")
        )
        gated = b.op("Mul", b.op("Swish", gate), up, name=f"{name}.gated")
        branch = self._linear(
            f"{source}.mlp.down_proj.weight", gated, config.hidden_size, config.intermediate_size
        )
        return self._residual(hidden, branch, f"{name}.output"), key, value

    def _cache(self, layer: int) -> Cache:
        shape: list[int | str] = [1, self.config.num_kv_heads, "past", self.config.head_dim]
        return Cache(
            self.builder.input(f"past_key.{layer}", FLOAT, shape),
            self.builder.input(f"past_value.{layer}", FLOAT, shape),
        )

    def _weight(self, name: str, *shape: int) -> ir.Value:
        if name not in self.weight_values:
            self.weight_values[name] = ir.Value(
                name=name, type=ir.TensorType(FLOAT), shape=ir.Shape(shape)
            )
            self.weights[name] = WeightSpec(name, (name,), shape, "f32")
        return self.weight_values[name]

    def _norm(self, weight: str, x: ir.Value, name: str) -> ir.Value:
        scale = self._weight(weight, self.config.hidden_size)
        return self.builder.op(
            "RMSNormalization", x, scale, name=name, epsilon=self.config.rms_norm_eps
        )

    def _linear(
        self, weight: str, x: ir.Value, outputs: int, inputs: int, name: str | None = None
    ) -> ir.Value:
        matrix = self.builder.op("Transpose", self._weight(weight, outputs, inputs), perm=[1, 0])
        return self.builder.op("MatMul", x, matrix, name=name)

    def _rotate(self, x: ir.Value, heads: int) -> ir.Value:
        return self.builder.op("RotaryEmbedding", x, self.cos, self.sin, num_heads=heads)

    def _scaled(self, x: ir.Value, scale: float) -> ir.Value:
        return x if scale == 1.0 else self.builder.op("Mul", x, self.builder.real(scale))

    def _residual(self, hidden: ir.Value, branch: ir.Value, name: str) -> ir.Value:
        scaled = self._scaled(branch, self.scales.residual)
        return self.builder.op("Add", hidden, scaled, name=name)

    @staticmethod
    def _declare(value: ir.Value, shape: list[int | str]) -> None:
        value.type, value.shape = ir.TensorType(FLOAT), ir.Shape(shape)
