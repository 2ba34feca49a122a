"""What steps for devices take over from their neighbours, and what they leave."""

from __future__ import annotations

import pytest

from arkinfer.backends._device.rotate import join_rotation
from arkinfer.backends._steps.fuse import fuse
from arkinfer.backends._steps.plan import Buffer, Cache, Step, View, WeightRef


def attention_steps(read_again: bool) -> list[Step]:
    """Queries of 4 heads, then keys and values of one, side by side; heads of 8."""
    rows, table, y = Buffer("qkv", 48), View.whole(Buffer("table", 8)), Buffer("y", 32)
    q, k, v = View(rows, 0, 32), View(rows, 32, 8), View(rows, 40, 8)
    key, value = (Cache(name, name, 1, 8) for name in ("key", "value"))  # type: ignore[arg-type]
    caches = {"key": key, "value": value}
    seen = View(rows, 0, 40) if read_again else q
    return [
        Step("rope", {"x": View(rows, 0, 40), "table": table}, {"head_dim": 8}),
        Step("cache_append", {"k": k, "v": v, **caches}),
        Step("attention", {"q": seen, **caches, "y": View.whole(y)}),
    ]


def test_an_append_rotates_what_it_writes() -> None:
    steps = attention_steps(read_again=False)
    append, attention = join_rotation(steps)
    assert append.kernel == "cache_append" and attention is steps[2]
    assert append.view("x") == attention.view("q") and append.view("k") == steps[1].view("k")
    assert append.operands["table"] is steps[0].operands["table"]


def test_keys_that_somebody_reads_again_are_rotated_in_place() -> None:
    steps = attention_steps(read_again=True)
    assert join_rotation(steps) == steps


@pytest.mark.parametrize(
    ("refused", "kernels"),
    [
        ("", ["matmul", "matmul"]),
        ("gated", ["matmul", "swiglu", "matmul"]),
        ("norm", ["rms_norm", "matmul", "matmul"]),
        ("norm of one", ["rms_norm", "matmul", "matmul"]),
    ],
)
def test_products_take_over_only_what_a_kernel_computes(refused: str, kernels: list[str]) -> None:
    """A norm stays for all of its products where one of them cannot take it over."""
    x, normed, both = Buffer("x", 32), Buffer("normed", 32), Buffer("both", 64)
    y, z = View.whole(Buffer("y", 32)), View.whole(Buffer("z", 16))
    gate, up, n = View(both, 0, 32), View(both, 32, 32), View.whole(normed)
    norm = Step("rms_norm", {"x": View.whole(x), "weight": WeightRef("w"), "y": n}, {"epsilon": 1})
    product = Step("matmul", {"x": n, "codes": WeightRef("a"), "y": View.whole(both)})
    activated = Step("swiglu", {"gate": gate, "up": up, "y": y})
    other = Step("matmul", {"x": n, "codes": WeightRef("b"), "y": z})

    def computes(step: Step) -> bool:
        if refused == "gated":
            return not step.attributes.get("gated")
        if refused == "norm of one":
            return "norm" not in step.operands or step.operands["codes"] != WeightRef("b")
        return refused not in step.operands

    left = fuse([norm, product, activated, other], [], computes)
    assert [step.kernel for step in left] == kernels
    for step in left:
        if step.kernel == "matmul":
            taken = kernels[0] != "rms_norm"
            assert (step.view("x") == View.whole(x)) == taken == ("norm" in step.operands)
