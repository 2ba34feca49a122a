"""Make every model file that the benchmarks want, so that they can begin at once.

Made again are only bundles that the compiler would now write differently.
"""

from __future__ import annotations

from benchmarks.harness.benchmark import parser
from benchmarks.harness.engines import model_path
from benchmarks.models.onnx_stack import onnx_stack
from benchmarks.models.openvino_stack import openvino_stack
from benchmarks.smollm2 import compiled
from tests.support import smollm2

SLICES = (
    "arkinfer w4g128",
    "arkinfer w4g32",
    "arkinfer w4g128 dense",
    "arkinfer ternary",
    "arkinfer ternaryg128",
    "llama.cpp Q4_0",
    "llama.cpp TQ2_0",
)
WHOLE = ("arkinfer w4g128", "arkinfer w4g32", "arkinfer ternary", "llama.cpp Q4_0")


def main() -> None:
    options = parser("make_models", __doc__ or "").parse_args()
    cache = options.cache
    for name in SLICES:
        model_path(name, "slice2", cache)
    for shape in ("slice2",) if options.quick else ("slice2", "slice6"):
        for block in (32, 128):
            onnx_stack(cache, shape, block)
        openvino_stack(cache, shape, 128)
    openvino_stack(cache, "smollm2", 32)
    compiled(cache, smollm2.path())
    if not options.quick:
        for name in ("arkinfer w4g128", "arkinfer w4g32", "llama.cpp Q4_0"):
            model_path(name, "slice6", cache)
        for name in WHOLE:
            model_path(name, "8b", cache)


if __name__ == "__main__":
    main()
