"""Makes the bundle of the current format version that later readers must still load.

    python tests/golden/bundles/make_bundle.py

Run once per released format version. The logits are onnxruntime's on the neutral graph.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import arkinfer
from arkinfer.manifest import FORMAT_VERSION
from tests.support.tiny_models import SMALL_SPARSE, write_tiny_hf

HERE = Path(__file__).parent
TOKENS = np.random.default_rng(1).integers(3, 300, 150).tolist()


def main() -> None:
    output = HERE / f"v{FORMAT_VERSION}.ark"
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_tiny_hf(Path(folder) / "tiny", "minicpm4.1-8b", sparse=SMALL_SPARSE)
        bundle = arkinfer.compile(checkpoint, quant="w4g32", context=256, output=output)
    session = arkinfer.load(bundle.path, backend="onnxruntime").session()
    logits = session.append(TOKENS)[-1]
    blocks = session.selected_blocks(1)
    np.savez_compressed(
        HERE / f"v{FORMAT_VERSION}.npz", tokens=np.asarray(TOKENS), logits=logits, blocks=blocks
    )


if __name__ == "__main__":
    main()
