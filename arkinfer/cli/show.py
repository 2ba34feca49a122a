"""Numbers and tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def size(count: int) -> str:
    """Bytes in the largest binary unit that keeps at least one whole: ``"1.5 GiB"``."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.0f} {units[0]}" if units[0] == "B" else f"{value:.1f} {units[0]}"


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; columns of numbers are set right."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    view = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True)
    cells = [list(row) for row in rows]
    for index, name in enumerate(columns):
        numbers = all(row[index][:1].isdigit() for row in cells)
        words = [*name.split(), *(row[index] for row in cells if numbers)]
        view.add_column(
            name,
            justify="right" if numbers else "left",
            overflow="fold",
            min_width=max(map(len, words), default=0),
        )
    for row in cells:
        view.add_row(*map(escape, row))
    Console().print(view)


def facts(title: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values in two columns."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    view = Table(title=title, title_justify="left", box=None, show_header=False)
    view.add_column(style="bold", no_wrap=True)
    view.add_column(overflow="fold")
    for name, value in pairs:
        view.add_row(escape(name), escape(value))
    Console().print(view)


def as_json(value: Any) -> None:
    """Print one JSON object."""
    unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not unicode, indent=2))
