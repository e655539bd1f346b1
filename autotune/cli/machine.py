"""Commands about the machine: device (what hardware there is), knobs (what a search would try on it)."""

from autotune.cli.app import app
from autotune.cli.grouped import grouped
from autotune.cli.options import DeviceName, DeviceSpec, Model, Space, Vram, one_device_of


@app.command()
def device() -> None:
    """Print the hardware of this machine, what it supports, and how that was found out."""
    from autotune.devices import unusable
    from autotune.execution.probe import probe_devices
    from autotune.report.terminal.machine import device_table
    from autotune.report.terminal.theme import plain_console

    plain_console().print(device_table(probe_devices(), unusable()))


@app.command()
@grouped
def knobs(
    model: Model,
    *,
    device: DeviceName = None,
    device_spec: DeviceSpec = None,
    vram: Vram = None,
    space: Space = None,
) -> None:
    """Print every knob: the values that a search would try here, and why it would not try the others."""
    from autotune.report.terminal.fit import fit_table
    from autotune.report.terminal.machine import knobs_table
    from autotune.report.terminal.theme import plain_console
    from autotune.tuning.probe_space import probe_space

    where, limit_bytes = one_device_of(device, device_spec, vram)
    target, values = probe_space(model.pipeline, model.kind, where, space, **model.on_top)
    memory_bytes = min(target.device.memory_bytes, limit_bytes or target.device.memory_bytes)
    plain_console().print(knobs_table(target, values))
    plain_console().print("", fit_table(target, memory_bytes))
