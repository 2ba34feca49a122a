"""Work of a plan, and what a roofline makes of it: by hand on small plans, by the papers on 8B."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arkinfer import devices, known_models, kv_types, planning, work
from arkinfer.bundle import Bundle
from arkinfer.config import SparseConfig
from arkinfer.devices import Figure, Unit
from arkinfer.errors import InputNotFoundError, InvalidBundleError, InvalidOptionError
from arkinfer.planning import Options, Planned, plan
from arkinfer.predict import EFFICIENCIES, Efficiency, Rates, Workload, rates_of, seconds
from arkinfer.work import PlanWork, Work
from tests.support.manifests import CONFIG

KIND = "minicpm4.1-8b"
HALF = Efficiency(0.5, 0.25, 0.0)
RATES = Rates(1e9, ("int8", 1e12), ("fp32", 1e11), HALF, "published")


def matmul(weight: str) -> dict[str, Any]:
    return {"kernel": "matmul", "stage": weight, "operands": {"codes": {"weight": weight}}}


SMALL: dict[str, Any] = {
    "weights": [
        {"name": "a", "shape": [8, 16], "bytes": 64},
        {"name": "head", "shape": [32, 16], "bytes": 512},
        {"name": "table", "shape": [32, 16], "bytes": 1024},
        {"name": "norm", "shape": [16], "bytes": 64},
    ],
    "body": [
        {"kernel": "embed", "operands": {"codes": {"weight": "table"}}},
        {"kernel": "rms_norm", "operands": {"weight": {"weight": "norm"}}},
        *(matmul("a") | {"stage": f"layers.{layer}.a"} for layer in range(3)),
        {"kernel": "attention", "operands": {}},
        {"kernel": "select_blocks", "operands": {}},
    ],
    "head": [matmul("head")],
}


def planned(content: dict[str, Any], **changes: Any) -> Planned:
    model = changes.pop("model", replace(CONFIG, sparse=None))
    return Planned("small", model, content, "none", 4096, 64, "fp16", 1664, 100, 10, **changes)


def total(found: dict[work.Key, Work], field: str) -> int:
    return sum(getattr(item, field) for item in found.values())


def test_weights_are_read_once_and_multiplied_by_rows() -> None:
    steps = PlanWork(SMALL, replace(CONFIG, sparse=None))
    found = steps.at(0, "fp16", tokens=5, outputs=2)
    layers = found["matmul", "layers.*.a"]
    assert (layers.steps, layers.weights, layers.products) == (3, 3 * 64, 3 * 2 * 5 * 8 * 16)
    assert found["matmul", "head"].products == 2 * 2 * 32 * 16
    assert found["rms_norm", ""].products == 0, "vectors are no products"
    assert found["embed", ""].bytes == 0, "rows are looked up"
    assert ("matmul", "head") not in steps.at(0, "fp16", tokens=5, outputs=0)


def test_attention_reads_the_cache_once_and_scores_every_query() -> None:
    model = replace(CONFIG, sparse=None)
    steps = PlanWork(SMALL, model)
    one = steps.at(100, "fp16")["attention", ""]
    # Keys and values of 2 heads of 8 dimensions in 2 bytes; scores and sums of 32 heads.
    assert one.cache == 100 * 2 * 2 * 8 * 2
    assert one.attention == 2 * 2 * 32 * 8 * 100
    many = steps.at(100, "fp16", tokens=9)["attention", ""]
    assert many.cache == 109 * 2 * 2 * 8 * 2
    assert many.attention == 2 * 2 * 32 * 8 * sum(100 + i for i in range(9))
    assert total(steps.at(100, "fp32"), "cache") == 2 * total(steps.at(100, "fp16"), "cache")


def test_sparse_attention_reads_no_more_however_long_the_text() -> None:
    model = replace(CONFIG, sparse=SparseConfig())
    assert work.visited(model.sparse, 8190) == (8190, 0)
    tokens, windows = work.visited(model.sparse, 8191)
    assert (tokens, windows) == (96 * 64, (8191 - 32) // 16)
    assert work.visited(model.sparse, 1 << 20)[0] == 96 * 64
    steps = PlanWork(SMALL, model)
    near, far = (steps.at(past, "fp16") for past in (10_000, 100_000))
    assert near["attention", ""] == far["attention", ""]
    selection = far["select_blocks", ""]
    _, windows = work.visited(model.sparse, 100_000)
    assert selection.cache == windows * 2 * 8 * 2
    assert selection.attention == 2 * 32 * 8 * (windows + windows // 4)
    exact = PlanWork(SMALL, replace(CONFIG, sparse=SparseConfig(lse="exact")))
    assert exact.at(100_000, "fp16")["select_blocks", ""].attention == 2 * 32 * 8 * 2 * windows


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"weights": []},
        {"weights": [], "body": [{}], "head": []},
        {"weights": [], "body": [matmul("gone")], "head": []},
        {"weights": [{"name": "a", "shape": 3, "bytes": "x"}], "body": [matmul("a")], "head": []},
        {"weights": 5, "body": [], "head": []},
        {"weights": [{"name": "a", "shape": [1, 2], "bytes": math.inf}], "body": [matmul("a")]},
    ],
)
def test_a_plan_that_is_none_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises(InvalidBundleError, match=r"plan\.json cannot be read"):
        PlanWork(content, CONFIG)


def test_a_step_takes_the_longer_of_reading_and_computing() -> None:
    read = Work(steps=1, weights=500_000, cache=0, products=1, attention=0)
    assert seconds([read], RATES) == pytest.approx(500_000 / 0.5e9)
    computed = Work(steps=1, weights=1, cache=0, products=10**9, attention=10**8)
    assert seconds([computed], RATES) == pytest.approx(1e9 / 0.25e12 + 1e8 / 0.25e11)
    assert seconds([read, computed], RATES) == seconds([read], RATES) + seconds([computed], RATES)
    slow = replace(RATES, efficiency=replace(HALF, step_seconds=1.0))
    assert seconds([replace(read, steps=7)], slow) == pytest.approx(7 + 500_000 / 0.5e9)
    blind = replace(RATES, products=None, attention=None)
    assert seconds([computed], blind) == pytest.approx(1 / 0.5e9)


def test_predictions_sum_the_chunks_of_a_prompt() -> None:
    work_of_64 = Workload(planned(SMALL), [50, 64, 200])
    steps = PlanWork(SMALL, replace(CONFIG, sparse=None))
    for context, prediction in zip([50, 64, 200], work_of_64.predict(RATES), strict=True):
        whole = 0.0
        for past in range(0, context, 64):
            count = min(64, context - past)
            last = past + count == context
            found = steps.at(past, "fp16", count, outputs=1 if last else 0)
            whole += seconds(found.values(), RATES)
        assert prediction.prefill == pytest.approx(context / whole)
        last_token = steps.at(context - 1, "fp16")
        assert prediction.decode == pytest.approx(1 / seconds(last_token.values(), RATES))
        assert prediction.decode_bytes == total(last_token, "weights") + total(last_token, "cache")
        assert prediction.memory.total == planned(SMALL).memory(context).total


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.floats(1e6, 1e12), st.floats(1e6, 1e15), st.floats(1, 100), st.integers(1, 300))
def test_more_is_never_slower(bandwidth: float, peak: float, more: float, context: int) -> None:
    workload = Workload(planned(SMALL), [context])
    rates = Rates(bandwidth, ("int8", peak), None, HALF, "published")
    base = workload.predict(rates)[0]
    for better in (
        replace(rates, bandwidth=bandwidth * more),
        replace(rates, products=("int8", peak * more)),
    ):
        one = workload.predict(better)[0]
        assert one.decode >= base.decode * (1 - 1e-9)
        assert one.prefill is not None and base.prefill is not None
        assert one.prefill >= base.prefill * (1 - 1e-9)


def test_rates_take_the_best_known_number_type() -> None:
    profile = devices.find("rk3588")[0]
    cpu = rates_of(profile, profile.units["cpu"])
    assert cpu is not None
    assert (cpu.products, cpu.attention) == (("int8", 0.614e12), ("fp32", 0.154e12))
    assert cpu.bandwidth == pytest.approx(33.8e9)
    assert cpu.efficiency == EFFICIENCIES["cpu"]
    gpu = rates_of(profile, profile.units["gpu"])
    assert gpu is not None
    assert gpu.products is None, "its peak is not known"
    assert rates_of(*devices.find("cpu")) is None
    narrow = Unit("cpu", "cpu", "aarch64", bandwidth=Figure(20.0))
    limited = rates_of(profile, narrow)
    assert limited is not None
    assert limited.bandwidth == 20e9, "what the processor gets of the memory"
    unknown = {"int8": Figure(None), "fp32": Figure(0.1)}
    fallback = rates_of(profile, replace(narrow, peak=unknown))
    assert fallback is not None
    assert fallback.products == ("fp32", 0.1e12)


def test_eight_billion_by_name() -> None:
    found = plan("openbmb/minicpm4-8b", Options(context=131072))
    # 32 x 236.98 M weights of the layers and 300.8 M of the head; the embedding is looked up.
    per_token = total(PlanWork(found.plan, found.model).at(0, "fp16"), "products")
    assert per_token == pytest.approx(2 * (32 * 236.98e6 + 300.8e6), rel=1e-4)
    # 4 bits and a scale of 16 bits per 128 weights, 8 bits in the head, 16 in the embedding.
    layers, head = 32 * 236.98e6 * (4 + 16 / 128), 300.8e6 * (8 + 16 / 128)
    assert found.weights == pytest.approx((layers + head + 300.8e6 * 16) / 8, rel=1e-3)
    assert found.model.sparse == SparseConfig(generation="A", lse="exact")
    assert found.memory(131072).kv_cache == 4 << 30
    assert found.largest_tensor == pytest.approx(300.8e6 * 2, rel=1e-3)
    assert plan("MiniCPM4-8B", Options(sparse="off")).model.sparse is None


def test_ternary_by_name() -> None:
    assert plan("BitCPM4-0.5B", Options()).quantization == "ternary"
    assert plan("BitCPM4-0.5B", Options(quant="none")).quantization == "none"
    preferred = plan("MiniCPM4-0.5B", Options(), preferred="w8g64")
    assert preferred.quantization == "w8g64"


@pytest.mark.parametrize("name", known_models.KNOWN)
def test_known_models_can_be_planned(name: str) -> None:
    found = plan(name, Options(context=64))
    assert found.context == 64
    assert found.weights > 0
    assert PlanWork(found.plan, found.model).at(63, "fp16")


def test_unknown_models_list_the_known() -> None:
    with pytest.raises(InputNotFoundError, match=r"GPT-5.*MiniCPM4\.1-8B"):
        plan("GPT-5", Options())
    with pytest.raises(InvalidOptionError, match="w3g1"):
        plan("MiniCPM4-8B", Options(quant="w3g1"))


@pytest.mark.parametrize("quant", ["none", "w4g32"])
def test_a_checkpoint_is_planned_as_it_is_compiled(
    tiny_checkpoint: Callable[..., Path], tiny_bundle: Callable[..., Bundle], quant: str
) -> None:
    bundle = tiny_bundle(KIND, compile={"quant": quant})
    compiled = plan(str(bundle.path), Options())
    before = plan(str(tiny_checkpoint(KIND)), Options(quant=quant, context=512))
    assert before.plan == json.loads(bundle.read_text("plan.json")) == compiled.plan
    assert (before.model, before.context) == (compiled.model, compiled.context)
    assert (before.weights, before.arena) == (compiled.weights, compiled.arena)
    assert before.kv == compiled.kv == kv_types.DEFAULT


def test_a_bundle_has_settled_its_options(tiny_bundle: Callable[..., Bundle]) -> None:
    bundle = tiny_bundle(KIND)
    assert planning.of_bundle(bundle, Options(kv="int8", context=100)).kv == "int8"
    for options in (Options(quant="w4g128"), Options(sparse="off")):
        with pytest.raises(InvalidOptionError, match="settled"):
            planning.of_bundle(bundle, options)
    with pytest.raises(InvalidOptionError, match="context 513"):
        planning.of_bundle(bundle, Options(context=513))
    other = tiny_bundle(KIND, compile={"target": "null"})
    with pytest.raises(InvalidBundleError, match="null backend hold no plan"):
        planning.of_bundle(other, Options())
