"""nvcc: where it is, what it compiles for, and what it says about the code it made."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from arkinfer.errors import KernelBuildError, LoweringError, MissingExtraError

# What the driver translates for devices that no profile names: tensor cores and cp.async exist from
# this one on.
_GENERIC = 80
_LOG_CHARACTERS = 1500
# Constants are written with more digits than a float32 has.
_QUIET = ("-diag-suppress", "1046")


@dataclass(frozen=True)
class Architecture:
    """What code is made for.

    Attributes:
        capability: 87 for compute capability 8.7.
        ptx: whether it is PTX, which the driver translates, instead of machine code.
    """

    capability: int
    ptx: bool

    @staticmethod
    def of(arch: str) -> Architecture:
        """The architecture of a device's ``arch``; ``"any"`` is PTX.

        Raises:
            LoweringError: it is no CUDA architecture.
        """
        if arch == "any":
            return Architecture(_GENERIC, ptx=True)
        found = re.fullmatch(r"sm_(\d{2,3})", arch)
        if found is None:
            raise LoweringError(f"the device's arch is {arch[:40]!r}", "sm_87, sm_90, ...")
        return Architecture(int(found.group(1)), ptx=False)

    @property
    def name(self) -> str:
        """As nvcc writes it."""
        return f"compute_{self.capability}" if self.ptx else f"sm_{self.capability}"


@dataclass(frozen=True)
class Resources:
    """What the assembler gave a kernel: registers of a thread, and bytes."""

    registers: int
    spill_bytes: int
    shared_bytes: int


@dataclass(frozen=True)
class Compiled:
    """Code, and the resources of its kernels (none where it is PTX)."""

    code: bytes
    resources: Mapping[str, Resources]


@dataclass(frozen=True)
class Compiler:
    """An nvcc; ``version`` 13000 is CUDA 13.0, as drivers number themselves."""

    path: Path
    version: int

    def compile(
        self,
        source: str,
        architecture: Architecture,
        options: Sequence[str] = (),
        what: str = "kernels",
    ) -> Compiled:
        """Compile one source text.

        Raises:
            KernelBuildError: it does not compile; carries the log.
        """
        with tempfile.TemporaryDirectory(prefix="arkinfer-nvcc-") as folder:
            given, made = Path(folder) / "kernels.cu", Path(folder) / "code"
            given.write_text(source)
            form = ["-ptx"] if architecture.ptx else ["-cubin", "-Xptxas", "-v"]
            command = [
                *(str(self.path), *form, f"-arch={architecture.name}", "-std=c++17", *_QUIET),
                *(*options, "-o", str(made), str(given)),
            ]
            done = subprocess.run(command, capture_output=True, text=True, errors="replace")
            log = done.stderr + done.stdout
            if done.returncode != 0:
                raise KernelBuildError(
                    f"nvcc does not compile {what} for {architecture.name}: "
                    f"{_important(log)[:_LOG_CHARACTERS]}",
                    remedy=_remedy(log),
                )
            code = made.read_bytes()
        # PTX is text, which the driver takes with its end marked.
        return Compiled(code + b"\0" if architecture.ptx else code, resources(log))


def find() -> Compiler:
    """The nvcc that the variable ARK_NVCC names, on PATH, or of the extra ``cuda``.

    Raises:
        MissingExtraError: there is none.
        KernelBuildError: it does not run.
    """
    path = os.environ.get("ARK_NVCC") or shutil.which("nvcc") or _packaged()
    if path is None:
        raise MissingExtraError(
            "compiling for CUDA needs nvcc, which is not found",
            remedy="run: pip install 'arkinfer[cuda]', or put a CUDA toolkit's nvcc on PATH",
        )
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True)
        found = re.search(r"release (\d+)\.(\d+)", done.stdout)
    except OSError as error:
        raise KernelBuildError(f"{path} does not run ({error.strerror})", "an nvcc") from error
    if done.returncode != 0 or found is None:
        raise KernelBuildError(
            f"{path} --version gives {(done.stdout + done.stderr)[:200]!r}", "an nvcc"
        )
    return Compiler(Path(path), int(found.group(1)) * 1000 + int(found.group(2)) * 10)


def resources(log: str) -> dict[str, Resources]:
    """What ``ptxas -v`` says of each entry."""
    found = {}
    for part in re.split(r"Compiling entry function '", log)[1:]:
        name = part.split("'", 1)[0]
        spills = re.findall(r"(\d+) bytes spill (?:stores|loads)", part)
        registers = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        found[name] = Resources(
            int(registers.group(1)) if registers else 0,
            sum(map(int, spills)),
            int(shared.group(1)) if shared else 0,
        )
    return found


def _packaged() -> str | None:
    """nvcc of the package nvidia-cuda-nvcc, the newest where there are several."""
    spec = importlib.util.find_spec("nvidia")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = [path for folder in folders for path in Path(folder).glob("cu*/bin/nvcc")]
    return str(max(found)) if found else None


def _remedy(log: str) -> str:
    if "host compiler" in log:
        return "install the C++ compiler that nvcc reads sources with, such as g++"
    if "architecture" in log:
        return "nvcc --list-gpu-arch lists what it compiles for; take a newer one"
    return ""


def _important(log: str) -> str:
    """The errors of a log before the rest."""
    lines = [line for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line or "fatal" in line]
    return "\n".join(errors or lines)
