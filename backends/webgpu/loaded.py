"""A bundle on a device: its table checked, its kernels compiled, its weights uploaded."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import wgpu

from arkinfer.backends._device.table import Facts, Table, bytes_of
from arkinfer.backends._device.table_reader import read
from arkinfer.backends.webgpu import SHADERS, TABLE
from arkinfer.backends.webgpu.gpu import Gpu, open_gpu
from arkinfer.backends.webgpu.limits import check_arguments, check_fits
from arkinfer.backends.webgpu.shaders import Shader, split
from arkinfer.bundle import Bundle

_UPLOAD_BYTES = 16 << 20  # at once: bounds the host's memory of an upload


@dataclass(frozen=True)
class Loaded:
    """What sequences of one bundle share.

    Attributes:
        gpu: the device.
        table: what it runs.
        shaders, pipelines: kernels by name.
        weights: buffers, in the order of the table.
    """

    gpu: Gpu
    table: Table
    shaders: Mapping[str, Shader]
    pipelines: Mapping[str, Any]
    weights: tuple[Any, ...]


def load(path: Path, digest: str, context: int) -> Loaded:
    """Put a bundle on a device, or find it there: the last one stays.

    Args:
        path: the bundle's folder.
        digest: of the bundle.
        context: tokens of a sequence.

    Raises:
        InvalidBundleError, DamagedBundleError: it is not what was compiled.
        DeviceError: there is no device, or it cannot hold or compile the bundle.
    """
    found = _load(path, digest, context)
    if found.gpu.failed:  # a lost device does not come back
        _load.cache_clear()
        found = _load(path, digest, context)
    return found


@functools.lru_cache(maxsize=1)
def _load(path: Path, digest: str, context: int) -> Loaded:
    bundle = Bundle.open(path)
    manifest, size = bundle.manifest, bundle.file("weights.bin").stat().st_size
    model = manifest.model
    facts = Facts(manifest.chunk, model.vocab_size, model.num_layers, model.num_kv_heads, size)
    table = read(bundle.read_text(TABLE), TABLE, facts)
    shaders = split(bundle.read_text(SHADERS))
    check_arguments(table, shaders)
    gpu = open_gpu()
    check_fits(table, shaders, gpu.limits, context, gpu.name)
    used = {launch.kernel for step in (*table.body, *table.head) for launch in step.launches}
    pipelines = {name: gpu.pipeline(shaders[name]) for name in sorted(used)}
    bundle.check()
    return Loaded(gpu, table, shaders, pipelines, _upload(gpu, table, bundle.file("weights.bin")))


def _upload(gpu: Gpu, table: Table, path: Path) -> tuple[Any, ...]:
    usage = wgpu.BufferUsage.STORAGE | wgpu.BufferUsage.COPY_DST
    mapped = np.memmap(path, np.uint8, "r")
    buffers = []
    for weight in table.weights:
        size = bytes_of(weight.size, 0, weight.name)
        buffer = gpu.buffer(size, usage, weight.name)
        with gpu.during(f"uploading {weight.name}"):
            for start in range(0, size, _UPLOAD_BYTES):
                count = min(_UPLOAD_BYTES, size - start)
                part = mapped[weight.offset + start : weight.offset + start + count]
                gpu.device.queue.write_buffer(buffer, start, part)
                # What was written waits on the host until something is submitted.
                gpu.device.queue.submit([])
        buffers.append(buffer)
    return tuple(buffers)
