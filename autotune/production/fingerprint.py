"""Compare the machine that a config was measured on with this machine, and fit the config to this one.

Where device and versions are the same, nothing is logged. Any difference is logged as a warning (logger "autotune"). A
value that is not available on this machine is replaced by the nearest one (fallback.py), and each replacement is logged
with its reason. With `strict` a difference raises UserError instead.
"""

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from autotune.building import build
from autotune.building.build import NoEffect
from autotune.config import Config
from autotune.device import Device
from autotune.devices import current_device, device_at, find_device, find_devices, torch_name
from autotune.devices.probe import OF_SETTINGS, broken, probe_device, versions
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel
from autotune.knobs import all_knobs
from autotune.pictures.own import at_hand
from autotune.pipeline import same_files
from autotune.pipelines.running import remember
from autotune.production import fallback
from autotune.target import Target

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LOG = logging.getLogger("autotune")
SAME_MEMORY_WITHIN = 0.1  # as a share: drivers reserve more or less of the same card's memory


class Place(FrozenModel):
    """Where a config will run: the device, the config fitted to it, and how all of this differs from the measurement.

    differences  one sentence each
    """

    device: Device
    values: dict[str, Any]
    differences: tuple[str, ...]

    @property
    def config(self) -> Config:
        return Config(self.values)


def find_place(
    measured: Target, config: Config, device: str | None = None, *, files: bool = True, local_files_only: bool = False
) -> Place:
    """Choose a device, compare it and the versions with those of the measurement, and fit the config to the device.

    measured  the pipeline, workload, device and versions that the config was measured with
    device    "cuda:0" as torch counts in this process, "cpu", or a GPU's UUID; None: see choose_device()
    files     compare the files of the weights as well (which may download them)

    Raises UserError where there is no such device, or where no config near this one is available on it.
    """
    chosen = device_at(device) if device is not None else choose_device(measured.device, None)
    if not chosen.memory_bytes:  # only torch can tell more of it than that it is here
        chosen = probe_device(chosen)
    current_versions = _usable(versions(), measured, config)
    differences = [
        *device_differences(measured.device, chosen),
        *version_differences(measured.versions, current_versions),
    ]
    of_files = file_differences(measured, local_files_only) if files else []
    if not differences:
        return Place(device=chosen, values=dict(config), differences=tuple(of_files))
    fitted, replacements = fallback.fit(config, _current_target(measured, chosen, current_versions))
    sentences = (*differences, *of_files, *(f"{replacement}." for replacement in replacements))
    return Place(device=chosen, values=dict(fitted), differences=sentences)


def _usable(installed: dict[str, str], measured: Target, config: Config) -> dict[str, str]:
    """The versions, with the reason in place of that of a package that the config needs and that can't be imported."""
    found = dict(installed)
    for package in OF_SETTINGS if measured.pipeline.traits is not None else ():  # older files' settings have no rules
        why = broken(package) if package in installed and _needs(config, package, measured) else None
        if why is not None:
            found[package] = why
    return found


def _needs(config: Config, package: str, measured: Target) -> bool:
    """Does a setting of the config need this package, by its own rule?"""
    without = measured.model_copy(update={"versions": {"diffusers": ""}})
    changed = {name: value for name, value in config.items() if value != all_knobs()[name].default}
    return any(all_knobs()[name].why_not(value, without) == without.lacks(package) for name, value in changed.items())


def choose_device(measured: Device, name: str | None) -> Device:
    """The device of this name (as `--device` takes it); without a name the one that is most like the measured device.

    That is the very same GPU (by its UUID), otherwise a device of the same name, otherwise one of its kind, otherwise
    the best one of this machine.
    """
    if name is not None:
        return find_device(name)
    devices = find_devices()
    return next(iter([*_alike(measured, devices), *devices]))


def choose_same_kind(measured: Device, name: str | None) -> Device:
    """As choose_device(), but without a name only a device of the measured kind. Raises UserError without one."""
    alike = _alike(measured, find_devices()) if name is None else []
    return alike[0] if alike else find_device(name or measured.torch_type)


def _alike(measured: Device, devices: Sequence[Device]) -> list[Device]:
    """The devices of the measured kind, those that are most like the measured one first."""
    same_kind = [d for d in devices if d.kind == measured.kind]
    return sorted(same_kind, key=lambda d: (d.uuid is None or d.uuid != measured.uuid, d.name != measured.name))


def device_differences(measured: Device, current: Device) -> list[str]:
    """One sentence where the devices differ in what decides which settings work and how fast, otherwise none.

    Two cards of one model don't differ in that. The size of a memory that NVML does not tell is not compared.
    """
    if measured.uuid is not None and measured.uuid == current.uuid:
        return []
    if (measured.kind, measured.name) != (current.kind, current.name):
        return [f"this config was measured on {measured.name}, this is {current.name}: its numbers don't hold here."]
    capabilities = (measured.compute_capability, current.compute_capability)
    if None not in capabilities and capabilities[0] != capabilities[1]:
        old, new = (".".join(map(str, capability or ())) for capability in capabilities)
        return [f"this {current.name} has compute capability {new}, the one that was measured {old}."]
    memories = (measured.memory_bytes, current.memory_bytes)
    if all(memories) and abs(memories[1] / memories[0] - 1) > SAME_MEMORY_WITHIN:
        old, new = (f"{d.memory_bytes / 1e9:.1f} GB" for d in (measured, current))
        return [f"this {current.name} has {new} of memory, the one that was measured {old}."]
    if None not in (measured.cores, current.cores) and measured.cores != current.cores:
        return [
            f"this config was measured on {measured.cores} cores, here {current.cores} can be used: its numbers don't "
            "hold."
        ]
    return []


def version_differences(measured: dict[str, str], current: dict[str, str]) -> list[str]:
    """One sentence that names all versions that differ, otherwise none.

    A library that was not installed at the measurement is no difference: no picture was made with it.
    """
    changed = [
        f"{name} {current.get(name, 'missing')} instead of {old}"
        for name, old in measured.items()
        if current.get(name) != old
    ]
    return [f"measured with other versions ({', '.join(changed)}): its numbers may not hold."] if changed else []


def load(measured: Target, place: Place, *, strict: bool, local_files_only: bool) -> "DiffusionPipeline":
    """Load the pipeline at the measured revision and apply the config.

    Raises UserError where it can't be loaded; with `strict` also where a knob has no effect.
    """
    device = torch_name(place.device)
    with current_device(device):
        pipe = build.load(measured.pipeline, place.config, device, local_files_only=local_files_only)
        _apply(pipe, measured, place, device, strict=strict)
    return pipe


def apply(pipe: "DiffusionPipeline", measured: Target, place: Place, *, strict: bool) -> None:
    """Apply the config to a loaded pipeline, in place. Raises UserError as load() does."""
    device = torch_name(place.device)
    remember(pipe, traits=measured.pipeline.traits, revisions=measured.pipeline.part_revisions)
    with current_device(device):
        _apply(pipe, measured, place, device, strict=strict)


def _apply(pipe: "DiffusionPipeline", measured: Target, place: Place, device: str, *, strict: bool) -> None:
    build.apply(
        pipe,
        place.config,
        at_hand(measured.workload),
        device,
        no_effect=no_effect_reporter(strict),
        calibrations=measured.calibrations,
    )


def report(differences: Sequence[str], *, strict: bool) -> None:
    """Log each difference as a warning. With `strict` raise UserError, which names all of them."""
    if strict and differences:
        raise UserError("with strict=True nothing may differ: " + " ".join(differences))
    for sentence in differences:
        LOG.warning(sentence)


def no_effect_reporter(strict: bool) -> Callable[[NoEffect], None]:
    """A function that reports a knob which has no effect on this machine."""

    def report_no_effect(error: NoEffect) -> None:
        report([f"{error}."], strict=strict)

    return report_no_effect


def _current_target(measured: Target, current: Device, current_versions: dict[str, str]) -> Target:
    """The target that the knobs' rules see. Older files lack traits: these are read off the pipeline's classes."""
    from autotune.pipelines.inspect import traits_of

    pipeline = measured.pipeline
    if pipeline.traits is None:
        pipeline = pipeline.model_copy(update={"traits": traits_of(pipeline)})
    return measured.model_copy(
        update={"pipeline": pipeline, "device": probe_device(current), "versions": current_versions}
    )


def file_differences(measured: Target, local_files_only: bool = False) -> list[str]:
    """One sentence for the pipeline, the ControlNet and the LoRA each whose files are not the measured ones.

    What came from the hub is loaded at its commit; local files are compared by their names, sizes and contents.
    """
    from autotune.pipelines import factory, locate

    pipeline = measured.pipeline
    recorded = {"pipeline": pipeline.revision, **pipeline.part_revisions}
    if not any(revision and revision.startswith("files-") for revision in recorded.values()):
        return []
    random = pipeline.weights == "random"
    if pipeline.factory is not None:
        file = factory.file_of(pipeline)
        if file is None:
            return [f"{pipeline.factory} comes from no file: it can't be compared with that of {pipeline.source}."]
        places = {"pipeline": (str(file), file)}
    else:
        folder = locate.folder_of(pipeline, local_files_only=local_files_only, configurations_only=random)
        places = {"pipeline": (pipeline.source, locate.weights_of(pipeline, folder))}
    for part, source in pipeline.added.items():
        if (recorded.get(part) or "").startswith("files-"):
            places[part] = (source, locate.part_folder(source, local_files_only=local_files_only))
    return [
        f"the files of {source} are not those that were measured."
        for part, (source, place) in places.items()
        if (recorded[part] or "").startswith("files-") and not same_files(recorded[part], locate.revision_of(place))
    ]
