"""What a table of launches says of its bundle; tables that lie are named errors."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from arkinfer import bundle_steps
from arkinfer.bundle import Bundle
from arkinfer.errors import InvalidBundleError
from arkinfer.work import PlanWork
from tests.support.manifests import reseal

RESOURCES = {"registers": 40, "spill_bytes": 8, "shared_bytes": 0}


def launch(kernel: str, *weights: str, **more: Any) -> dict[str, Any]:
    arguments = [{"slot": 0}, *({"weight": name} for name in weights), {"scalar": "tokens"}]
    return {"kernel": kernel, "arguments": arguments, **more}


TABLE: dict[str, Any] = {
    "weights": [
        {"name": "w.codes", "offset": 0, "bytes": 32, "shape": [8, 8]},
        {"name": "w.scales", "offset": 64, "bytes": 16},
        {"name": "v.0", "offset": 128, "bytes": 32, "shape": [4, 8]},
        {"name": "v.4", "offset": 192, "bytes": 32, "shape": [4, 8]},
    ],
    "body": [
        {
            "kernel": "matmul",
            "stage": "layers.0.a",
            # Both launches read the same weight; a token makes one of them.
            "launches": [launch("few", "w.codes", "w.scales"), launch("many", "w.codes", module=1)],
        },
        {
            "kernel": "matmul",
            "stage": "layers.1.a",
            "launches": [launch("few", "v.0"), launch("few", "v.4")],
        },
    ],
    "head": [{"kernel": "rms_norm", "stage": "", "launches": [launch("norm")]}],
    "code": {
        "architecture": "sm_87",
        "form": "cubin",
        "toolkit": 13000,
        "modules": [
            {"name": "portable", "kernels": {"few": RESOURCES, "norm": RESOURCES}},
            {"name": "matmul", "kernels": {"many": {**RESOURCES, "registers": 90}}},
        ],
    },
}


@pytest.fixture
def bundle(null_bundle: Path, tmp_path: Path) -> Callable[[Any], Bundle]:
    """A bundle that holds this table."""

    def make(table: Any) -> Bundle:
        path = shutil.copytree(null_bundle, tmp_path / "copy.ark", dirs_exist_ok=True)
        reseal(path, {"launches.json": json.dumps(table).encode()})
        return Bundle.open(path)

    return make


def changed(change: Callable[[Any], Any]) -> Any:
    table = copy.deepcopy(TABLE)
    change(table)
    return table


def test_steps_read_each_weight_once(bundle: Callable[[Any], Bundle]) -> None:
    opened = bundle(TABLE)
    assert bundle_steps.has_steps(opened)
    work = PlanWork(bundle_steps.steps_of(opened), opened.manifest.model).at(0, "fp16")
    product = work["matmul", "layers.*.a"]
    assert (product.steps, product.weights) == (2, 32 + 16 + 32 + 32)
    assert product.products == 2 * (64 + 32 + 32)


def test_code_is_told_by_kind_of_step(bundle: Callable[[Any], Bundle]) -> None:
    code = bundle_steps.code_of(bundle(TABLE))
    assert code is not None
    assert (code.architecture, code.form, code.toolkit, code.unresolved) == (
        *("sm_87", "cubin", "13.0", 0),
    )
    product, norm = code.uses
    assert (product.kernel, product.steps, product.functions) == ("matmul", 2, 2)
    assert (product.registers, product.spill_bytes, norm.registers) == (90, 16, 40)


def _set(*place: Any) -> Callable[[Any], None]:
    def change(table: Any) -> None:
        for key in place[:-2]:
            table = table[key]
        table[place[-2]] = place[-1]

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("body", 0, "launches", 0, "kernel", "none"),
        _set("body", 0, "launches", 1, "module", 7),
        _set("body", 0, "launches", 1, "module", -1),
        _set("body", 0, "launches", []),
    ],
)
def test_steps_without_code_are_counted(
    change: Callable[[Any], None], bundle: Callable[[Any], Bundle]
) -> None:
    code = bundle_steps.code_of(bundle(changed(change)))
    assert code is not None and code.unresolved == 1


def test_a_bundle_without_a_table(null_bundle: Path, bundle: Callable[[Any], Bundle]) -> None:
    opened = Bundle.open(null_bundle)
    assert not bundle_steps.has_steps(opened) and bundle_steps.code_of(opened) is None
    with pytest.raises(InvalidBundleError, match="the null backend hold no plan"):
        bundle_steps.steps_of(opened)
    assert bundle_steps.code_of(bundle(changed(lambda table: table.pop("code")))) is None


@pytest.mark.parametrize(
    "table",
    [
        [],
        7,
        {},
        changed(_set("weights", 3)),
        changed(_set("weights", 0, "name", [])),
        changed(_set("body", "matmul")),
        changed(_set("body", 0, "launches", 0, "arguments", [7])),
        changed(_set("head", 0, "launches", None)),
    ],
)
def test_tables_that_cannot_be_read(table: Any, bundle: Callable[[Any], Bundle]) -> None:
    with pytest.raises(InvalidBundleError, match=r"launches\.json cannot be read"):
        bundle_steps.steps_of(bundle(table))


@pytest.mark.parametrize(
    "change",
    [
        _set("code", 7),
        _set("code", {}),
        _set("code", "modules", 0, {}),
        _set("code", "modules", 0, "kernels", "few", 3),
        _set("code", "toolkit", "new"),
        _set("body", 0, "launches", 0, "module", "first"),
    ],
)
def test_code_that_cannot_be_read(
    change: Callable[[Any], None], bundle: Callable[[Any], Bundle]
) -> None:
    with pytest.raises(InvalidBundleError, match=r"launches\.json cannot be read"):
        bundle_steps.code_of(bundle(changed(change)))
