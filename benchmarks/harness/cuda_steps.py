"""Single steps of a bundle on a CUDA device, timed by the device's own events."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from arkinfer import bundle_steps
from arkinfer.bundle import Bundle
from arkinfer.tir.sizes import evaluate
from arkinfer.work import key_of
from benchmarks.harness.cuda_driver import Driver, Memory


class Steps:
    """Steps of a bundle, with its weights and random activations and caches.

    Args:
        context: tokens that caches hold; the most that ``past`` and ``tokens`` are together.
    """

    def __init__(self, driver: Driver, bundle: Bundle, context: int) -> None:
        self._driver = driver
        self._table = json.loads(bundle.read_text("launches.json"))
        self._capacity = {"capacity": -(-context // 64) * 64}
        code = bundle.file("modules.bin").read_bytes()
        self._modules = [
            driver.load(code[module["offset"] : module["offset"] + module["bytes"]])
            for module in self._table["code"]["modules"]
        ]
        self._rng = np.random.default_rng(1)
        self._memory: dict[tuple[str, Any], Memory] = {}
        weights = bundle.file("weights.bin")
        self._weights = np.memmap(weights, np.uint8, "r")

    def run(self, kernels: tuple[str, ...], tokens: int, past: int) -> Callable[[], None]:
        """A call that launches the first step of each kind, in the order of the plan."""
        return self._call(self._first(kernels), tokens, past)

    def run_all(self, product: str, tokens: int) -> Callable[[], None]:
        """A call that launches one of :meth:`products` in every layer.

        One layer's weights could stay in a cache of the device from one call to the next.
        """
        return self._call(self.products()[product], tokens, 0)

    def in_head(self, product: str) -> bool:
        """Whether it computes logits, for which there is less room than for a chunk's tokens."""
        return self.products()[product][0] in self._table["head"]

    def products(self) -> dict[str, list[Any]]:
        """The steps that are products, by what they compute and take over."""
        found: dict[str, list[Any]] = {}
        for step in [*self._table["body"], *self._table["head"]]:
            if step["kernel"] == "matmul":
                stage = key_of(step["kernel"], step["stage"])[1].removeprefix("layers.*.")
                name = f"{bundle_steps.kind_of(step)} to {stage or 'several'}"
                found.setdefault(name, []).append(step)
        return found

    def matrices(self, product: str) -> tuple[int, int]:
        """Of all layers of a product: bytes of codes and scales, and how many numbers they are."""
        sizes = {one["name"]: one for one in self._table["weights"]}
        size = numbers = 0
        for step in self.products()[product]:
            for part in step["operands"]["codes"]["matrix"]["parts"]:
                numbers += math.prod(sizes[part["codes"]]["shape"])
                size += sum(
                    sizes[part[name]]["bytes"] for name in ("codes", "scales") if name in part
                )
        return size, numbers

    def launches(self, past: int) -> int:
        """Kernels that one decoded token launches."""
        steps = [*self._table["body"], *self._table["head"]]
        return sum(1 for step in steps for _ in self._used(step, self._scalars(1, past)))

    def _scalars(self, tokens: int, past: int) -> dict[str, int]:
        return {"tokens": tokens, "past": past, "total": past + tokens, **self._capacity}

    def _used(
        self, step: dict[str, Any], scalars: dict[str, int]
    ) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """The launches that a step makes, with their groups."""
        for launch in step["launches"]:
            groups = [evaluate(size, scalars) for size in launch["groups"]]
            if launch["least"] <= scalars["tokens"] <= launch["most"] and all(groups):
                yield launch, groups

    def _call(self, steps: list[Any], tokens: int, past: int) -> Callable[[], None]:
        scalars = self._scalars(tokens, past)
        launches = []
        for step in steps:
            for launch, groups in self._used(step, scalars):
                dynamic = launch.get("dynamic_bytes", 0)
                module = self._modules[launch.get("module", 0)]
                function = self._driver.function(module, launch["kernel"], dynamic)
                given = [self._argument(one, scalars) for one in launch["arguments"]]
                launches.append((function, groups, launch["lanes"], given, dynamic))

        def call() -> None:
            for function, groups, lanes, given, dynamic in launches:
                self._driver.launch(function, groups, lanes, given, dynamic)

        return call

    def _first(self, kernels: tuple[str, ...]) -> list[Any]:
        """The first layer's steps of these kinds."""
        found: dict[str, Any] = {}
        for step in self._table["body"]:
            if step["kernel"] in kernels:
                found.setdefault(step["kernel"], step)
        return list(found.values())

    def _argument(self, argument: dict[str, Any], scalars: dict[str, int]) -> Memory | int:
        kind, value = next(iter(argument.items()))
        if kind == "scalar":
            return scalars[value]
        if (kind, value) not in self._memory:
            self._memory[kind, value] = self._filled(kind, value)
        return self._memory[kind, value]

    def _filled(self, kind: str, value: Any) -> Memory:
        if kind == "weight":
            entry = next(one for one in self._table["weights"] if one["name"] == value)
            memory = self._driver.allocate(entry["bytes"])
            part = slice(entry["offset"], entry["offset"] + entry["bytes"])
            self._driver.upload(memory, self._weights[part])
            return memory
        if kind == "cache":
            entry = next(one for one in self._table["caches"] if one["name"] == value)
            half = self._table["kv"] == "fp16"
            return self._random(
                evaluate(entry["bytes"], self._capacity), np.float16 if half else np.float32
            )
        return self._random(evaluate(self._table["slots"][value], self._capacity), np.float32)

    def _random(self, bytes: int, dtype: Any) -> Memory:
        memory = self._driver.allocate(bytes)
        count = bytes // np.dtype(dtype).itemsize
        self._driver.upload(memory, self._rng.standard_normal(count, np.float32).astype(dtype))
        return memory
