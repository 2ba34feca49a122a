"""Typed access to configuration keys that collects every problem before it complains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from arkinfer.errors import ConfigError

# No model has a size beyond this, and products of two sizes stay far below 2**63.
_LARGEST = 1 << 30
MOST_LAYERS = 1 << 12
MOST_TOKENS = 1 << 24


class Keys:
    """Reads keys of one mapping; :meth:`finish` raises one error with all problems.

    A getter whose key is missing without a default, or whose value is not usable,
    notes the problem and returns a harmless stand-in, so that reading can go on.
    """

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values = values
        self.source = source
        self.problems: list[str] = []

    def problem(self, text: str) -> None:
        """Note a problem."""
        self.problems.append(text)

    def has(self, key: str) -> bool:
        """Whether the key is present and not null."""
        return self.values.get(key) is not None

    def integer(
        self, key: str, default: int | None = None, *, low: int = 1, high: int = _LARGEST
    ) -> int:
        """An integer from ``low`` to ``high``."""
        value = self.values.get(key)
        if value is None:
            return int(self._default(key, default, max(low, 1)))
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.problem(f"{key} is {_show(value)} (expected an integer from {low} to {high})")
            return max(low, 1)
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above zero."""
        value = self.values.get(key)
        if value is None:
            return float(self._default(key, default, 1.0))
        return self.positive(key, value)

    def positive(self, label: str, value: Any) -> float:
        """Check that a value is a finite number above zero."""
        usable = isinstance(value, int | float) and not isinstance(value, bool)
        if not usable or not 0 < value < math.inf:
            self.problem(f"{label} is {_show(value)} (expected a positive number)")
            return 1.0
        return float(min(value, 1e300))

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(f"{key} is {_show(value)} (expected true or false)")
            return default
        return value

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of ``count`` positive numbers."""
        value = self.values.get(key)
        if value is None:
            self.problem(f"{key} is missing")
            return ()
        if isinstance(value, str) or not isinstance(value, Sequence):
            self.problem(f"{key} is {_show(value)} (expected a list of {count} numbers)")
            return ()
        if len(value) != count:
            self.problem(f"{key} has {len(value)} values (expected {count}, half of head_dim)")
            return ()
        return tuple(self.positive(f"{key}[{i}]", item) for i, item in enumerate(value))

    def token_ids(self, key: str) -> tuple[int, ...]:
        """One token id or a list of them; empty if the key is absent."""
        value = self.values.get(key)
        items = value if isinstance(value, list) else [] if value is None else [value]
        for item in items:
            if not isinstance(item, int) or isinstance(item, bool) or not 0 <= item <= _LARGEST:
                self.problem(f"{key} is {_show(value)} (expected token ids)")
                return ()
        return tuple(items)

    def finish(self) -> None:
        """Raise what was noted.

        Raises:
            ConfigError: there was at least one problem.
        """
        if self.problems:
            count = len(self.problems)
            shown = "; ".join(self.problems[:20])
            more = f"; and {count - 20} more" if count > 20 else ""
            word = "problem" if count == 1 else "problems"
            raise ConfigError(f"{self.source} has {count} {word}: {shown}{more}")

    def _default(self, key: str, default: Any, stand_in: Any) -> Any:
        if default is None:
            self.problem(f"{key} is missing")
            return stand_in
        return default


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
