"""The parts of the benchmarks that compute: limits, interleaving, records, model files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import cuda, goals, picture, report
from benchmarks.goals import Records
from benchmarks.harness import files, limits, measure, record
from benchmarks.harness.limits import Limits
from benchmarks.harness.measure import Case
from benchmarks.harness.shapes import SHAPES
from benchmarks.harness.workers import WorkerError
from benchmarks.models import bundle, random_weights

PRINTED = (
    '{"threads": 2, "read_bytes_per_s": {"1": 1e10, "2": 2e10},'
    ' "int8": {"avx2": 5e11, "avxvnni": 9e11}, "fp32": {"avx2": 2e11}}'
)


def test_limits_are_parsed() -> None:
    found = limits.parse(PRINTED)
    assert found == Limits(2, 1e10, 2e10, {"avx2": 5e11, "avxvnni": 9e11}, {"avx2": 2e11})
    assert found.int8_peak == 9e11
    assert Limits(1, 1.0, 1.0, {}, {}).int8_peak == 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        PRINTED.replace('"2": 2e10', '"3": 2e10'),
        PRINTED.replace("5e11", "0"),
        PRINTED.replace("5e11", '"fast"'),
        PRINTED.replace('{"avx2": 2e11}', "[2e11]"),
    ],
)
def test_what_the_tool_never_prints_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="machine_limits"):
        limits.parse(text)


class _Meter(limits.Meter):
    """Limits without a machine: the n-th measurement reads n GB/s."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"), 1)
        self.count = 0

    def sample(self) -> Limits:
        self.count += 1
        return Limits(1, self.count * 1e9, self.count * 1e9, {"x": 1e12}, {"x": 1e11})


def test_cases_are_interleaved_and_the_first_round_is_not_counted() -> None:
    calls: list[str] = []

    def run(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    cases = [Case(name, {}, lambda name=name: run(name)) for name in "ab"]  # type: ignore[misc]
    measured = measure.interleave(cases, _Meter(), rounds=2, minutes=1)
    assert calls == ["a", "b"] * 3
    assert [case.samples for case in cases] == [[3.0, 5.0], [4.0, 6.0]]
    assert [limit.read for limit in measured] == [2e9, 3e9]


def test_a_failing_case_is_left_out_and_the_others_go_on() -> None:
    def fail() -> float:
        raise WorkerError("no such layer")

    cases = [Case("bad", {}, fail), Case("good", {}, lambda: 1.0)]
    measure.interleave(cases, _Meter(), rounds=3, minutes=1)
    assert cases[0].record() == {"peer": "bad", "samples": [], "failure": "no such layer"}
    assert cases[1].samples == [1.0] * 3


def test_no_round_begins_late_but_three_are_always_made() -> None:
    case = Case("slow", {}, lambda: 1.0)
    measure.interleave([case], _Meter(), rounds=50, minutes=0)
    assert len(case.samples) == 3


def _record() -> dict[str, Any]:
    limit = {"threads": 1, "read_one": 1.0, "fp32": {"x": 1.0}}
    return {
        "benchmark": "decode",
        "groups": [
            record.group(
                "slice2",
                [Limits(**limit, read=r, int8={"x": 1000.0}) for r in (100.0, 200.0, 100.0)],
                {},
                [
                    {"peer": "ours", "method": "decode", "bytes": 100, "samples": [1.0, 1.0, 2.0]},
                    {"peer": "theirs", "operations": 500, "samples": [2.0, 4.0, 2.0]},
                    {"peer": "broken", "samples": [1.0], "failure": "it broke"},
                ],
            )
        ],
    }


def test_figures_pair_each_sample_with_the_limit_of_its_round() -> None:
    ours, theirs = record.figures(_record())
    assert (ours.value, ours.spread) == (1.0, 1.0)
    assert ours.bandwidth == 0.5  # of 1.0, 0.5 and 0.5
    assert ours.peak is None
    assert theirs.peak == 0.25  # of 0.25, 0.125 and 0.25
    assert theirs.bandwidth is None


def test_figures_are_found_by_their_parameters() -> None:
    found = record.find(_record(), "ours", "slice2", method="decode")
    assert found is not None and found.value == 1.0
    assert record.find(_record(), "ours", "slice2", method="prefill") is None
    assert record.find(_record(), "broken", "slice2") is None
    assert record.find(None, "ours", "slice2") is None


def test_the_table_names_every_figure_and_the_ratio() -> None:
    lines = record.text(_record()).splitlines()
    assert len(lines) == 3
    assert "theirs" in lines[2] and "x2.00" in lines[2] and "25% of int8 peak" in lines[2]


def test_a_record_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "results" / "decode.json"
    record.save(path, _record())
    assert record.load(path) == json.loads(path.read_text()) == _record()
    assert record.load(tmp_path / "other.json") is None
    assert [p.name for p in path.parent.iterdir()] == ["decode.json"]


def test_the_8b_shape_has_the_weights_of_the_released_model() -> None:
    shape = SHAPES["8b"]
    total = shape.layers * shape.layer_weights + 2 * shape.head_weights
    assert total == pytest.approx(8.185e9, rel=1e-3)
    assert shape.kv_bytes(1) == 32768
    assert shape.operations(512, 1) == 2 * (512 * 32 * shape.layer_weights + shape.head_weights)


def test_a_file_is_made_once_and_never_half(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.make_once(tmp_path / "a", fail)
    assert not (tmp_path / "a").exists()
    files.make_once(tmp_path / "a", lambda path: path.write_text("whole") and None)
    files.make_once(tmp_path / "a", fail)
    assert (tmp_path / "a").read_text() == "whole"


def test_bundles_are_out_of_date_when_the_compiler_changes(tmp_path: Path) -> None:
    assert all(path.exists() for path in bundle.COMPILER)
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)
    (folder / "a.py").write_text("1")
    first = files.sources_digest(link)
    (folder / "a.py").write_text("2")
    assert files.sources_digest(link) != first
    assert files.sources_digest(folder / "a.py") == files.sources_digest(link)


def test_the_page_cache_of_a_file_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 20))
    assert 0.0 <= files.drop_from_page_cache(path) <= 1.0
    path.read_bytes()
    assert files.cached_part(path) == 1.0


def test_random_bytes_do_not_depend_on_how_they_are_cut() -> None:
    whole = random_weights.random_bytes("a", 0, 100 << 20)
    assert len(whole) == 100 << 20
    piece = random_weights.random_bytes("a", 90 << 20, 1000)
    np.testing.assert_array_equal(piece, whole[90 << 20 :][:1000])
    assert not np.array_equal(whole[:1000], random_weights.random_bytes("b", 0, 1000))


def _records() -> Records:
    """One round of each figure that the goals tried here need."""
    limit = Limits(2, 1e9, 2e9, {"x": 4e12}, {"x": 1e12})

    def case(peer: str, value: float, **what: Any) -> dict[str, Any]:
        return {"peer": peer, "samples": [value], **what}

    def one(name: str, *cases: dict[str, Any]) -> dict[str, Any]:
        return record.group(name, [limit], {}, list(cases))

    ours, flash = goals.OURS, goals.LLAMA[1]
    decode = one("8b", case(ours, 2.0, bytes=3e9), case(goals.LLAMA[0], 5.0))
    depth = one(
        "decode slice2 32K",
        case(ours, 1.0, depth=0, kv="fp16"),
        case(ours, 1.1, depth=32768, kv="fp16"),
        case(goals.LLAMA[0], 2.0, depth=0),
        case(goals.LLAMA[0], 7.0, depth=32768),
        case(flash, 1.0, depth=0),
        case(flash, 5.0, depth=32768),
    )
    common = {"command": "python -m x", "machine": {"processor": "P", "threads": 2, "cores": 2}}
    common["machine"]["system"] = "S"  # type: ignore[index]
    return {
        "decode": {"benchmark": "decode", **common, "groups": [decode]},
        "depth": {"benchmark": "depth", **common, "groups": [depth]},
    }


def test_goals_follow_from_the_records() -> None:
    measured = {goal.text: goal.measure(_records()) for goal in goals.GOALS}
    assert measured["decode 8B w4 g128, depth 0: part of the read bandwidth"] == 0.75
    assert measured["decode 8B w4 g128 against llama.cpp Q4_0"] == 2.5
    # 0.1 over the 4.0 of the flag that adds less.
    added = measured["attention and selection at 32K over llama.cpp's, fp16 KV"]
    assert added == pytest.approx(0.1 / 4.0)
    assert sum(value is not None for value in measured.values()) == 3


def test_the_table_of_goals_says_what_was_met_missed_and_not_measured() -> None:
    lines = report.goals(_records()).splitlines()
    assert len(lines) == 2 + len(goals.GOALS)
    assert "| ≥ 0.92 | 0.75 | missed |" in lines[2]
    assert "| ≥ 1.80 | 2.50 | met |" in lines[3]
    assert any("| ≤ 1/30 | 1/40 | met |" in line for line in lines)
    assert "| not measured |  |" in lines[4]


def test_every_goal_names_a_benchmark_that_exists() -> None:
    for goal in goals.GOALS:
        assert (files.ROOT / "benchmarks" / f"{goal.benchmark}.py").is_file()


def test_the_page_keeps_what_is_written_by_hand() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    once = report.replaced(page, report.text(_records()))
    assert report.replaced(once, report.text(_records())) == once
    assert once.startswith(page.partition(report.BEGIN)[0])
    assert "Measured on: P, 2 threads" in once and "`python -m x`" in once
    with pytest.raises(ValueError, match="lacks"):
        report.replaced("no markers", "results")


def test_the_picture_takes_depths_from_slices_and_parts_from_the_last_shape() -> None:
    assert picture.by_depth(_records())["arkinfer w4g128 fp16"] == [(0, 0.5), (32768, 0.55)]
    assert picture.parts(_records(), "decode", "bandwidth") == {goals.OURS: 0.75}
    assert picture.parts({}, "prefill", "peak") == {}


def test_without_a_cuda_device_the_benchmark_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARK_CUDA_LIBRARY", "/nowhere/libcuda.so.1")
    with pytest.raises(SystemExit, match="no CUDA device: no driver can be opened"):
        cuda.main([])


def test_the_table_of_a_cuda_device() -> None:
    rows = [cuda.Row("decode", "80 GB/s", "100 GB/s", 0.8, "≥ 0.80"), cuda.Row("x", "not run")]
    assert cuda.table(rows).splitlines()[2:] == [
        "| decode | 80 GB/s | 100 GB/s | 0.80 | ≥ 0.80 |",
        "| x | not run |  |  |  |",
    ]
