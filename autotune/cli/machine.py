"""Commands about the machine: device (what hardware there is), knobs (what a search would try on it)."""

from autotune.cli.app import app
from autotune.cli.options import (
    Config,
    ControlNet,
    DeviceName,
    DeviceSpec,
    LoRA,
    PipelineName,
    Revision,
    Space,
    Task,
    Variant,
    Weights,
    one_device,
    read_weights,
)


@app.command()
def device() -> None:
    """Print the hardware of this machine, what it supports, and how that was found out."""
    from autotune.devices import unusable
    from autotune.execution.probe import probe_devices
    from autotune.report.terminal.machine import device_table
    from autotune.report.terminal.theme import plain_console

    plain_console().print(device_table(probe_devices(), unusable()))


@app.command()
def knobs(
    pipeline: PipelineName = "demo",
    task: Task = None,
    controlnet: ControlNet = None,
    lora: LoRA = None,
    config: Config = None,
    variant: Variant = None,
    revision: Revision = None,
    device: DeviceName = None,
    device_spec: DeviceSpec = None,
    space: Space = None,
    weights: Weights = "pretrained",
) -> None:
    """Print every knob: the values that a search would try here, and why it would not try the others."""
    from autotune.report.terminal.fit import fit_table
    from autotune.report.terminal.machine import knobs_table
    from autotune.report.terminal.theme import plain_console
    from autotune.tuning.probe_space import probe_space

    kind, files = read_weights(weights), {"config": config, "variant": variant, "revision": revision}
    options = {"task": task, "controlnet": controlnet, "lora": lora, **files}
    where = one_device(device, device_spec)
    target, values = probe_space(pipeline, kind, where, space, **options)
    plain_console().print(knobs_table(target, values))
    plain_console().print("", fit_table(target, target.device.memory_bytes))
