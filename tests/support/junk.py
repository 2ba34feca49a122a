"""JSON that a reader did not expect: any value, anywhere."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from hypothesis import strategies as st

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 70), 1 << 70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where every value in a document is, as keys and indices; not the document itself."""
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
    found = [place for key, item in items for place in paths(item, (*path, key))]
    return [path, *found] if path else found


def changed(document: Any, path: tuple[Any, ...], junk: Any, remove: bool) -> Any:
    """A copy with ``junk`` in one place, or without what is there."""
    result = copy.deepcopy(document)
    target = result
    for key in path[:-1]:
        target = target[key]
    if remove:
        del target[path[-1]]
    else:
        target[path[-1]] = junk
    return result
