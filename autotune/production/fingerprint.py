"""Where a config runs that was measured somewhere: compare the two places, and say everything in which they differ.

The same device and versions: not a word. Anything else is logged (logger "autotune", WARNING), and what can't act here
is replaced by what comes nearest (fallback.py), each replacement with its reason. `strict` raises instead.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any

from autotune.building import build
from autotune.building.build import NoEffect
from autotune.config import Config
from autotune.device import Device
from autotune.devices import find_device, find_devices
from autotune.devices.probe import probe_device, versions
from autotune.errors import UserError
from autotune.frozen_model import FrozenModel
from autotune.production import fallback
from autotune.target import Target

LOG = logging.getLogger("autotune")
SAME_MEMORY_WITHIN = 0.1  # drivers reserve a little more or less of the same card


class Place(FrozenModel):
    """Where a config is to run, and every way in which that is not where it was measured, in sentences."""

    device: Device
    values: dict[str, Any]
    differences: tuple[str, ...]

    @property
    def config(self) -> Config:
        return Config(self.values)


def find_place(
    then: Target, config: Config, device: str | None = None, *, files: bool = True, local_files_only: bool = False
) -> Place:
    """Compare this machine with the one that `then` was measured on, and fit the config to it.

    files  look at the weights' files as well (which may download them)

    Raises UserError where there is no such device, or nothing near the config can act on it.
    """
    here = choose_device(then.device, device)
    now = versions()
    said = [*device_differences(then.device, here), *version_differences(then.versions, now)]
    of_files = _file_differences(then, local_files_only) if files else []
    if not said:
        return Place(device=here, values=dict(config), differences=tuple(of_files))
    fitted, replaced = fallback.fit(config, _target_here(then, here, now))
    return Place(device=here, values=dict(fitted), differences=(*said, *of_files, *(f"{one}." for one in replaced)))


def choose_device(then: Device, word: str | None) -> Device:
    """The device that is asked for; otherwise the one like `then`, or of its kind, or the best one here."""
    if word is not None:
        return find_device(word)
    devices = find_devices()
    alike = [d for d in devices if (d.kind, d.name) == (then.kind, then.name)]
    return next(iter([*alike, *(d for d in devices if d.kind == then.kind), *devices]))


def device_differences(then: Device, here: Device) -> list[str]:
    """In what the devices differ that decides what can act and how fast."""
    if (then.kind, then.name) != (here.kind, here.name):
        return [f"this config was measured on {then.name}, this is {here.name}: its numbers don't hold here."]
    if then.compute_capability != here.compute_capability and None not in (
        then.compute_capability,
        here.compute_capability,
    ):
        old, new = (".".join(map(str, d.compute_capability or ())) for d in (then, here))
        return [f"this {here.name} has compute capability {new}, the one that was measured {old}."]
    if abs(here.memory_bytes / max(1, then.memory_bytes) - 1) > SAME_MEMORY_WITHIN:
        old, new = (f"{d.memory_bytes / 1e9:.1f} GB" for d in (then, here))
        return [f"this {here.name} has {new} of memory, the one that was measured {old}."]
    if here.kind == "cpu" and None not in (then.cores, here.cores) and then.cores != here.cores:
        return [
            f"this config was measured on {then.cores} cores, here {here.cores} can be used: its numbers don't hold."
        ]
    return []


def version_differences(then: dict[str, str], now: dict[str, str]) -> list[str]:
    """One sentence of all versions that differ, or none. Libraries that were not there then make no pictures now."""
    changed = [
        f"{name} {now.get(name, 'missing')} instead of {old}" for name, old in then.items() if now.get(name) != old
    ]
    return [f"measured with other versions ({', '.join(changed)}): its numbers may not hold."] if changed else []


def load(then: Target, place: Place, *, strict: bool, local_files_only: bool) -> Any:
    """The pipe, at the revision that was measured. Raises UserError; with `strict` for a knob that changes nothing."""
    where = place.device.torch_name
    pipe = build.load(then.pipeline, place.config, where, local_files_only=local_files_only)
    build.apply(pipe, place.config, then.workload, where, no_effect=listener(strict))
    return pipe


def apply(pipe: Any, then: Target, place: Place, *, strict: bool) -> None:
    """The same, in place, to a pipe that is loaded already."""
    build.apply(pipe, place.config, then.workload, place.device.torch_name, no_effect=listener(strict))


def tell(differences: Sequence[str], *, strict: bool) -> None:
    """Log each one. Raises UserError naming all of them where `strict`."""
    if strict and differences:
        raise UserError("with strict=True nothing may differ: " + " ".join(differences))
    for sentence in differences:
        LOG.warning(sentence)


def listener(strict: bool) -> Callable[[NoEffect], None]:
    """What becomes of a knob that changes nothing here."""

    def hear(error: NoEffect) -> None:
        tell([f"{error}."], strict=strict)

    return hear


def _target_here(then: Target, here: Device, now: dict[str, str]) -> Target:
    """What the knobs' rules are asked about. An old file has no traits: they are read off the pipeline's classes."""
    from autotune.pipelines.inspect import traits_of

    pipeline = then.pipeline
    if pipeline.traits is None:
        pipeline = pipeline.model_copy(update={"traits": traits_of(pipeline)})
    return then.model_copy(update={"pipeline": pipeline, "device": probe_device(here), "versions": now})


def _file_differences(then: Target, local_files_only: bool) -> list[str]:
    """A local folder has no commit: are its files those that were measured, by their names and sizes?"""
    from autotune.pipelines import locate

    pipeline = then.pipeline
    if pipeline.revision is None or not pipeline.revision.startswith("files-"):
        return []
    random = pipeline.weights == "random"
    folder = locate.folder_of(pipeline, local_files_only=local_files_only, configurations_only=random)
    if locate.revision_of(folder) == pipeline.revision:
        return []
    return [f"the files of {pipeline.source} are not those that were measured, by their names and sizes."]
