"""Machine: the tables of `autotune device` and `autotune knobs`."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from autotune.device import Device
from autotune.devices.specs import EVIDENCE
from autotune.knobs import all_knobs
from autotune.report import words
from autotune.study.space import SearchSpace
from autotune.target import Target


def device_table(devices: list[Device], unusable: Sequence[str] = ()) -> RenderableType:
    """One row a device: what it supports, and how that was found out. Below it, what is here but can't be used."""
    table = Table(box=None, pad_edge=False)
    for name in ("device", "name", "memory", "supports", "evidence"):
        table.add_column(name, overflow="fold")
    for device in devices:
        memory = words.memory(device.memory_bytes) if device.memory_bytes else "unknown"
        evidence = "\n".join([*([device.uuid] if device.uuid else []), *device.evidence])
        table.add_row(device.word, device.name, memory, "\n".join(_features(device)), evidence)
    return Group(table, *(Text(f"\nNot used: {clause}.") for clause in unusable))


def _features(device: Device) -> list[str]:
    capability = ".".join(map(str, device.compute_capability)) if device.compute_capability else ""
    features = [f"compute capability {capability}"] if capability else []
    features += [f"SDPA: {', '.join(device.sdpa_kernels)}"] if device.sdpa_kernels else []
    if device.compute_capability:
        features.append("bf16, TF32" if device.at_least(8) else "fp16")
        features.append("fp8" if device.at_least(8, 9) else "no fp8")
    return features


def knobs_table(target: Target, space: SearchSpace) -> RenderableType:
    """One row a knob: the values that would be searched, and why others are left out. Then the pairs that clash."""
    parts: list[RenderableType] = [_values_table(target, space)]
    clashes = space.clashes()
    if clashes:
        parts += ["", _clashes_table(clashes)]
    if EVIDENCE in target.device.evidence:
        parts += ["", Text(f"What {target.device.name} can do is {EVIDENCE}.")]
    return Group(*parts)


def _values_table(target: Target, space: SearchSpace) -> Table:
    title = f"Knobs of {target.pipeline.name} on {target.device.name} (*: changes the picture)"
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for name in ("knob", "searched", "left out, because"):
        table.add_column(name, overflow="fold")
    for name, knob in all_knobs().items():
        impossible = [f"{value}: {why}" for (other, value), why in space.impossible.items() if other == name]
        label = f"{name} *" if knob.changes_output else name
        label += f"\n  of {knob.modifies}" if knob.modifies else ""
        searched = [" ".join(map(str, space.values[name])) or "-"]
        if knob.modifies is not None and knob.modifies not in space.free:
            searched, impossible = ["-"], [f"refines {knob.modifies}, which has one value here"]
        searched += [f"and any number of {each}" for each in space.ranges.get(name, ())]
        table.add_row(label, "\n".join(searched), "\n".join(impossible))
    return table


def _clashes_table(clashes: dict[str, list[str]]) -> Table:
    table = Table(box=None, pad_edge=False, title="Values that don't go together", title_justify="left")
    table.add_column("values, alone or together", overflow="fold")
    table.add_column("because", overflow="fold")
    for why, pairs in clashes.items():
        table.add_row("\n".join(pairs), why)
    return table
