"""``arkinfer devices``: what can be compiled for, and what this machine is."""

from __future__ import annotations

import dataclasses

from arkinfer.cli.options import Json


def devices(json: Json = False) -> None:
    """List the targets of 'arkinfer compile', and describe this machine."""
    from arkinfer import devices as profiles
    from arkinfer.cli import show
    from arkinfer.errors import NativeLibraryError
    from arkinfer.runtime import library
    from arkinfer.system import available_memory

    machine = profiles.detect()
    try:
        kernel_sets = library.instruction_sets()
    except NativeLibraryError as error:
        kernel_sets, missing = [], str(error)
    else:
        missing = ""
    targets = profiles.all()
    if json:
        show.as_json(
            {
                "machine": {
                    **dataclasses.asdict(machine),
                    "available_memory": available_memory(),
                    "isas": kernel_sets,
                },
                "targets": [
                    {**dataclasses.asdict(t), "runs_here": t.runs_on(machine)} for t in targets
                ],
            }
        )
        return
    show.table(
        "Targets",
        ["name", "backend", "architecture", "runs here", "what it is"],
        (
            [t.name, t.backend, t.arch, "yes" if t.runs_on(machine) else "no", t.description]
            for t in targets
        ),
    )
    show.facts(
        "This machine",
        [
            ("processor", machine.description),
            ("architecture", machine.arch),
            ("features", " ".join(machine.features) or "-"),
            ("cores", str(machine.cores)),
            ("memory", f"{show.size(machine.memory)}, {show.size(available_memory())} free"),
            ("kernel sets", " ".join(kernel_sets) or missing or "-"),
        ],
    )
