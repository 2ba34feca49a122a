"""``arkinfer bench``: speed of a bundle on this machine."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import typer

from arkinfer.cli.options import (
    Activations,
    ActivationType,
    BundlePath,
    Context,
    Isa,
    Json,
    KernelChoice,
    Kernels,
    KvType,
    On,
    OnChoice,
    Threads,
)

if TYPE_CHECKING:
    from arkinfer.bench import Measurement
    from arkinfer.profile import StepProfile


def bench(
    bundle: BundlePath,
    prompt: Annotated[int, typer.Option(metavar="TOKENS", help="Length of the prompt.")] = 512,
    generate: Annotated[int, typer.Option(metavar="TOKENS", help="Tokens to decode.")] = 64,
    depth: Annotated[
        int,
        typer.Option(metavar="TOKENS", help="Tokens that are in the context before both."),
    ] = 0,
    real_prefill: Annotated[
        bool,
        typer.Option(
            "--real-prefill",
            help="Run tokens to get to the depth instead of filling the cache with random numbers.",
        ),
    ] = False,
    repeat: Annotated[int, typer.Option(metavar="N", help="Repeats; their medians are shown.")] = 5,
    profile: Annotated[
        bool, typer.Option("--profile", help="Also show where the time goes, by step.")
    ] = False,
    context: Context = None,
    threads: Threads = None,
    kv: KvType = None,
    activations: ActivationType = Activations.int8,
    isa: Isa = None,
    kernels: KernelChoice = Kernels.tuned,
    on: OnChoice = On.faster,
    json: Json = False,
) -> None:
    """Measure prefill and decode speed.

    Decoding reads all weights for every token, so its limit is the memory's
    read bandwidth; that is measured in the same run, and the fraction reached
    is shown.
    """
    from arkinfer import tuning
    from arkinfer.api import load
    from arkinfer.bench import Settings, measure
    from arkinfer.cli import show
    from arkinfer.cli.answer import announce
    from arkinfer.runtime.native_session import NativeSession

    settings = Settings(prompt, generate, depth, repeat, real_prefill)
    model = load(
        bundle,
        context or settings.context,
        threads,
        None,
        kv,
        activations.value,
        isa=isa,
        kernels=kernels.value,
        on=on.value,
    )
    announce(model)
    session = model.session()
    native = session.executor if isinstance(session.executor, NativeSession) else None
    choice = session.choice
    result = measure(model, session, settings, profile)
    record: dict[str, Any] = {
        "bundle_digest": model.info.digest,
        "backend": model.info.backend,
        "device": model.bundle.manifest.device.get("name"),
        "quantization": model.bundle.manifest.quantization.requested,
        "isa": native.isa if native else None,
        "kernels": kernels.value,
        "compiled": tuning.state(model.bundle),
        "threads": native.threads if native else None,
        "choice": dataclasses.asdict(choice) if choice else None,
        "kv": model.info.kv,
        "activations": activations.value,
        "context": model.info.context,
        **dataclasses.asdict(settings),
        "prefill_tokens_per_s": result.prefill,
        "decode_tokens_per_s": result.decode,
        "prefill_runs": result.prefill_runs,
        "decode_runs": result.decode_runs,
        "read_bandwidth_bytes_per_s": result.bandwidth,
        "bytes_per_token": result.bytes_per_token,
        "bandwidth_fraction": result.fraction,
        "profile": {
            kind: [{**dataclasses.asdict(step), "bytes_per_s": step.bandwidth} for step in steps]
            for kind, steps in (result.profile or {}).items()
        },
    }
    if json:
        show.as_json(record)
        return
    show.facts(
        str(bundle),
        [
            ("digest", record["bundle_digest"]),
            ("kernels", f"{native.isa}, {native.threads} threads" if native else "not native"),
            *([("its own", f"{kernels.value}: {own}")] if (own := record["compiled"]) else []),
            *([("choice", str(choice))] if choice else []),
            ("prefill", f"{result.prefill:.1f} tokens/s ({prompt} tokens after {depth})"),
            ("decode", f"{result.decode:.1f} tokens/s ({generate} tokens after {depth})"),
            ("bandwidth", _bandwidth(result)),
            (
                "spread",
                f"prefill {_spread(result.prefill_runs)}, "
                f"decode {_spread(result.decode_runs)} over {repeat} runs",
            ),
        ],
    )
    for kind, steps in (result.profile or {}).items():
        total = sum(step.seconds for step in steps)
        show.table(
            f"\n{kind.capitalize()}: {total * 1e6:.1f} us per token in {len(steps)} kinds of step",
            ["kernel", "stage", "calls", "us", "share", "MB", "GB/s"],
            [_step(step) for step in steps],
        )


def _step(step: StepProfile) -> list[str]:
    """A row of the profile, per token; a prompt's chunks share calls."""
    read = step.bandwidth
    return [
        step.kernel,
        step.stage or "-",
        f"{step.calls:.3g}",
        f"{step.seconds * 1e6:.1f}",
        f"{step.share:.1%}",
        f"{step.bytes / 1e6:.3g}" if step.bytes else "",
        f"{read / 1e9:.1f}" if read else "",
    ]


def _bandwidth(result: Measurement) -> str:
    measured = f"{result.bandwidth / 1e9:.1f} GB/s"
    if result.fraction is None or result.bytes_per_token is None:
        return measured
    return (
        f"{measured} measured; decoding reads {result.bytes_per_token / 1e6:.1f} MB per token, "
        f"{result.fraction:.0%} of it"
    )


def _spread(runs: list[float]) -> str:
    return f"{min(runs):.1f} to {max(runs):.1f}"
