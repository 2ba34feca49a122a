"""Tables beside a bundle that lie: read as a table, or refused by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arkinfer import tuning
from arkinfer.bundle import Bundle
from arkinfer.errors import InvalidBundleError
from tests.support.junk import JUNK, changed, paths

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "bundles" / "v1.ark"
SHAPE = {
    "shape": "matmul 64 x 64 w4g32",
    "compiled": [1e-3, 2e-3],
    "builtin": {"int8": [1e-3, 2e-3], "fp32": [1e-3, 2e-3]},
    "use": {"int8": ["builtin", "compiled"], "fp32": ["compiled", "compiled"]},
}
GOOD: dict[str, Any] = {
    "version": tuning.VERSION,
    "bundle": "0" * 64,
    "cpu": "a CPU",
    "threads": 2,
    "depth": 512,
    "kv": "fp16",
    "tokens": [1, 16],
    "shapes": [SHAPE],
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """One whose folder tables can be written to."""
    folder = tmp_path_factory.mktemp("tuned")
    for file in GOLDEN.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return Bundle.open(folder)


def test_what_is_written_is_read(bundle: Bundle) -> None:
    (bundle.path / tuning.FILE).write_text(json.dumps(copy.deepcopy(GOOD)))
    table = tuning.read(bundle)
    assert table is not None and table.threads == 2 and table.shapes[0].use["int8"][1] == "compiled"
    tuning.write(bundle, table)
    assert tuning.read(bundle) == table


@settings(
    deadline=None,
    max_examples=200,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(paths(GOOD)), JUNK, st.booleans())
def test_any_value_anywhere_is_read_or_refused(
    bundle: Bundle, path: tuple[Any, ...], junk: Any, remove: bool
) -> None:
    (bundle.path / tuning.FILE).write_text(json.dumps(changed(GOOD, path, junk, remove)))
    try:
        table = tuning.read(bundle)
    except InvalidBundleError as error:
        assert tuning.FILE in error.found and "arkinfer tune" in error.remedy
    else:
        assert table is not None and isinstance(table.threads, int)
