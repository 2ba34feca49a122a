"""Stands where nvcc does: makes shared libraries, which the fake driver loads as modules.

Called as nvcc is, by its own path; prints what ``ptxas -v`` prints, with numbers that mean nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2]))

from tests.support.cuda_compiler import compile_source, entries  # noqa: E402

# What emitted source uses and hand-written kernels do not.
_BEFORE = """
template <class T>
T max(T a, T b) {
    return a < b ? b : a;
}
template <class T>
T min(T a, T b) {
    return b < a ? b : a;
}
"""
# The bytes of each parameter of a kernel, then 0; ``cuFuncGetParamInfo`` asks for them.
_BEHIND = """
namespace {
template <class... A>
size_t parameter_size(void (*)(A...), size_t index) {
    const size_t sizes[] = {sizeof(A)..., 0};
    return index < sizeof...(A) ? sizes[index] : 0;
}
}  // namespace
"""


def main() -> int:
    if sys.argv[-1] == "--version":
        print("Cuda compilation tools, release 13.0, V13.0.0")
        return 0
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("--kept", type=Path, help="folder of what was compiled before")
    parser.add_argument("-o", dest="output", type=Path)
    parser.add_argument("-I", dest="include", action="append", default=[])
    parser.add_argument("-D", dest="define", action="append", default=[])
    given, _ = parser.parse_known_args(_without_values(sys.argv[1:]))
    # Both compilers take the one order, and only nvcc the other.
    source = re.sub(r"(__shared__) (alignas\(\d+\))", r"\2 \1", given.source.read_text())
    flags = [f"-I{path}" for path in given.include] + [f"-D{define}" for define in given.define]
    names = entries(source, flags)
    sizes = [
        f'extern "C" __attribute__((visibility("default"))) size_t {name}__sizes(size_t index) '
        f"{{ return parameter_size({name}, index); }}"
        for name in names
    ]
    text = _BEFORE + source + _BEHIND + "\n".join(sizes)
    # Models of the same shape have the same kernels, and tests have several of one shape.
    digest = hashlib.sha256("\0".join([text, *flags]).encode()).hexdigest()[:16]
    library = given.kept / f"{digest}.so"
    if not library.exists():
        made = given.output.with_suffix(".so")
        compile_source(text, made, flags)
        shutil.move(made, library)
    shutil.copy(library, given.output)
    for name in names:
        print(f"ptxas info : Compiling entry function '{name}' for 'sm_87'", file=sys.stderr)
        print("0 bytes spill stores, 0 bytes spill loads\nUsed 1 registers", file=sys.stderr)
    return 0


def _without_values(arguments: list[str]) -> list[str]:
    """Arguments without the options that come with a value and mean nothing here."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument not in ("-Xptxas", "-diag-suppress"):
            kept.append(argument)
        skip = argument in ("-Xptxas", "-diag-suppress")
    return kept


if __name__ == "__main__":
    sys.exit(main())
