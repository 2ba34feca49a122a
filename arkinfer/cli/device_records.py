"""What ``arkinfer devices`` knows, as plain records; ``device_views`` prints them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from arkinfer import backends, bundle_steps, devices, memory
from arkinfer.bundle import Bundle
from arkinfer.devices import Device, Figure, Profile, Unit
from arkinfer.errors import InvalidOptionError, NativeLibraryError
from arkinfer.kv_types import KvType
from arkinfer.measure import Measured, measure
from arkinfer.planning import STAND_IN, Options, Planned, of_bundle, plan
from arkinfer.predict import Prediction, Rates, Workload, rates_of
from arkinfer.system import available_memory

# The first of the two context lengths at which all devices are compared.
_SHORT = 4096


@dataclass
class Machine:
    """This machine: as detected, the profile that names it, and what was measured."""

    device: Device
    kernel_sets: list[str]
    missing: str
    profile: Profile | None
    measured: Measured | None = None

    @staticmethod
    def detect() -> Machine:
        """Look; nothing is measured."""
        from arkinfer.runtime import library

        try:
            kernel_sets, missing = library.instruction_sets(), ""
        except NativeLibraryError as error:
            kernel_sets, missing = [], str(error)
        return Machine(devices.detect(), kernel_sets, missing, devices.here())

    def measure(self, wanted: tuple[Profile, Unit] | None) -> None:
        """Measure the CPU.

        Raises:
            InvalidOptionError: what is wanted is not this machine's CPU.
        """
        if wanted is not None:
            profile, unit = wanted
            same = profile is self.profile or profile.generic
            if unit.name != "cpu" or not (same and profile.device(unit).runs_on(self.device)):
                raise InvalidOptionError(
                    f"{profile.device(unit).name} is not this machine's CPU",
                    remedy="--measure alone measures this one",
                )
        names = self.kernel_sets or self.device.features
        self.measured = measure(self.device.cores, names)

    def target(self) -> tuple[Profile, Unit]:
        """What stands for this machine: its profile, or the one of any CPU."""
        profile = self.profile
        if profile is None:
            return devices.find("cpu")
        cpu = profile.units.get("cpu")
        return profile, cpu if self.measured and cpu else profile.default

    def record(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            **dataclasses.asdict(self.device),
            "available_memory": available_memory(),
            "isas": self.kernel_sets,
            "missing": self.missing,
            "profile": self.profile.name if self.profile else None,
            "measured": dataclasses.asdict(self.measured) if self.measured else None,
        }

    def rates(self, profile: Profile, unit: Unit) -> Rates | None:
        """What was measured here where that is this machine's CPU, else what is published."""
        here = profile is self.profile or profile.generic
        if self.measured and here and unit.name == "cpu":
            return self.measured.rates
        return rates_of(profile, unit)

    def sizes(self, profile: Profile) -> tuple[int, ...]:
        """Bytes of memory that the device is sold with, or that this machine has."""
        return profile.sizes or (self.device.memory,)


def listing(machine: Machine) -> list[dict[str, Any]]:
    """Every profile in short."""
    here = machine.profile.name if machine.profile else None
    found = []
    for profile in devices.profiles():
        device, unit = profile.device(), profile.default
        found.append(
            {
                **dataclasses.asdict(device),
                "runs_here": any(
                    profile.device(other).runs_on(machine.device)
                    for other in profile.units.values()
                ),
                "this_machine": profile.name == here,
                "backend_present": unit.backend in backends.names(),
                "processors": list(profile.units),
                "memory_sizes": list(profile.sizes),
                "bandwidth_gb_per_s": (unit.bandwidth or profile.bandwidth).value,
                "peak_tera_per_s": {name: peak.value for name, peak in unit.peak.items()},
            }
        )
    return found


def describe(profile: Profile, unit: Unit) -> dict[str, Any]:
    """All of one profile, with its sources."""
    return {
        **dataclasses.asdict(profile),
        "name": profile.device(unit).name,
        "units": {
            name: {
                **dataclasses.asdict(other),
                "backend_present": other.backend in backends.names(),
                "default": other is profile.default,
            }
            for name, other in profile.units.items()
        },
        "bandwidth": _figure(profile.bandwidth),
    }


def predict_one(
    model: str, options: Options, wanted: tuple[Profile, Unit], machine: Machine
) -> dict[str, Any]:
    """A model on one device, by context length.

    Raises:
        InvalidOptionError: nothing is known of the device's speed.
        ArkInferError: the model, or the options.
    """
    profile, unit = wanted
    rates = machine.rates(profile, unit)
    if rates is None:
        raise InvalidOptionError(
            f"no figures are known of {profile.device(unit).name}",
            remedy="--measure measures this machine" if profile.generic else "",
        )
    planned = _plan(model, options, profile, unit)
    return _predicted(planned, rates, profile, unit, machine.sizes(profile), _planner(unit))


def predict_compiled(bundle: Bundle, kv: KvType | None) -> dict[str, Any] | None:
    """A bundle on the device that it was compiled for; None where no figures or steps are known.

    Raises:
        InvalidBundleError: a plan that cannot be read.
    """
    name = str(bundle.manifest.device.get("name"))
    # The manifest may be hostile: it may name a profile, but no file.
    known = {
        profile.device(unit).name: (profile, unit)
        for profile in devices.profiles()
        for unit in profile.units.values()
    }
    if name not in known or not bundle_steps.has_steps(bundle):
        return None
    profile, unit = known[name]
    rates = rates_of(profile, unit)
    if rates is None:
        return None
    planned = of_bundle(bundle, Options(kv=kv))
    own = bundle.manifest.backend
    return _predicted(planned, rates, profile, unit, profile.sizes, own)


def predict_all(model: str, options: Options, machine: Machine) -> dict[str, Any]:
    """A model on every device whose figures are known, at two context lengths.

    Raises:
        ArkInferError: the model, or the options.
    """
    rows = []
    workloads: dict[tuple[str, str], Workload] = {}
    planned = None
    for profile in devices.profiles():
        unit = profile.default
        rates = machine.rates(profile, unit)
        if rates is None or profile.generic:
            continue
        key = (_planner(unit), profile.quantization)
        if key not in workloads:
            planned = _plan(model, options, profile, unit)
            ends = sorted({min(_SHORT, planned.context), planned.context})
            workloads[key] = Workload(planned, ends)
        rows.append(
            {
                "device": profile.name,
                "processor": unit.name,
                "backend": unit.backend,
                "backend_present": unit.backend in backends.names(),
                "kv": workloads[key].planned.kv,
                "assumed": _assumed(rates, _planner(unit)),
                "predictions": [
                    _prediction(one, machine.sizes(profile))
                    for one in workloads[key].predict(rates)
                ],
            }
        )
    assert planned is not None, "some profile has figures"
    return {"model": _model(planned), "devices": rows}


def _predicted(
    planned: Planned,
    rates: Rates,
    profile: Profile,
    unit: Unit,
    sizes: Sequence[int],
    planner: str,
) -> dict[str, Any]:
    limit = unit.limits.get("largest_allocation")
    predicted = Workload(planned, memory.contexts(planned.context)).predict(rates)
    return {
        "model": _model(planned),
        "device": profile.device(unit).name,
        "assumed": _assumed(rates, planner),
        "largest_allocation": limit.value if limit else None,
        "predictions": [_prediction(one, sizes) for one in predicted],
    }


def _planner(unit: Unit) -> str:
    """The backend whose plan is looked at: the device's own where it is there and can tell."""
    if unit.backend in backends.names():
        backend = backends.get(unit.backend)
        if isinstance(backend, backends.PlansSteps):
            return unit.backend
    return STAND_IN


def _plan(model: str, options: Options, profile: Profile, unit: Unit) -> Planned:
    """Quantized as the device recommends where neither the user nor a bundle has settled it."""
    return plan(model, options, _planner(unit), profile.quantization)


def _model(planned: Planned) -> dict[str, Any]:
    sparse = planned.model.sparse
    return {
        "name": planned.name,
        "quantization": planned.quantization,
        "kv": planned.kv,
        "context": planned.context,
        "attention": "dense" if sparse is None else f"sparse from {sparse.dense_len} tokens on",
        "weights": planned.weights,
        "largest_tensor": planned.largest_tensor,
    }


def _assumed(rates: Rates, planner: str) -> dict[str, Any]:
    return {
        "origin": rates.origin,
        "bandwidth_bytes_per_s": rates.bandwidth,
        "bandwidth_efficiency": rates.efficiency.bandwidth,
        "products": rates.products,
        "attention": rates.attention,
        "compute_efficiency": rates.efficiency.compute,
        "step_seconds": rates.efficiency.step_seconds,
        "plan_of": planner,
    }


def _prediction(one: Prediction, sizes: Iterable[int]) -> dict[str, Any]:
    return {
        "context": one.context,
        "memory": one.memory.total,
        "fits_in": next((size for size in sizes if size >= one.memory.total), None),
        "decode_tokens_per_s": one.decode,
        "prefill_tokens_per_s": one.prefill,
        "bytes_per_token": one.decode_bytes,
    }


def _figure(figure: Figure) -> dict[str, Any]:
    return dataclasses.asdict(figure)
