"""Kernels that only emulators run here, as the compiler makes them for real CPUs.

Emulators run intrinsics in the place of what is written in assembler, and their time
tells nothing: so here is what holds the order of operands, and sums in registers.
"""

from __future__ import annotations

import platform
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.native_build import ROOT

SOURCE = """
#include "{root}/kernels/matmul/gemm_tile.h"
using namespace ark::ARK_ISA;
extern "C" void written({type}* sum, {type} codes, {type} x) {{
  *sum = add_products(*sum, codes, x);
}}
extern "C" void meant({type}* sum, {type} codes, {type} x) {{ *sum = {meant}; }}
"""
AVX512 = "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c"
SETS = {
    "avxvnni": ("-mavx2 -mfma -mf16c -mavxvnni", "_mm256_dpbusd_avx_epi32(*sum, codes, x)"),
    "avx512": (AVX512, "_mm512_add_epi16(*sum, _mm512_maddubs_epi16(codes, x))"),
    "avx512vnni": (AVX512 + " -mavx512vnni", "_mm512_dpbusd_epi32(*sum, codes, x)"),
}


def _stored(listing: str, function: str) -> str:
    """What a function of one block stores to *sum, as a formula of its arguments."""
    body = listing.split(f"<{function}>:")[1].split("ret")[0]
    known = {"(%rdi)": "sum", "%mm0": "codes", "%mm1": "x"}
    for operation, operands in re.findall(r"\b(v\w+) +(\S+)", body):
        parts = re.sub(r"%[yz]mm", "%mm", operands).split(",")
        *inputs, to = parts
        values = [known[part] for part in inputs]
        if operation == "vpdpbusd":
            values.append(known[to])
        if operation.startswith("vpadd"):
            values.sort()
        moved = operation.startswith("vmov")
        known[to] = values[0] if moved else f"{operation}({', '.join(values)})"
    return known["(%rdi)"]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64 assembler")
@pytest.mark.parametrize("isa", SETS)
def test_written_instructions_are_those_that_are_meant(isa: str, tmp_path: Path) -> None:
    flags, meant = SETS[isa]
    kind = "__m256i" if isa == "avxvnni" else "__m512i"
    source = tmp_path / "products.cc"
    source.write_text(SOURCE.format(root=ROOT, type=kind, meant=meant))
    native = ROOT / "native"
    command = ["g++", "-std=c++17", "-O2", "-c", f"-I{native}/src", f"-I{native}/include"]
    command += [f"-DARK_ISA={isa}", f"-DARK_ISA_{isa}=1", *flags.split(), str(source)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    if done.returncode and int(_output("g++", "-dumpversion").split(".")[0]) < 12:
        pytest.skip("needs GCC 12 or newer")
    assert done.returncode == 0, done.stderr
    listing = _output("objdump", "-d", "--no-show-raw-insn", str(tmp_path / "products.o"))
    assert _stored(listing, "written") == _stored(listing, "meant")
    assert "codes" in _stored(listing, "written")


# Of each set: its flags, the instruction that multiplies, and how many a step of a tile has.
TILES = {
    "avxvnni": (SETS["avxvnni"][0], "vpdpbusd", 12),
    "avx512": (AVX512, "vpmaddubsw", 24),
    "avx512vnni": (SETS["avx512vnni"][0], "vpdpbusd", 24),
}


def _loops(assembly: str) -> list[list[str]]:
    """The instructions of every innermost loop: from a label to a jump back to it."""
    loops: list[list[str]] = []
    label, body = "", list[str]()
    for line in assembly.splitlines():
        found = re.match(r"(\.L\w+):", line)
        if found:
            label, body = found[1], []
        elif re.match(r"\s+[{a-z]", line):
            body.append(line.strip())
            if body[-1].startswith("j") and body[-1].split()[-1] == label:
                loops.append(body[:])
    return loops


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="x86-64 assembler")
@pytest.mark.parametrize("isa", TILES)
def test_tiles_of_many_rows_keep_their_sums_in_registers(isa: str, tmp_path: Path) -> None:
    if int(_output("g++", "-dumpversion").split(".")[0]) < 12:
        pytest.skip("needs GCC 12 or newer")
    flags, product, count = TILES[isa]
    native = ROOT / "native"
    out = tmp_path / "matmul.s"
    command = ["g++", "-std=c++17", "-O3", "-DNDEBUG", "-fPIC", "-ffp-contract=off", "-S"]
    command += [f"-I{native}/src", f"-I{native}/include", f"-DARK_ISA={isa}", *flags.split()]
    command += [f"-DARK_ISA_{isa}=1", str(ROOT / "kernels/matmul/cpu.cc"), "-o", str(out)]
    subprocess.run(command, capture_output=True, text=True, check=True)
    tiles = [
        loop
        for loop in _loops(out.read_text())
        if sum(product in line for line in loop) == count
        and sum("vpbroadcastd" in line for line in loop) == 6
    ]
    assert tiles
    for loop in tiles:
        assert not [line for line in loop if "mm" in line and re.search(r"\(%r[sb]p\)", line)]


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
