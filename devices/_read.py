"""TOML to :class:`Profile`; whatever is wrong is named with its place in the file."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from arkinfer.devices._profile import LIMITS, PRECISIONS, TRAITS, UNKNOWN, Figure, Profile, Unit
from arkinfer.errors import DeviceProfileError

# A profile is a page of text; this only keeps a wrong file from being read whole.
LARGEST_FILE = 1 << 16
UNITS = ("cpu", "gpu")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,39}")
_KV = ("fp16", "fp32", "int8", "int4")


def read(path: Path) -> Profile:
    """The profile in a file; it is called what the file is called.

    Raises:
        DeviceProfileError: the file cannot be read, or breaks a rule of docs/devices.md.
    """
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise DeviceProfileError(f"{path} cannot be read ({error.strerror})") from None
    if len(data) > LARGEST_FILE:
        raise DeviceProfileError(f"{path} is larger than {LARGEST_FILE >> 10} KiB")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise DeviceProfileError(f"{path} is not UTF-8", "a TOML file") from None
    return parse(text, path.stem)


def parse(text: str, name: str) -> Profile:
    """The profile in a text.

    Raises:
        DeviceProfileError: as :func:`read`.
    """
    if not _NAME.fullmatch(name):
        raise DeviceProfileError(
            f"a device cannot be called {name[:60]!r}", "small letters, digits, '.' and '-'"
        )
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DeviceProfileError(f"{name}.toml is not TOML ({error})") from None
    return _Reader(name, data).profile()


class _Reader:
    """Walks one file's tables and keeps account of the sources that are referred to."""

    def __init__(self, name: str, data: dict[str, Any]) -> None:
        self._name = name
        self._data = data
        self._sources: dict[str, str] = {}
        self._used: set[str] = set()

    def profile(self) -> Profile:
        known = ("description", "generic", "detect", "sources", "memory", "units", "recommended")
        self._check_keys("", self._data, known)
        self._sources = {
            key: self._text("sources", self._table("", self._data, "sources"), key)
            for key in self._table("", self._data, "sources")
        }
        generic = self._get("", self._data, "generic", bool, False)
        memory = self._table("", self._data, "memory")
        self._check_keys("memory", memory, ("sizes", "bandwidth", "source", "unverified"))
        sizes = self._list("memory", memory, "sizes", float)
        if sorted(set(sizes)) != sizes or any(not 0 < size <= 1 << 20 for size in sizes):
            raise self._wrong("memory.sizes", sizes, "GiB above 0, ascending")
        recommended = self._table("", self._data, "recommended")
        self._check_keys("recommended", recommended, ("quantization", "kv", "why"))
        kv = self._get("recommended", recommended, "kv", str, "")
        if kv and kv not in _KV:
            raise self._wrong("recommended.kv", kv, f"one of {', '.join(_KV)}")
        profile = Profile(
            name=self._name,
            description=self._text("", self._data, "description"),
            units=self._units(generic),
            sizes=tuple(round(size * 2**30) for size in sizes),
            bandwidth=self._figure("memory", memory, "bandwidth") if memory else UNKNOWN,
            memory_sources=self._refer("memory", memory, required=bool(memory)),
            memory_verified=not self._get("memory", memory, "unverified", bool, False),
            quantization=self._get("recommended", recommended, "quantization", str, ""),
            kv=kv,
            why=self._text("recommended", recommended, "why") if recommended else "",
            detect=tuple(self._list("", self._data, "detect", str)),
            generic=generic,
        )
        if not generic and not memory:
            raise self._error("memory is missing", "its sizes and bandwidth, or generic = true")
        unused = sorted(set(self._sources) - self._used)
        if unused:
            raise self._error(f"sources.{unused[0]} is referred to by nothing")
        return profile

    def _units(self, generic: bool) -> dict[str, Unit]:
        units = self._table("", self._data, "units")
        self._check_keys("units", units, UNITS)
        if not units:
            raise self._error("units is missing", "a table [units.cpu] or [units.gpu]")
        return {name: self._unit(name, units, generic) for name in units}

    def _unit(self, name: str, units: Mapping[str, Any], generic: bool) -> Unit:
        where = f"units.{name}"
        table = self._table("units", units, name)
        known = (
            *("backend", "arch", "features", "cores", "threads"),
            *("peak", "bandwidth", "limits", "traits", "source"),
        )
        self._check_keys(where, table, known)
        cores = self._get(where, table, "cores", int, 0)
        threads = self._get(where, table, "threads", int, 0)
        for key, count in (("cores", cores), ("threads", threads)):
            if not 0 <= count < 1 << 20:
                raise self._wrong(f"{where}.{key}", count, "a count")
        return Unit(
            name=name,
            backend=self._text(where, table, "backend"),
            arch=self._text(where, table, "arch"),
            features=tuple(self._list(where, table, "features", str)),
            cores=cores,
            threads=threads,
            peak=self._figures(where, table, "peak", PRECISIONS),
            bandwidth=self._figure(where, table, "bandwidth") if "bandwidth" in table else None,
            limits=self._figures(where, table, "limits", LIMITS),
            traits=self._figures(where, table, "traits", TRAITS),
            sources=self._refer(where, table, required=not generic),
        )

    def _figures(
        self, where: str, table: Mapping[str, Any], key: str, known: Collection[str]
    ) -> dict[str, Figure]:
        inner, where = self._table(where, table, key), f"{where}.{key}"
        self._check_keys(where, inner, known)
        return {name: self._figure(where, inner, name) for name in inner}

    def _figure(self, where: str, table: Mapping[str, Any], key: str) -> Figure:
        """``{value, source, how, unverified}``, or ``{unknown = "why"}``."""
        entry = self._table(where, table, key, required=True)
        where = f"{where}.{key}"
        if "unknown" in entry:
            self._check_keys(where, entry, ("unknown",))
            return Figure(None, (), self._text(where, entry, "unknown"))
        self._check_keys(where, entry, ("value", "source", "how", "unverified"))
        value = self._get(where, entry, "value", float, math.nan)
        if not 0 < value < math.inf:
            raise self._wrong(f"{where}.value", value, "a number above 0, or unknown = 'why'")
        how = self._text(where, entry, "how") if "how" in entry else ""
        verified = not self._get(where, entry, "unverified", bool, False)
        return Figure(value, self._refer(where, entry, required=True), how, verified)

    def _refer(self, where: str, table: Mapping[str, Any], required: bool) -> tuple[str, ...]:
        """The sources that ``table.source`` names: one name, or a list of them."""
        given = table.get("source", [])
        names = [given] if isinstance(given, str) else self._list(where, table, "source", str)
        if required and not names:
            raise self._error(f"{where}.source is missing", "a name from [sources]")
        for name in names:
            if name not in self._sources:
                raise self._wrong(f"{where}.source", name, "a name from [sources]")
        self._used.update(names)
        return tuple(self._sources[name] for name in names)

    def _table(
        self, where: str, table: Mapping[str, Any], key: str, required: bool = False
    ) -> dict[str, Any]:
        if key not in table and not required:
            return {}
        found: dict[str, Any] = self._get(where, table, key, dict, None)
        if found is None:
            raise self._error(f"{_join(where, key)} is missing")
        return found

    def _text(self, where: str, table: Mapping[str, Any], key: str) -> str:
        text: str = self._get(where, table, key, str, "")
        if not text.strip() or not text.isprintable():
            raise self._wrong(_join(where, key), text, "a line of text")
        return text

    def _list(self, where: str, table: Mapping[str, Any], key: str, kind: type) -> list[Any]:
        found = self._get(where, table, key, list, [])
        for item in found:
            if not _is(item, kind) or item == "":
                raise self._wrong(_join(where, key), item, f"a list of {_WORDS[kind]}")
        return list(found)

    def _get(self, where: str, table: Mapping[str, Any], key: str, kind: type, default: Any) -> Any:
        value = table.get(key, default)
        if key in table and not _is(value, kind):
            raise self._wrong(_join(where, key), value, _WORDS[kind])
        return value

    def _check_keys(self, where: str, table: Mapping[str, Any], known: Collection[str]) -> None:
        for key in table:
            if key not in known:
                raise self._error(f"{_join(where, key)[:80]} is unknown", f"{', '.join(known)}")

    def _wrong(self, where: str, value: object, expected: str) -> DeviceProfileError:
        return self._error(f"{where} is {str(value)[:60]!r}", expected)

    def _error(self, found: str, expected: str = "") -> DeviceProfileError:
        return DeviceProfileError(f"{self._name}.toml: {found}", expected)


_WORDS: Mapping[type, str] = {
    str: "text",
    float: "numbers",
    int: "a whole number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _is(value: object, kind: type) -> bool:
    """Whether TOML's value has a kind; whole numbers are numbers, truth values are not."""
    if kind is float:
        return isinstance(value, int | float) and type(value) is not bool and abs(value) < 2**62
    if kind is int:
        return type(value) is int
    return isinstance(value, kind)
