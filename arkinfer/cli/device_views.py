"""Prints the records of ``arkinfer devices``: tables on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from arkinfer.cli import show

_UNITS = {
    "largest_allocation": "bytes",
    "shared_memory": "bytes",
    "image_width": "pixels",
    "image_buffer_width": "pixels",
    "work_group": "threads",
    "subgroup": "lanes",
    "load_bytes": "bytes",
}


def show_record(record: Mapping[str, Any]) -> None:
    """Print whatever the record holds."""
    if "targets" in record:
        _targets(record["targets"])
    if "machine" in record:
        _machine(record["machine"])
    if "profile" in record:
        _profile(record["profile"])
    if "devices" in record:
        _all(record)
    if "predictions" in record:
        show_prediction(record)


def _targets(targets: Iterable[Mapping[str, Any]]) -> None:
    _table(
        "Targets",
        ["name", "backend", "memory", "GB/s", "peak", "runs here", "what it is"],
        [
            [
                target["name"],
                target["backend"] + ("" if target["backend_present"] else " (not there)"),
                _sizes(target["memory_sizes"]),
                _number(target["bandwidth_gb_per_s"]),
                _peaks(target["peak_tera_per_s"]),
                "this machine" if target["this_machine"] else _yes(target["runs_here"]),
                _short(target["description"]),
            ]
            for target in targets
        ],
    )


def _machine(machine: Mapping[str, Any]) -> None:
    facts = [
        ("processor", machine["description"]),
        ("architecture", machine["arch"]),
        ("features", " ".join(machine["features"]) or "-"),
        ("cores", str(machine["cores"])),
        (
            "memory",
            f"{show.size(machine['memory'])}, {show.size(machine['available_memory'])} free",
        ),
        ("kernel sets", " ".join(machine["isas"]) or machine["missing"] or "-"),
        ("profile", machine["profile"] or "none names it; cpu stands for it"),
    ]
    measured = machine["measured"]
    if measured:
        facts += [
            (
                "measured",
                f"{measured['bandwidth'] / 1e9:.1f} GB/s with {measured['threads']} threads, "
                f"{measured['fp32'] / 1e9:.0f} GFLOP/s in fp32",
            ),
            ("follows", f"{measured['int8'] / 1e9:.0f} GOP/s in int8, from fp32 and kernel set"),
        ]
    _facts("This machine", facts)


def _profile(profile: Mapping[str, Any]) -> None:
    facts = [("what it is", profile["description"])]
    if profile["sizes"]:
        facts.append(("memory", _sizes(profile["sizes"]) + _doubt(profile["memory_verified"])))
    for name, unit in profile["units"].items():
        there = "" if unit["backend_present"] else ", which is not there"
        default = "; the default" if unit["default"] else ""
        counts = [f"{unit[key]} {key}" for key in ("cores", "threads") if unit[key]]
        words = ", ".join([*counts, " ".join([unit["arch"], *unit["features"]])])
        facts.append((name, words))
        facts.append(("", f"backend {unit['backend']}{there}{default}"))
    wanted = [profile["quantization"], profile["kv"] and f"{profile['kv']} KV cache"]
    if any(wanted):
        facts.append(("recommended", f"{', '.join(filter(None, wanted))}: {profile['why']}"))
    _facts(profile["name"], facts)
    rows, sources = _figures(profile)
    if rows:
        _table("Figures", ["figure", "value", "source", "how"], rows)
        _facts("Sources", [(str(number), text) for text, number in sources.items()])
        print("?: entered without its source at hand, or on the assumption that 'how' names")


def _figures(profile: Mapping[str, Any]) -> tuple[list[list[str]], dict[str, int]]:
    """Rows of figures, and the number of each source."""
    sources: dict[str, int] = {}

    def row(name: str, figure: Mapping[str, Any], unit: str) -> list[str]:
        numbers = [str(sources.setdefault(s, len(sources) + 1)) for s in figure["sources"]]
        known = figure["value"] is not None
        value = f"{_number(figure['value'])} {unit}" if known else "not known"
        return [name, value + _doubt(figure["verified"]), " ".join(numbers), figure["how"]]

    rows = []
    if not profile["generic"]:
        rows.append(row("memory bandwidth", profile["bandwidth"], "GB/s"))
    for name, unit in profile["units"].items():
        if unit["bandwidth"]:
            rows.append(row(f"{name} bandwidth", unit["bandwidth"], "GB/s"))
        for precision, figure in unit["peak"].items():
            kind = "TOPS" if precision.startswith("int") else "TFLOP/s"
            rows.append(row(f"{name} {precision}", figure, kind))
        for limit, figure in unit["limits"].items():
            rows.append(row(f"{name} {limit.replace('_', ' ')}", figure, _UNITS[limit]))
        for trait, figure in unit["traits"].items():
            rows.append(row(f"{name} {trait.replace('_', ' ')}", figure, _UNITS[trait]))
    for text in [*profile["memory_sources"], *_unit_sources(profile)]:
        sources.setdefault(text, len(sources) + 1)
    return rows, sources


def _unit_sources(profile: Mapping[str, Any]) -> Iterable[str]:
    for unit in profile["units"].values():
        yield from unit["sources"]


def _all(record: Mapping[str, Any]) -> None:
    devices = record["devices"]
    ends = [one["context"] for one in devices[0]["predictions"]]
    _table(
        f"Predicted: {_title(record['model'])}",
        [
            *("device", "processor", "KV"),
            *(f"decode at {end}" for end in ends),
            *(f"prefill {end}" for end in ends),
            f"memory at {ends[-1]}",
            "fits in",
        ],
        [
            [
                device["device"],
                device["processor"] + ("" if device["backend_present"] else "*"),
                device["kv"],
                *(_number(one["decode_tokens_per_s"]) for one in device["predictions"]),
                *(_number(one["prefill_tokens_per_s"]) for one in device["predictions"]),
                show.size(device["predictions"][-1]["memory"]),
                _fits(device["predictions"][-1]["fits_in"]),
            ]
            for device in devices
        ],
    )
    print("Tokens per second. *: nothing compiles for this processor yet.")
    for kind in dict.fromkeys(device["processor"] for device in devices):
        first = next(device for device in devices if device["processor"] == kind)
        print(f"{kind.upper()}: {_efficiency(first['assumed'])}")
    _caution()


def show_prediction(record: Mapping[str, Any]) -> None:
    """Print a model's prediction for one device."""
    assumed, model = record["assumed"], record["model"]
    _table(
        f"Predicted for {record['device']}: {_title(model)}",
        ["context", "decode", "prefill", "MB per token", "memory", "fits in"],
        [
            [
                str(one["context"]),
                _number(one["decode_tokens_per_s"]),
                _number(one["prefill_tokens_per_s"]),
                f"{one['bytes_per_token'] / 1e6:.0f}",
                show.size(one["memory"]),
                _fits(one["fits_in"]),
            ]
            for one in record["predictions"]
        ],
    )
    print(
        "Tokens per second: decode of the token that fills the context, prefill of a whole prompt "
        "of that length."
    )
    peaks = [
        f"{kind} {peak[1] / 1e12:g} x 10^12/s in {peak[0]}"
        for kind in ("products", "attention")
        if (peak := assumed[kind])
    ]
    rates = [f"{assumed['bandwidth_bytes_per_s'] / 1e9:.4g} GB/s", *peaks]
    print(f"From figures {assumed['origin']}: {', '.join(rates)}. {_efficiency(assumed)}")
    limit = record["largest_allocation"]
    if limit and model["largest_tensor"] > limit:
        print(
            f"The largest weight has {show.size(model['largest_tensor'])}, the device allocates "
            f"at most {show.size(int(limit))} at once."
        )
    _caution()


def _title(model: Mapping[str, Any]) -> str:
    return f"{model['name']}, {model['quantization']}, {model['attention']}, KV in {model['kv']}"


def _efficiency(assumed: Mapping[str, Any]) -> str:
    step = f"{assumed['step_seconds'] * 1e6:g} us"
    return (
        f"Assumed to be reached: {assumed['bandwidth_efficiency']:.0%} of the bandwidth, "
        f"{assumed['compute_efficiency']:.0%} of the peak, and {step} for each step; steps and "
        f"bytes are those of the {assumed['plan_of']} backend's plan."
    )


def _caution() -> None:
    print("A prediction, not a measurement; without speculative decoding. See docs/devices.md.")


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal; elsewhere a line per row, with its columns apart by two spaces."""
    if sys.stdout.isatty():
        show.table(title, columns, rows)
        return
    lines = [list(columns), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    print(title)
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def _facts(title: str, pairs: Iterable[tuple[str, str]]) -> None:
    """Names and values in two columns; elsewhere than on a terminal no line is broken."""
    if sys.stdout.isatty():
        show.facts(title, pairs)
        return
    facts = list(pairs)
    width = max(len(name) for name, _ in facts)
    print(title)
    for name, value in facts:
        print(f"  {name.ljust(width)}  {value}")


def _sizes(sizes: Sequence[int]) -> str:
    return f"{' '.join(f'{size / 2**30:g}' for size in sizes)} GiB" if sizes else "-"


def _fits(size: int | None) -> str:
    return "no" if size is None else f"{size / 2**30:.4g} GiB"


def _number(value: float | None) -> str:
    """Three digits, or as many as a large number has."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"


def _peaks(peaks: Mapping[str, float | None]) -> str:
    known = [f"{name} {_number(value)}" for name, value in peaks.items() if value is not None]
    return known[0] if known else "-"


def _short(description: str) -> str:
    """On a terminal, whose lines are short, what a device is; what it has is shown with it."""
    return description.partition(":")[0] if sys.stdout.isatty() else description


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _doubt(verified: bool) -> str:
    return "" if verified else " ?"
