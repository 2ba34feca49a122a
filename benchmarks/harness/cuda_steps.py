"""Single steps of a bundle on a CUDA device, timed by the device's own events."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from arkinfer.bundle import Bundle
from arkinfer.tir.sizes import evaluate
from benchmarks.harness.cuda_driver import Driver, Memory


class Steps:
    """Steps of the first layer, with random activations and caches.

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
        scalars = {"tokens": tokens, "past": past, "total": past + tokens, **self._capacity}
        launches = []
        for step in self._first(kernels):
            for launch in step["launches"]:
                if not launch["least"] <= tokens <= launch["most"]:
                    continue
                groups = [evaluate(size, scalars) for size in launch["groups"]]
                dynamic = launch.get("dynamic_bytes", 0)
                module = self._modules[launch.get("module", 0)]
                function = self._driver.function(module, launch["kernel"], dynamic)
                given = [self._argument(one, scalars) for one in launch["arguments"]]
                if all(groups):
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
