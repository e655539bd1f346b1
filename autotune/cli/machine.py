"""Commands about the machine: device (what hardware there is), knobs (what a search would try on it)."""

from typing import Annotated

import typer

from autotune.cli.app import app
from autotune.cli.options import ControlNet, DeviceName, LoRA, PipelineName, Space, Task, Weights, read_weights
from autotune.errors import UserError


@app.command()
def device() -> None:
    """Print the hardware of this machine, what it supports, and how that was found out."""
    from autotune.execution.probe import probe_devices
    from autotune.report.terminal.machine import device_table
    from autotune.report.terminal.theme import plain_console

    plain_console().print(device_table(probe_devices()))


@app.command()
def knobs(
    pipeline: PipelineName = "demo",
    task: Task = None,
    controlnet: ControlNet = None,
    lora: LoRA = None,
    device: DeviceName = None,
    device_spec: Annotated[
        str | None, typer.Option(help="A GPU of another machine, such as a100, t4 or 4090, instead of --device.")
    ] = None,
    space: Space = None,
    weights: Weights = "pretrained",
) -> None:
    """Print every knob: the values that a search would try here, and why it would not try the others."""
    from autotune.devices.specs import find_spec
    from autotune.report.terminal.machine import knobs_table
    from autotune.report.terminal.theme import plain_console
    from autotune.tuning.probe_space import probe_space, probe_space_of

    kind, options = read_weights(weights), {"task": task, "controlnet": controlnet, "lora": lora}
    if device_spec is None:
        target, values = probe_space(pipeline, kind, device, space, **options)
    elif device is None:
        target, values = probe_space_of(pipeline, kind, find_spec(device_spec), space, **options)
    else:
        raise UserError(f"--device {device} and --device-spec {device_spec} are two devices: give one of them.")
    plain_console().print(knobs_table(target, values))
