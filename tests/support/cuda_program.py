"""Runs kernels on a CUDA device, where the variable ARK_TEST_CUDA is ``device``.

``benchmarks/cuda.py`` sets it to run tests of kernels there.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arkinfer.backends.cuda import modules, nvcc
from arkinfer.backends.cuda.modules import Unit
from arkinfer.backends.cuda.nvcc import Architecture
from benchmarks.harness.cuda_driver import Driver, Memory

Array = NDArray[Any]
WANTED = os.environ.get("ARK_TEST_CUDA") == "device"


class DeviceCode:
    """A unit compiled for the first device."""

    def __init__(self, unit: Unit) -> None:
        self._driver = Driver()
        architecture = Architecture(self._driver.capability, ptx=False)
        self._code = unit.build(nvcc.find(), architecture).code

    def run(
        self,
        entry: str,
        arguments: Sequence[Array | int],
        groups: Sequence[int],
        lanes: int,
    ) -> list[Array]:
        """Run an entry; gives back its buffers as they then are."""
        driver = self._driver
        function = driver.function(driver.load(self._code), entry)
        given: list[Memory | int] = []
        for argument in arguments:
            if isinstance(argument, int):
                given.append(argument)
            else:
                memory = driver.allocate(argument.nbytes)
                driver.upload(memory, argument)
                given.append(memory)
        driver.launch(function, groups, lanes, given)
        found = [
            driver.download(memory, np.asarray(argument))
            for memory, argument in zip(given, arguments, strict=True)
            if isinstance(memory, Memory)
        ]
        driver.free()
        return found


def program(path: Path, defines: Mapping[str, int | float | str]) -> DeviceCode:
    """Hand-written kernels, in place of ``tests.support.cuda_on_cpu.Program``; compiled once."""
    return _compiled(path.parent.name, tuple(sorted(defines.items())))


@functools.cache
def _compiled(operator: str, defines: tuple[tuple[str, int | float | str], ...]) -> DeviceCode:
    return DeviceCode(modules.hand_written(operator, dict(defines)))
