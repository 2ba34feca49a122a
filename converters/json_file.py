"""JSON files whose content is an object."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from arkinfer.errors import DamagedCheckpointError


def read_text(path: Path) -> str:
    """The text of a UTF-8 file.

    Raises:
        DamagedCheckpointError: it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DamagedCheckpointError(f"'{path}' cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise DamagedCheckpointError(
            f"'{path}' is not UTF-8 at byte {error.start}", remedy="download the file again"
        ) from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DamagedCheckpointError: it cannot be read, is not JSON, or not an object.
    """
    try:
        value = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DamagedCheckpointError(
            f"'{path}' is not JSON: {str(error)[:100]}", remedy="download the file again"
        ) from None
    if not isinstance(value, dict):
        raise DamagedCheckpointError(f"'{path}' holds a {type(value).__name__}", "a JSON object")
    return value
