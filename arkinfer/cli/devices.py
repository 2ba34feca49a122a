"""``arkinfer devices``: what can be compiled for, what this machine is, and how fast it may be."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from arkinfer.cli.options import Json, Kv


def devices(
    device: Annotated[
        str | None,
        typer.Argument(
            metavar="[DEVICE]",
            help="Show this one: a name from the list, or a profile's .toml file; with :cpu or "
            ":gpu behind it for that processor.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Predict speed and memory of a bundle, a checkpoint, or a known model such as "
            "MiniCPM4.1-8B.",
        ),
    ] = None,
    detect: Annotated[
        bool, typer.Option("--detect", help="Only this machine: its processor, and its profile.")
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Measure this machine's memory and products, and predict from that."
        ),
    ] = False,
    quant: Annotated[
        str | None,
        typer.Option(metavar="SCHEME", help="As of 'compile'.", show_default="the device's"),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(metavar="TOKENS", help="The longest context.", show_default="as 'compile'"),
    ] = None,
    sparse: Annotated[str, typer.Option(metavar="auto|on|off|force", help="As of 'compile'.")] = (
        "auto"
    ),
    kv: Annotated[
        Kv | None, typer.Option(help="KV cache type.", show_default="the device's")
    ] = None,
    json: Json = False,
) -> None:
    """List the targets of 'arkinfer compile', describe one or this machine, predict speed."""
    from arkinfer import devices as profiles
    from arkinfer.cli import device_records as records
    from arkinfer.cli import device_views, show
    from arkinfer.errors import InvalidOptionError
    from arkinfer.planning import Options

    if model is None and (quant or context or kv or sparse != "auto"):
        raise InvalidOptionError("these options are those of a prediction", "--model with them")
    wanted = profiles.find(device) if device else None
    machine = records.Machine.detect()
    if measure:
        machine.measure(wanted)
    this = detect or measure
    if wanted is None and this:
        wanted = machine.target()
    record: dict[str, Any] = {}
    if this or not (device or model):
        record["machine"] = machine.record()
    if model is not None:
        options = Options(quant, context, sparse=sparse, kv=kv.value if kv else None)
        if wanted is None:
            record |= records.predict_all(model, options, machine)
        else:
            record |= records.predict_one(model, options, wanted, machine)
    elif device and wanted:
        record["profile"] = records.describe(*wanted)
    elif not this:
        record["targets"] = records.listing(machine)
    if json:
        show.as_json(record)
    else:
        device_views.show_record(record)
