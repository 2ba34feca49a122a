"""Bundles of every released format version still load and still give the same answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import arkinfer

BUNDLES = sorted((Path(__file__).parent / "bundles").glob("v*.ark"))


def test_every_version_is_kept() -> None:
    from arkinfer.manifest import FORMAT_VERSION

    assert [path.stem for path in BUNDLES] == [f"v{n}" for n in range(1, FORMAT_VERSION + 1)]


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.stem)
def test_an_old_bundle_still_answers(path: Path) -> None:
    expected = np.load(path.with_suffix(".npz"))
    session = arkinfer.load(path, activations="fp32", kv="fp32").session()
    logits = session.append(expected["tokens"].tolist())[-1]
    # fp32 sums in another order than onnxruntime's.
    assert np.abs(logits - expected["logits"]).max() <= 1e-4 * np.abs(expected["logits"]).max()
    assert np.array_equal(session.selected_blocks(1), expected["blocks"])
