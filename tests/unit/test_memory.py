"""The memory table: exact sums, and refusals that name what fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from arkinfer import kv_types, manifest, memory, system
from arkinfer.config import SparseConfig
from arkinfer.errors import InvalidOptionError, MemoryBudgetError
from arkinfer.manifest import HostMemory, MemoryFacts
from tests.support.manifests import CONFIG, MANIFEST

GIB = 1 << 30
# MiniCPM4-8B with 4-bit weights.
EIGHT = replace(
    MANIFEST,
    model=replace(
        CONFIG,
        hidden_size=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=2,
        head_dim=128,
        sparse=SparseConfig(),
    ),
    context=131072,
    memory=MemoryFacts(5 * GIB, {}, {}, 100 << 20, 10 << 20),
)


def test_eight_billion_at_128k() -> None:
    table = memory.table(EIGHT)
    assert table.kv_cache == 4 * GIB  # 32 KiB per token, from the model card's shape
    # 8191 fine and 2047 coarse windows: a block of 64 for each 64 strides, and one more.
    assert table.compressed_keys == (8192 + 64 + 2048 + 64) * 32 * 2 * 128 * 2
    assert table.total == sum(table.rows.values())
    assert memory.table(EIGHT, kv="fp32").kv_cache == 8 * GIB


def test_blocks_of_64() -> None:
    config = EIGHT.model
    one = memory.kv_cache_bytes(config, 1, "fp16")
    assert memory.kv_cache_bytes(config, 64, "fp16") == one
    assert memory.kv_cache_bytes(config, 65, "fp16") == 2 * one
    assert memory.compressed_key_bytes(replace(config, sparse=None), 4096, "fp16") == 0


@pytest.mark.parametrize(
    ("kv", "key", "value", "compressed"),
    [
        ("fp16", 64 * 72 * 2, 64 * 72 * 2, 64 * 72 * 2),
        ("fp32", 64 * 72 * 4, 64 * 72 * 4, 64 * 72 * 4),
        # 72 dimensions are 18 fours and, rounded up, 5 sixteens and 3 groups of 32.
        ("int8", 64 * (72 + 4), 64 * (80 + 4), 64 * (72 + 4)),
        ("int4", 64 * 3 * (16 + 4), 64 * 3 * (16 + 4), 64 * (72 + 4)),
    ],
)
def test_bytes_of_every_type(kv: kv_types.KvType, key: int, value: int, compressed: int) -> None:
    config = replace(EIGHT.model, head_dim=72)
    heads = config.num_layers * config.num_kv_heads
    assert memory.kv_cache_bytes(config, 65, kv) == 2 * heads * (key + value)
    # 1,152 tokens: 71 fine windows in two blocks, 17 coarse ones in one.
    assert memory.compressed_key_bytes(config, 1152, kv) == 3 * heads * compressed


def test_the_cpu_in_a_devices_place_has_numbers_of_its_own() -> None:
    facts = replace(EIGHT.memory, host=HostMemory(6 * GIB, 50 << 20))
    both = replace(EIGHT, memory=facts)
    device, cpu = (memory.table(both, on_cpu=on_cpu) for on_cpu in (False, True))
    assert (device.weights, device.arena) == (5 * GIB, 100 << 20)
    assert (cpu.weights, cpu.arena, cpu.kv_cache) == (6 * GIB, 50 << 20, device.kv_cache)
    assert memory.table(EIGHT, on_cpu=True) == memory.table(EIGHT)
    free = device.total - device.process
    memory.check(both, available=free)
    with pytest.raises(MemoryBudgetError, match="the largest context that fits"):
        memory.check(both, available=free, on_cpu=True)
    assert manifest.parse(both.to_json()).memory.host == facts.host


def test_the_bundles_type_is_the_default() -> None:
    assert memory.table(EIGHT).kv == kv_types.DEFAULT
    small = replace(EIGHT, kv="int4")
    assert memory.table(small).kv == "int4"
    assert memory.table(small) == memory.table(EIGHT, kv="int4")
    assert memory.table(small, kv="fp32").kv == "fp32"


def test_context_range() -> None:
    for context in (0, -1, 131073):
        with pytest.raises(InvalidOptionError, match=f"context {context}"):
            memory.table(EIGHT, context)


@pytest.mark.parametrize("room", [6 * GIB, 7 * GIB, 8 * GIB + 12345])
def test_largest_context_is_the_largest(room: int) -> None:
    best = memory.largest_context(EIGHT, room)
    assert 0 < best < EIGHT.context
    fits, over = memory.table(EIGHT, best), memory.table(EIGHT, best + 1)
    assert fits.total - fits.process <= room < over.total - over.process
    with pytest.raises(MemoryBudgetError, match=f"largest context that fits is {best} tokens"):
        memory.check(EIGHT, available=room)
    assert memory.check(EIGHT, best, available=room) == fits


def test_nothing_fits() -> None:
    assert memory.largest_context(EIGHT, GIB) == 0
    with pytest.raises(MemoryBudgetError, match="not even one token"):
        memory.check(EIGHT, 1, available=GIB)


def test_this_machine_answers() -> None:
    assert 0 < system.available_memory() <= system.total_memory()


def test_control_groups_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal: 8000 kB\nMemAvailable: 6000 kB\n")
    (proc / "self/cgroup").write_text("0::/a/b\n")
    (groups / "a/b").mkdir(parents=True)
    (groups / "a/memory.max").write_text("4096000\n")
    (groups / "a/memory.current").write_text("3000000\n")
    (groups / "a/memory.stat").write_text("anon 1\ninactive_file 2000000\n")
    (groups / "a/b/memory.max").write_text("max\n")
    monkeypatch.setattr(system, "_PROC", proc)
    monkeypatch.setattr(system, "_CGROUP", groups)
    monkeypatch.setattr("sys.platform", "linux")
    assert system.total_memory() == 4096000
    assert system.available_memory() == 4096000 - 1000000
    (proc / "self/cgroup").write_text("4:memory:/v1\n3:cpu:/x\n")
    (groups / "memory/v1").mkdir(parents=True)
    (groups / "memory/v1/memory.limit_in_bytes").write_text("2000000\n")
    (groups / "memory/v1/memory.usage_in_bytes").write_text("500000\n")
    assert system.total_memory() == 2000000
    assert system.available_memory() == 1500000
    (proc / "self/cgroup").write_text("0::/nowhere\n")
    assert system.available_memory() == 6000 * 1024
